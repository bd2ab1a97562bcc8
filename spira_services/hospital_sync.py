"""Sync hospitals: ask about the participants whose consent is in force, keep facts, label.

Facts, label events, alerts and what the next sync starts from are one transaction of each hospital:
a sync that is killed has stored nothing, and one that is repeated stores nothing twice.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from cryptography.fernet import InvalidToken
from sqlalchemy import Connection, Engine, select

from spira_services import events, labelling
from spira_services.collection.documents import REVISIONS, SESSIONS
from spira_services.collection.sessions import LINKAGE_KEY, linkage_key
from spira_services.database import now
from spira_services.hospitals import kept
from spira_services.hospitals.evidence import evidence
from spira_services.hospitals.fhir import keep_answers_out_of_logs
from spira_services.hospitals.reading import Connector
from spira_services.hospitals.rows import Participant
from spira_services.hospitals.sync import Synced, sync
from spira_services.hospitals.watch import PASSING, Alert
from spira_services.labels import store
from spira_services.labels.store import LabelEvent
from spira_tasks.contract.exits import EXIT_REJECTED, EXIT_UNAVAILABLE
from spira_tasks.errors import ConfigError, ServiceUnavailable
from spira_tasks.intake import pseudonyms

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Report:
    """What came of one hospital.  Counts only."""

    source: str
    n_participants: int  # asked about
    n_without_number: int  # whose number is not kept, so that they cannot be asked about
    n_found: int
    n_facts: int  # new
    n_held: int  # entries that are not taken, each for a reason that an alert names
    n_label_events: int  # new; 0 where nothing was stored
    alerts: tuple[Alert, ...]

    @property
    def exit_status(self) -> int:
        """0: what was found is stored, with or without alerts.

        Where nobody was found and alerts say why: 75 if the way may be free the next time, else 65.
        """
        codes = {alert.code for alert in self.alerts} - {"stale"}
        if self.n_found or not self.n_participants or not codes:
            return 0
        return EXIT_UNAVAILABLE if codes <= PASSING | {"incomplete"} else EXIT_REJECTED


def sync_hospitals(
    engine: Engine, connectors: Iterable[Connector], actor: str, *, is_dry_run: bool = False
) -> list[Report]:
    """Sync each hospital; one that does not answer does not stop the others.

    Parameters
    ----------
    engine : Engine
    connectors : iterable of Connector
        Of ``hospitals.sources.connectors``.
    actor : str
        Who asked, for the events.
    is_dry_run : bool
        Read and report, and store nothing.

    Raises
    ------
    ConfigError
        When the kept numbers cannot be read.
    ServiceUnavailable
        When another sync of the same hospital came between.
    """
    keep_answers_out_of_logs()
    secret = pseudonyms.key()
    reports = []
    for connector in connectors:
        with engine.begin() as connection:
            people, n_without_number = participants(connection, connector.hospital_id)
            before = kept.before(connection, connector.source, connector.hospital_id)
        synced = sync(connector, people, before.since, before.known, before.history, secret=secret)
        n_label_events = 0
        if not is_dry_run:
            n_label_events = _store(engine, connector, before, synced, actor)
        reports.append(
            Report(
                connector.source,
                len(people),
                n_without_number,
                synced.profile.found,
                len(synced.facts),
                len(synced.held),
                n_label_events,
                tuple(synced.alerts),
            )
        )
    return reports


def participants(connection: Connection, hospital_id: str) -> tuple[list[Participant], int]:
    """Whom to ask about, by the numbers that are kept; and how many have none kept."""
    rows = _usable(connection, hospital_id)
    encrypted = {row.subject_id: row.number for row in rows if row.number is not None}
    n_without = len({row.subject_id for row in rows} - {*encrypted})
    if not encrypted:
        return [], n_without
    key = linkage_key()
    try:
        return [
            Participant(hospital_id, key.decrypt(number).decode(), subject_id)
            for subject_id, number in encrypted.items()
        ], n_without
    except InvalidToken:
        raise ConfigError(
            f"the numbers of {hospital_id} were encrypted under another {LINKAGE_KEY}; set that one"
        ) from None


def _usable(connection: Connection, hospital_id: str) -> list[Any]:
    """The sessions of a hospital whose consent is in force, the oldest first."""
    asked = (
        select(SESSIONS.c.hospital_id, REVISIONS.c.subject_id, REVISIONS.c.number)
        .join(SESSIONS, SESSIONS.c.session_id == REVISIONS.c.session_id)
        .where(labelling.MAY_BE_USED)
        .order_by(REVISIONS.c.received_at)
    )
    site = pseudonyms.canonical_site(hospital_id)
    rows = connection.execute(asked)
    return [row for row in rows if pseudonyms.canonical_site(row.hospital_id) == site]


def _store(
    engine: Engine, connector: Connector, before: kept.Before, synced: Synced, actor: str
) -> int:
    """Store all that a sync found; return how many label events are new."""
    source = connector.source
    with engine.begin() as connection:
        store.serialise(connection)  # an erasure comes before or after, and not between
        theirs = {row.subject_id for row in _usable(connection, connector.hospital_id)}
        facts = kept.add(connection, synced, before, theirs, now())
        if facts is None:
            raise ServiceUnavailable(f"another sync of {source} ran at the same time; run it again")
        said = (LabelEvent(**vars(one)) for one in evidence(facts, now()))
        n_events = store.record_all(connection, said)
        labelling.prepare(connection)  # so that what was just labelled has sessions
        key = f"{source}:{before.number + 1}"
        for alert in synced.alerts:
            name = f"hospital_alert:{key}:{alert.code}:{alert.quantity}:{alert.name}"
            events.record(connection, actor, "hospital_alert", name, asdict(alert))
        counts = {"source": source, "n_participants": len(theirs), "n_facts": len(synced.facts)}
        counts |= {"n_found": synced.profile.found, "n_label_events": n_events}
        events.record(connection, actor, "hospital_sync", f"hospital_sync:{key}", counts)
    return n_events
