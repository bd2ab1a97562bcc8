"""Who gets what to label, who may say what holds, and what nobody sees before answering."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from databases import migrated
from sqlalchemy import Connection

from spira_services.labels import store
from spira_services.labels.assignment import (
    GOLD_EVERY,
    HELD,
    Answer,
    Assignment,
    NotAllowed,
    ask_again,
    backlog,
    give,
    make_gold,
    next_item,
    open_task,
    pre_labels,
    state_of,
    submit,
)
from spira_services.labels.store import LabelEvent, events_as_of
from spira_services.people import Person

DAY = datetime(2024, 3, 1, 12, tzinfo=UTC)
ANA, BIA, CAIO = (Person(name, frozenset({"clinician"})) for name in ("ana", "bia", "caio"))
JUDGE = Person("judge", frozenset({"adjudicator"}))
BOTH = Person("both", frozenset({"clinician", "adjudicator"}))
NUMBERS = count()


@pytest.fixture
def connection(address: str, tmp_path: Path) -> Iterator[Connection]:
    with migrated(address, tmp_path) as engine, engine.begin() as connection:
        yield connection


def opened(connection: Connection, *sessions: str, redundancy: int = 2) -> None:
    for session in sessions:
        store.register_item(connection, "session", session, f"person of {session}", DAY)
        assert open_task(connection, "session", session, redundancy)


def given(connection: Connection, person: Person, moment: datetime = DAY) -> str | None:
    found = next_item(connection, person, moment)
    return found.item_id if found else None


def answer(session: str, label: int | None, **fields: Any) -> Answer:
    others = {"confidence": 0.9, "instruction_version": "1", "submission_id": str(next(NUMBERS))}
    return Answer("session", session, label, **{**others, **fields})


def says(connection: Connection, person: Person, label: int | None) -> str:
    """Take the next item and label it."""
    session = given(connection, person)
    assert session is not None
    assert submit(connection, person, answer(session, label), DAY)
    return session


@pytest.mark.parametrize(
    ("labels", "redundancy", "state"),
    [
        ([], 2, "open"),
        ([1], 2, "open"),
        ([1, 1], 2, "settled"),
        ([1, 0], 2, "disputed"),
        ([1, 1, 0], 2, "disputed"),
        ([1, 1], 3, "open"),
        ([0, 0, 0], 3, "settled"),
        ([None, None], 2, "disputed"),
        ([1, None], 2, "disputed"),
        ([1], 1, "settled"),
    ],
)
def test_the_state_of_an_item(labels: list[int | None], redundancy: int, state: str) -> None:
    assert state_of(labels, redundancy) == state
    assert state_of(labels, redundancy, is_adjudicated=True) == "settled"


def test_two_who_agree_settle_an_item(connection: Connection) -> None:
    opened(connection, "s")
    assert [says(connection, person, 1) for person in (ANA, BIA)] == ["s", "s"]
    assert backlog(connection) == {"open": 0, "disputed": 0, "settled": 1}
    assert given(connection, CAIO) is given(connection, JUDGE) is None


def test_two_who_disagree_call_an_adjudicator(connection: Connection) -> None:
    opened(connection, "s")
    says(connection, ANA, 1)
    assert given(connection, JUDGE) is None
    says(connection, BIA, 0)
    assert given(connection, CAIO) is None
    assert next_item(connection, JUDGE, DAY) == Assignment("session", "s", "adjudicate")
    says(connection, JUDGE, 0)
    assert backlog(connection)["settled"] == 1
    events = events_as_of(connection, datetime.now(UTC))
    assert [(e.source, e.annotator, e.label) for e in events] == [
        ("clinician", "ana", 1),
        ("clinician", "bia", 0),
        ("adjudication", "judge", 0),
    ]


def test_one_dissent_of_three_calls_an_adjudicator(connection: Connection) -> None:
    opened(connection, "s", redundancy=3)
    for person, label in ((ANA, 1), (BIA, 1), (CAIO, 0)):
        says(connection, person, label)
    assert given(connection, JUDGE) == "s"


def test_nobody_gets_an_item_twice(connection: Connection) -> None:
    opened(connection, "s", "t")
    assert says(connection, BOTH, 1) != says(connection, BOTH, 1)
    assert given(connection, BOTH) is None
    says(connection, ANA, 0)
    assert given(connection, BOTH) is None  # disputed by now, but the adjudicator has labelled it
    assert given(connection, JUDGE) == "s"


def test_an_item_is_given_to_no_more_people_than_it_needs(connection: Connection) -> None:
    opened(connection, "s", "t")
    assert [given(connection, person) for person in (ANA, BIA, CAIO)] == ["s", "s", "t"]


def test_what_was_begun_is_given_again(connection: Connection) -> None:
    opened(connection, "s", "t")
    assert given(connection, ANA) == given(connection, ANA) == "s"


def test_what_somebody_left_lying_goes_to_others(connection: Connection) -> None:
    opened(connection, "s", redundancy=1)
    assert given(connection, ANA) == "s"
    assert given(connection, BIA) is None
    assert given(connection, BIA, DAY + HELD + timedelta(seconds=1)) == "s"


def test_a_late_label_after_all_can_dissent(connection: Connection) -> None:
    opened(connection, "s", redundancy=1)
    given(connection, ANA)
    later = DAY + HELD + timedelta(seconds=1)
    given(connection, BIA, later)
    assert submit(connection, BIA, answer("s", 1), later)
    assert backlog(connection)["settled"] == 1
    assert submit(connection, ANA, answer("s", 0), later)
    assert backlog(connection)["disputed"] == 1


@pytest.mark.parametrize("role", ["collector", "data_manager", "governance"])
def test_ground_truth_takes_a_role(connection: Connection, role: str) -> None:
    opened(connection, "s")
    other = Person("other", frozenset({role}))
    assert given(connection, other) is None
    with pytest.raises(NotAllowed):
        submit(connection, other, answer("s", 1), DAY)
    given(connection, ANA)
    with pytest.raises(NotAllowed):  # the role was taken away meanwhile
        submit(connection, Person("ana", frozenset({role})), answer("s", 1), DAY)
    assert events_as_of(connection, datetime.now(UTC)) == []


def test_a_clinician_does_not_adjudicate(connection: Connection) -> None:
    opened(connection, "s")
    says(connection, ANA, 1)
    says(connection, BIA, 0)
    with pytest.raises(NotAllowed):
        submit(connection, CAIO, answer("s", 0), DAY)
    with pytest.raises(NotAllowed):
        make_gold(connection, CAIO, "session", "s")


def test_only_what_was_given_can_be_labelled(connection: Connection) -> None:
    opened(connection, "s", "t")
    given(connection, ANA)
    for session in ("t", "nowhere"):
        with pytest.raises(NotAllowed):
            submit(connection, ANA, answer(session, 1), DAY)


def test_sending_an_answer_twice_is_sending_it_once(connection: Connection) -> None:
    opened(connection, "s")
    given(connection, ANA)
    same = answer("s", 1)
    assert [submit(connection, ANA, same, DAY) for _ in range(2)] == [True, False]
    assert len(events_as_of(connection, datetime.now(UTC))) == 1


def test_a_correction_counts_and_is_known_not_to_be_blind(connection: Connection) -> None:
    opened(connection, "s")
    says(connection, ANA, 1)
    says(connection, BIA, 0)
    submit(connection, BIA, answer("s", 1), DAY)
    assert backlog(connection)["settled"] == 1
    events = events_as_of(connection, datetime.now(UTC))
    assert [e.value["blind"] for e in events] == [True, True, False]


def test_what_programs_say_is_hidden_until_the_first_answer(connection: Connection) -> None:
    opened(connection, "s")
    said = {"source": "weak", "annotator": "model 3", "value": {"probability": 0.8}}
    times = {"valid_from": DAY, "recorded_at": DAY, "unique_key": "weak"}
    store.record(connection, LabelEvent("session", "s", 1, **said, **times))  # type: ignore[arg-type]
    given(connection, ANA)
    assert pre_labels(connection, ANA, "session", "s") == {}
    submit(connection, ANA, answer("s", 0), DAY)
    assert pre_labels(connection, ANA, "session", "s") == {"model 3": 0.8}
    given(connection, BIA)
    assert pre_labels(connection, BIA, "session", "s") == {}


def test_gold_items_come_among_the_others(connection: Connection) -> None:
    opened(connection, "gold", redundancy=2)
    says(connection, ANA, 1)
    says(connection, BIA, 0)
    with pytest.raises(NotAllowed):  # nobody knows the answer yet
        make_gold(connection, JUDGE, "session", "gold")
    says(connection, JUDGE, 1)
    make_gold(connection, JUDGE, "session", "gold")
    opened(connection, *(f"s{number:02}" for number in range(30)))
    got = [says(connection, CAIO, 1) for _ in range(2 * GOLD_EVERY)]
    assert got.index("gold") == GOLD_EVERY - 1
    assert got.count("gold") == 1
    assert backlog(connection)["disputed"] == 0  # one more label of a known answer changes nothing


def test_a_forgotten_person_is_no_task_any_more(connection: Connection) -> None:
    opened(connection, "s", "t")
    given(connection, ANA)
    store.forget(connection, "person of s")
    assert given(connection, ANA) == "t"
    with pytest.raises(NotAllowed):
        submit(connection, ANA, answer("s", 1), DAY)


def test_a_settled_item_that_looks_wrong_is_adjudicated_once_and_nobody_is_told_why(
    connection: Connection,
) -> None:
    opened(connection, "s", "waits")
    says(connection, ANA, 0)
    says(connection, BIA, 0)
    assert not ask_again(connection, "session", "waits", "model", 0)  # people will see it anyway
    assert given(connection, JUDGE) is None
    assert [ask_again(connection, "session", "s", "model", 0) for _ in "12"] == [True, False]
    found = next_item(connection, JUDGE, DAY)
    assert found == Assignment("session", "s", "adjudicate")  # as any other
    assert pre_labels(connection, JUDGE, "session", "s") == {}
    assert submit(connection, JUDGE, answer("s", 0), datetime.now(UTC))
    assert pre_labels(connection, JUDGE, "session", "s") == {}
    assert backlog(connection)["settled"] == 1
    assert not ask_again(connection, "session", "s", "signs", 0)  # it was confirmed
    assert submit(connection, JUDGE, answer("s", 1), datetime.now(UTC))
    assert ask_again(connection, "session", "s", "signs", 1)
    assert given(connection, JUDGE) is None  # somebody else judges again
    assert given(connection, Person("other", JUDGE.roles)) == "s"


def test_several_sessions_are_given_at_once_and_to_no_more_people_than_needed(
    connection: Connection,
) -> None:
    opened(connection, "a", "b", "c", redundancy=2)
    assert give(connection, ANA, 2, DAY) == ["a", "b"]
    assert give(connection, ANA, 2, DAY) == ["a", "b"]  # they wait
    assert submit(connection, ANA, answer("a", 1), DAY)
    assert give(connection, ANA, 2, DAY) == ["b", "c"]  # not what she has labelled
    assert give(connection, BIA, 9, DAY) == ["a", "b", "c"]
    assert give(connection, CAIO, 9, DAY) == []  # two have each of them
    assert give(connection, CAIO, 9, DAY + 2 * HELD) == ["a", "b", "c"]
    assert submit(connection, BIA, answer("a", 1), DAY)
    assert give(connection, CAIO, 9, DAY + 2 * HELD) == ["b", "c"]  # a is settled
    with pytest.raises(NotAllowed):
        give(connection, JUDGE, 1)
