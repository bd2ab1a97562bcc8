"""The label store forgets nothing but people, and answers about the past the same for ever."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from databases import migrated
from sqlalchemy import Engine, delete, func, select, text, update
from sqlalchemy.exc import DBAPIError

from spira_services import hospital_sync  # noqa: F401  # whose tables are declared by that
from spira_services.database import metadata
from spira_services.labels import store
from spira_services.labels.store import LabelEvent, canonical, events_as_of, forget, labels_as_of
from spira_services.serving import queue, router, tables  # noqa: F401  # so that they are declared

DAY = datetime(2024, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def engine(address: str, tmp_path: Path) -> Iterator[Engine]:
    with migrated(address, tmp_path) as engine:
        with engine.begin() as connection:
            for number in range(3):
                item = f"s{number}", f"p{number}"
                store.register_item(connection, "session", *item, DAY, registered_at=DAY)
        yield engine


def event(key: str, **fields: Any) -> LabelEvent:
    given = {"item_kind": "session", "item_id": "s0", "source": "clinician", "annotator": "ann"}
    times = {"valid_from": DAY, "recorded_at": DAY + HOUR}
    return LabelEvent(unique_key=key, **{"label": 1, **given, **times, **fields})


def record(engine: Engine, *events: LabelEvent) -> list[bool]:
    with engine.begin() as connection:
        return [store.record(connection, one) for one in events]


def asked(engine: Engine, at: datetime, valid_at: datetime | None = None) -> bytes:
    with engine.begin() as connection:
        return canonical(labels_as_of(connection, at, valid_at))


def test_an_event_is_recorded_once(engine: Engine) -> None:
    assert record(engine, event("one"), event("one", label=0)) == [True, False]
    assert record(engine, event("one")) == [False]
    assert asked(engine, DAY + 2 * HOUR).count(b"\n") == 1


def test_all_that_an_event_says_comes_back(engine: Engine) -> None:
    said = event(
        "full",
        label=None,
        quantity="spo2",
        value={"percent": 91, "on_oxygen": False, "notes": ["ç", 0.1]},
        instruction_version="2",
        confidence=0.75,
        valid_from=DAY.astimezone(timezone(timedelta(hours=-3))),
    )
    record(engine, said)
    with engine.begin() as connection:
        assert labels_as_of(connection, DAY + HOUR) == [said]


def test_a_correction_is_a_new_event_and_the_past_stays(engine: Engine) -> None:
    record(engine, event("first", label=1))
    before = asked(engine, DAY + 2 * HOUR)
    record(engine, event("second", label=0, recorded_at=DAY + 3 * HOUR))
    assert asked(engine, DAY + 2 * HOUR) == before
    with engine.begin() as connection:
        assert [one.label for one in labels_as_of(connection, DAY + 4 * HOUR)] == [0]
        assert [one.label for one in events_as_of(connection, DAY + 4 * HOUR)] == [1, 0]


def test_what_came_late_is_of_the_time_that_it_was_true(engine: Engine) -> None:
    """A saturation of the morning that arrives after the evening's does not replace it."""
    record(
        engine,
        event("evening", label=0, valid_from=DAY + 6 * HOUR, recorded_at=DAY + 7 * HOUR),
        event("morning", label=1, valid_from=DAY, recorded_at=DAY + 8 * HOUR),
    )
    with engine.begin() as connection:
        of_day = [labels_as_of(connection, DAY + 9 * HOUR, DAY + n * HOUR) for n in (-1, 1, 6)]
    assert [[one.label for one in labels] for labels in of_day] == [[], [1], [0]]


def test_voices_do_not_replace_one_another(engine: Engine) -> None:
    record(
        engine,
        event("a"),
        event("b", annotator="bob", label=0),
        event("c", source="hospital_record"),
        event("d", quantity="spo2", label=None, value=90),
        event("e", item_id="s1"),
    )
    assert asked(engine, DAY + 2 * HOUR).count(b"\n") == 5


def test_nothing_is_recorded_into_a_past_that_was_read(engine: Engine) -> None:
    """Whatever a caller's clock says: the hospital's hours, a server that lags, a late queue."""
    read = asked(engine, DAY + 5 * HOUR)
    record(engine, event("late", recorded_at=DAY + HOUR), event("later", annotator="bob"))
    assert asked(engine, DAY + 5 * HOUR) == read == b""
    assert asked(engine, DAY + 6 * HOUR).count(b"\n") == 2


def test_a_clock_that_is_ahead_does_not_date_events_into_the_future(engine: Engine) -> None:
    record(engine, event("ahead", recorded_at=datetime(2999, 1, 1, tzinfo=UTC)))
    with engine.begin() as connection:
        found = events_as_of(connection, datetime.now(UTC))
    assert found[0].recorded_at <= datetime.now(UTC)


