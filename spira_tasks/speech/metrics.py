"""Metrics of a binary classifier, with bootstrap intervals by subject.

Metrics are computed on weighted recordings: a resample of the subjects is another row of weights,
and thousands of resamples are a few matrix products.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A statistic with its two-sided 95 % bootstrap interval."""

    value: float
    low: float
    high: float


def measure(
    labels: Array, probabilities: Array, threshold: float, weights: Array
) -> dict[str, Array]:
    """Metrics under each row of weights.

    Parameters
    ----------
    labels : (recording,) array
        In {0, 1}.
    probabilities : (recording,) or (draw, recording) array
        Of several draws of the same recordings, rates and the AUC are means over the draws.
    threshold : float
        A recording is called positive from this probability on.
    weights : (resample, recording) array
        Multiplicity of each recording.

    Returns
    -------
    dict of str to (resample,) array
        NaN where a resample holds one class only.  The AUC is the Mann-Whitney statistic: the
        share of (patient, control) pairs in which the patient scores higher, ties counting half.
    """
    positive, draws = labels == 1, np.atleast_2d(probabilities)
    called = (draws >= threshold).mean(axis=0)
    w_pos, w_neg = weights[:, positive], weights[:, ~positive]
    n_pos, n_neg = w_pos.sum(axis=1), w_neg.sum(axis=1)
    wins = np.zeros((w_pos.shape[1], w_neg.shape[1]))
    for scores in draws:
        wins += (np.sign(scores[positive][:, None] - scores[~positive][None, :]) + 1) / 2
    wins /= len(draws)

    true_positives = w_pos @ called[positive]
    false_positives = w_neg @ called[~positive]
    with np.errstate(invalid="ignore", divide="ignore"):
        sensitivity = true_positives / n_pos
        specificity = 1 - false_positives / n_neg
        return {
            "auc": ((w_pos @ wins) * w_neg).sum(axis=1) / (n_pos * n_neg),
            "accuracy": (true_positives + n_neg - false_positives) / (n_pos + n_neg),
            "balanced_accuracy": (sensitivity + specificity) / 2,
            "f1": 2 * true_positives / (n_pos + true_positives + false_positives),
            "sensitivity": sensitivity,
            "specificity": specificity,
        }


def subject_resamples(
    subjects: NDArray[np.str_], n_resamples: int, seed: int
) -> NDArray[np.float64]:
    """Bootstrap weights by subject: the first row is the sample itself, all ones.

    Recordings of one person are not independent, so people are drawn, with all their recordings.

    Returns
    -------
    (1 + n_resamples, recording) array
    """
    names, index = np.unique(subjects, return_inverse=True)
    rng = np.random.default_rng([seed, len(names)])
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=n_resamples)
    return np.vstack([np.ones(len(subjects)), drawn[:, index]]).astype(np.float64)


def estimate(samples: Array) -> Estimate:
    """Take the first sample as the value, the percentiles of the others as its interval."""
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.nanpercentile(samples[1:], [tail, 100 - tail])
    return Estimate(float(samples[0]), float(low), float(high))


def estimates(samples: dict[str, Array], n_patients: int, n_controls: int) -> dict[str, Estimate]:
    """Every metric of ``measure`` with its interval.

    At 0 and 1 the bootstrap interval of a share is a point: for 8 of 8 patients its lower bound
    is 1.  So intervals of sensitivity and specificity are never narrower than Wilson's, and that of
    balanced accuracy, half their sum, never narrower than the square-and-add interval of the two
    (Zou and Donner, Statistics in Medicine 2008).

    Parameters
    ----------
    samples : dict of str to (resample,) array
    n_patients, n_controls : int
        Number of people of each class.
    """
    found = {name: estimate(values) for name, values in samples.items()}
    shares = {"sensitivity": n_patients, "specificity": n_controls}
    for name, n in shares.items():
        found[name] = widened(found[name], *wilson_interval(found[name].value, n))
    value = found["balanced_accuracy"].value
    parts = [found[name] for name in shares]
    below = np.sqrt(sum((part.value - part.low) ** 2 for part in parts)) / 2
    above = np.sqrt(sum((part.high - part.value) ** 2 for part in parts)) / 2
    bounds = (value - below, value + above)
    found["balanced_accuracy"] = widened(found["balanced_accuracy"], *bounds)
    return found


