"""The statistics of drift, one row a feature: new people beside those whom a model knows.

A row is plain JSON, and holds no value of anybody.  One person counts once.
"""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spira_tasks.contract.verdict import MIN_CELL
from spira_tasks.speech.probe import rounded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spira_tasks.artifacts import Blobs
    from spira_tasks.speech.classifier import Classifier
    from spira_tasks.work import Record

COLUMNS = {
    "feature": "str",
    "kind": "str",  # number, category, coefficients, positive_rate
    "statistic": "float64",  # Kolmogorov-Smirnov's D, population stability index, or the effect
    "p": "float64",
    "significant": "bool",  # at a false discovery rate of 5 % over all numbers
    # Wasserstein distance in standard deviations, population stability index, distance of the
    # farthest mean in standard deviations, difference of two shares in standard errors
    "effect": "float64",
    "null99": "float64",  # the index that one of 100 samples without any drift exceeds
    "n_new": "int64",
    "n_reference": "int64",
    "n_new_categories": "int64",
    "quarters": "object",  # people between the quartiles of the reference, in percent
    "compared": "bool",  # whether there were people enough
}


def number_row(new: pd.DataFrame, old: pd.DataFrame, name: str, min_people: int) -> Record:
    """A number of every person: the mean of their recordings."""
    now, before = (
        table.assign(value=table[name].astype("float64"))
        .groupby("subject_id")["value"]
        .mean()
        .dropna()
        .to_numpy()
        for table in (new, old)
    )
    row = empty_row(name, "number", len(now), len(before), min_people)
    if not row["compared"]:
        return row
    from scipy.stats import ks_2samp, wasserstein_distance

    test = ks_2samp(now, before, method="asymp")
    spread = before.std()
    apart = wasserstein_distance(now, before)
    counts = np.bincount(
        np.searchsorted(np.quantile(before, [0.25, 0.5, 0.75]), now, side="right"), minlength=4
    )
    return row | {
        "statistic": rounded(test.statistic),
        "p": rounded(test.pvalue),
        "effect": rounded(apart / spread if spread > 0 else 10.0 * (apart > 0)),
        "quarters": quarters(counts),
    }


def quarters(counts: NDArray[np.int64]) -> str:
    """Shares in percent, ``"23,31,25,21"``; empty where a cell is suppressed."""
    if min(counts) < MIN_CELL:
        return ""
    return ",".join(str(round(100 * count / counts.sum())) for count in counts)


def category_row(
    new: pd.DataFrame, old: pd.DataFrame, name: str, min_people: int, *, n_resamples: int, seed: int
) -> Record:
    """A category of every person: that of their first recording."""
    now, before = (
        table.drop_duplicates("subject_id")[name].dropna().astype("str") for table in (new, old)
    )
    row = empty_row(name, "category", len(now), len(before), min_people)
    row["n_new_categories"] = len(set(now) - set(before))
    if not row["compared"]:
        return row
    names = sorted({*now, *before})
    here, there = (
        each.value_counts().reindex(names, fill_value=0).to_numpy() for each in (now, before)
    )
    index = float(stability(here, there))
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    pooled = (here + there) / (here + there).sum()
    chance = stability(
        rng.multinomial(len(now), pooled, n_resamples),
        rng.multinomial(len(before), pooled, n_resamples),
    )
    return row | {
        "statistic": rounded(index),
        "p": rounded((1 + (chance >= index).sum()) / (1 + len(chance))),
        "effect": rounded(index),
        "null99": rounded(np.quantile(chance, 0.99)),
    }


def stability(new: NDArray[np.int64], old: NDArray[np.int64]) -> NDArray[np.float64]:
    """Population stability index of (…, category) counts; half a person is added to every cell."""
    p, q = ((counts + 0.5) for counts in (new, old))
    p, q = p / p.sum(axis=-1, keepdims=True), q / q.sum(axis=-1, keepdims=True)
    return np.asarray(((p - q) * np.log(p / q)).sum(axis=-1))


