"""Tables of the label store; nobody changes an event, nor deletes one of a person not forgotten."""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

from spira_services.database import Instant, Json

revision = "0002_labels"
down_revision = "0001"

SQLITE = (
    """CREATE TRIGGER labels_events_update BEFORE UPDATE ON labels_events
    BEGIN SELECT RAISE(ABORT, 'label events are append-only'); END""",
    """CREATE TRIGGER labels_events_delete BEFORE DELETE ON labels_events
    WHEN NOT EXISTS (SELECT 1 FROM labels_items WHERE item_kind = OLD.item_kind
                     AND item_id = OLD.item_id AND forgotten_at IS NOT NULL)
    BEGIN SELECT RAISE(ABORT, 'label events are append-only'); END""",
)
POSTGRESQL = (
    """CREATE FUNCTION labels_events_kept() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF TG_OP = 'DELETE' AND EXISTS (SELECT 1 FROM labels_items
        WHERE item_kind = OLD.item_kind AND item_id = OLD.item_id AND forgotten_at IS NOT NULL)
    THEN RETURN OLD; END IF;
    RAISE EXCEPTION 'label events are append-only'; END $$""",
    """CREATE TRIGGER labels_events_kept BEFORE UPDATE OR DELETE ON labels_events
    FOR EACH ROW EXECUTE FUNCTION labels_events_kept()""",
    """CREATE TRIGGER labels_events_kept_whole BEFORE TRUNCATE ON labels_events
    FOR EACH STATEMENT EXECUTE FUNCTION labels_events_kept()""",
)


def upgrade() -> None:
    clock = op.create_table(
        "labels_clock",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_labels_clock"),
    )
    op.bulk_insert(clock, [{"number": 1, "at": datetime(1970, 1, 1, tzinfo=UTC)}])
    op.create_table(
        "labels_items",
        sa.Column("item_kind", sa.Text(), nullable=False),
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("occurred_at", Instant(), nullable=False),
        sa.Column("registered_at", Instant(), nullable=False),
        sa.Column("forgotten_at", Instant(), nullable=True),
        sa.PrimaryKeyConstraint("item_kind", "item_id", name="pk_labels_items"),
    )
    op.create_index("ix_labels_items_subject", "labels_items", ["subject"])
    op.create_table(
        "labels_events",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("unique_key", sa.Text(), nullable=False),
        sa.Column("item_kind", sa.Text(), nullable=False),
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("quantity", sa.Text(), nullable=False),
        sa.Column("label", sa.Integer(), nullable=True),
        sa.Column("value", Json, nullable=True),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("annotator", sa.Text(), nullable=False),
        sa.Column("instruction_version", sa.Text(), nullable=False),
        sa.Column("confidence", sa.Float(), nullable=True),
        sa.Column("valid_from", Instant(), nullable=False),
        sa.Column("recorded_at", Instant(), nullable=False),
        sa.CheckConstraint("label IN (0, 1)", name="label"),
        sa.CheckConstraint("confidence BETWEEN 0 AND 1", name="confidence"),
        sa.ForeignKeyConstraint(
            ["item_kind", "item_id"],
            ["labels_items.item_kind", "labels_items.item_id"],
            name="fk_labels_events_item_kind_item_id",
        ),
        sa.PrimaryKeyConstraint("number", name="pk_labels_events"),
        sa.UniqueConstraint("unique_key", name="uq_labels_events_unique_key"),
    )
    op.create_index("ix_labels_events_recorded_at", "labels_events", ["recorded_at"])
    op.create_index(
        "ix_labels_events_item_kind_item_id_quantity",
        "labels_events",
        ["item_kind", "item_id", "quantity"],
    )
    op.create_table(
        "labels_forgotten",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("at", Instant(), nullable=False),
        sa.Column("n_items", sa.Integer(), nullable=False),
        sa.Column("n_events", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_labels_forgotten"),
    )
    op.create_table(
        "labels_tasks",
        sa.Column("item_kind", sa.Text(), nullable=False),
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("redundancy", sa.Integer(), nullable=False),
        sa.Column("is_gold", sa.Boolean(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("opened_at", Instant(), nullable=False),
        sa.ForeignKeyConstraint(
            ["item_kind", "item_id"],
            ["labels_items.item_kind", "labels_items.item_id"],
            name="fk_labels_tasks_item_kind_item_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("item_kind", "item_id", name="pk_labels_tasks"),
    )
    op.create_index("ix_labels_tasks_state_opened_at", "labels_tasks", ["state", "opened_at"])
    op.create_table(
        "labels_assignments",
        sa.Column("item_kind", sa.Text(), nullable=False),
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("annotator", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("given_at", Instant(), nullable=False),
        sa.Column("labelled_at", Instant(), nullable=True),
        sa.ForeignKeyConstraint(
            ["item_kind", "item_id"],
            ["labels_tasks.item_kind", "labels_tasks.item_id"],
            name="fk_labels_assignments_item_kind_item_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("item_kind", "item_id", "annotator", name="pk_labels_assignments"),
    )
    op.create_index("ix_labels_assignments_annotator", "labels_assignments", ["annotator"])
    for statement in {"sqlite": SQLITE, "postgresql": POSTGRESQL}[op.get_bind().dialect.name]:
        op.execute(sa.text(statement))
