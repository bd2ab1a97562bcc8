"""The document database (store B): sites, devices, sessions with their forms, consents.

What was received is never changed: a correction is another revision of its session, a withdrawal
another row.  So the state as of any past moment can be asked for again.
"""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Integer, LargeBinary, Table, Text

from spira_services.database import Instant, Json, metadata

SCHEMA = "spira.session/1"  # of the documents; readers of today read every older one

SESSIONS = Table(
    "collection_sessions",
    metadata,
    Column("session_id", Text, primary_key=True),  # chosen by the device
    Column("device_id", Text, ForeignKey("collection_devices.device_id"), nullable=False),
    Column("hospital_id", Text, nullable=False),
    Column("received_at", Instant, nullable=False, index=True),
)
REVISIONS = Table(
    "collection_revisions",
    metadata,
    Column("session_id", Text, ForeignKey("collection_sessions.session_id"), primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("digest", Text, nullable=False),  # of what the device sent
    Column("status", Text, nullable=False),  # accepted or refused
    Column("received_at", Instant, nullable=False),
    Column("subject_id", Text, index=True),  # none where the form does not say who it is
    Column("number", LargeBinary),  # the hospital's, encrypted, where its site keeps numbers
    Column("schema", Text, nullable=False),
    Column("document", Json, nullable=False),
    Column("problems", Json, nullable=False),
)
RECORDINGS = Table(
    "collection_recordings",
    metadata,
    Column("record_id", Text, primary_key=True),  # of the session, its task and the revision
    Column("session_id", Text, ForeignKey("collection_sessions.session_id"), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("task", Text, nullable=False),
    Column("sha256", Text, nullable=False, index=True),
    Column("status", Text, nullable=False),
    Column("reason", Text),
    Column("recorded_at", Instant, nullable=False),
    Column("about", Json, nullable=False),  # prompt, measurements
)
CONSENTS = Table(
    "collection_consents",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("session_id", Text, ForeignKey("collection_sessions.session_id"), nullable=False),
    Column("status", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("at", Instant, nullable=False),  # by the device's clock
    Column("received_at", Instant, nullable=False),
)
