"""What the probabilities of a model mean: calibration, predictive values, net benefit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from spira_tasks.speech import metrics
from spira_tasks.speech.metrics import Array, Estimate

N_RESAMPLES = 500  # for what is fitted in each of them
PRIOR_SD = 5.0  # of a fitted intercept about 0 and slope about 1, so that both stay finite
PREVALENCES = (0.02, 0.10, 0.30)
THRESHOLDS = tuple(round(0.02 * step, 2) for step in range(1, 31))  # of net benefit
N_FOLDS = 5


def measure(
    labels: Array, scores: Array, subjects: npt.NDArray[np.str_], weights: Array
) -> dict[str, Any]:
    """Calibration on the test people.

    Returns
    -------
    dict
        ``slope`` of the log-odds of the label on those of the score, 1 where it is right, below 1
        where the model is too sure; ``intercept`` where the slope is held at 1 (in the large), 0
        where as many patients are there as the model says; ``brier_score``; and ``reliability``:
        groups of equal size with mean prediction and share of patients with Wilson's interval.
        Van Calster et al., "Calibration: the Achilles heel of predictive analytics", 2019.
    """
    some = weights[: 1 + N_RESAMPLES]
    log_odds = metrics.log_odds(scores)
    _, slopes = logistic(log_odds, labels, some)
    intercepts, _ = logistic(log_odds, labels, some, slope_is_one=True)
    brier = weights @ (scores - labels) ** 2 / weights.sum(axis=1)
    n_groups = max(2, min(10, len(labels) // 10))  # at least ten recordings a group
    groups = np.array_split(np.argsort(scores, kind="stable"), n_groups)
    return {
        "slope": asdict(reflected(metrics.estimate(slopes))),
        "intercept": asdict(metrics.estimate(intercepts)),
        "brier_score": asdict(metrics.estimate(brier)),
        "reliability": [
            {
                "n": len(group),
                "predicted": float(scores[group].mean()),
                "observed": asdict(
                    Estimate(
                        float(labels[group].mean()),
                        *metrics.wilson_interval(
                            float(labels[group].mean()), len(np.unique(subjects[group]))
                        ),
                    )
                ),
            }
            for group in groups
        ],
    }


def reflected(found: Estimate) -> Estimate:
    """The basic bootstrap interval of a slope, on the scale of its logarithm.

    Of few people a fitted slope is too large, in resamples once more: the percentiles lie too high.
    Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 5.2.
    """
    value, low, high = (max(one, 0.01) for one in (found.value, found.low, found.high))
    return Estimate(found.value, value**2 / high, value**2 / low)


def logistic(
    x: Array, labels: Array, weights: Array, *, slope_is_one: bool = False
) -> tuple[Array, Array]:
    """Fit P(label 1) = logistic(a + b x) under each row of weights, by Newton's steps.

    Returns
    -------
    intercept, slope : (resample,) arrays
        The most probable ones under a weak normal prior (``PRIOR_SD``).
    """
    precision = 1 / PRIOR_SD**2
    a, b = np.zeros(len(weights)), np.ones(len(weights))
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(a[:, None] + b[:, None] * x, -500, 500)))
        residual, curvature = weights * (p - labels), weights * p * (1 - p)
        g_a, h_aa = residual.sum(axis=1) + precision * a, curvature.sum(axis=1) + precision
        if slope_is_one:
            step_a, step_b = np.clip(g_a / h_aa, -1, 1), np.zeros_like(b)
        else:
            g_b, h_bb = residual @ x + precision * (b - 1), curvature @ x**2 + precision
            h_ab = curvature @ x
            determinant = h_aa * h_bb - h_ab**2
            step_a = np.clip((h_bb * g_a - h_ab * g_b) / determinant, -1, 1)
            step_b = np.clip((h_aa * g_b - h_ab * g_a) / determinant, -1, 1)
        a, b = a - step_a, b - step_b
        if max(np.abs(step_a).max(), np.abs(step_b).max()) < 1e-6:
            break
    return a, b


def recalibrate(
    logits: Sequence[Array], labels: Array, subjects: npt.NDArray[np.str_], weights: Array
) -> dict[str, Any]:
    """Fit shift and scale of the log-odds of windows on the validation people, by Platt's method.

    They are to be used where they help: where people whom they were not fitted on have a lower log
    loss with them, by an interval that excludes 0.

    Parameters
    ----------
    logits : sequence of (window,) array
        Log-odds of the windows of each recording; its probability is the mean of theirs.
    labels, subjects : (recording,) arrays
    weights : (resample, recording) array

    Returns
    -------
    dict
        ``shift``, ``scale``, ``gain`` (of mean log loss, an estimate) and ``applied``.
    """
    people = np.unique(subjects)
    of_person = dict(zip(people, np.arange(len(people)) % N_FOLDS, strict=True))
    fold = np.array([of_person[one] for one in subjects])
    plain = probabilities(logits, 0.0, 1.0)
    unseen = plain.copy()
    for held in range(N_FOLDS):
        kept = np.flatnonzero(fold != held).tolist()
        if len(np.unique(labels[kept])) == 2:
            fitted = platt([logits[one] for one in kept], labels[kept])
            unseen[fold == held] = probabilities(logits, *fitted)[fold == held]
    gain = weights @ (log_loss(labels, plain) - log_loss(labels, unseen)) / weights.sum(axis=1)
    estimate = metrics.estimate(gain)
    shift, scale = platt(logits, labels)
    applied = estimate.low > 0 and scale > 0
    return {"shift": shift, "scale": scale, "gain": asdict(estimate), "applied": applied}


def platt(logits: Sequence[Array], labels: Array) -> tuple[float, float]:
    """Shift and scale of log-odds with the lowest log loss, on labels that are never certain.

    Platt, "Probabilistic outputs for support vector machines", 1999: with n patients their target
    is (n + 1) / (n + 2), so that the scale stays finite where the classes are separable.
    """
    from scipy.optimize import minimize

    n = np.array([(labels == 0).sum(), (labels == 1).sum()])
    targets = np.where(labels == 1, (n[1] + 1) / (n[1] + 2), 1 / (n[0] + 2))

    def loss(parameters: Array) -> float:
        return float(log_loss(targets, probabilities(logits, *parameters)).mean())

    found = minimize(loss, np.array([0.0, 1.0]), method="Nelder-Mead")
    return float(found.x[0]), float(found.x[1])


def probabilities(logits: Sequence[Array], shift: float, scale: float) -> Array:
    lengths = np.array([len(one) for one in logits])
    flat = np.clip(shift + scale * np.concatenate(logits), -500, 500)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    return np.asarray(np.add.reduceat(1 / (1 + np.exp(-flat)), starts) / lengths)


def log_loss(targets: Array, scores: Array) -> Array:
    within = np.clip(scores, 1e-7, 1 - 1e-7)
    return np.asarray(-(targets * np.log(within) + (1 - targets) * np.log(1 - within)))


def predictive_values(
    sensitivity: Mapping[str, float], specificity: Mapping[str, float]
) -> dict[str, Any]:
    """PPV and NPV at each prevalence, by Bayes' rule, from two estimates with intervals.

    The intervals are square-and-add of what each of the two leaves open (Zou and Donner, Statistics
    in Medicine 2008); both rise with sensitivity and specificity.
    """
    found = {}
    for prevalence in PREVALENCES:

        def ppv(sens: float, spec: float, p: float = prevalence) -> float:
            called = sens * p + (1 - spec) * (1 - p)
            return sens * p / called if called else 1.0

        def npv(sens: float, spec: float, p: float = prevalence) -> float:
            cleared = spec * (1 - p) + (1 - sens) * p
            return spec * (1 - p) / cleared if cleared else 1.0

        values = {}
        for name, rule in (("ppv", ppv), ("npv", npv)):
            value = rule(sensitivity["value"], specificity["value"])
            below, above = (
                np.hypot(
                    rule(sensitivity[end], specificity["value"]) - value,
                    rule(sensitivity["value"], specificity[end]) - value,
                )
                for end in ("low", "high")
            )
            bounds = max(0.0, float(value - below)), min(1.0, float(value + above))
            values[name] = asdict(Estimate(value, *bounds))
        found[str(prevalence)] = values
    return found


def net_benefit(labels: Array, scores: Array, weights: Array) -> dict[str, list[dict[str, Any]]]:
    """Net benefit of the model at each prevalence, by the threshold from which one would act.

    A threshold probability says how many false alarms a found patient is worth (Vickers and Elkin,
    Medical Decision Making 2006): benefit is the share of found patients less the share of false
    alarms times t / (1 - t).  Scores are moved to the prevalence (by the log of the ratio of the
    odds), since the test people have another one.

    Returns
    -------
    dict
        By prevalence, rows with ``threshold``, ``model`` (an estimate) and ``everybody``, the
        benefit of acting on everybody; acting on nobody has 0.
    """
    ill = labels == 1
    w_ill, w_well = weights[:, ill], weights[:, ~ill]
    moved = metrics.log_odds(scores) - np.log(ill.sum() / (~ill).sum())
    found = {}
    for prevalence in PREVALENCES:
        probability = 1 / (1 + np.exp(-(moved + np.log(prevalence / (1 - prevalence)))))
        called = probability[:, None] >= np.array(THRESHOLDS)
        odds = np.array(THRESHOLDS) / (1 - np.array(THRESHOLDS))
        with np.errstate(invalid="ignore", divide="ignore"):
            hits = w_ill @ called[ill] / w_ill.sum(axis=1, keepdims=True)
            alarms = w_well @ called[~ill] / w_well.sum(axis=1, keepdims=True)
        benefit = hits * prevalence - alarms * (1 - prevalence) * odds
        found[str(prevalence)] = [
            {
                "threshold": threshold,
                "model": asdict(metrics.estimate(benefit[:, place])),
                "everybody": float(prevalence - (1 - prevalence) * odds[place]),
            }
            for place, threshold in enumerate(THRESHOLDS)
        ]
    return found
