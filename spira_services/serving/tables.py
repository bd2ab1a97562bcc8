"""What was asked and what was answered (store F): rows that are added and not changed.

No row says who asked or about whom but ``INFERENCES``; the others point to it.  The state of an
inference is derived: deleted before answered, answered before failed, else it is queued.
"""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
)

from spira_services.database import Instant, Json, metadata

INFERENCES = Table(
    "serving_inferences",
    metadata,
    Column("inference_id", Text, primary_key=True),
    Column("device_id", Text, ForeignKey("collection_devices.device_id"), nullable=False),
    Column("hospital_id", Text, nullable=False),
    Column("idempotency_key", Text, nullable=False),
    Column("digest", Text),  # of what the device sent, until it is deleted
    Column("task", Text, nullable=False),
    Column("sha256", Text, index=True),  # of the audio, which is in store A, until it is deleted
    Column("n_bytes", Integer, nullable=False),
    Column("subject_id", Text, index=True),  # none where the device does not say who it is
    Column("agreed", Json, nullable=False),  # by the person: "labels", "ab"
    Column("about", Json, nullable=False),  # how it was recorded
    Column("recorded_at", Instant, nullable=False),  # by the device's clock
    Column("received_at", Instant, nullable=False, index=True),
    Column("deleted_at", Instant),
    UniqueConstraint("device_id", "idempotency_key"),
)
# Written with the row above in one transaction; what is not sent yet is put on the queue.
OUTBOX = Table(
    "serving_outbox",
    metadata,
    Column("inference_id", Text, ForeignKey("serving_inferences.inference_id"), primary_key=True),
    Column("stored_at", Instant, nullable=False),
    Column("sent_at", Instant, index=True),
    Column("request_id", Text),  # of the request that asked: a worker's lines have it too
    # How often the model failed on it, or its worker was killed; an outage counts for nothing.
    Column("n_tries", Integer, nullable=False, server_default="0"),
    Column("n_lost", Integer, nullable=False, server_default="0"),  # looks for audio that is lost
)
PREDICTIONS = Table(
    "serving_predictions",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("inference_id", Text, ForeignKey("serving_inferences.inference_id"), nullable=False),
    Column("version", Text, nullable=False),  # number in the registry
    Column("classifier", Text, nullable=False),  # its digest
    Column("feature_schema", Text, nullable=False),  # digest of the description of its features
    Column("synthetic", Boolean, nullable=False),  # it learned from voices that a computer made
    Column("arm", Text, nullable=False),  # champion, previous, canary, shadow, a, b
    Column("shown", Boolean, nullable=False),  # whether it is the answer
    Column("probability", Float),
    Column("decision", Text),
    Column("record_again", Json, nullable=False),
    Column("unusual", Json, nullable=False),
    Column("window_scores", Json, nullable=False),
    Column("operating_point", Float, nullable=False),
    Column("waited_seconds", Float, nullable=False),  # from stored to taken
    Column("compute_seconds", Float, nullable=False),
    Column("at", Instant, nullable=False, index=True),
    UniqueConstraint("inference_id", "version"),
)
ONE_ANSWER = Index(
    "ix_serving_predictions_shown",
    PREDICTIONS.c.inference_id,
    unique=True,
    sqlite_where=PREDICTIONS.c.shown,
    postgresql_where=PREDICTIONS.c.shown,
)
FAILURES = Table(
    "serving_failures",
    metadata,
    Column("inference_id", Text, ForeignKey("serving_inferences.inference_id"), primary_key=True),
    Column("reason", Text, nullable=False),  # stable code
    Column("n_tries", Integer, nullable=False),
    Column("at", Instant, nullable=False),
)
ACTIONS = Table(
    "serving_actions",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("inference_id", Text, ForeignKey("serving_inferences.inference_id"), nullable=False),
    Column("action", Text, nullable=False),  # seen, recorded_again, agreed, disagreed
    Column("at", Instant, nullable=False),
    UniqueConstraint("inference_id", "action"),
)
