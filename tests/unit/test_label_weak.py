"""Rules of thumb, and what they say together."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from databases import migrated

from spira_services.labels import store
from spira_services.labels.reliability import MISSING, Ratings
from spira_services.labels.weak import ABSTAIN, FUNCTIONS, Facts, label_model, renew, table, votes

DAY = datetime(2024, 3, 1, 12, tzinfo=UTC)
BY_NAME = {function.name: function for function in FUNCTIONS}


@pytest.mark.parametrize(
    ("name", "facts", "says"),
    [
        ("saturation", {"spo2": 88, "on_oxygen": False}, 1),
        ("saturation", {"spo2": 92, "on_oxygen": True}, 1),
        ("saturation", {"spo2": 98, "on_oxygen": False}, 0),
        ("saturation", {"spo2": 98, "on_oxygen": True}, ABSTAIN),
        ("saturation", {"spo2": 93, "on_oxygen": False}, ABSTAIN),
        ("saturation", {"spo2": 88}, MISSING),
        ("breathing", {"resp_rate": 32}, 1),
        ("breathing", {"resp_rate": 14}, 0),
        ("breathing", {"resp_rate": 24}, ABSTAIN),
        ("diagnosis", {"cid10": "j96.0"}, 1),
        ("diagnosis", {"cid10": "J45"}, ABSTAIN),
        ("place", {"unit": "ICU"}, 1),
        ("place", {"unit": "HOME"}, 0),
        ("place", {"unit": "WARD"}, ABSTAIN),
        ("pauses", {"pause_rate": 0.6}, 1),
        ("pauses", {"pause_rate": 0.1}, 0),
        ("model", {"model_probability": 0.95}, 1),
        ("model", {"model_probability": 0.5}, ABSTAIN),
        ("model", {"model_probability": None}, MISSING),
    ],
)
def test_what_a_function_says(name: str, facts: dict[str, Any], says: int) -> None:
    assert BY_NAME[name](facts) == says


def test_every_function_has_an_owner_and_a_reason() -> None:
    assert len(BY_NAME) == len(FUNCTIONS)
    assert all(one.owner and one.rationale and one.needs for one in FUNCTIONS)


def synthetic(seed: int) -> tuple[Ratings, Ratings]:
    """2,000 sessions: one good rule, four poor ones, and one that only ever says 1."""
    rng = np.random.default_rng(seed)
    truth = (rng.random(2_000) < 0.4).astype(int)
    said = np.full((len(truth), 6), ABSTAIN)
    for number, (accuracy, coverage) in enumerate([(0.95, 0.8)] + [(0.62, 0.7)] * 4):
        speaks, is_right = rng.random((2, len(truth))) < [[coverage], [accuracy]]
        said[speaks, number] = np.where(is_right, truth, 1 - truth)[speaks]
    said[(truth == 1) & (rng.random(len(truth)) < 0.5), 5] = 1
    said[(truth == 0) & (rng.random(len(truth)) < 0.05), 5] = 1
    said[rng.random(said.shape) < 0.1] = MISSING
    return truth, said


@pytest.mark.parametrize("seed", range(5))
def test_the_label_model_beats_a_majority_vote(seed: int) -> None:
    truth, said = synthetic(seed)
    model = label_model(said)
    balance = (said == 1).sum(axis=1) - (said == 0).sum(axis=1)
    by_votes = np.where(balance == 0, ABSTAIN, (balance > 0).astype(int))
    spoken = by_votes != ABSTAIN
    together = (model.probabilities >= 0.5).astype(int)
    assert model.found.converged
    assert (together[spoken] == truth[spoken]).mean() > (by_votes == truth)[spoken].mean() + 0.03
    sure = model.labels(0.9)
    assert (sure[sure != ABSTAIN] == truth[sure != ABSTAIN]).mean() > 0.93
    assert 0.4 < (sure != ABSTAIN).mean() < 1


def test_the_probabilities_mean_what_they_say() -> None:
    truth, said = synthetic(0)
    p = label_model(said).probabilities
    for low in (0.0, 0.2, 0.4, 0.6, 0.8):
        there = (p >= low) & (p <= low + 0.2)
        assert abs(p[there].mean() - truth[there].mean()) < 0.12


def test_what_only_ever_says_one_thing_tells_something() -> None:
    truth, said = synthetic(1)
    alone = said.copy()
    alone[:, 5] = MISSING
    with_it, without = ((label_model(s).probabilities >= 0.5) == truth for s in (said, alone))
    assert with_it.mean() > without.mean() + 0.02


def test_a_session_of_which_nothing_is_said_gets_no_label() -> None:
    _, said = synthetic(2)
    said[0], said[1] = ABSTAIN, MISSING
    assert label_model(said).labels(0.5)[:2].tolist() == [ABSTAIN, ABSTAIN]


def test_the_table_counts_coverage_conflicts_and_accuracy() -> None:
    functions = (BY_NAME["breathing"], BY_NAME["place"])
    rates, units = (32, 32, 14, 24, None), ("ICU", "HOME", "WARD", "HOME", "WARD")
    said = votes(
        functions, [{"resp_rate": r, "unit": u} for r, u in zip(rates, units, strict=True)]
    )
    assert said.T.tolist() == [[1, 1, 0, ABSTAIN, MISSING], [1, 0, ABSTAIN, 0, ABSTAIN]]
    gold = np.array([1, 1, 1, MISSING, 0])
    breathing, place = table(functions, said, label_model(said), gold)
    assert (breathing.coverage, breathing.overlaps, breathing.conflicts) == (0.6, 0.4, 0.2)
    assert breathing.n_gold == 3
    assert breathing.gold_accuracy == pytest.approx(2 / 3)
    assert (place.coverage, place.n_gold, place.gold_accuracy) == (0.6, 2, 0.5)


def test_the_functions_accuracies_are_found_without_labels() -> None:
    truth, said = synthetic(3)
    found = label_model(said).found.accuracies
    spoken = (said == 0) | (said == 1)
    real = [(said[s, n] == truth[s]).mean() for n, s in enumerate(spoken.T)]
    assert np.abs(found - real).max() < 0.06


def test_weak_labels_become_events_where_they_are_new(tmp_path: Path) -> None:
    ill: Facts = {"spo2": 85, "on_oxygen": True, "resp_rate": 34}
    well: Facts = {"resp_rate": 14, "unit": "HOME"}
    facts: dict[str, Facts] = {
        **dict.fromkeys("abcd", ill),
        **dict.fromkeys("efgh", well),
        "unknown": {},
    }
    sessions = {name: (DAY, one) for name, one in facts.items()}
    with migrated("", tmp_path) as engine, engine.begin() as connection:
        for name in sessions:
            store.register_item(connection, "session", name, f"person of {name}", DAY)
        first = renew(connection, sessions, {"a": 1})
        again = renew(connection, sessions, {"a": 1})
        assert (first.n_sessions, first.n_abstained, first.n_new, again.n_new) == (9, 1, 8, 0)
        assert (again.functions[0].coverage, again.functions[0].n_gold) == (4 / 9, 1)
        said = {event.item_id: event for event in store.labels_as_of(connection, datetime.now(UTC))}
        assert {name: event.label for name, event in said.items()} == {
            **dict.fromkeys("abcd", 1),
            **dict.fromkeys("efgh", 0),
        }
        assert said["a"].source == "weak"
        assert said["a"].value["functions"] == {"saturation 1": 1, "breathing 1": 1}

        sessions["a"] = (DAY, {})  # a correction takes away what was looked at
        corrected = renew(connection, sessions, {})
        assert corrected.n_new >= 1
        said = {event.item_id: event for event in store.labels_as_of(connection, datetime.now(UTC))}
        assert (said["a"].label, said["a"].value["functions"]) == (None, {})
        back = {**sessions, "a": (DAY, ill)}
        assert renew(connection, back, {}).n_new == corrected.n_new
