"""Can the label be told from what is not the illness?  Small classifiers, against chance.

A probe is a ridge discriminant of standardised measures: one row a person, scored in folds that it
was not fitted on.  The scores of a fold are a matrix times the labels that it is fitted on, so that
hundreds of permuted labels cost little more than the true ones.  Labels are permuted within folds:
each fold keeps its number of patients, so that a permutation differs from the truth in nothing else
(Ojala and Garriga, "Permutation tests for studying classifier performance", JMLR 2010).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spira_tasks.speech import metrics

Array = NDArray[np.float64]

N_FOLDS = 10
SHRINKAGE = 0.1  # weight of the penalty beside the correlations of the measures
FARTHEST = 4.0  # standard deviations: no odd recording decides


@dataclass(frozen=True)
class Heard:
    """How well a probe tells patients from controls, and what chance alone reaches."""

    auc: float  # of scores of people whom it was not fitted on
    low: float
    high: float
    chance: float  # 95th percentile of the permutations
    by_chance: float  # share of the permutations that reach as much, the truth being one of them
    n_patients: int
    n_controls: int
    view: str = ""  # the part of the measures that tells best, where each was heard alone


def of_people(
    values: pd.DataFrame, label: pd.Series, subject: pd.Series
) -> tuple[pd.DataFrame, Array]:
    """Mean of the measures of each person, and their label; the rows of the arguments match.

    Somebody with recordings of both classes is left out, because a person has one row.  A missing
    measure is replaced by the mean of the others.
    """
    labels = label.groupby(subject).agg(["min", "max"])
    one_class = labels.index[labels["min"] == labels["max"]]
    means = values.groupby(subject).mean().loc[one_class].dropna(axis=1, how="all")
    return means.fillna(means.mean()), labels.loc[one_class, "min"].to_numpy(float)


def hear(
    measures: Array,
    ill: Array,
    *,
    views: Mapping[str, Sequence[int]] | None = None,
    n_permutations: int,
    n_resamples: int,
    seed: int,
) -> Heard:
    """Tell the class of each person by their measures.

    With ``views``, parts of the measures are heard alone too.  The best view is held against the
    best of each permutation, since the best of several is high by chance.  The interval is that of
    a part, where one is within a standard error of the best: it names what tells the class (the
    one-standard-error rule; Hastie, Tibshirani and Friedman, "The Elements of Statistical
    Learning", 2009, section 7.10).

    Parameters
    ----------
    measures : (person, measure) array
        Finite numbers.
    ill : (person,) array
        Labels in {0, 1}, both of them.
    views : mapping of sequences
        Columns of the measures by the name of the view.
    """
    rng = np.random.default_rng([seed, len(ill)])
    fold = folds(ill, rng)
    labels = np.column_stack([ill, *(shuffled(ill, fold, rng) for _ in range(n_permutations))])
    weights = metrics.subject_resamples(np.arange(len(ill)).astype(str), n_resamples, seed)
    views = views or {"": range(measures.shape[1])}
    aucs, drawn = {}, {}
    for name, columns in views.items():
        scores, part = np.empty_like(labels), measures[:, columns]
        for number in np.unique(fold):
            held = fold == number
            scores[held] = score(part[~held], labels[~held], part[held])
        aucs[name] = auc(labels, scores)
        drawn[name] = metrics.measure(ill, scores[:, 0], 0.0, weights)["auc"]
    highest = np.max([*aucs.values()], axis=0)
    best = max(views, key=lambda name: aucs[name][0])
    least = highest[0] - np.nanstd(drawn[best][1:])
    parts = [name for name in views if len(views[name]) < measures.shape[1]]
    near = [name for name in parts if aucs[name][0] >= least]
    view = max(near or [best], key=lambda name: aucs[name][0])
    interval = metrics.estimate(drawn[view])
    return Heard(
        auc=interval.value,
        low=interval.low,
        high=interval.high,
        chance=float(np.quantile(highest[1:], 0.95)),
        by_chance=float((highest >= highest[0] - 1e-9).mean()),
        n_patients=int(ill.sum()),
        n_controls=int((1 - ill).sum()),
        view=view,
    )


def permuted(
    measures: Array,
    label: pd.Series,
    subject: pd.Series,
    tested: NDArray[np.bool_],
    *,
    n_permutations: int,
    seed: int,
) -> metrics.Estimate:
    """AUC on the tested recordings, fitted on the others, with labels permuted by person.

    Nothing can be learned of such labels, unless what is tested was fitted on too: then the mean
    over the permutations is above a half.

    Parameters
    ----------
    measures : (recording, measure) array
    label, subject : Series
        One row a recording.
    tested : (recording,) array
        Which recordings are on the test side.

    Returns
    -------
    Estimate
        Mean over the permutations, with its 95 % interval.
    """
    rng = np.random.default_rng([seed, len(label)])
    person, _ = pd.factorize(subject)
    of_person = label.groupby(person).first().to_numpy(float)
    drawn = np.column_stack([rng.permutation(of_person) for _ in range(n_permutations)])
    labels = drawn[person]
    scores = score(measures[~tested], labels[~tested], measures[tested])
    aucs = auc(labels[tested], scores)
    aucs = aucs[np.isfinite(aucs)]  # of a few people a permutation may be of one class
    half = 1.96 * float(aucs.std(ddof=1)) / np.sqrt(len(aucs))
    mean = float(aucs.mean())
    return metrics.Estimate(mean, mean - half, mean + half)


def score(fitted: Array, labels: Array, asked: Array) -> Array:
    """Scores of rows by ridge regression on each column of labels.

    Parameters
    ----------
    fitted : (row, measure) array
    labels : (row, labelling) array
    asked : (other row, measure) array

    Returns
    -------
    (other row, labelling) array
        In standard deviations of the scores of the fitted rows, so that the scores of several folds
        can be ranked together: a fold whose patients have more of a measure leaves the others less
        of it, so the plain scores of a fold fall where they should rise.  Without an intercept,
        which would tell by how many patients a fold is short.
    """
    mean, spread = fitted.mean(axis=0), fitted.std(axis=0)
    scale = np.where(spread > 1e-9, spread, np.inf)  # a constant measure says nothing
    known, other = (np.clip((rows - mean) / scale, -FARTHEST, FARTHEST) for rows in (fitted, asked))
    penalty = SHRINKAGE * len(known) * np.eye(known.shape[1])
    centred = labels - labels.mean(axis=0)
    weights = np.linalg.solve(known.T @ known + penalty, known.T @ centred)
    return np.asarray(other @ weights / np.maximum((known @ weights).std(axis=0), 1e-9))


def folds(ill: Array, rng: np.random.Generator) -> NDArray[np.int_]:
    """A fold for each person; both classes are dealt evenly."""
    fold = np.empty(len(ill), int)
    for value in (0, 1):
        of_class = rng.permutation(np.flatnonzero(ill == value))
        fold[of_class] = np.arange(len(of_class)) % N_FOLDS
    return fold


def shuffled(ill: Array, fold: NDArray[np.int_], rng: np.random.Generator) -> Array:
    """The labels, permuted within each fold."""
    labels = ill.copy()
    for number in np.unique(fold):
        labels[fold == number] = rng.permutation(labels[fold == number])
    return labels


def auc(labels: Array, scores: Array) -> Array:
    """Area under the curve of each column (Mann-Whitney); ties count half, NaN with one class."""
    from scipy.stats import rankdata

    n_ill = labels.sum(axis=0)
    sums = (rankdata(scores, axis=0) * labels).sum(axis=0) - n_ill * (n_ill + 1) / 2
    with np.errstate(invalid="ignore"):
        return np.asarray(sums / (n_ill * (len(labels) - n_ill)))
