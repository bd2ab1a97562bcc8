"""Inferences that are asked for, their predictions, and what became of them."""

import sqlalchemy as sa
from alembic import op

from spira_services.database import Instant, Json

revision = "0004_serving"
down_revision = "0003_hospitals"


def upgrade() -> None:
    op.create_table(
        "serving_inferences",
        sa.Column("inference_id", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("hospital_id", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=True),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=True),
        sa.Column("n_bytes", sa.Integer(), nullable=False),
        sa.Column("subject_id", sa.Text(), nullable=True),
        sa.Column("agreed", Json, nullable=False),
        sa.Column("about", Json, nullable=False),
        sa.Column("recorded_at", Instant(), nullable=False),
        sa.Column("received_at", Instant(), nullable=False),
        sa.Column("deleted_at", Instant(), nullable=True),
        sa.ForeignKeyConstraint(
            ["device_id"], ["collection_devices.device_id"], name="fk_serving_inferences_device_id"
        ),
        sa.PrimaryKeyConstraint("inference_id", name="pk_serving_inferences"),
        sa.UniqueConstraint(
            "device_id", "idempotency_key", name="uq_serving_inferences_device_id_idempotency_key"
        ),
    )
    op.create_index("ix_serving_inferences_received_at", "serving_inferences", ["received_at"])
    op.create_index("ix_serving_inferences_sha256", "serving_inferences", ["sha256"])
    op.create_index("ix_serving_inferences_subject_id", "serving_inferences", ["subject_id"])
    op.create_table(
        "serving_actions",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("inference_id", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("at", Instant(), nullable=False),
        sa.ForeignKeyConstraint(
            ["inference_id"],
            ["serving_inferences.inference_id"],
            name="fk_serving_actions_inference_id",
        ),
        sa.PrimaryKeyConstraint("number", name="pk_serving_actions"),
        sa.UniqueConstraint(
            "inference_id", "action", name="uq_serving_actions_inference_id_action"
        ),
    )
    op.create_table(
        "serving_failures",
        sa.Column("inference_id", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("n_tries", sa.Integer(), nullable=False),
        sa.Column("at", Instant(), nullable=False),
        sa.ForeignKeyConstraint(
            ["inference_id"],
            ["serving_inferences.inference_id"],
            name="fk_serving_failures_inference_id",
        ),
        sa.PrimaryKeyConstraint("inference_id", name="pk_serving_failures"),
    )
    op.create_table(
        "serving_outbox",
        sa.Column("inference_id", sa.Text(), nullable=False),
        sa.Column("stored_at", Instant(), nullable=False),
        sa.Column("sent_at", Instant(), nullable=True),
        sa.Column("n_tries", sa.Integer(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(
            ["inference_id"],
            ["serving_inferences.inference_id"],
            name="fk_serving_outbox_inference_id",
        ),
        sa.PrimaryKeyConstraint("inference_id", name="pk_serving_outbox"),
    )
    op.create_index("ix_serving_outbox_sent_at", "serving_outbox", ["sent_at"])
    op.create_table(
        "serving_predictions",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("inference_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("classifier", sa.Text(), nullable=False),
        sa.Column("feature_schema", sa.Text(), nullable=False),
        sa.Column("synthetic", sa.Boolean(), nullable=False),
        sa.Column("arm", sa.Text(), nullable=False),
        sa.Column("shown", sa.Boolean(), nullable=False),
        sa.Column("probability", sa.Float(), nullable=True),
        sa.Column("decision", sa.Text(), nullable=True),
        sa.Column("record_again", Json, nullable=False),
        sa.Column("unusual", Json, nullable=False),
        sa.Column("window_scores", Json, nullable=False),
        sa.Column("operating_point", sa.Float(), nullable=False),
        sa.Column("waited_seconds", sa.Float(), nullable=False),
        sa.Column("compute_seconds", sa.Float(), nullable=False),
        sa.Column("at", Instant(), nullable=False),
        sa.ForeignKeyConstraint(
            ["inference_id"],
            ["serving_inferences.inference_id"],
            name="fk_serving_predictions_inference_id",
        ),
        sa.PrimaryKeyConstraint("number", name="pk_serving_predictions"),
        sa.UniqueConstraint(
            "inference_id", "version", name="uq_serving_predictions_inference_id_version"
        ),
    )
    op.create_index("ix_serving_predictions_at", "serving_predictions", ["at"])
    op.create_index(
        "ix_serving_predictions_shown",
        "serving_predictions",
        ["inference_id"],
        unique=True,
        sqlite_where=sa.text("shown"),
        postgresql_where=sa.text("shown"),
    )
    op.create_table(
        "serving_queue",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("put_at", Instant(), nullable=False),
        sa.Column("ready_at", Instant(), nullable=False),
        sa.Column("lease", sa.Text(), nullable=True),
        sa.Column("n_tries", sa.Integer(), nullable=False),
        sa.Column("ended_at", Instant(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_serving_queue"),
    )
    op.create_index("ix_serving_queue_ended_at_ready_at", "serving_queue", ["ended_at", "ready_at"])
    op.create_table(
        "serving_routes",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("share", sa.Float(), nullable=False),
        sa.Column("at", Instant(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("found", Json, nullable=True),
        sa.PrimaryKeyConstraint("number", name="pk_serving_routes"),
    )