def discover(rows: list[Record], rate: float) -> None:
    """Mark what is significant at a false discovery rate (Benjamini and Hochberg, 1995)."""
    ordered = sorted((row for row in rows if row["compared"]), key=lambda row: row["p"])
    passed = [k for k, row in enumerate(ordered, 1) if row["p"] <= rate * k / len(ordered)]
    for row in ordered[: max(passed, default=0)]:
        row["significant"] = True


def empty_row(name: str, kind: str, n_new: int, n_reference: int, min_people: int) -> Record:
    return {
        "feature": name,
        "kind": kind,
        "statistic": None,
        "p": None,
        "significant": False,
        "effect": None,
        "null99": None,
        "n_new": n_new,
        "n_reference": n_reference,
        "n_new_categories": 0,
        "quarters": "",
        "compared": min(n_new, n_reference) >= min_people,
    }


@dataclass(frozen=True)
class Scored:
    """What a model answers of new people, and how far its inputs are from those it knows."""

    n_people: int
    n_positive: int  # people whose mean probability reaches the model's operating point
    # Shape (bin,): mean of every feature bin over all people, minus that of the model's training
    # set, in standard deviations of the training set's frames.  None for a model that does not
    # standardise its features, and so does not know that set's.
    distances: NDArray[np.float64] | None


def score(classifier: Classifier, table: pd.DataFrame, blobs: Blobs) -> Scored:
    """Score the rows of a table (``subject_id``, ``features``); one person counts once."""
    import torch

    probabilities, means = [], []
    for digest in table["features"]:
        matrix = np.load(io.BytesIO(blobs.read(digest)), allow_pickle=False)
        probabilities.append(classifier.score(torch.from_numpy(matrix)))
        means.append(matrix.mean(axis=(0, 1), dtype=np.float64))
    columns = table[["subject_id"]].assign(probability=probabilities)
    of_person = columns.groupby("subject_id")["probability"].mean()
    known = classifier.standardize
    distances = None
    if known.mean.any():
        n_of_person = table.groupby("subject_id")["features"].transform("count")
        mean = np.average(np.stack(means), axis=0, weights=1 / n_of_person.to_numpy(float))
        distances = (mean - known.mean.double().numpy()) / known.std.double().numpy()
    return Scored(
        n_people=len(of_person),
        n_positive=int((of_person >= classifier.spec.operating_point).sum()),
        distances=distances,
    )


def coefficients_row(scored: Scored, min_people: int) -> Record:
    """The features that the model is given: the mean of the bin that is farthest from before."""
    row = empty_row("coefficients", "coefficients", scored.n_people, scored.n_people, min_people)
    if not row["compared"] or scored.distances is None:
        return row | {"compared": False}
    farthest = rounded(float(abs(scored.distances).max()))
    return row | {"statistic": farthest, "effect": farthest}


def positive_rate_row(scored: Scored, n_positive: int, n_people: int, min_people: int) -> Record:
    """The share of people whom the model calls positive, beside that of those it was tested on."""
    row = empty_row("positive_rate", "positive_rate", scored.n_people, n_people, min_people)
    if not row["compared"]:
        return row
    apart = rounded(standard_errors(scored.n_positive, scored.n_people, n_positive, n_people))
    return row | {"statistic": apart, "effect": apart}


def standard_errors(n_positive: int, n: int, n_positive_before: int, n_before: int) -> float:
    """How far apart two shares are, in standard errors of their difference (pooled; Wald).

    Examples
    --------
    >>> round(standard_errors(60, 100, 40, 100), 2)
    2.83
    >>> standard_errors(0, 100, 0, 50)
    0.0
    """
    pooled = (n_positive + n_positive_before) / (n + n_before)
    error = np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / n_before))
    return float(abs(n_positive / n - n_positive_before / n_before) / error) if error else 0.0
