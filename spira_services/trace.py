"""Where a recording came from: its session, device, consents and labels; the snapshots it is in.

And what a model was asked on: who asked, and which versions answered.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, or_, select

from spira_services.collection.documents import CONSENTS, RECORDINGS, REVISIONS, SESSIONS
from spira_services.devices import DEVICES
from spira_services.labels.store import EVENTS, ITEMS, LABEL
from spira_services.serving.tables import FAILURES, INFERENCES, PREDICTIONS
from spira_services.snapshot import tables
from spira_tasks.errors import ConfigError

UUID_CHARACTERS = 36  # a record's id is its session's and the task


def trace(connection: Connection, name: str, snapshots: str) -> list[dict[str, Any]]:
    """What is known of each session and inference of a name; pseudonyms, and no value of a form.

    Parameters
    ----------
    connection : Connection
    name : str
        A recording, a session, an inference, a subject's pseudonym, or a device.
    snapshots : str
        Folder, or ``s3://bucket/prefix``, that holds the snapshots.

    Raises
    ------
    ConfigError
        When the name is known as none of them.
    """
    asked = (
        select(SESSIONS, DEVICES.c.model, DEVICES.c.os, DEVICES.c.collector)
        .join(DEVICES, DEVICES.c.device_id == SESSIONS.c.device_id)
        .where(
            or_(
                SESSIONS.c.session_id == name[:UUID_CHARACTERS],
                SESSIONS.c.device_id == name,
                SESSIONS.c.session_id.in_(
                    select(REVISIONS.c.session_id).where(REVISIONS.c.subject_id == name)
                ),
            )
        )
        .order_by(SESSIONS.c.received_at)
    )
    sessions = connection.execute(asked).mappings().all()
    inferences = _inferences(connection, name)
    if not sessions and not inferences:
        raise ConfigError(
            "nothing came by this name; give a recording, a session, an inference, a subject's "
            "pseudonym (64 hex digits) or a device"
        )
    held = _by_session(snapshots)
    return [
        {
            **session,
            "revisions": _rows(
                connection,
                select(
                    REVISIONS.c.revision,
                    REVISIONS.c.status,
                    REVISIONS.c.received_at,
                    REVISIONS.c.subject_id,
                    REVISIONS.c.schema,
                ).where(REVISIONS.c.session_id == session["session_id"]),
            ),
            "files": _rows(
                connection,
                select(
                    RECORDINGS.c.revision,
                    RECORDINGS.c.task,
                    RECORDINGS.c.sha256,
                    RECORDINGS.c.status,
                    RECORDINGS.c.reason,
                    RECORDINGS.c.recorded_at,
                ).where(RECORDINGS.c.session_id == session["session_id"]),
            ),
            "consents": _rows(
                connection,
                select(
                    CONSENTS.c.status, CONSENTS.c.version, CONSENTS.c.scope, CONSENTS.c.received_at
                )
                .where(CONSENTS.c.session_id == session["session_id"])
                .order_by(CONSENTS.c.number),
            ),
            "labels": _labels(connection, session["session_id"]),
            "snapshots": held[session["session_id"]],
        }
        for session in sessions
    ] + inferences


def _inferences(connection: Connection, name: str) -> list[dict[str, Any]]:
    """What a model was asked by a name, with its answers; no score and no decision."""
    theirs = or_(
        *(INFERENCES.c[column] == name for column in ("inference_id", "subject_id", "device_id"))
    )
    answers = select(
        *(PREDICTIONS.c[column] for column in ("version", "classifier", "arm", "shown", "at"))
    )
    return [
        {
            **found,
            "predictions": _rows(
                connection,
                answers.where(PREDICTIONS.c.inference_id == found["inference_id"]).order_by(
                    PREDICTIONS.c.number
                ),
            ),
            "failures": _rows(
                connection,
                select(FAILURES.c.reason, FAILURES.c.n_tries, FAILURES.c.at).where(
                    FAILURES.c.inference_id == found["inference_id"]
                ),
            ),
        }
        for found in _rows(
            connection, select(INFERENCES).where(theirs).order_by(INFERENCES.c.received_at)
        )
    ]


def _labels(connection: Connection, session_id: str) -> list[dict[str, Any]]:
    """What was said of a session, and of its person; not the values of a hospital's records."""
    subjects = select(ITEMS.c.subject).where(ITEMS.c.item_id == session_id)
    asked = select(
        EVENTS.c.label,
        EVENTS.c.source,
        EVENTS.c.annotator,
        EVENTS.c.instruction_version,
        EVENTS.c.confidence,
        EVENTS.c.valid_from,
        EVENTS.c.recorded_at,
    ).where(
        EVENTS.c.quantity == LABEL,
        or_(EVENTS.c.item_id == session_id, EVENTS.c.item_id.in_(subjects)),
    )
    return _rows(connection, asked.order_by(EVENTS.c.recorded_at))


def _rows(connection: Connection, asked: Any) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(asked).mappings()]


def _by_session(snapshots: str) -> Mapping[str, list[str]]:
    """The names of the snapshots that hold a session."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, rows in tables(snapshots):
        for session_id in {row["session_id"] for row in rows}:
            found[session_id].append(name)
    return found
