"""What a fact of a hospital says of a label: a table, and events in the form of label events.

A diagnosis can say that a person has respiratory insufficiency.  Nothing here says that a person
has none: a diagnosis that is missing was perhaps not written yet.  A saturation is weak evidence
with its time and oxygen, and never the label.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from expectations.limits import CLINICAL
from spira_services.hospitals.rows import ClinicalFact

TABLE_VERSION = "hospital-diagnoses/1"


@dataclass(frozen=True)
class Says:
    """What diagnoses that begin so say of ``ri_clinical``; None: nothing, whatever one may think.

    An engineering proposal, not signed by a clinician.
    """

    prefix: str  # of a code of ICD-10 with its dot
    label: Literal[1] | None
    rationale: str
    owner: str = CLINICAL


# The longest prefix counts.
DIAGNOSES = (
    Says("J96.0", 1, "acute respiratory failure"),
    Says("J96.1", 1, "chronic respiratory failure; not told apart from acute by the label"),
    Says("J96.2", 1, "acute and chronic, in the American modification"),
    Says("J96.9", 1, "respiratory failure, not specified"),
    Says("J96", 1, "respiratory failure, written without its last digit"),
    Says("J80", 1, "acute respiratory distress syndrome is insufficiency by its definition"),
    Says("R09.2", None, "respiratory arrest: nobody speaks in it, and its time is not the ward's"),
    Says("J95", None, "after procedures: some codes are insufficiency, others a leak"),
    Says("R06", None, "shortness of breath is a symptom"),
    Says("U07", None, "COVID-19 with or without insufficiency"),
    Says("J12", None, "pneumonia with or without insufficiency"),
    Says("J18", None, "pneumonia with or without insufficiency"),
    Says("J44", None, "obstructive disease with or without insufficiency"),
)


@dataclass(frozen=True)
class LabelEvidence:
    """One event for the label store, which knows such events by these names."""

    item_kind: Literal["subject"]
    item_id: str
    label: int | None
    quantity: str
    value: Mapping[str, Any]
    source: Literal["hospital_record", "weak"]
    annotator: str
    instruction_version: str
    confidence: float | None  # nobody has measured it
    valid_from: datetime
    recorded_at: datetime
    unique_key: str


def says(icd10: str) -> Says | None:
    """What a diagnosis says, None where the table does not know it.

    Examples
    --------
    >>> says("J96.01").label, says("U07.1").label, says("S72.0")
    (1, None, None)
    """
    found = [row for row in DIAGNOSES if icd10.startswith(row.prefix)]
    return max(found, key=lambda row: len(row.prefix), default=None)


def evidence(facts: Iterable[ClinicalFact], recorded_at: datetime) -> list[LabelEvidence]:
    """Events for diagnoses that the table knows, and for saturations.

    A diagnosis that was refuted or taken back is an event without a label, with the same
    ``source_ref`` in its value: it ends what was said before.  Where more comes to be known of the
    oxygen, a saturation is another event.

    Parameters
    ----------
    facts : iterable of ClinicalFact
        With their versions.
    recorded_at : datetime
        When the platform learnt of them.
    """
    events = []
    for fact in facts:
        stands = fact.status in {"final", "corrected"}
        # What was final may be a suspicion again, or another diagnosis: that ends it, too.
        ends = fact.version > 1 or fact.status in {"refuted", "retracted"}
        if fact.quantity == "diagnosis":
            row = says(fact.value) if stands and isinstance(fact.value, str) else None
            if row or ends:
                events.append(_event(fact, "ri_clinical", recorded_at, row))
        elif fact.quantity == "spo2" and (stands or ends):
            events.append(_event(fact, "spo2", recorded_at))
    return events


def _event(
    fact: ClinicalFact, quantity: str, recorded_at: datetime, row: Says | None = None
) -> LabelEvidence:
    value = {"value": fact.value, "unit": fact.unit, "status": fact.status}
    value |= {"source_ref": fact.source_ref}
    if row:
        value |= {"rule": row.prefix, "rationale": row.rationale}
    if fact.quantity == "spo2":
        value["oxygen"] = fact.oxygen
    content = (TABLE_VERSION, fact.source_ref, str(fact.version), fact.key, str(fact.oxygen))
    return LabelEvidence(
        item_kind="subject",
        item_id=fact.subject_id,
        label=row.label if row else None,
        quantity=quantity,
        value=value,
        source="weak" if quantity == "spo2" else "hospital_record",
        annotator=f"hospital:{fact.hospital_id}",
        instruction_version=TABLE_VERSION,
        confidence=None,
        valid_from=fact.at,
        recorded_at=recorded_at,
        unique_key="hospital:" + hashlib.sha256("\x1f".join(content).encode()).hexdigest(),
    )
