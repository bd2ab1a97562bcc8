"""Facts of hospitals, which nobody changes, and what each sync left for the next."""

import sqlalchemy as sa
from alembic import op

from spira_services.database import Instant, Json

revision = "0003_hospitals"
down_revision = "0002_labels"

SQLITE = (
    """CREATE TRIGGER hospitals_facts_update BEFORE UPDATE ON hospitals_facts
    BEGIN SELECT RAISE(ABORT, 'facts of hospitals are append-only'); END""",
)
POSTGRESQL = (
    """CREATE FUNCTION hospitals_facts_kept() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    RAISE EXCEPTION 'facts of hospitals are append-only'; END $$""",
    """CREATE TRIGGER hospitals_facts_kept BEFORE UPDATE ON hospitals_facts
    FOR EACH ROW EXECUTE FUNCTION hospitals_facts_kept()""",
)


def upgrade() -> None:
    op.create_table(
        "hospitals_facts",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("hospital_id", sa.Text(), nullable=False),
        sa.Column("subject_id", sa.Text(), nullable=False),
        sa.Column("source_ref", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("quantity", sa.Text(), nullable=False),
        sa.Column("value", Json, nullable=True),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("at", Instant(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("recorded_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_hospitals_facts"),
        sa.UniqueConstraint("source_ref", "version", name="uq_hospitals_facts_source_ref_version"),
    )
    op.create_index("ix_hospitals_facts_subject_id", "hospitals_facts", ["subject_id"])
    op.create_table(
        "hospitals_syncs",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("is_complete", sa.Boolean(), nullable=False),
        sa.Column("profile", Json, nullable=False),
        sa.PrimaryKeyConstraint("source", "number", name="pk_hospitals_syncs"),
    )
    op.create_table(
        "hospitals_newest",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("subject_id", sa.Text(), nullable=False),
        sa.Column("at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("source", "subject_id", name="pk_hospitals_newest"),
    )
    for statement in {"sqlite": SQLITE, "postgresql": POSTGRESQL}[op.get_bind().dialect.name]:
        op.execute(sa.text(statement))
