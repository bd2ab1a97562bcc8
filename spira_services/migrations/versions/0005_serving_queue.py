"""The table of the queue of serving (spira_services/serving/queue.py)."""

import sqlalchemy as sa
from alembic import op

from spira_services.database import Instant

revision = "0005_serving_queue"
down_revision = "0004_serving"


def upgrade() -> None:
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
