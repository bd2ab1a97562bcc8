"""What is kept of hospitals: facts that are only added to, and what each sync left for the next.

The entry of a source is one thing in several versions, counted from 1; the latest is in force.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    delete,
    func,
    insert,
    select,
)

from expectations.limits import SPO2_MINUTES
from spira_services.database import Instant, Json, insert_once, metadata
from spira_services.hospitals.evidence import says
from spira_services.hospitals.rows import ClinicalFact, with_oxygen
from spira_services.hospitals.sync import Synced
from spira_services.hospitals.watch import HISTORY, Profile
from spira_tasks.intake.pseudonyms import canonical_site

FACTS = Table(
    "hospitals_facts",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("hospital_id", Text, nullable=False),  # in its one form
    Column("subject_id", Text, nullable=False, index=True),
    Column("source_ref", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("quantity", Text, nullable=False),
    Column("value", Json),  # none where the source took it back
    Column("unit", Text, nullable=False),
    Column("at", Instant, nullable=False),
    Column("status", Text, nullable=False),
    Column("recorded_at", Instant, nullable=False),
    UniqueConstraint("source_ref", "version"),
)
OF_FACT = tuple(c.name for c in FACTS.c if c.name not in {"number", "recorded_at"})
SYNCS = Table(
    "hospitals_syncs",
    metadata,
    Column("source", Text, primary_key=True),
    Column("number", Integer, primary_key=True),  # from 1: two at a time cannot both be the next
    Column("is_complete", Boolean, nullable=False),
    Column("profile", Json, nullable=False),
)
NEWEST = Table(
    "hospitals_newest",
    metadata,
    Column("source", Text, primary_key=True),
    Column("subject_id", Text, primary_key=True),
    Column("at", Instant, nullable=False),
)

MEASURED = ("spo2", "on_oxygen", "fio2", "resp_rate", "heart_rate", "temp")


@dataclass(frozen=True)
class Before:
    """What is stored when a sync begins."""

    number: int  # of the sync before, 0 for none
    since: Mapping[str, datetime]
    history: Sequence[Profile]
    facts: Sequence[ClinicalFact]  # in force

    @property
    def known(self) -> set[str]:
        return {fact.key for fact in self.facts}


def before(connection: Connection, source: str, hospital_id: str) -> Before:
    """What the next sync of a source starts from."""
    syncs = select(SYNCS.c.profile).where(SYNCS.c.source == source, SYNCS.c.is_complete)
    newest_first = syncs.order_by(SYNCS.c.number.desc()).limit(int(HISTORY.value))
    profiles = [
        Profile.model_validate(row, strict=False)
        for row in connection.execute(newest_first).scalars()
    ]
    number = connection.execute(
        select(func.max(SYNCS.c.number)).where(SYNCS.c.source == source)
    ).scalar()
    since = connection.execute(
        select(NEWEST.c.subject_id, NEWEST.c.at).where(NEWEST.c.source == source)
    )
    return Before(
        number or 0,
        {row.subject_id: row.at for row in since},
        profiles[::-1],
        in_force(connection, FACTS.c.hospital_id == canonical_site(hospital_id)),
    )


def add(
    connection: Connection,
    synced: Synced,
    since: Before,
    subjects: Collection[str],
    moment: datetime,
) -> list[ClinicalFact] | None:
    """Store what a sync found; all facts in force, None where another sync came between.

    All of it belongs to the caller's transaction: what is not committed is read again.  Of who is
    not among ``subjects`` any more, nothing is stored or returned.
    """
    source, number = synced.profile.source, since.number + 1
    profile = synced.profile.model_dump(mode="json")
    row = {"source": source, "number": number, "is_complete": synced.profile.complete}
    if not insert_once(connection, SYNCS, {**row, "profile": profile}):
        return None
    facts = {fact.source_ref: fact for fact in since.facts if fact.subject_id in subjects}
    fresh = [
        replace(
            fact,
            hospital_id=canonical_site(fact.hospital_id),
            version=facts[fact.source_ref].version + 1 if fact.source_ref in facts else 1,
        )
        for fact in synced.facts
        if fact.subject_id in subjects
    ]
    if fresh:
        connection.execute(insert(FACTS), [_row(fact, moment) for fact in fresh])
    connection.execute(delete(NEWEST).where(NEWEST.c.source == source))
    newest = [
        {"source": source, "subject_id": subject, "at": at}
        for subject, at in synced.newest.items()
        if subject in subjects
    ]
    if newest:
        connection.execute(insert(NEWEST), newest)
    facts |= {fact.source_ref: fact for fact in fresh}
    return with_oxygen(facts.values())


def forget(connection: Connection, subject: str) -> int:
    """Delete all that hospitals said of a person; return how many facts went."""
    connection.execute(delete(NEWEST).where(NEWEST.c.subject_id == subject))
    return connection.execute(delete(FACTS).where(FACTS.c.subject_id == subject)).rowcount


def in_force(connection: Connection, *where: Any) -> list[ClinicalFact]:
    """The latest version of each entry, with what is known of the oxygen."""
    rows = connection.execute(select(FACTS).where(*where).order_by(FACTS.c.version))
    return with_oxygen({row.source_ref: _fact(row) for row in rows}.values())


def near(
    connection: Connection, subject_id: str, moment: datetime, diagnosis_within: timedelta
) -> dict[str, str]:
    """What hospitals say of a person at a time, by columns of the row contract, as its text.

    Measurements lie within ``SPO2_MINUTES`` of it; of several diagnoses that are near enough it is
    one that says something of the label.  The place is the last one before.
    """
    facts = [
        fact
        for fact in in_force(connection, FACTS.c.subject_id == subject_id)
        if fact.status in {"final", "corrected"}
    ]

    def nearest(quantity: str, within: timedelta) -> list[ClinicalFact]:
        found = [f for f in facts if f.quantity == quantity and abs(f.at - moment) <= within]
        return sorted(found, key=lambda fact: abs(fact.at - moment))

    found: dict[str, Any] = {}
    for quantity in MEASURED:
        for fact in nearest(quantity, timedelta(minutes=SPO2_MINUTES))[:1]:
            found[quantity] = fact.value
            if quantity == "spo2":
                found["spo2_at"] = fact.at.isoformat()
                found.setdefault("on_oxygen", fact.oxygen)
    diagnoses = nearest("diagnosis", diagnosis_within)
    for fact in sorted(diagnoses, key=_says_nothing)[:1]:
        found["cid10"] = fact.value
    places = [f for f in facts if f.quantity in {"unit", "discharged"} and f.at <= moment]
    if places and (last := max(places, key=lambda fact: fact.at)).quantity == "unit":
        found["unit"] = last.value
    return {name: _text(name, value) for name, value in found.items() if value is not None}


def _says_nothing(fact: ClinicalFact) -> bool:
    row = says(str(fact.value))
    return row is None or row.label is None


def _row(fact: ClinicalFact, moment: datetime) -> dict[str, Any]:
    return {name: getattr(fact, name) for name in OF_FACT} | {"recorded_at": moment}


def _fact(row: Any) -> ClinicalFact:
    fields = {name: getattr(row, name) for name in OF_FACT}
    if type(fields["value"]) is int:  # SQLite keeps 93.0 in a column of JSON as 93
        fields["value"] = float(fields["value"])
    return ClinicalFact(**fields)


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return (
        str(value) if isinstance(value, str) else f"{round(value) if name == 'spo2' else value:g}"
    )
