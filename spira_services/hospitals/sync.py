"""One synchronisation: read a source, decide on each entry, compare, hand on what is new.

It changes nothing by itself.  The caller stores the facts under their unique keys, then the profile
and the times of ``newest``; a sync that is repeated, or killed before that, gives the same facts
again, and none twice to who passes the keys that are known.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from spira_services.hospitals import watch
from spira_services.hospitals.reading import Connector, Reading, of_hospital
from spira_services.hospitals.rows import (
    MENDABLE,
    ClinicalFact,
    Entry,
    Held,
    Participant,
    decide,
    with_oxygen,
)
from spira_services.hospitals.watch import Alert, Profile

log = logging.getLogger(__name__)

BEGINNING = datetime(1900, 1, 1, tzinfo=UTC)
RECENT = timedelta(hours=1)  # before the newest change seen: files are read whole each time


@dataclass(frozen=True)
class Synced:
    """What a sync found."""

    facts: list[ClinicalFact]  # not known before
    held: list[Held]
    alerts: list[Alert]
    profile: Profile
    newest: dict[str, datetime]  # ``since`` of the next sync


@dataclass
class _Decided:
    """The same entry in several versions is one."""

    entry: Entry
    outcome: ClinicalFact | Held


def sync(
    connector: Connector,
    participants: Iterable[Participant],
    since: Mapping[str, datetime],
    known: Collection[str],
    history: Sequence[Profile] = (),
    *,
    secret: bytes,
    now: datetime | None = None,
) -> Synced:
    """Read what a source has of the participants of its hospital.

    Parameters
    ----------
    connector : Connector
    participants : iterable of Participant
    since : mapping of str to datetime
        ``newest`` of the sync before; a subject who is not there is read from the beginning.
    known : collection of str
        Keys of the facts that are stored.
    history : sequence of Profile
        Those of the syncs before, oldest first.
    secret : bytes
        Key of the digests that stand for the source's names of entries.
    now : datetime, optional
        The time of this machine.
    """
    now = now or datetime.now(UTC)
    people = of_hospital(participants, connector.hospital_id)
    reading = connector.read(people, since)
    decided = _latest(
        _Decided(entry, decide(entry, connector.hospital_id, secret, now))
        for entry in reading.entries
    )
    facts = with_oxygen(one.outcome for one in decided if isinstance(one.outcome, ClinicalFact))
    held = [one.outcome for one in decided if isinstance(one.outcome, Held)]
    recent = [one for one in decided if _is_new(one, since, known)]
    fresh = [fact for fact in facts if fact.key not in known]
    profile = _profile(reading, people, since, recent, fresh, history, now)
    alerts = [
        *reading.alerts(),
        *watch.of_held((o.outcome for o in recent if isinstance(o.outcome, Held)), reading.source),
        *watch.compare(profile, history),
    ]
    if reading.unread:
        alerts.append(Alert("incomplete", reading.source, "", "", {"people": len(reading.unread)}))
    log.info(
        "%s: %d new facts of %d participants, %d entries held back, alerts: %s",
        *(reading.source, len(fresh), len(people), len(held)),
        ", ".join(sorted({alert.code for alert in alerts})) or "none",
    )
    return Synced(fresh, held, sorted(alerts), profile, _newest(reading, since, held, now))


def _latest(decided: Iterable[_Decided]) -> list[_Decided]:
    """Of each entry of the source the latest version; of two that are equally late, none."""
    versions: dict[str, list[_Decided]] = {}
    for one in decided:
        versions.setdefault(one.outcome.source_ref, []).append(one)
    found = []
    for ref, some in versions.items():
        dated = [one.entry.updated for one in some if one.entry.updated]
        late = [one for one in some if not dated or one.entry.updated == max(dated)]
        contents = {
            o.key if isinstance(o := one.outcome, ClinicalFact) else o.reason for one in late
        }
        if len(contents) > 1:
            entry = late[0].entry
            outcome = Held(entry.subject_id, entry.quantity, "contradiction", ref, entry.updated)
            found.append(_Decided(entry, outcome))
        else:
            found.append(late[0])
    return found


def _is_new(one: _Decided, since: Mapping[str, datetime], known: Collection[str]) -> bool:
    """Whether an entry tells how the source is now; what is held back is never known."""
    if isinstance(one.outcome, ClinicalFact) and one.outcome.key in known:
        return False
    before, updated = since.get(one.entry.subject_id), one.entry.updated
    return before is None or updated is None or updated >= before - RECENT


def _profile(  # noqa: PLR0917
    reading: Reading,
    people: Sequence[Participant],
    since: Mapping[str, datetime],
    recent: Sequence[_Decided],
    fresh: Sequence[ClinicalFact],
    history: Sequence[Profile],
    now: datetime,
) -> Profile:
    before = [one.at for one in history if one.complete and one.source == reading.source]
    entries = [one.entry for one in recent]
    facts = [one.outcome for one in recent if isinstance(one.outcome, ClinicalFact)]
    held: dict[str, Counter[str]] = {}
    for one in recent:
        if isinstance(one.outcome, Held):
            held.setdefault(one.outcome.quantity, Counter())[one.outcome.reason] += 1
    nulls = {quantity: reasons["no_value"] for quantity, reasons in held.items()}
    return Profile(
        source=reading.source,
        at=now,
        complete=not (reading.unread or reading.is_partial),
        hours=(now - max(before)).total_seconds() / 3600 if before else 0.0,
        asked=len({person.subject_id for person in people} - reading.refused),
        found=len(reading.found),
        returning=sum(person.subject_id in since for person in people),
        received=dict(Counter(entry.quantity for entry in entries)),
        new=dict(Counter(fact.quantity for fact in fresh if fact.subject_id in since)),
        nulls={quantity: n for quantity, n in nulls.items() if n},
        held={quantity: dict(reasons) for quantity, reasons in held.items()},
        units=watch.stated_units(entries),
        fields=dict(Counter(entry.name for entry in entries)),
        unknown_fields=dict(reading.unknown),
        newest=max((fact.at for fact in facts), default=None),
        quantiles=watch.value_quantiles(facts),
    )


def _newest(
    reading: Reading, since: Mapping[str, datetime], held: Sequence[Held], now: datetime
) -> dict[str, datetime]:
    """When each subject was last changed, as far as it was read and need not be read again."""
    newest = dict(since)
    for entry in reading.entries:
        if entry.updated and entry.subject_id not in reading.unread | reading.refused:
            seen = newest.get(entry.subject_id, entry.updated)
            newest[entry.subject_id] = min(max(seen, entry.updated), now)
    for one in held:
        if one.reason in MENDABLE and one.subject_id in newest:
            # From the beginning, where the source does not say when it changed what.
            newest[one.subject_id] = min(newest[one.subject_id], one.updated or BEGINNING)
    return newest
