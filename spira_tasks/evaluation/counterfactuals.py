"""What ward noise does to the answers: the same recordings, with and without it.

A loss of balanced accuracy alone says little of few people: with 54 controls, 11 had to turn into
false alarms before its interval left the limit.  So each recording is scored with many draws of
noise, and beside the loss stand how often an answer changes and how far the scores move.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spira_tasks.speech import metrics
from spira_tasks.speech.metrics import Array, Estimate

CLASSES = ("controls", "patients")  # in the order of the labels 0 and 1
MEASURES = ("drop_in_balanced_accuracy", "flips", "shifts", "log_odds_shifts")
# Cells that have noise on one class only; the others have it on everybody.
ONE_CLASS = {"noise_controls": (0,), "noise_patients": (1,)}
SATURATED = 1e-6  # a score nearer to 0 or 1 moves no farther


def cells(labels: Array, clean: Array, noise: Array, swapped: Array | None) -> dict[str, Array]:
    """Scores with noise on everybody, on one class only, and with the noise of the other class.

    Parameters
    ----------
    labels, clean : (recording,) arrays
    noise : (draw, recording) array
        Scores with ward noise.
    swapped : (draw, recording) array, optional
        Scores with the ambient noise of people of the other class.

    Returns
    -------
    dict of str to (draw, recording) array
    """
    ill = labels == 1
    found = {
        "noise_all": noise,
        "noise_controls": np.where(ill, clean, noise),
        "noise_patients": np.where(ill, noise, clean),
    }
    return found if swapped is None else found | {"noise_swapped": swapped}


def measure(
    labels: Array,
    clean: Array,
    cells: Mapping[str, Array],
    threshold: float,
    *,
    weights: Array,
    n_people: tuple[int, int],
    noises: Array | None = None,
    rooms: Array | None = None,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Loss, flips and shifts of each cell.

    Parameters
    ----------
    labels, clean : (recording,) arrays
        Labels in {0, 1}, scores as recorded.
    cells : mapping of str to (draw, recording) array
    threshold : float
    weights : (resample, recording) array
        Of people, the first row all ones.
    n_people : tuple of int
        Controls and patients.
    noises : (draw, recording) array, optional
        Which ward noise each draw has.  Noises are a sample as people are, so resamples draw them
        too, each by itself (Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007).
    rooms : (draw, recording) array, optional
        The same of the rooms of the cell ``noise_swapped``.
    seed : int
        Of the resamples of the noises and of the rooms.

    Returns
    -------
    dict
        ``drop_in_balanced_accuracy``: an estimate a cell.  ``flips``: by cell and class, how often
        an answer changes.  ``log_odds_shifts``: by cell and class, how far a score moves towards
        the other class; ``shifts``: as a share of the distance between the mean scores of the
        classes, left out where the model does not tell them apart.
    """
    found: dict[str, dict[str, Any]] = {name: {} for name in MEASURES}
    by_class = [np.where(labels == label, weights, 0.0) for label in (0, 1)]
    totals = [w.sum(axis=1) for w in by_class]
    by_noise, by_room = (
        None if which is None else of_noises(which, len(weights), seed) for which in (noises, rooms)
    )
    plain = metrics.log_odds(np.clip(clean, SATURATED, 1 - SATURATED))
    with np.errstate(invalid="ignore", divide="ignore"):  # a resample may hold one class only
        means = [w @ plain / total for w, total in zip(by_class, totals, strict=True)]
        distance = means[1] - means[0]
        for cell, draws in cells.items():
            called = draws >= threshold
            lost = np.where(
                labels == 1, (clean >= threshold) & ~called, (clean < threshold) & called
            )
            won = np.where(
                labels == 1, (clean < threshold) & called, (clean >= threshold) & ~called
            )
            moved = metrics.log_odds(np.clip(draws, SATURATED, 1 - SATURATED)) - plain
            resampled = by_room if cell == "noise_swapped" else by_noise
            lost, won, moved = (mean(one, resampled) for one in (lost, won, moved))
            drops = []
            for label in ONE_CLASS.get(cell, (0, 1)):
                who, w, total, n = CLASSES[label], by_class[label], totals[label], n_people[label]
                down, up, further = ((w * one).sum(axis=1) / total for one in (lost, won, moved))
                drops.append(difference(down, up, n))
                rate = metrics.estimate(down + up)
                rate = metrics.widened(rate, *metrics.wilson_interval(rate.value, n))
                towards = further if label == 0 else -further
                found["flips"].setdefault(cell, {})[who] = asdict(rate)
                found["log_odds_shifts"].setdefault(cell, {})[who] = asdict(
                    metrics.estimate(towards)
                )
                if distance[0] > 0:
                    share = np.where(distance > 0, towards / distance, np.nan)
                    found["shifts"].setdefault(cell, {})[who] = asdict(metrics.estimate(share))
            found["drop_in_balanced_accuracy"][cell] = asdict(half_the_sum(drops))
    return found


def of_noises(noises: Array, n_rows: int, seed: int) -> tuple[NDArray[np.int64], Array]:
    """Resamples of the noises: which one each draw has, and how often each row has each noise."""
    names, which = np.unique(noises, return_inverse=True)
    rng = np.random.default_rng([seed, len(names), 1])
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=n_rows - 1)
    rows = np.vstack([np.ones(len(names)), counts]).astype(np.float64)
    return np.asarray(which, dtype=np.int64).reshape(noises.shape), rows


def mean(values: Array, resampled: tuple[NDArray[np.int64], Array] | None) -> Array:
    """Mean over the draws of each recording, under each resample of the noises.

    Returns
    -------
    (resample, recording) array
        Of one row where no noises are resampled.  The plain mean where a resample has none of the
        noises of a recording.
    """
    plain = values.mean(axis=0)
    if resampled is None:
        return np.asarray(plain[None, :])
    which, counts = resampled
    total, often = np.zeros((2, counts.shape[1], values.shape[1]))
    for noise, value in zip(which, values, strict=True):
        place = noise, np.arange(len(value))
        np.add.at(total, place, value)
        np.add.at(often, place, 1.0)
    n = counts @ often
    return np.where(n > 0, counts @ total / np.maximum(n, 1e-9), plain)


def difference(down: Array, up: Array, n: int) -> Estimate:
    """Loss of a rate of ``n`` people: the bootstrap, never narrower than the two shares allow.

    A resample of people whose answers all stayed says that no answer ever changes.  So the
    interval holds that of the difference of the two Wilson intervals (square-and-add; Zou and
    Donner, Statistics in Medicine 2008).
    """
    found = metrics.estimate(down - up)
    value, d, u = found.value, float(down[0]), float(up[0])
    (d_low, d_high), (u_low, u_high) = (metrics.wilson_interval(one, n) for one in (d, u))
    below = np.hypot(d - d_low, u_high - u)
    above = np.hypot(d_high - d, u - u_low)
    return metrics.widened(found, value - below, value + above)


def half_the_sum(drops: list[Estimate]) -> Estimate:
    """Loss of balanced accuracy, from those of specificity and of sensitivity."""
    value = sum(one.value for one in drops) / 2
    below = np.sqrt(sum((one.value - one.low) ** 2 for one in drops)) / 2
    above = np.sqrt(sum((one.high - one.value) ** 2 for one in drops)) / 2
    return Estimate(value, float(value - below), float(value + above))
