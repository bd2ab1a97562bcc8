"""What a recipe comes to where it was not trained: elsewhere, and with other random numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import stdev
from typing import Any

import numpy as np
import pandas as pd

from spira_tasks.speech import metrics

MEASURES = ("auc", "balanced_accuracy", "sensitivity", "specificity")


def by_level(
    answers: Sequence[pd.DataFrame], n_resamples: int, min_cell: int
) -> dict[str, dict[str, Any]]:
    """Measures of the people of each level, by models that heard nobody of it.

    Parameters
    ----------
    answers : sequence of DataFrame
        A table a seed, on the same recordings: ``level``, ``record_id``, ``subject_id``, ``label``
        and ``clean``, the log-odds above the operating point.
    min_cell : int
        A level with fewer patients, or fewer controls, is listed and not measured.

    Returns
    -------
    dict
        Level to ``n_patients``, ``n_controls`` and, where it is measured, means over the seeds
        with 95 % intervals by resampled people.
    """
    found: dict[str, dict[str, Any]] = {}
    for level, of_level in answers[0].groupby("level"):
        people = of_level.drop_duplicates("subject_id")["label"]
        n_patients, n_controls = int((people == 1).sum()), int((people == 0).sum())
        found[str(level)] = {"n_patients": n_patients, "n_controls": n_controls}
        if min(n_patients, n_controls) < min_cell:
            continue
        rows = of_level.sort_values("record_id")
        weights = metrics.subject_resamples(rows["subject_id"].to_numpy(str), n_resamples, 0)
        samples = [
            metrics.measure(
                rows["label"].to_numpy(float),
                table.set_index("record_id").loc[rows["record_id"], "clean"].to_numpy(float),
                0.0,
                weights,
            )
            for table in answers
        ]
        means = {name: np.mean([one[name] for one in samples], axis=0) for name in samples[0]}
        estimates = metrics.estimates(means, n_patients, n_controls)
        found[str(level)] |= {name: asdict(estimates[name]) for name in MEASURES}
    return found


def spread(values: Mapping[int, float]) -> dict[str, Any]:
    """Standard deviation of a measure over seeds, with its 95 % interval, and the middle seed.

    Parameters
    ----------
    values : mapping of int to float
        Seed to what a training with it came to; two at least.

    Returns
    -------
    dict
        ``values``, ``deviation`` and ``median_seed``.  The interval is that of a normal sample.

    Examples
    --------
    >>> spread({1: 0.8, 2: 0.9, 3: 0.85})["median_seed"]
    3
    """
    from scipy.stats import chi2

    freedom = len(values) - 1
    deviation = stdev(values.values())
    low, high = (deviation * math.sqrt(freedom / chi2.ppf(p, freedom)) for p in (0.975, 0.025))
    return {
        "values": {str(seed): value for seed, value in values.items()},
        "deviation": {"value": deviation, "low": float(low), "high": float(high)},
        "median_seed": median_seed(values),
    }


def median_seed(values: Mapping[int, float]) -> int:
    """The seed in the middle; of an even number the lower one, so that it is never the best."""
    ordered = sorted(values, key=lambda seed: (values[seed], seed))
    return ordered[(len(ordered) - 1) // 2]
