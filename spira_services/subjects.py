"""Who a request is about: a pseudonym from its arrival on, and whether the person was erased."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, func, select

from spira_services import events
from spira_services.events import EVENTS
from spira_tasks.intake import pseudonyms
from spira_tasks.intake.pseudonyms import tombstone_tag

ACTION = "erasure"


def subject_of(hospital_id: str, number: str) -> str | None:
    """The pseudonym behind a hospital number, None where the text is no number."""
    if not pseudonyms.canonical_number(number):
        return None
    return pseudonyms.known_as(pseudonyms.key(), hospital_id, number)


def of_tag(connection: Connection, tag: str, column: Any) -> list[str]:
    """The pseudonyms of a column of a table that a tag stands for: none, or one."""
    known = connection.execute(select(column).distinct()).scalars()
    return [subject for subject in known if subject and tombstone_tag(subject) == tag]


def is_erased(connection: Connection, subject: str) -> bool:
    """Whether a person had all recordings erased; no erasure begins until the transaction ends."""
    _hold(connection, tombstone_tag(subject), func.pg_advisory_xact_lock_shared)
    key = f"{ACTION}:{tombstone_tag(subject)}"
    asked = select(EVENTS.c.number).where(EVENTS.c.unique_key == key)
    return connection.execute(asked).first() is not None


def begin_erasure(connection: Connection, tag: str) -> None:
    """Wait for transactions that may still write of a person; later ones wait for this."""
    _hold(connection, tag, func.pg_advisory_xact_lock)


def _hold(connection: Connection, tag: str, lock: Any) -> None:
    if connection.dialect.name == "postgresql":  # SQLite has one writer
        connection.execute(select(lock(int(tag[:15], 16))))


def note_erasure(connection: Connection, tag: str, actor: str) -> None:
    """Take nothing of the person of a tag again."""
    events.record(connection, actor, ACTION, f"{ACTION}:{tag}", {"tag": tag})


def erased_tags(connection: Connection) -> set[str]:
    """The tags of all who had their recordings erased."""
    done = select(EVENTS.c.details).where(EVENTS.c.action == ACTION)
    return {details["tag"] for details in connection.execute(done).scalars()}
