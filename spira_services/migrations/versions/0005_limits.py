"""What asked is known to workers, lost audio is counted, a day of a device is found by an index."""

import sqlalchemy as sa
from alembic import op

revision = "0005_limits"
down_revision = "0004_serving"

INDEX = "ix_collection_blobs_device_id_stored_at"


def upgrade() -> None:
    counted = sa.Column("n_lost", sa.Integer(), server_default="0", nullable=False)
    op.add_column("serving_outbox", counted)
    op.add_column("serving_outbox", sa.Column("request_id", sa.Text(), nullable=True))
    op.create_index(INDEX, "collection_blobs", ["device_id", "stored_at"])
