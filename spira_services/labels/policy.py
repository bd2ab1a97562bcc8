"""Which label holds for a session as of a time, and why.

The rule is data: a snapshot names its version, and the same rule on the same events gives the same
labels.  A session that people dispute has no label until an adjudicator has spoken, whatever the
hospital says.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import isnan
from typing import Any, Literal

from sqlalchemy import Connection, select

from spira_services.labels.agreement import Table, mean_kappa, pairs_of
from spira_services.labels.assignment import state_of
from spira_services.labels.store import ITEMS, LABEL, ItemKind, LabelEvent, events_as_of

# As the row contract of recordings names sources: an adjudicator is a clinician.
ContractSource = Literal["clinician", "hospital_record", "weak", "self_report"]


@dataclass(frozen=True)
class LabelPolicy:
    """What a label takes to hold.  Another meaning of the label is another version."""

    version: int = 1
    agreeing: int = 2  # clinicians who have to say the same
    # Of a hospital's record of a person that names no session: how far from the recording it may
    # lie.  An insufficiency comes and goes within days.
    subject_hours: float = 48.0
    # A weak label holds from this probability of its class on; never, where None.
    weak_from: float | None = None
    # In this order; the first one that says something holds.
    after_people: tuple[Literal["hospital_record", "weak", "self_report"], ...] = (
        "hospital_record",
        "weak",
    )
    owner: str = "clinical lead (not yet signed)"


POLICY = LabelPolicy()
WITH_WEAK = LabelPolicy(version=2, weak_from=0.9)


@dataclass(frozen=True)
class Settled:
    """The label that holds for a session, in the columns of the row contract, and why."""

    session_id: str
    ri_clinical: int
    label_source: ContractSource
    label_confidence: float | None
    label_version: int  # of the policy
    reason: Mapping[str, Any]  # by, annotators, instructions, kappa, contradicted_by


def settled(
    connection: Connection,
    as_of: datetime,
    policy: LabelPolicy = POLICY,
    item_kind: ItemKind = "session",
) -> list[Settled]:
    """The sessions whose label holds, as the store knew them at a time, by session id.

    With another ``item_kind``, the items of that kind; ``session_id`` is then the item's.
    The confidence in a label that clinicians agree on is the probability that Dawid and Skene's
    model gives it by their first, blind answers; else it is what the source says of itself.
    """
    events = events_as_of(connection, as_of, LABEL)
    table = Table.of(events)
    posterior = dict(zip(table.items, table.dawid_skene().posteriors, strict=True))
    kappa = mean_kappa(pairs_of(table))

    said = _by_item(events)
    rows = []
    sessions = select(ITEMS.c.item_id, ITEMS.c.subject, ITEMS.c.occurred_at)
    sessions = sessions.where(ITEMS.c.item_kind == item_kind, ITEMS.c.registered_at <= as_of)
    for session in connection.execute(sessions).all():
        item = (item_kind, session.item_id)
        voices = [
            *said.get(item, ()),
            *_near(said.get(("subject", session.subject), ()), session.occurred_at, policy),
        ]
        held = _holds(voices, policy)
        if held is None:
            continue
        by, events_of, label = held
        confidence = _confidence(events_of)
        if by == "agreement":
            confidence = round(float(posterior[item][label]), 4)
        others = {v.source for v in voices if v.label == 1 - label}
        rows.append(
            Settled(
                session_id=session.item_id,
                ri_clinical=label,
                label_source="clinician" if by in _PEOPLE else by,  # type: ignore[arg-type]
                label_confidence=confidence,
                label_version=policy.version,
                reason={
                    "by": by,
                    "annotators": sorted({event.annotator for event in events_of}),
                    "instructions": sorted(
                        {e.instruction_version for e in events_of if e.instruction_version}
                    ),
                    "kappa": round(kappa, 3) if by in _PEOPLE and not isnan(kappa) else None,
                    "contradicted_by": sorted(others),
                },
            )
        )
    return sorted(rows, key=lambda row: row.session_id)


_PEOPLE = ("adjudication", "agreement")


def _by_item(events: Iterable[LabelEvent]) -> Mapping[tuple[str, str], list[LabelEvent]]:
    """The newest event of each voice on each item; ``events`` come in the order of recording."""
    newest: dict[tuple[str, str, str, str], LabelEvent] = {}
    for event in events:
        said_by = f"{_fact_of(event)} {event.annotator}"
        newest[event.item_kind, event.item_id, event.source, said_by] = event
    said: dict[tuple[str, str], list[LabelEvent]] = defaultdict(list)
    for voice in sorted(newest):
        said[voice[:2]].append(newest[voice])
    return said


def _fact_of(event: LabelEvent) -> str:
    """A person's state changes: what is said of another time is another fact.

    An entry of a record stays one fact where the record names it: a correction may move its time,
    and several entries have one time.
    """
    if event.item_kind != "subject":
        return ""
    named = event.value.get("source_ref") if isinstance(event.value, Mapping) else None
    return named or event.valid_from.isoformat()


def _near(
    events: Iterable[LabelEvent], moment: datetime, policy: LabelPolicy
) -> Iterable[LabelEvent]:
    """Of what is said of a person, by each source the label that lies nearest to the recording."""
    near: dict[tuple[str, str], LabelEvent] = {}
    for event in events:
        if event.label is None:  # taken back, or an entry that says nothing beside another one
            continue
        distance = abs(event.valid_from - moment)
        voice = event.source, event.annotator
        if distance <= timedelta(hours=policy.subject_hours) and (
            voice not in near or distance < abs(near[voice].valid_from - moment)
        ):
            near[voice] = event
    return near.values()


def _holds(
    voices: list[LabelEvent], policy: LabelPolicy
) -> tuple[str, list[LabelEvent], int] | None:
    """By what a label holds, the events that say it, and the label."""
    judged = [event for event in voices if event.source == "adjudication"]
    if judged:
        last = max(judged, key=lambda event: event.recorded_at)
        return None if last.label is None else ("adjudication", [last], last.label)
    labelled = [event for event in voices if event.source == "clinician"]
    state = state_of([event.label for event in labelled], policy.agreeing)
    if state == "settled" and labelled[0].label is not None:
        return "agreement", labelled, labelled[0].label
    if state == "disputed":
        return None
    for source in policy.after_people:
        said = [event for event in voices if event.source == source and event.label is not None]
        if source == "weak":
            said = [event for event in said if _is_sure(event, policy.weak_from)]
        labels = {event.label for event in said}
        if len(labels) == 1:
            return source, said, int(labels.pop() or 0)
        if labels:
            return None  # the source contradicts itself
    return None


def _is_sure(event: LabelEvent, least: float | None) -> bool:
    return least is not None and (event.confidence or 0.0) >= least


def _confidence(events: Iterable[LabelEvent]) -> float | None:
    """What the least sure of them says of itself; None where one says nothing."""
    given = [event.confidence for event in events]
    return None if None in given else min(given)  # type: ignore[type-var]
