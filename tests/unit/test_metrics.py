"""Metrics against scikit-learn, and intervals that know who spoke."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from sklearn import metrics as reference

from spira_tasks.speech import metrics

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 2, 60).astype(np.float64)
# rounded, so that there are ties
SCORES: npt.NDArray[np.float64] = np.clip(0.4 * LABELS + RNG.normal(0.3, 0.2, 60), 0, 1).round(2)
ONE = np.ones((1, 60))


def test_metrics_are_those_of_the_textbook() -> None:
    ours = {k: v[0] for k, v in metrics.measure(LABELS, SCORES, 0.5, ONE).items()}
    called = SCORES >= 0.5
    assert ours == pytest.approx(
        {
            "auc": reference.roc_auc_score(LABELS, SCORES),
            "accuracy": reference.accuracy_score(LABELS, called),
            "balanced_accuracy": reference.balanced_accuracy_score(LABELS, called),
            "f1": reference.f1_score(LABELS, called),
            "sensitivity": reference.recall_score(LABELS, called),
            "specificity": reference.recall_score(1 - LABELS, ~called),
        }
    )


def test_weights_are_a_resample() -> None:
    """Counting a recording twice is the same as having it twice."""
    weights = np.random.default_rng(1).integers(0, 4, 60).astype(np.float64)
    index = np.repeat(np.arange(60), weights.astype(int))
    weighted = metrics.measure(LABELS, SCORES, 0.5, weights[None, :])["auc"][0]
    assert weighted == pytest.approx(reference.roc_auc_score(LABELS[index], SCORES[index]))


def test_people_are_drawn_not_recordings() -> None:
    subjects = np.array(["a", "a", "b", "c", "c", "c"])
    weights = metrics.subject_resamples(subjects, 50, seed=3)
    assert (weights[0] == 1).all()
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 3] == weights[:, 5]).all()
    people = weights[:, [0, 2, 3]].sum(axis=1)
    assert (people == 3).all()


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """AUC of two normals one standard deviation apart is 0.76; 60 cohorts of 80."""
    covered = 0
    for seed in range(60):
        rng = np.random.default_rng([7, seed])
        labels = np.repeat([0.0, 1.0], 40)
        scores = rng.normal(labels, 1)
        weights = metrics.subject_resamples(np.arange(80).astype(str), 400, seed)
        interval = metrics.estimate(metrics.measure(labels, scores, 0.5, weights)["auc"])
        covered += interval.low <= 0.7602 <= interval.high
    assert 52 <= covered <= 60


def test_the_operating_point_separates_what_can_be_separated() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1.0])
    scores = np.array([0.1, 0.2, 0.3, 0.6, 0.7, 0.8])
    assert metrics.youden_threshold(labels, scores) == pytest.approx(0.45)
    assert metrics.sensitivity_threshold(labels, scores, 0.9) == 0.6
    assert metrics.sensitivity_threshold(labels, scores, 0.6) == 0.7


def test_a_perfectly_calibrated_model_has_a_calibration_error_of_its_n() -> None:
    rng = np.random.default_rng(4)
    errors = {}
    for n in (108, 1000):
        draws = []
        for _ in range(200):
            probabilities = rng.uniform(0, 1, n)
            labels = (rng.uniform(0, 1, n) < probabilities).astype(float)
            draws.append(metrics.expected_calibration_error(labels, probabilities))
        errors[n] = np.percentile(draws, 95)
    assert errors[108] == pytest.approx(0.122, abs=0.015)
    assert errors[1000] == pytest.approx(0.040, abs=0.006)


def test_eight_found_out_of_eight_is_no_proof_that_all_are_found() -> None:
    labels = np.repeat([1.0, 0.0], 8)
    scores = np.repeat([0.9, 0.1], 8)
    subjects = np.array([f"s{n}" for n in range(16)])
    weights = metrics.subject_resamples(subjects, 500, 0)
    samples = metrics.measure(labels, scores, 0.5, weights)
    assert metrics.estimate(samples["sensitivity"]).low == 1.0  # what the bootstrap alone says
    found = metrics.estimates(samples, 8, 8)
    assert found["sensitivity"].low == pytest.approx(0.676, abs=1e-3)
    assert found["specificity"].high == 1.0
    assert 0.67 < found["balanced_accuracy"].low < 0.80


def test_the_scores_near_the_operating_point_are_left_undecided_where_errors_concentrate() -> None:
    labels = np.array([0, 0, 0, 0, 0, 1, 0, 0, 1, 1.0])
    scores = np.array([0.05, 0.1, 0.2, 0.3, 0.46, 0.54, 0.56, 0.56, 0.9, 0.95])
    # the two errors, and the two scores that are nearer
    assert metrics.abstention_band(labels, scores, 0.5, 0.4) == (0.46, 0.56)
    # no more than that share; and of two equal scores both, or none
    assert metrics.abstention_band(labels, scores, 0.5, 0.3) is None


def test_nothing_is_left_undecided_where_the_errors_are_far_from_the_operating_point() -> None:
    labels = np.array([1, 0, 0, 1, 1, 0.0])
    scores = np.array([0.01, 0.4, 0.45, 0.55, 0.6, 0.99])
    assert metrics.abstention_band(labels, scores, 0.5, 0.9) is None
    assert metrics.abstention_band((scores >= 0.5).astype(float), scores, 0.5, 0.9) is None