def widened(interval: Estimate, low: float, high: float) -> Estimate:
    return Estimate(interval.value, min(interval.low, float(low)), max(interval.high, float(high)))


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """Score interval of a share of ``n``, 95 % two-sided (Wilson, JASA 1927).

    Examples
    --------
    >>> [round(bound, 3) for bound in wilson_interval(1.0, 8)]
    [0.676, 1.0]
    """
    z = 1.959964  # of CONFIDENCE
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def youden_threshold(labels: Array, probabilities: Array) -> float:
    """The threshold that maximises sensitivity + specificity; midway between two scores.

    Youden, "Index for rating diagnostic tests", Cancer 1950.  Among equals, the lowest threshold
    is taken: a missed patient costs more than a false alarm.
    """
    scores = np.unique(probabilities)
    cuts = np.concatenate([[scores[0]], (scores[1:] + scores[:-1]) / 2])
    called = probabilities[None, :] >= cuts[:, None]
    sensitivity = called[:, labels == 1].mean(axis=1)
    specificity = 1 - called[:, labels == 0].mean(axis=1)
    return float(cuts[np.argmax(np.round(sensitivity + specificity, 12))])


def sensitivity_threshold(labels: Array, probabilities: Array, target: float) -> float:
    """The highest threshold at which at least ``target`` of the patients are called positive."""
    patients = np.sort(probabilities[labels == 1])
    n_missed = int(np.floor(len(patients) * (1 - target) + 1e-9))
    return float(patients[n_missed])


def abstention_band(
    labels: Array, probabilities: Array, threshold: float, max_share: float
) -> tuple[float, float] | None:
    """The scores around the operating point in which the errors concentrate.

    Chow, "On optimum recognition error and reject tradeoff", IEEE Trans. Inf. Theory 1970: an
    abstention costs a part of an error, and the scores nearest to the threshold are left undecided
    while that pays.  Here it costs the rate of errors without any abstention, so the band holds the
    most errors in excess of what as many scores from anywhere would hold.

    Parameters
    ----------
    labels, probabilities : (recording,) arrays
        Labels in {0, 1}.
    threshold : float
        The operating point; distance from it is one of log-odds.
    max_share : float
        Of the scores, at most, in the band.

    Returns
    -------
    tuple of float, or None
        Lowest and highest probability of the band, inclusive; None where no abstention pays.
    """
    distance = np.abs(log_odds(probabilities) - log_odds(np.array(threshold)))
    order = np.argsort(distance, kind="stable")
    is_error = ((probabilities >= threshold) != (labels == 1))[order]
    n = np.arange(1, len(order) + 1)
    excess = np.cumsum(is_error) - n * is_error.mean()
    is_farther = np.diff(distance[order], append=np.inf) > 0  # equal scores are treated alike
    excess[~is_farther | (n > max_share * len(order))] = -np.inf
    best = int(np.argmax(excess))
    if excess[best] <= 0:
        return None
    inside = probabilities[order[: best + 1]]
    return min(float(inside.min()), threshold), max(float(inside.max()), threshold)


def log_odds(probabilities: Array) -> Array:
    """Log-odds of probabilities, of 0 and 1 too."""
    within = np.clip(probabilities, 1e-12, 1 - 1e-12)
    return np.asarray(np.log(within / (1 - within)))


def expected_calibration_error(labels: Array, probabilities: Array, n_bins: int = 10) -> float:
    """Mean gap between predicted and observed frequency over equal-count bins.

    Even a perfectly calibrated model shows a gap on a small sample: about 0.08 with 108
    recordings and 10 bins.  Compare it with what its own n allows, never with a textbook 0.05.
    """
    order = np.argsort(probabilities, kind="stable")
    groups = [group for group in np.array_split(order, n_bins) if len(group)]
    gaps = [len(g) * abs(labels[g].mean() - probabilities[g].mean()) for g in groups]
    return float(sum(gaps) / len(labels))
