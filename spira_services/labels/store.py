"""The label store: append-only, bitemporal events, and the items that they are about.

An event says when its fact was true (``valid_from``) and when the store learnt it
(``recorded_at``).  A correction is a new event.  The store's clock only goes forward, also past
every time that somebody asked about, so that no event is ever recorded into a past that was read:
the labels as of a time are the same bytes whenever they are asked for.  Only ``forget`` and
``forget_items`` delete.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args

from sqlalchemy import (
    CheckConstraint,
    Column,
    ColumnElement,
    Connection,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    Table,
    Text,
    delete,
    insert,
    select,
    tuple_,
    update,
)

from spira_services.database import Instant, Json, insert_once, metadata, now

ItemKind = Literal["session", "recording", "subject", "inference"]
Source = Literal["hospital_record", "clinician", "weak", "self_report", "adjudication"]

LABEL = "ri_clinical"  # respiratory insufficiency by the clinician, never merged with a saturation
TICK = timedelta(microseconds=1)
AT_ONCE = 5_000  # keys in one question: SQLite takes 32,766


@dataclass(frozen=True)
class LabelEvent:
    """What somebody or something says of an item."""

    item_kind: ItemKind
    item_id: str  # a pseudonym of the platform, never a number of a hospital
    label: int | None  # 1, 0; None: cannot tell, or the quantity is no label
    source: Source
    annotator: str  # a person's pseudonym, or the name and version of a program
    valid_from: datetime
    recorded_at: datetime  # when it was learnt; the store may put it later, never earlier
    unique_key: str
    quantity: str = LABEL
    value: Any = None  # whatever JSON belongs to it
    instruction_version: str = ""
    confidence: float | None = None  # in [0, 1]

    def __post_init__(self) -> None:
        if self.item_kind not in get_args(ItemKind) or self.source not in get_args(Source):
            raise ValueError("item_kind or source is none of the allowed values")
        if self.label not in {None, 0, 1}:
            raise ValueError("a label is 1, 0 or None")
        if self.confidence is not None and not 0 <= self.confidence <= 1:
            raise ValueError("a confidence is a probability")
        if self.valid_from.tzinfo is None or self.recorded_at.tzinfo is None:
            raise ValueError("a time has a zone")
        for name in ("item_id", "annotator", "unique_key", "quantity"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty")


class UnknownItem(LookupError):
    """An event about an item that was never registered, or whose person was forgotten."""


CLOCK = Table(
    "labels_clock",
    metadata,
    Column("number", Integer, primary_key=True),  # one row
    Column("at", Instant, nullable=False),  # no later event is recorded at or before
)
ITEMS = Table(
    "labels_items",
    metadata,
    Column("item_kind", Text, primary_key=True),
    Column("item_id", Text, primary_key=True),
    Column("subject", Text, nullable=False, index=True),
    Column("occurred_at", Instant, nullable=False),  # when the person was recorded
    Column("registered_at", Instant, nullable=False),  # by the store's clock
    Column("forgotten_at", Instant),  # set for as long as ``forget`` takes: lets events go
)
EVENTS = Table(
    "labels_events",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("unique_key", Text, nullable=False, unique=True),
    Column("item_kind", Text, nullable=False),
    Column("item_id", Text, nullable=False),
    Column("quantity", Text, nullable=False),
    Column("label", Integer),
    Column("value", Json),
    Column("source", Text, nullable=False),
    Column("annotator", Text, nullable=False),
    Column("instruction_version", Text, nullable=False),
    Column("confidence", Float),
    Column("valid_from", Instant, nullable=False),
    Column("recorded_at", Instant, nullable=False, index=True),
    ForeignKeyConstraint(
        ["item_kind", "item_id"], ["labels_items.item_kind", "labels_items.item_id"]
    ),
    CheckConstraint("label IN (0, 1)", name="label"),
    CheckConstraint("confidence BETWEEN 0 AND 1", name="confidence"),
    Index(None, "item_kind", "item_id", "quantity"),
)
FORGOTTEN = Table(
    "labels_forgotten",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("at", Instant, nullable=False),
    Column("n_items", Integer, nullable=False),
    Column("n_events", Integer, nullable=False),
)

FIELDS = tuple(LabelEvent.__dataclass_fields__)
# Of these several can be said at the same time; within one of them the newest holds.
VOICE = ("item_kind", "item_id", "quantity", "source", "annotator")


def register_item(
    connection: Connection,
    item_kind: ItemKind,
    item_id: str,
    subject: str,
    occurred_at: datetime,
    *,
    registered_at: datetime | None = None,
) -> bool:
    """Make an item known, so that it can be labelled, and forgotten; False where it is known.

    ``registered_at`` is now by default; as with events, the store may put it later.
    """
    if _is_known(connection, item_kind, item_id):
        return False
    row = {"item_kind": item_kind, "item_id": item_id, "subject": subject}
    times = {"occurred_at": occurred_at, "registered_at": _tick(connection, registered_at or now())}
    return insert_once(connection, ITEMS, {**row, **times})


def record(connection: Connection, event: LabelEvent) -> bool:
    """Append an event in the caller's transaction; False where its unique key is there already.

    Raises
    ------
    UnknownItem
        When the item is not registered.  An item of kind ``subject`` needs no registration: its id
        is the person's pseudonym.
    """
    return bool(record_all(connection, [event]))


def record_all(connection: Connection, events: Iterable[LabelEvent]) -> int:
    """As ``record``, in few statements however many events; return how many are new."""
    serialise(connection)  # nobody else adds a key between the question and the answer
    new: dict[str, LabelEvent] = {}
    for event in events:
        new.setdefault(event.unique_key, event)
    keys = [*new]
    for first in range(0, len(keys), AT_ONCE):
        asked = EVENTS.c.unique_key.in_(keys[first : first + AT_ONCE])
        for key in connection.execute(select(EVENTS.c.unique_key).where(asked)).scalars().all():
            del new[key]
    for item_kind, item_id in {(one.item_kind, one.item_id) for one in new.values()}:
        if item_kind != "subject" and not _is_known(connection, item_kind, item_id):
            raise UnknownItem(f"the store knows no such {item_kind}: register it first")
    people = {one.item_id: one for one in reversed(new.values()) if one.item_kind == "subject"}
    for person, one in people.items():
        times = {"registered_at": one.recorded_at}
        register_item(connection, "subject", person, person, one.valid_from, **times)
    at, rows = serialise(connection), []
    for one in new.values():
        at = _after(at, one.recorded_at)
        rows.append(asdict(replace(one, recorded_at=at)))
    if rows:
        connection.execute(insert(EVENTS), rows)
        _set_clock(connection, at)
    return len(rows)


def labels_as_of(
    connection: Connection, at: datetime, valid_at: datetime | None = None
) -> list[LabelEvent]:
    """What the store knew at a time: of each voice the newest label that was true by ``valid_at``.

    A voice is one source and annotator on one quantity of one item.  Newest is what became true
    last, and of the same fact what was recorded last.

    Parameters
    ----------
    at : datetime
        In the past: what is recorded later will not be part of the answer.
    valid_at : datetime, optional
        By default ``at``.

    Returns
    -------
    list of LabelEvent
        In an order of their own; ``canonical`` makes bytes of them.
    """
    events = events_as_of(connection, at)
    newest: dict[tuple[str, ...], LabelEvent] = {}
    for event in events:  # as recorded: a later one of the same fact corrects
        voice = tuple(getattr(event, name) for name in VOICE)
        if event.valid_from <= (valid_at or at) and (
            voice not in newest or newest[voice].valid_from <= event.valid_from
        ):
            newest[voice] = event
    return [newest[voice] for voice in sorted(newest)]


def events_as_of(
    connection: Connection, at: datetime, quantity: str | None = None
) -> list[LabelEvent]:
    """All events that were recorded by a time, corrected ones too, in the order of recording.

    Raises
    ------
    ValueError
        For a time to come, or without a zone.
    """
    if at.tzinfo is None or at > now():
        raise ValueError("labels can be asked for as of a past time with a zone")
    if connection.execute(select(CLOCK.c.at)).scalar_one() < at:
        # Waits for writers whose events are dated before; later ones are dated after.
        _set_clock(connection, max(serialise(connection), at))
    query = select(*(EVENTS.c[name] for name in FIELDS)).where(EVENTS.c.recorded_at <= at)
    if quantity is not None:
        query = query.where(EVENTS.c.quantity == quantity)
    rows = connection.execute(query.order_by(EVENTS.c.recorded_at)).mappings()
    return [LabelEvent(**row) for row in rows]


def canonical(events: Iterable[LabelEvent]) -> bytes:
    """Events as JSON, a line each: the same events are the same bytes."""
    return b"".join(
        json.dumps(
            asdict(event), sort_keys=True, separators=(",", ":"), default=_written, allow_nan=False
        ).encode()
        + b"\n"
        for event in events
    )


def forget(connection: Connection, subject: str) -> int:
    """Delete all that is said of a person, and leave the counts; return how many events went."""
    return _forget(connection, ITEMS.c.subject == subject)


def forget_items(connection: Connection, item_kind: ItemKind, item_ids: Collection[str]) -> int:
    """Delete items with all that is said of them, as ``forget`` does; at most AT_ONCE."""
    return _forget(connection, ITEMS.c.item_kind == item_kind, ITEMS.c.item_id.in_(item_ids))


def _forget(connection: Connection, *which: ColumnElement[bool]) -> int:
    theirs = connection.execute(
        update(ITEMS)
        .where(*which)
        .values(forgotten_at=now())
        .returning(ITEMS.c.item_kind, ITEMS.c.item_id)
    ).all()
    if not theirs:
        return 0
    of_them = tuple_(EVENTS.c.item_kind, EVENTS.c.item_id).in_([tuple(row) for row in theirs])
    n_events = connection.execute(delete(EVENTS).where(of_them)).rowcount
    # Who was to label them goes along, by the tables' own rule.
    connection.execute(delete(ITEMS).where(*which))
    counts = {"n_items": len(theirs), "n_events": n_events}
    connection.execute(insert(FORGOTTEN).values(at=now(), **counts))
    return n_events


def serialise(connection: Connection) -> datetime:
    """Let nobody else write labels until the transaction ends; the store's clock."""
    at: datetime = connection.execute(select(CLOCK.c.at).with_for_update()).scalar_one()
    return at


def _is_known(connection: Connection, item_kind: str, item_id: str) -> bool:
    known = select(ITEMS.c.item_id).where(
        ITEMS.c.item_kind == item_kind, ITEMS.c.item_id == item_id
    )
    return connection.execute(known).first() is not None


def _tick(connection: Connection, wanted: datetime) -> datetime:
    """The store's time of something that was learnt at ``wanted``, by another clock."""
    at = _after(serialise(connection), wanted)
    _set_clock(connection, at)
    return at


def _after(clock: datetime, wanted: datetime) -> datetime:
    # A clock that is ahead must not drag the store's into the future.
    return max(min(wanted.astimezone(UTC), now()), clock + TICK)


def _set_clock(connection: Connection, at: datetime) -> None:
    connection.execute(update(CLOCK).values(at=at))


def _written(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    raise TypeError(f"{type(value).__name__} is no part of an event")
