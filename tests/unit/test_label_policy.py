"""Which label holds for a session, why, and how far those agree who gave it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from math import isnan
from pathlib import Path
from typing import Any

import pytest
from databases import migrated
from sqlalchemy import Connection

from spira_services.labels import store
from spira_services.labels.agreement import report
from spira_services.labels.policy import POLICY, LabelPolicy, Settled, settled
from spira_services.labels.store import LabelEvent, events_as_of

DAY = datetime(2024, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
NUMBERS = count()


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    with migrated("", tmp_path) as engine, engine.begin() as connection:
        for name in "abcdef":
            store.register_item(connection, "session", name, f"p{name}", DAY, registered_at=DAY)
        yield connection


def says(connection: Connection, session: str, label: int | None, **fields: Any) -> None:
    who = {"item_kind": "session", "source": "clinician", "annotator": "ana", "confidence": 0.8}
    when = {"valid_from": DAY, "recorded_at": DAY + HOUR, "instruction_version": "1"}
    key = {"item_id": session, "label": label, "unique_key": str(next(NUMBERS))}
    assert store.record(connection, LabelEvent(**{**who, **when, **key, **fields}))


def both_say(connection: Connection, session: str, label: int, other: int | None = None) -> None:
    says(connection, session, label)
    says(connection, session, label if other is None else other, annotator="bia")


def held(connection: Connection, policy: LabelPolicy = POLICY) -> dict[str, Settled]:
    return {row.session_id: row for row in settled(connection, datetime.now(UTC), policy)}


def test_two_clinicians_who_agree_settle_a_session(connection: Connection) -> None:
    for session, label in zip("abcd", (1, 0, 1, 0), strict=True):
        both_say(connection, session, label)
    both_say(connection, "e", 1, 0)
    says(connection, "f", 1)
    found = held(connection)
    assert {name: row.ri_clinical for name, row in found.items()} == dict(
        zip("abcd", (1, 0, 1, 0), strict=True)
    )
    row = found["a"]
    assert (row.label_source, row.label_version) == ("clinician", POLICY.version)
    assert row.label_confidence is not None
    assert 0.5 < row.label_confidence <= 1
    assert row.reason == {
        "by": "agreement",
        "annotators": ["ana", "bia"],
        "instructions": ["1"],
        "kappa": 0.615,  # 4 of 5 agree, 0.48 by chance
        "contradicted_by": [],
    }


def test_a_dispute_holds_nothing_until_it_is_adjudicated(connection: Connection) -> None:
    both_say(connection, "a", 1, 0)
    says(connection, "a", 1, source="hospital_record", annotator="fhir")
    assert held(connection) == {}
    says(connection, "a", 0, source="adjudication", annotator="judge")
    row = held(connection)["a"]
    assert (row.ri_clinical, row.label_source, row.label_confidence) == (0, "clinician", 0.8)
    assert row.reason["by"] == "adjudication"
    assert row.reason["contradicted_by"] == ["clinician", "hospital_record"]


def test_an_adjudicator_who_cannot_tell_leaves_the_session_without_a_label(
    connection: Connection,
) -> None:
    both_say(connection, "a", 1)
    says(connection, "a", None, source="adjudication", annotator="judge")
    assert held(connection) == {}


def test_people_come_before_the_hospitals_record(connection: Connection) -> None:
    says(connection, "a", 0, source="hospital_record", annotator="fhir", confidence=None)
    row = held(connection)["a"]
    assert (row.ri_clinical, row.label_source, row.label_confidence) == (0, "hospital_record", None)
    both_say(connection, "a", 1)
    row = held(connection)["a"]
    assert (row.ri_clinical, row.label_source) == (1, "clinician")
    assert row.reason["contradicted_by"] == ["hospital_record"]


def test_records_that_contradict_one_another_hold_nothing(connection: Connection) -> None:
    for annotator, label in (("fhir", 0), ("csv", 1)):
        says(connection, "a", label, source="hospital_record", annotator=annotator)
    assert held(connection) == {}


@pytest.mark.parametrize(("hours", "holds"), [(-40, True), (40, True), (-60, False), (60, False)])
def test_a_record_of_the_person_holds_near_the_recording(
    connection: Connection, hours: float, *, holds: bool
) -> None:
    record = {"source": "hospital_record", "item_kind": "subject", "annotator": "fhir"}
    says(connection, "pa", 1, **record, valid_from=DAY + hours * HOUR)
    says(connection, "pa", 0, **record, valid_from=DAY + 3 * hours * HOUR)
    found = held(connection)
    assert {name: row.ri_clinical for name, row in found.items()} == ({"a": 1} if holds else {})


def test_a_weak_label_holds_only_where_the_policy_says_from_which_probability(
    connection: Connection,
) -> None:
    for session, confidence in (("a", 0.95), ("b", 0.7)):
        says(connection, session, 1, source="weak", annotator="em 1", confidence=confidence)
    assert held(connection) == {}
    found = held(connection, replace(POLICY, version=2, weak_from=0.9))
    assert [(r.session_id, r.label_source, r.label_version) for r in found.values()] == [
        ("a", "weak", 2)
    ]


def test_labels_as_of_a_past_time_stay_what_they_were(connection: Connection) -> None:
    both_say(connection, "a", 1)
    says(connection, "pb", 1, item_kind="subject", source="hospital_record")
    then = DAY + 2 * HOUR
    before = [asdict(row) for row in settled(connection, then)]
    both_say(connection, "b", 0, 1)
    says(connection, "a", 0, source="adjudication", annotator="judge")
    store.register_item(connection, "session", "late", "pb", DAY)
    assert [asdict(row) for row in settled(connection, then)] == before
    assert [row["session_id"] for row in before] == ["a", "b"]
    assert held(connection)["a"].ri_clinical == 0


def test_the_report_counts_first_answers_and_compares_with_known_ones(
    connection: Connection,
) -> None:
    for session, label in zip("abcd", (1, 0, 1, 0), strict=True):
        both_say(connection, session, label)
    both_say(connection, "e", 1, 0)
    says(connection, "e", 0)  # a correction, made after seeing what a program says
    says(connection, "e", 0, source="adjudication", annotator="judge")
    says(connection, "f", None)
    found = report(events_as_of(connection, datetime.now(UTC)))
    assert (found.overall.n_items, found.overall.disagreement) == (5, 0.2)
    assert [(pair.n_items, round(pair.kappa, 3)) for pair in found.pairs] == [(5, 0.615)]
    ana, bia = found.annotators
    assert (ana.n_items, ana.n_gold, ana.gold_accuracy, bia.gold_accuracy) == (5, 1, 0, 1)
    assert [item for item, *_ in found.hardest] == [("session", "e")]
    assert set(found.by_instruction) == {"1"}


def test_the_report_of_nothing_is_empty() -> None:
    found = report([])
    assert (found.overall.n_items, found.pairs, found.annotators) == (0, (), ())
    assert isnan(found.overall.alpha)
