"""What the collection lends to the labels: sessions, their audio, and what is known of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, and_, exists, func, select

from spira_services.collection.documents import CONSENTS, RECORDINGS, REVISIONS
from spira_services.hospitals import kept
from spira_services.labels import assignment, store
from spira_services.labels.assignment import TASKS
from spira_services.labels.policy import POLICY
from spira_tasks.artifacts.blobs import Blobs
from spira_tasks.errors import ConfigError
from spira_tasks.intake.record_contract import value_of

NEWEST_CONSENT = (
    select(func.max(CONSENTS.c.number))
    .where(CONSENTS.c.session_id == REVISIONS.c.session_id)
    .correlate(REVISIONS)
    .scalar_subquery()
)
MAY_BE_USED = and_(
    REVISIONS.c.status == "accepted",
    REVISIONS.c.subject_id.isnot(None),
    exists().where(CONSENTS.c.number == NEWEST_CONSENT, CONSENTS.c.status == "granted"),
)
OF_REVISION = and_(
    REVISIONS.c.session_id == RECORDINGS.c.session_id, REVISIONS.c.revision == RECORDINGS.c.revision
)
HAS_TASK = exists().where(TASKS.c.item_kind == "session", TASKS.c.item_id == REVISIONS.c.session_id)


def prepare(connection: Connection) -> None:
    """Open tasks for sessions that came, close those of which the consent was withdrawn."""
    for row in connection.execute(select(REVISIONS).where(MAY_BE_USED, ~HAS_TASK)).all():
        occurred_at = datetime.fromisoformat(row.document["recorded_at"])
        item = row.session_id, row.subject_id, occurred_at
        store.register_item(connection, "session", *item)
        assignment.open_task(connection, "session", row.session_id)
    accepted = REVISIONS.c.status == "accepted"
    gone = select(REVISIONS.c.session_id).where(accepted, ~MAY_BE_USED, HAS_TASK)
    for session_id in connection.execute(gone).scalars().all():
        assignment.close_task(connection, "session", session_id)


@dataclass(frozen=True)
class OfCollection:
    """Sessions that were accepted and whose consent is in force."""

    blobs: Blobs

    def prepare(self, connection: Connection) -> None:
        prepare(connection)

    def recordings(self, connection: Connection, session_id: str) -> Mapping[str, str]:
        of_session = select(RECORDINGS.c.task, RECORDINGS.c.sha256).join(REVISIONS, OF_REVISION)
        asked = of_session.where(RECORDINGS.c.session_id == session_id, MAY_BE_USED)
        return {row.task: f"sha256:{row.sha256}" for row in connection.execute(asked)}

    def audio(self, digest: str) -> Path:
        return self.blobs.path(digest)

    def signs(self, connection: Connection, session_id: str) -> Mapping[str, Any]:
        """By the form, and what it leaves open by the hospital's records."""
        asked = select(REVISIONS.c.subject_id, REVISIONS.c.document)
        asked = asked.where(REVISIONS.c.session_id == session_id, MAY_BE_USED)
        row = connection.execute(asked).first()
        return {} if row is None else _signs(connection, row.subject_id, row.document)


def facts(connection: Connection) -> dict[str, tuple[datetime, dict[str, Any]]]:
    """By session that may be used, when it was recorded, and what labelling functions look at."""
    asked = (
        select(
            REVISIONS.c.session_id, REVISIONS.c.subject_id, REVISIONS.c.document, RECORDINGS.c.about
        )
        .outerjoin(RECORDINGS, and_(OF_REVISION, RECORDINGS.c.task == "SENTENCE"))
        .where(MAY_BE_USED)
    )
    found = {}
    for row in connection.execute(asked).all():
        known = _signs(connection, row.subject_id, row.document)
        values = {name: value_of(name, str(one)) for name, one in known.items()}
        speech = (row.about or {}).get("speech_fraction")
        values["pause_rate"] = None if speech is None else 1 - speech
        found[row.session_id] = (datetime.fromisoformat(row.document["recorded_at"]), values)
    return found


def _signs(
    connection: Connection, subject_id: str, document: Mapping[str, Any]
) -> Mapping[str, Any]:
    moment = datetime.fromisoformat(document["recorded_at"])
    within = timedelta(hours=POLICY.subject_hours)
    return {**kept.near(connection, subject_id, moment, within), **document["values"]}


def record_id(session_id: str, task: str) -> str:
    """As a snapshot names a recording."""
    return f"{session_id}-{task.lower()}"


def scores(connection: Connection, files: Iterable[Path]) -> dict[str, float]:
    """By session, the mean probability that models gave its recordings.

    Parameters
    ----------
    files : iterable of Path
        ``predictions.parquet`` of evaluations: of recordings that the model has not learned from.

    Raises
    ------
    ConfigError
        When a file is none.
    """
    import pandas as pd

    known = select(RECORDINGS.c.session_id, RECORDINGS.c.task)
    of_record = {record_id(*row): row.session_id for row in connection.execute(known).all()}
    parts = []
    for file in files:
        try:
            parts.append(pd.read_parquet(file, columns=["record_id", "clean"]))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{file}: no predictions of an evaluation ({type(error).__name__}); give the "
                "predictions.parquet of an evaluate step"
            ) from None
    table = pd.concat(parts)
    sessions = table["record_id"].map(of_record)
    return {str(one): float(p) for one, p in table["clean"].groupby(sessions).mean().items()}
