"""Append-only events of the services: who did what, when, once.

A unique key makes doing something twice the same as doing it once.  Details hold pseudonyms,
digests, names of fields and counts; never a value of a patient.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Column, Connection, Integer, Table, Text

from spira_services.database import Instant, Json, insert_once, metadata, now

EVENTS = Table(
    "events",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("at", Instant, nullable=False),
    Column("actor", Text, nullable=False),  # "device:<id>", "person:<id>", "cli:<user>"
    Column("action", Text, nullable=False),
    Column("details", Json, nullable=False),
    Column("unique_key", Text, nullable=False, unique=True),
)


def record(
    connection: Connection, actor: str, action: str, unique_key: str, details: Mapping[str, Any]
) -> bool:
    """Append an event in the caller's transaction; False where it was recorded before."""
    row = {"at": now(), "actor": actor, "action": action, "details": dict(details)}
    return insert_once(connection, EVENTS, {**row, "unique_key": unique_key})
