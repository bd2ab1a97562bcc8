"""What ward noise does to the answers, measured on scores whose fault is planted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from spira_tasks.artifacts import Store
from spira_tasks.evaluation import counterfactuals
from spira_tasks.speech import metrics
from spira_tasks.speech.audio import encode_wav
from spira_tasks.speech.classifier import Classifier, ClassifierSpec
from spira_tasks.stages.evaluate import Config, draws_of, score_swapped

N_DRAWS = 4


def logistic(margins: Any) -> Any:
    return 1 / (1 + np.exp(-margins))


def measured(n: int, shift: float, *, clean_of: float = 2.0, seed: int = 0) -> dict[str, Any]:
    """``n`` of each class; noise moves the log-odds of controls by ``shift``, and all at random."""
    rng = np.random.default_rng([5, seed])
    labels = np.repeat([0.0, 1.0], n)
    margins = rng.normal(clean_of * (2 * labels - 1), 1.0)
    noise = margins + shift * (labels == 0) + rng.normal(0, 0.2, (N_DRAWS, 2 * n))
    clean = logistic(margins)
    return counterfactuals.measure(
        labels,
        clean,
        counterfactuals.cells(labels, clean, logistic(noise), None),
        0.5,
        weights=metrics.subject_resamples(np.arange(2 * n).astype(str), 500, seed),
        n_people=(n, n),
    )


def test_a_cell_puts_noise_on_those_that_it_names() -> None:
    found = measured(40, shift=4.0)
    assert set(found["flips"]["noise_controls"]) == {"controls"}
    assert set(found["flips"]["noise_patients"]) == {"patients"}
    drops = found["drop_in_balanced_accuracy"]
    assert drops["noise_controls"]["value"] == pytest.approx(0.48, abs=0.03)
    assert abs(drops["noise_patients"]["value"]) < 0.03
    both = drops["noise_controls"]["value"] + drops["noise_patients"]["value"]
    assert drops["noise_all"]["value"] == pytest.approx(both)


def test_the_loss_is_that_of_the_metrics_of_all_draws() -> None:
    rng = np.random.default_rng(3)
    labels, clean = np.repeat([0.0, 1.0], 20), rng.uniform(0, 1, 40)
    noise, weights = rng.uniform(0, 1, (N_DRAWS, 40)), np.ones((3, 40))
    cells = counterfactuals.cells(labels, clean, noise, noise[::-1])
    found = counterfactuals.measure(labels, clean, cells, 0.5, weights=weights, n_people=(20, 20))
    before = metrics.measure(labels, clean, 0.5, weights)["balanced_accuracy"][0]
    for cell, draws in cells.items():
        each = [metrics.measure(labels, one, 0.5, weights) for one in draws]
        of_all = metrics.measure(labels, draws, 0.5, weights)
        for name in ("auc", "sensitivity", "specificity", "balanced_accuracy"):
            assert of_all[name][0] == pytest.approx(np.mean([one[name][0] for one in each]))
        drop = before - of_all["balanced_accuracy"][0]
        assert found["drop_in_balanced_accuracy"][cell]["value"] == pytest.approx(drop)


def test_a_shift_is_a_share_of_the_distance_between_the_classes() -> None:
    found = measured(100, shift=1.0)["shifts"]["noise_all"]
    assert found["controls"]["value"] == pytest.approx(0.25, abs=0.02)
    assert found["patients"]["low"] < 0 < found["patients"]["high"]


def test_scores_show_a_fault_that_answers_of_so_few_people_do_not() -> None:
    found = measured(30, shift=2.2, clean_of=3.0)
    assert found["shifts"]["noise_controls"]["controls"]["low"] > 0.3
    assert found["drop_in_balanced_accuracy"]["noise_controls"]["low"] < 0.05


def test_answers_of_few_people_that_all_stay_prove_little() -> None:
    for n, proves in ((10, False), (54, True)):
        found = measured(n, shift=0.0, clean_of=6.0)["drop_in_balanced_accuracy"]
        assert all(one["value"] == 0 for one in found.values())
        assert (max(one["high"] for one in found.values()) <= 0.05) is proves


def test_a_model_that_does_not_tell_the_classes_apart_has_no_distance_to_share() -> None:
    found = measured(30, shift=0.5, clean_of=-1.0)
    assert not found["shifts"]
    assert found["log_odds_shifts"]["noise_all"]["controls"]["value"] == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(("n_noises", "is_certain"), [(2, False), (60, True)])
def test_what_few_noises_do_says_little_of_others(n_noises: int, is_certain: bool) -> None:
    """Every other noise moves the controls; of two nobody knows whether half of all do.

    Rooms are the same.
    """
    rng = np.random.default_rng(4)
    labels = np.repeat([0.0, 1.0], 60)
    margins = rng.normal(4 * labels - 2, 1.0)
    noises = rng.integers(0, n_noises, (8, 120))
    noise = margins + np.where((noises % 2 == 1) & (labels == 0), 2.0, 0.0)
    clean = logistic(margins)
    measured = counterfactuals.measure(
        labels,
        clean,
        counterfactuals.cells(labels, clean, logistic(noise), logistic(noise)),
        0.5,
        weights=metrics.subject_resamples(np.arange(120).astype(str), 500, 0),
        n_people=(60, 60),
        noises=noises.astype(float),
        rooms=noises.astype(float),
    )
    for cell in ("noise_all", "noise_swapped"):
        shift = measured["shifts"][cell]["controls"]
        assert shift["value"] == pytest.approx(0.25, abs=0.04)
        assert (shift["high"] - shift["low"] < 0.2) is is_certain
        assert (shift["low"] > 0.1) is is_certain


def test_each_draw_names_its_room_and_one_room_of_a_class_is_too_few(tmp_path: Path) -> None:
    store, rng = Store(str(tmp_path)), np.random.default_rng(0)

    def recorded(name: str, labels: list[int]) -> pd.DataFrame:
        sounds = rng.integers(-900, 900, (len(labels), 16000)).astype(np.int16)
        return pd.DataFrame(
            {
                "record_id": [f"{name}{number}" for number in range(len(labels))],
                "label": labels,
                "split": "test",
                "waveform": [store.blobs.add(encode_wav(one)) for one in sounds],
            }
        )

    voices, tracks = recorded("voice", [0, 1]), recorded("room", [0, 0, 1, 1])
    store.blobs.flush()
    classifier = Classifier(ClassifierSpec(options={"n_hidden": 2})).eval()
    for some, is_scored in ((tracks, True), (tracks[1:], False)):
        columns = score_swapped(classifier, voices, some, Config(), store.blobs)
        table = pd.DataFrame(columns)
        scores, rooms = draws_of("swapped", table), draws_of("room", table)
        assert (scores is not None, rooms is not None) == (is_scored, is_scored)
        if rooms is not None:
            assert len(rooms) == 8
            assert set(rooms[:, 0]) == {0.0, 2.0}
            assert set(rooms[:, 1]) == {1.0, 3.0}
