"""Who labels what next, and when an item is settled.

An item gets a number of labels by different clinicians, each blind to the others and to the model.
All say the same: it is settled.  Otherwise an adjudicator, who has not labelled it and is as blind,
says what holds; so too where a label looks wrong (``suspects``).  Some items whose answer is known
are given to everybody, unannounced.

What is here is the state of the work; what was said is an event of the store, and only that
counts as ground truth.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    Connection,
    ForeignKeyConstraint,
    Index,
    Integer,
    ScalarSelect,
    Table,
    Text,
    and_,
    delete,
    exists,
    func,
    or_,
    select,
    update,
)

from spira_services.database import Instant, insert_once, metadata, now
from spira_services.labels import store
from spira_services.labels.store import EVENTS, ITEMS, LABEL, ItemKind, LabelEvent
from spira_services.people import Person

Purpose = Literal["label", "adjudicate"]
State = Literal["open", "disputed", "settled"]
Reason = Literal["model", "signs"]  # why a settled item is looked at again; no person sees it

REDUNDANCY = 2  # labels by different people before an item can be settled
GOLD_EVERY = 10  # of the items that a person gets, one in so many has a known answer
HELD = timedelta(hours=24)  # after which an item that somebody has not labelled goes to others
REVIEW = "review"  # quantity of an event that asks for an adjudication
# What somebody has to be to write which kind of ground truth.
SOURCES: dict[Purpose, Literal["clinician", "adjudication"]] = {
    "label": "clinician",
    "adjudicate": "adjudication",
}
ROLES: dict[Purpose, str] = {"label": "clinician", "adjudicate": "adjudicator"}

TASKS = Table(
    "labels_tasks",
    metadata,
    Column("item_kind", Text, primary_key=True),
    Column("item_id", Text, primary_key=True),
    Column("redundancy", Integer, nullable=False),
    Column("is_gold", Boolean, nullable=False),
    Column("state", Text, nullable=False),  # follows from the events: ``state_of``
    Column("opened_at", Instant, nullable=False),
    ForeignKeyConstraint(
        ["item_kind", "item_id"],
        ["labels_items.item_kind", "labels_items.item_id"],
        ondelete="CASCADE",
    ),
    Index(None, "state", "opened_at"),
)
ASSIGNMENTS = Table(
    "labels_assignments",
    metadata,
    Column("item_kind", Text, primary_key=True),
    Column("item_id", Text, primary_key=True),
    Column("annotator", Text, primary_key=True),
    Column("purpose", Text, nullable=False),
    Column("given_at", Instant, nullable=False),
    Column("labelled_at", Instant),
    ForeignKeyConstraint(
        ["item_kind", "item_id"],
        ["labels_tasks.item_kind", "labels_tasks.item_id"],
        ondelete="CASCADE",
    ),
    Index(None, "annotator"),
)


class NotAllowed(Exception):
    """Somebody without the role, or to whom the item was not given."""


@dataclass(frozen=True)
class Assignment:
    """An item to label; whether its answer is known is not said."""

    item_kind: ItemKind
    item_id: str
    purpose: Purpose


@dataclass(frozen=True)
class Answer:
    """What a person says of an item; ``submission_id`` makes sending it twice the same as once."""

    item_kind: ItemKind
    item_id: str
    label: int | None
    confidence: float | None
    instruction_version: str
    submission_id: str


def state_of(
    labels: Iterable[int | None], redundancy: int = REDUNDANCY, *, is_adjudicated: bool = False
) -> State:
    """The state of an item, from the label that each clinician stands by.

    "Cannot tell" is no agreement, also where everybody says so: an adjudicator looks.
    """
    given = list(labels)
    if is_adjudicated:
        return "settled"
    if len(given) < redundancy:
        return "open"
    return "settled" if len(set(given)) == 1 and None not in given else "disputed"


def open_task(
    connection: Connection, item_kind: ItemKind, item_id: str, redundancy: int = REDUNDANCY
) -> bool:
    """Have an item of the store labelled; False where it is being, or was."""
    if redundancy < 1:
        raise ValueError("an item is labelled at least once")
    row = {"item_kind": item_kind, "item_id": item_id, "redundancy": redundancy, "is_gold": False}
    is_new = insert_once(connection, TASKS, {**row, "state": "open", "opened_at": now()})
    if is_new:
        _renew_state(connection, item_kind, item_id)  # it may have been labelled before it closed
    return is_new


def ask_again(
    connection: Connection, item_kind: ItemKind, item_id: str, reason: Reason, label: int
) -> bool:
    """Have a settled item adjudicated; False where it waits for people anyway, or was asked before.

    Asked once for a label, whatever the reason: who confirms it is not asked again.  The label
    holds until the adjudication.
    """
    settled = select(ITEMS.c.occurred_at).join(TASKS, _same(ITEMS, TASKS))
    settled = settled.where(*_is(ITEMS, item_kind, item_id), TASKS.c.state == "settled")
    occurred_at = connection.execute(settled).scalar()
    if occurred_at is None:
        return False
    is_new = store.record(
        connection,
        LabelEvent(
            item_kind=item_kind,
            item_id=item_id,
            label=None,
            source="weak",
            annotator="suspects 1",
            valid_from=occurred_at,
            recorded_at=now(),
            unique_key=f"review:{label}:{item_kind}:{item_id}",
            quantity=REVIEW,
            value={"reason": reason, "label": label},
        ),
    )
    if is_new:
        _renew_state(connection, item_kind, item_id)
    return is_new


def close_task(connection: Connection, item_kind: ItemKind, item_id: str) -> None:
    """Give an item to nobody any more; what was said of it stays."""
    connection.execute(delete(TASKS).where(*_is(TASKS, item_kind, item_id)))


def make_gold(connection: Connection, person: Person, item_kind: ItemKind, item_id: str) -> None:
    """Have everybody label an item from now on, to see how often they are right.

    Raises
    ------
    NotAllowed
        Unless an adjudicator asks, and an adjudicator has said what holds.
    """
    _need(person, "adjudicate")
    if not _said(connection, item_kind, item_id, "adjudication"):
        raise NotAllowed("an item without an adjudication has no known answer")
    changed = update(TASKS).where(*_is(TASKS, item_kind, item_id)).values(is_gold=True)
    connection.execute(changed)


def next_item(
    connection: Connection, person: Person, moment: datetime | None = None
) -> Assignment | None:
    """Give a person something to do; the same again until it is done.

    Never an item that the person has labelled, and to no more people at a time than it needs.
    """
    moment = moment or now()
    store.serialise(connection)  # two who ask at once are not both the last one needed
    mine = ASSIGNMENTS.c.annotator == person.person_id
    done = and_(mine, ASSIGNMENTS.c.labelled_at.isnot(None))
    to_do = (
        select(TASKS.c.item_kind, TASKS.c.item_id)
        .where(~exists().where(_same(ASSIGNMENTS, TASKS), done))
        .order_by(TASKS.c.opened_at, TASKS.c.item_kind, TASKS.c.item_id)
        .limit(1)
    )

    needs_label = _needs_label(mine, moment)
    needs_judge = and_(TASKS.c.state == "disputed", _n_others("adjudicate", mine, moment) == 0)
    n_done = select(func.count()).where(done, ASSIGNMENTS.c.purpose == "label")
    is_gold_due = connection.execute(n_done).scalar_one() % GOLD_EVERY == GOLD_EVERY - 1

    def begun(purpose: Purpose) -> ColumnElement[bool]:
        return exists().where(_same(ASSIGNMENTS, TASKS), mine, ASSIGNMENTS.c.purpose == purpose)

    wanted: list[tuple[Purpose, ColumnElement[bool]]] = [
        ("adjudicate", and_(needs_judge, begun("adjudicate"))),
        ("label", and_(or_(needs_label, TASKS.c.is_gold), begun("label"))),
        ("adjudicate", needs_judge),
        *([("label", TASKS.c.is_gold)] if is_gold_due else []),  # type: ignore[list-item]
        ("label", needs_label),
    ]
    for purpose, condition in wanted:
        if ROLES[purpose] in person.roles and (
            row := connection.execute(to_do.where(condition)).first()
        ):
            connection.execute(delete(ASSIGNMENTS).where(*_is(ASSIGNMENTS, *row), mine))
            given = {"item_kind": row.item_kind, "item_id": row.item_id, "purpose": purpose}
            fields = {"annotator": person.person_id, "given_at": moment}
            connection.execute(ASSIGNMENTS.insert().values(**given, **fields))
            return Assignment(**given)
    return None


def give(
    connection: Connection, person: Person, n: int, moment: datetime | None = None
) -> list[str]:
    """Give a clinician several sessions at once, to label in another tool.

    Returns
    -------
    list of str
        All sessions that wait for this person's label, at most ``n`` unless more were given before.

    Raises
    ------
    NotAllowed
        Without the role of a clinician.
    """
    _need(person, "label")
    moment = moment or now()
    store.serialise(connection)
    mine = ASSIGNMENTS.c.annotator == person.person_id
    is_mine = exists().where(_same(ASSIGNMENTS, TASKS), mine)
    to_do = and_(mine, ASSIGNMENTS.c.labelled_at.is_(None), ASSIGNMENTS.c.purpose == "label")
    waits = and_(TASKS.c.state == "open", exists().where(_same(ASSIGNMENTS, TASKS), to_do))
    sessions = select(TASKS.c.item_id).where(TASKS.c.item_kind == "session")
    sessions = sessions.order_by(TASKS.c.opened_at, TASKS.c.item_id)
    given = list(connection.execute(sessions.where(waits)).scalars())
    free = sessions.where(_needs_label(mine, moment), ~is_mine).limit(max(n - len(given), 0))
    new = list(connection.execute(free).scalars())
    for session_id in new:
        item = {"item_kind": "session", "item_id": session_id, "purpose": "label"}
        fields = {"annotator": person.person_id, "given_at": moment}
        connection.execute(ASSIGNMENTS.insert().values(**item, **fields))
    return given + new


def submit(
    connection: Connection, person: Person, answer: Answer, moment: datetime | None = None
) -> bool:
    """Record what a person says of an item that was given to them; False where it was sent before.

    A second answer is a correction.  It is not blind: an annotator who has answered may see the
    model's answer.

    Raises
    ------
    NotAllowed
        Without the role that this kind of ground truth needs, or when the item was not given.
    """
    moment = moment or now()
    store.serialise(connection)
    item = answer.item_kind, answer.item_id
    given = select(ASSIGNMENTS.c.purpose, ASSIGNMENTS.c.labelled_at, ITEMS.c.occurred_at)
    given = given.join(ITEMS, _same(ASSIGNMENTS, ITEMS)).where(
        *_is(ASSIGNMENTS, *item), ASSIGNMENTS.c.annotator == person.person_id
    )
    row = connection.execute(given).first()
    if row is None or ROLES[row.purpose] not in person.roles:
        raise NotAllowed("the item was not given to this person")
    is_new = store.record(
        connection,
        LabelEvent(
            item_kind=answer.item_kind,
            item_id=answer.item_id,
            label=answer.label,
            source=SOURCES[row.purpose],
            annotator=person.person_id,
            valid_from=row.occurred_at,  # it is about the person as recorded
            recorded_at=moment,
            unique_key=f"answer:{person.person_id}:{answer.submission_id}",
            value={"blind": row.labelled_at is None},
            instruction_version=answer.instruction_version,
            confidence=answer.confidence,
        ),
    )
    if is_new:
        mine = (*_is(ASSIGNMENTS, *item), ASSIGNMENTS.c.annotator == person.person_id)
        connection.execute(update(ASSIGNMENTS).where(*mine).values(labelled_at=moment))
        _renew_state(connection, *item)
    return is_new


def given_kind(connection: Connection, person: Person, item_id: str) -> ItemKind | None:
    """The kind of an item that a person was given, and so may hear; None where it was not given."""
    given = select(ASSIGNMENTS.c.item_kind).where(
        ASSIGNMENTS.c.item_id == item_id, ASSIGNMENTS.c.annotator == person.person_id
    )
    kind: ItemKind | None = connection.execute(given).scalar()
    return kind


def pre_labels(
    connection: Connection, person: Person, item_kind: ItemKind, item_id: str
) -> dict[str, float]:
    """What programs say of an item, by their names; nothing until the person has answered."""
    done = exists().where(
        *_is(ASSIGNMENTS, item_kind, item_id),
        ASSIGNMENTS.c.annotator == person.person_id,
        ASSIGNMENTS.c.labelled_at.isnot(None),
    )
    said = select(EVENTS.c.annotator, EVENTS.c.value).where(
        *_is(EVENTS, item_kind, item_id),
        EVENTS.c.quantity == LABEL,
        EVENTS.c.source == "weak",
        done,
    )
    rows = connection.execute(said.order_by(EVENTS.c.recorded_at))
    return {row.annotator: float(row.value["probability"]) for row in rows}


def backlog(connection: Connection) -> dict[str, int]:
    """How many items there are in each state."""
    counted = select(TASKS.c.state, func.count()).group_by(TASKS.c.state)
    found = {state: n for state, n in connection.execute(counted)}
    return {state: found.get(state, 0) for state in ("open", "disputed", "settled")}


def _n_others(purpose: Purpose, mine: ColumnElement[bool], moment: datetime) -> ScalarSelect[Any]:
    """How many others do an item, or did."""
    is_done = ASSIGNMENTS.c.labelled_at.isnot(None)
    is_held = or_(is_done, ASSIGNMENTS.c.given_at > moment - HELD)
    if purpose == "adjudicate":  # who judged before it was asked again holds nobody up
        is_held = and_(~is_done, is_held)
    others = and_(~mine, ASSIGNMENTS.c.purpose == purpose, is_held)
    counted = select(func.count()).where(_same(ASSIGNMENTS, TASKS), others)
    return counted.correlate(TASKS).scalar_subquery()


def _needs_label(mine: ColumnElement[bool], moment: datetime) -> ColumnElement[bool]:
    n_others = _n_others("label", mine, moment)
    return and_(TASKS.c.state == "open", n_others < TASKS.c.redundancy)


def _renew_state(connection: Connection, item_kind: ItemKind, item_id: str) -> None:
    redundancy = connection.execute(
        select(TASKS.c.redundancy).where(*_is(TASKS, item_kind, item_id))
    ).scalar_one()
    labels = _said(connection, item_kind, item_id, "clinician")
    asked, judged = (
        connection.execute(
            select(func.max(EVENTS.c.recorded_at)).where(*_is(EVENTS, item_kind, item_id), *which)
        ).scalar()
        for which in (
            [EVENTS.c.quantity == REVIEW],
            [EVENTS.c.quantity == LABEL, EVENTS.c.source == "adjudication"],
        )
    )
    is_asked = asked is not None and (judged is None or judged < asked)
    is_judged = judged is not None and not is_asked
    state = state_of(labels.values(), redundancy, is_adjudicated=is_judged)
    if is_asked and state == "settled":
        state = "disputed"
    connection.execute(update(TASKS).where(*_is(TASKS, item_kind, item_id)).values(state=state))


def _said(
    connection: Connection, item_kind: str, item_id: str, source: str
) -> dict[str, int | None]:
    """The label that each annotator stands by."""
    said = select(EVENTS.c.annotator, EVENTS.c.label).where(
        *_is(EVENTS, item_kind, item_id), EVENTS.c.quantity == LABEL, EVENTS.c.source == source
    )
    rows = connection.execute(said.order_by(EVENTS.c.recorded_at))
    return {row.annotator: row.label for row in rows}


def _is(table: Table, item_kind: str, item_id: str) -> tuple[ColumnElement[bool], ...]:
    return table.c.item_kind == item_kind, table.c.item_id == item_id


def _same(table: Table, other: Table) -> ColumnElement[bool]:
    return and_(table.c.item_kind == other.c.item_kind, table.c.item_id == other.c.item_id)


def _need(person: Person, purpose: Purpose) -> None:
    if ROLES[purpose] not in person.roles:
        raise NotAllowed(f"this takes the role {ROLES[purpose]}")
