"""Looks for audio that is lost are counted."""

import sqlalchemy as sa
from alembic import op

revision = "0005_limits"
down_revision = "0004_serving"


def upgrade() -> None:
    counted = sa.Column("n_lost", sa.Integer(), server_default="0", nullable=False)
    op.add_column("serving_outbox", counted)