def test_the_future_cannot_be_asked_for(engine: Engine) -> None:
    for at in (datetime(2999, 1, 1, tzinfo=UTC), datetime(2024, 1, 1)):  # noqa: DTZ001
        with engine.begin() as connection, pytest.raises(ValueError, match="past time"):
            events_as_of(connection, at)


def test_readers_and_writers_at_once_agree_on_every_past(engine: Engine) -> None:
    """A read while others write gives the same labels as a later read as of the same time."""
    answers: list[tuple[datetime, bytes]] = []

    def write(name: str) -> None:
        for number in range(12):
            with engine.begin() as connection:
                now = datetime.now(UTC)
                fields = {"annotator": f"{name}{number}", "recorded_at": now}
                store.record(connection, event(f"{name}{number}", **fields))

    def read() -> None:
        for _ in range(20):
            at = datetime.now(UTC)
            answers.append((at, asked(engine, at)))

    threads = [Thread(target=write, args=(name,)) for name in "abc"]
    threads += [Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 40
    assert [asked(engine, at) for at, _ in answers] == [answer for _, answer in answers]
    assert asked(engine, datetime.now(UTC)).count(b"\n") == 36


def test_the_database_lets_nobody_change_an_event(engine: Engine) -> None:
    record(engine, event("kept"))
    changes: list[Any] = [
        update(store.EVENTS).values(label=0),
        delete(store.EVENTS),
        delete(store.ITEMS).where(store.ITEMS.c.item_id == "s0"),
    ]
    if engine.dialect.name == "postgresql":
        changes.append(text("TRUNCATE labels_events"))
    for change in changes:
        with pytest.raises(DBAPIError), engine.begin() as connection:
            connection.execute(change)
    assert asked(engine, DAY + 2 * HOUR).count(b'"label":1') == 1


def test_a_forgotten_person_leaves_counts_and_cannot_come_back(engine: Engine) -> None:
    of_person = event("person", item_kind="subject", item_id="p0", source="hospital_record")
    record(engine, event("a"), event("b", label=0), of_person, event("other", item_id="s1"))
    with engine.begin() as connection:
        assert forget(connection, "p0") == 3
    with engine.begin() as connection:
        assert forget(connection, "p0") == 0
        left = connection.execute(select(store.FORGOTTEN)).mappings().all()
        assert [(row["n_items"], row["n_events"]) for row in left] == [(2, 3)]
        items = select(func.count()).select_from(store.ITEMS).where(store.ITEMS.c.subject == "p0")
        assert connection.execute(items).scalar() == 0
    assert asked(engine, DAY + 2 * HOUR) == canonical([replace_recorded(engine, "other")])
    with pytest.raises(store.UnknownItem):
        record(engine, event("again"))


def replace_recorded(engine: Engine, key: str) -> LabelEvent:
    """The event as it is kept: with the time that the store gave it."""
    at = select(store.EVENTS.c.recorded_at).where(store.EVENTS.c.unique_key == key)
    with engine.begin() as connection:
        return replace(event(key, item_id="s1"), recorded_at=connection.execute(at).scalar_one())


@pytest.mark.parametrize(
    "fields",
    [
        {"label": 2},
        {"confidence": 1.5},
        {"source": "rumour"},
        {"item_kind": "ward"},
        {"valid_from": datetime(2024, 1, 1)},  # noqa: DTZ001
        {"annotator": ""},
    ],
)
def test_an_event_without_sense_is_none(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        event("bad", **fields)


def test_many_events_at_once_are_recorded_as_one_by_one(engine: Engine) -> None:
    person = {"item_kind": "subject", "item_id": "p7", "source": "hospital_record"}
    events = [event(f"e{n}", **(person if n % 2 else {})) for n in range(6)]
    with engine.begin() as connection:
        assert store.record_all(connection, [*events, event("e0", label=0)]) == 6
        assert store.record_all(connection, [*events, event("e6")]) == 1
        kept = events_as_of(connection, datetime.now(UTC))
        with pytest.raises(store.UnknownItem):
            store.record_all(connection, [event("e7"), event("e8", item_id="nobody")])
    assert [one.unique_key for one in kept] == [f"e{n}" for n in range(7)]
    assert {one.label for one in kept} == {1}
    times = [one.recorded_at for one in kept]
    assert times == sorted(set(times))


def test_the_migrations_make_the_tables_that_are_declared(engine: Engine) -> None:
    assert {"collection_sessions", "hospitals_facts", "serving_outbox"} <= {*metadata.tables}
    with engine.connect() as connection:
        there = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(there, metadata) == []
