"""What probabilities mean: measured, mended on other people where that helps, and weighed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from spira_tasks.evaluation import calibration
from spira_tasks.speech import metrics
from spira_tasks.speech.classifier import Classifier, ClassifierSpec


def people(n: int, sureness: float, seed: int = 0) -> tuple[Any, Any, Any]:
    """Labels, log-odds that are ``sureness`` times the right ones, and names."""
    rng = np.random.default_rng([9, seed])
    right = rng.normal(0, 2, n)
    labels = (rng.uniform(0, 1, n) < 1 / (1 + np.exp(-right))).astype(float)
    return labels, sureness * right, np.arange(n).astype(str)


def measured(n: int, sureness: float) -> dict[str, Any]:
    labels, log_odds, names = people(n, sureness)
    weights = metrics.subject_resamples(names, 300, 0)
    return calibration.measure(labels, 1 / (1 + np.exp(-log_odds)), names, weights)


def test_the_slope_is_that_of_a_logistic_regression() -> None:
    labels, log_odds, _ = people(400, 3.0)
    reference = LogisticRegression(C=1e9).fit(log_odds[:, None], labels)
    intercept, slope = calibration.logistic(log_odds, labels, np.ones((1, 400)))
    assert slope[0] == pytest.approx(reference.coef_[0, 0], rel=0.01)
    assert intercept[0] == pytest.approx(reference.intercept_[0], abs=0.02)


@pytest.mark.parametrize("sureness", [0.5, 1.0, 3.0])
def test_a_model_that_is_too_sure_has_a_slope_below_one(sureness: float) -> None:
    found = measured(600, sureness)
    assert found["slope"]["low"] < 1 / sureness < found["slope"]["high"]
    assert found["slope"]["high"] - found["slope"]["low"] < 0.4 / sureness
    assert sum(group["n"] for group in found["reliability"]) == 600


def test_classes_that_are_told_apart_leave_the_slope_finite() -> None:
    labels = np.repeat([0.0, 1.0], 20)
    weights = metrics.subject_resamples(np.arange(40).astype(str), 200, 0)
    found = calibration.measure(labels, 0.05 + 0.9 * labels, np.arange(40).astype(str), weights)
    assert 1 < found["slope"]["high"] < 50


def recalibrated(n: int, sureness: float) -> dict[str, Any]:
    labels, log_odds, names = people(n, sureness)
    windows = [np.array([one, one]) for one in log_odds]
    weights = metrics.subject_resamples(names, 300, 0)
    return calibration.recalibrate(windows, labels, names, weights)


def test_probabilities_are_recalibrated_only_where_unseen_people_gain_by_it() -> None:
    too_sure, right = recalibrated(200, 4.0), recalibrated(200, 1.0)
    assert too_sure["applied"]
    assert too_sure["scale"] == pytest.approx(0.25, abs=0.08)
    assert not right["applied"]


def test_a_recalibrated_classifier_keeps_its_order_and_is_read_back() -> None:
    spec = ClassifierSpec(options={"n_hidden": 2})
    plain = Classifier(spec)
    other = plain.recalibrated(-0.5, 0.25)
    features = torch.randn(3, spec.features.n_frames, spec.features.n_bins)
    logits = plain.window_logits(features)
    assert torch.equal(plain.window_scores(features), torch.sigmoid(logits))
    assert torch.allclose(other.window_scores(features), torch.sigmoid(0.25 * logits - 0.5))
    assert ClassifierSpec.from_json(other.spec.to_json()) == other.spec
    assert other.with_operating_point(0.3).spec.scale == 0.25


def test_predictive_values_follow_from_the_prevalence() -> None:
    """Of 1000 people with 20 patients, 18 are found among 116 who are called."""
    exact = {"value": 0.9, "low": 0.9, "high": 0.9}
    found = calibration.predictive_values(exact, exact)
    assert found["0.02"]["ppv"]["value"] == pytest.approx(18 / 116)
    assert found["0.02"]["npv"]["value"] == pytest.approx(882 / 884)
    assert found["0.3"]["ppv"]["value"] > found["0.1"]["ppv"]["value"]


def test_acting_on_a_perfect_model_has_the_benefit_of_every_patient() -> None:
    labels = np.repeat([0.0, 1.0], 50)
    weights = np.ones((3, 100))
    found = calibration.net_benefit(labels, 0.001 + 0.998 * labels, weights)
    for prevalence, rows in found.items():
        near = next(row for row in rows if row["threshold"] == 0.1)
        assert near["model"]["value"] == pytest.approx(float(prevalence))
    guess = calibration.net_benefit(labels, np.full(100, 0.5), weights)["0.3"]
    assert guess[0]["model"]["value"] == pytest.approx(guess[0]["everybody"])
