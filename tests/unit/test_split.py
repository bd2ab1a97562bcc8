"""A subject's side is its own affair."""

from __future__ import annotations

from collections import Counter

import pytest
from pydantic import ValidationError

from spira_tasks.stages.split import Config, side

PEOPLE = [f"{number:064x}" for number in range(2000)]


def test_adding_people_moves_nobody() -> None:
    before = {person: side(person, Config()) for person in PEOPLE[:100]}
    after = {person: side(person, Config()) for person in reversed(PEOPLE)}
    assert {person: after[person] for person in before} == before


def test_the_bands_hold_the_shares_that_were_asked_for() -> None:
    counts = Counter(side(person, Config()) for person in PEOPLE)
    assert 0.17 < counts["test"] / 2000 < 0.23
    assert 0.17 < counts["validation"] / 2000 < 0.23
    assert set(counts) == {"train", "validation", "test"}


def test_more_validation_never_touches_the_test_subjects() -> None:
    wider = Config(validation_fraction=0.4)
    tested = {person for person in PEOPLE if side(person, Config()) == "test"}
    assert tested == {person for person in PEOPLE if side(person, wider) == "test"}


def test_another_salt_is_another_division() -> None:
    other = Config(salt="spira-split-2")
    assert any(side(person, Config()) != side(person, other) for person in PEOPLE[:50])


def test_something_must_be_left_to_train_on() -> None:
    with pytest.raises(ValidationError, match="nothing to train on"):
        Config(validation_fraction=0.5, test_fraction=0.5)
