"""Compare two models on the same people: paired intervals, an exact test, and slices."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from spira_tasks.speech import metrics
from spira_tasks.speech.metrics import Array


def compare(
    pairs: pd.DataFrame, groups: pd.DataFrame, n_resamples: int, seed: int, min_cell: int
) -> dict[str, Any]:
    """Differences of a challenger and a champion, challenger minus champion.

    Parameters
    ----------
    pairs : DataFrame
        One row a person, by subject: ``label`` in {0, 1}; ``challenger`` and ``champion``, mean
        probabilities; ``challenger_point`` and ``champion_point``, where each calls a patient.
    groups : DataFrame
        The groups of the same people, one column a way of grouping, as ``slices.categories`` has
        them.
    n_resamples, seed : int
        Of people, the same ones for both models.
    min_cell : int
        Fewest patients, and fewest controls, of a group that is compared.

    Returns
    -------
    dict
        ``n_patients`` and ``n_controls``; ``gain`` in AUC, ``sensitivity_change`` and
        ``specificity_change``, each with its 95 % interval; ``confidence``, the share of resamples
        with a gain; ``n_only_champion_right``, ``n_only_challenger_right`` and McNemar's ``p``;
        ``slices``, by way of grouping and group.  Only the counts where a class has nobody.
    """
    labels = pairs["label"].to_numpy(float)
    found: dict[str, Any] = {"n_patients": int(labels.sum()), "n_controls": int((1 - labels).sum())}
    if not (found["n_patients"] and found["n_controls"]):
        return found
    weights = metrics.subject_resamples(pairs.index.to_numpy(str), n_resamples, seed)
    changes = _changes(pairs, weights)
    right = {
        name: (pairs[name] >= pairs[f"{name}_point"]).to_numpy() == (labels == 1)
        for name in ("champion", "challenger")
    }
    n_only = [
        int((right[one] & ~right[other]).sum())
        for one, other in (("champion", "challenger"), ("challenger", "champion"))
    ]
    found |= {
        "gain": asdict(metrics.estimate(changes["auc"])),
        "confidence": float((changes["auc"][1:] > 0).mean()),
        "n_only_champion_right": n_only[0],
        "n_only_challenger_right": n_only[1],
        "p": mcnemar(*n_only),
        "slices": _slices(pairs, groups.loc[pairs.index], weights, min_cell),
    }
    for name, label in (("sensitivity", 1), ("specificity", 0)):
        of_class = labels == label
        # at rates of 1 the resamples have no spread: the interval of the counts has
        bounds = paired_interval(right["challenger"][of_class], right["champion"][of_class])
        change = metrics.widened(metrics.estimate(changes[name]), *bounds)
        found[f"{name}_change"] = asdict(change)
    return found


def mcnemar(n_first: int, n_second: int) -> float:
    """Exact two-sided p-value of McNemar's test.

    Parameters
    ----------
    n_first, n_second : int
        People about whom only the first, or only the second, is right.  Under the hypothesis each
        is as likely: a binomial with one half (McNemar, Psychometrika 1947).

    Examples
    --------
    >>> mcnemar(0, 5)
    0.0625
    """
    n = n_first + n_second
    n_as_far = sum(math.comb(n, k) for k in range(min(n_first, n_second) + 1))
    return float(min(1.0, 2 * n_as_far / 2**n))


def paired_interval(
    first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]
) -> tuple[float, float]:
    """95 % interval of the difference of two rates of the same people, first minus second.

    Method 10 of Newcombe (Statistics in Medicine 1998, p. 2635): the square-and-add interval of
    both Wilson intervals, with their correlation.

    Parameters
    ----------
    first, second : (person,) arrays of bool

    Examples
    --------
    >>> agreed = np.ones(100, dtype=bool)
    >>> [round(bound, 3) for bound in paired_interval(agreed, agreed)]
    [-0.037, 0.037]
    """
    n = len(first)
    both, neither = int((first & second).sum()), int((~first & ~second).sum())
    only = int((first & ~second).sum()), int((~first & second).sum())
    margins = (both + only[0]) * (only[1] + neither) * (both + only[1]) * (only[0] + neither)
    excess = float(both * neither - only[0] * only[1])
    if excess > 0:
        excess = max(excess - n / 2, 0)  # as the paper has it, so that it is not too narrow
    correlation = excess / math.sqrt(margins) if margins else 0.0
    below, above = [], []
    for hits in (first, second):
        share = float(hits.mean())
        low, high = metrics.wilson_interval(share, n)
        below.append(share - low)
        above.append(high - share)
    difference = float(first.mean() - second.mean())

    def distance(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one**2 - 2 * correlation * one * other + other**2))

    return difference - distance(below[0], above[1]), difference + distance(above[0], below[1])


def _changes(pairs: pd.DataFrame, weights: Array) -> dict[str, Array]:
    labels = pairs["label"].to_numpy(float)
    of_challenger, of_champion = (
        metrics.measure(
            labels, (pairs[name] - pairs[f"{name}_point"]).to_numpy(float), 0.0, weights
        )
        for name in ("challenger", "champion")
    )
    return {name: of_challenger[name] - of_champion[name] for name in of_challenger}


def _slices(
    pairs: pd.DataFrame, groups: pd.DataFrame, weights: Array, min_cell: int
) -> dict[str, Any]:
    """The gain in AUC of each group that has enough people of both classes."""
    found: dict[str, Any] = {}
    for way in groups:
        for group in sorted(groups[way].dropna().unique()):
            chosen = (groups[way] == group).to_numpy()
            counts = pairs["label"][chosen].value_counts()
            if min(counts.get(0, 0), counts.get(1, 0)) < min_cell:
                continue
            gain = _changes(pairs[chosen], weights[:, chosen])["auc"]
            found.setdefault(str(way), {})[str(group)] = {
                "n_patients": int(counts[1]),
                "n_controls": int(counts[0]),
                "gain": asdict(metrics.estimate(gain)),
            }
    return found
