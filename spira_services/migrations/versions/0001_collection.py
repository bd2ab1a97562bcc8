"""People, events, and the tables of the collection."""

import sqlalchemy as sa
from alembic import op

from spira_services.database import Instant, Json

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "collection_sites",
        sa.Column("hospital_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("check_letter", sa.Boolean(), nullable=False),
        sa.Column("keeps_numbers", sa.Boolean(), nullable=False),
        sa.Column("expected_per_day", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("hospital_id", name="pk_collection_sites"),
    )
    op.create_table(
        "events",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("at", Instant(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("details", Json, nullable=False),
        sa.Column("unique_key", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_events"),
        sa.UniqueConstraint("unique_key", name="uq_events_unique_key"),
    )
    op.create_table(
        "people",
        sa.Column("person_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("password", sa.Text(), nullable=True),
        sa.Column("roles", Json, nullable=False),
        sa.Column("added_at", Instant(), nullable=False),
        sa.Column("ended_at", Instant(), nullable=True),
        sa.PrimaryKeyConstraint("person_id", name="pk_people"),
        sa.UniqueConstraint("name", name="uq_people_name"),
    )
    op.create_table(
        "collection_codes",
        sa.Column("code_hash", sa.Text(), nullable=False),
        sa.Column("hospital_id", sa.Text(), nullable=False),
        sa.Column("collector", sa.Text(), nullable=False),
        sa.Column("expires_at", Instant(), nullable=False),
        sa.Column("used_at", Instant(), nullable=True),
        sa.ForeignKeyConstraint(
            ["hospital_id"],
            ["collection_sites.hospital_id"],
            name="fk_collection_codes_hospital_id",
        ),
        sa.PrimaryKeyConstraint("code_hash", name="pk_collection_codes"),
    )
    op.create_table(
        "collection_devices",
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("key_hash", sa.Text(), nullable=False),
        sa.Column("hospital_id", sa.Text(), nullable=False),
        sa.Column("collector", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("os", sa.Text(), nullable=False),
        sa.Column("enrolled_at", Instant(), nullable=False),
        sa.Column("ended_at", Instant(), nullable=True),
        sa.ForeignKeyConstraint(
            ["hospital_id"],
            ["collection_sites.hospital_id"],
            name="fk_collection_devices_hospital_id",
        ),
        sa.PrimaryKeyConstraint("device_id", name="pk_collection_devices"),
    )
    op.create_table(
        "people_tokens",
        sa.Column("token_hash", sa.Text(), nullable=False),
        sa.Column("person_id", sa.Text(), nullable=False),
        sa.Column("expires_at", Instant(), nullable=False),
        sa.ForeignKeyConstraint(
            ["person_id"], ["people.person_id"], name="fk_people_tokens_person_id"
        ),
        sa.PrimaryKeyConstraint("token_hash", name="pk_people_tokens"),
    )
    op.create_table(
        "collection_blobs",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("n_bytes", sa.Integer(), nullable=False),
        sa.Column("stored_at", Instant(), nullable=False),
        sa.ForeignKeyConstraint(
            ["device_id"], ["collection_devices.device_id"], name="fk_collection_blobs_device_id"
        ),
        sa.PrimaryKeyConstraint("sha256", "device_id", name="pk_collection_blobs"),
    )
    op.create_table(
        "collection_sessions",
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("hospital_id", sa.Text(), nullable=False),
        sa.Column("received_at", Instant(), nullable=False),
        sa.ForeignKeyConstraint(
            ["device_id"], ["collection_devices.device_id"], name="fk_collection_sessions_device_id"
        ),
        sa.PrimaryKeyConstraint("session_id", name="pk_collection_sessions"),
    )
    op.create_index(
        "ix_collection_sessions_received_at", "collection_sessions", ["received_at"], unique=False
    )
    op.create_table(
        "collection_consents",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("at", Instant(), nullable=False),
        sa.Column("received_at", Instant(), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["collection_sessions.session_id"],
            name="fk_collection_consents_session_id",
        ),
        sa.PrimaryKeyConstraint("number", name="pk_collection_consents"),
    )
    op.create_table(
        "collection_recordings",
        sa.Column("record_id", sa.Text(), nullable=False),
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("recorded_at", Instant(), nullable=False),
        sa.Column("about", Json, nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["collection_sessions.session_id"],
            name="fk_collection_recordings_session_id",
        ),
        sa.PrimaryKeyConstraint("record_id", name="pk_collection_recordings"),
    )
    op.create_index(
        "ix_collection_recordings_sha256", "collection_recordings", ["sha256"], unique=False
    )
    op.create_table(
        "collection_revisions",
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("received_at", Instant(), nullable=False),
        sa.Column("subject_id", sa.Text(), nullable=True),
        sa.Column("number", sa.LargeBinary(), nullable=True),
        sa.Column("schema", sa.Text(), nullable=False),
        sa.Column("document", Json, nullable=False),
        sa.Column("problems", Json, nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["collection_sessions.session_id"],
            name="fk_collection_revisions_session_id",
        ),
        sa.PrimaryKeyConstraint("session_id", "revision", name="pk_collection_revisions"),
    )
    op.create_index(
        "ix_collection_revisions_subject_id", "collection_revisions", ["subject_id"], unique=False
    )
