"""Which version is tried beside the champion: rows that are added and not changed."""

import sqlalchemy as sa
from alembic import op

from spira_services.database import Instant, Json

revision = "0005_routes"
down_revision = "0004_serving"


def upgrade() -> None:
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
