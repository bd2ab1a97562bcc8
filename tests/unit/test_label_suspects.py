"""Which labels look wrong."""

from __future__ import annotations

import numpy as np
import pytest

from spira_services.labels.suspects import by_model, by_signs
from spira_tasks.evaluation.labels import confident


@pytest.mark.parametrize(
    ("labels", "probabilities", "suspects"),
    [
        # Means of .625 and of .5375 = 1 - .4625: .1 is a sure control, .95 a sure patient, .6 none.
        ([1, 1, 1, 1, 0, 0, 0, 0], [0.9, 0.8, 0.7, 0.1, 0.2, 0.1, 0.6, 0.95], [3, 7]),
        # Sure enough for both classes, and more for the label that it has.
        ([1, 1, 0, 0], [0.4, 0.1, 0.2, 0.45], [1]),
        ([1, 1, 1], [0.1, 0.9, 0.2], []),  # one class: nothing to compare
    ],
)
def test_a_label_is_suspect_where_a_model_is_confident_of_the_other(
    labels: list[int], probabilities: list[float], suspects: list[int]
) -> None:
    found = confident(np.array(labels), np.array(probabilities))
    assert np.flatnonzero(found).tolist() == suspects


def test_most_flipped_labels_are_found_and_few_others() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 2, 1_000)
    probabilities = 1 / (1 + np.exp(-(2 * truth - 1) * rng.normal(2, 1, 1_000)))
    flipped = rng.random(1_000) < 0.1
    found = confident(np.where(flipped, 1 - truth, truth), probabilities)
    assert found[flipped].mean() > 0.65
    assert found[~flipped].mean() < 0.03
    held = {"a": 1, "b": 1, "c": 0, "d": 0, "unheard": 1}
    assert by_model(held, {"a": 0.9, "b": 0.05, "c": 0.1, "d": 0.2, "x": 1.0}) == {"b"}


def test_signs_speak_against_a_label_in_room_air_alone() -> None:
    facts = {
        "sick control": (0, {"spo2": 88, "on_oxygen": False}),
        "on oxygen": (0, {"spo2": 88, "on_oxygen": True}),
        "unknown oxygen": (0, {"spo2": 88}),
        "well patient": (1, {"spo2": 98, "on_oxygen": False, "resp_rate": 14}),
        "breathes fast": (1, {"spo2": 98, "on_oxygen": False, "resp_rate": 28}),
        "not measured": (1, {}),
    }
    held = {name: label for name, (label, _) in facts.items()}
    found = by_signs(held, {name: known for name, (_, known) in facts.items()})
    assert found == {"sick control", "well patient"}
    assert by_signs({}, {}) == set()
