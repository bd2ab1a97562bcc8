"""Labels that look wrong: by what a model makes of them, or by vital signs.

A suspect is no error.  An adjudicator says again what holds, and is not told why they were asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
from sqlalchemy import Connection

from expectations.signs import contradicted
from spira_services.labels import assignment
from spira_services.labels.assignment import Reason
from spira_services.labels.weak import Facts


def confident(
    labels: npt.NDArray[np.int_], probabilities: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    """Labels off the diagonal of the confident joint (Northcutt, Jiang, Chuang 2021, section 3.1).

    An item counts for a class where its probability of it is at least the mean probability of the
    items with that label, and for the more probable class where it would count for both.  A label
    that is the more probable class is none of them, as in the authors' cleanlab, which this agrees
    with (compared with 2.9 on 2,000 random sets).

    Parameters
    ----------
    labels : array of int, shape (item,)
        0 or 1.
    probabilities : array of float, shape (item,)
        Of label 1, by a model that has not learned from the item.

    Returns
    -------
    array of bool, shape (item,)
        All False where one class has no item: then nothing can be compared.
    """
    if len(np.unique(labels)) < 2:
        return np.zeros(len(labels), dtype=bool)
    of_class = np.stack([1 - probabilities, probabilities])
    least = np.array([of_class[label, labels == label].mean() for label in (0, 1)])
    counts = of_class >= least[:, None]
    likely = np.where(counts, of_class, -1.0).argmax(axis=0)
    is_confident = counts.any(axis=0) & (likely != labels)
    suspect: npt.NDArray[np.bool_] = is_confident & (of_class.argmax(axis=0) != labels)
    return suspect


def by_model(held: Mapping[str, int], probabilities: Mapping[str, float]) -> set[str]:
    """Sessions whose label a model is confident to be another; both are by session id."""
    ids = sorted(set(held) & set(probabilities))
    labels = np.array([held[one] for one in ids], dtype=int)
    found = confident(labels, np.array([probabilities[one] for one in ids], dtype=float))
    return {one for one, is_suspect in zip(ids, found, strict=True) if is_suspect}


def by_signs(held: Mapping[str, int], facts: Mapping[str, Facts]) -> set[str]:
    """Sessions whose vital signs speak against their label."""
    ids = sorted(set(held) & set(facts))
    columns = {
        name: pd.Series([facts[one].get(name) for one in ids], ids, dtype="object")
        for name in ("spo2", "on_oxygen", "resp_rate")
    }
    found = contradicted(pd.Series([held[one] for one in ids], ids, dtype="object"), **columns)
    return {str(one) for one in found.index[found]}


def ask_again(
    connection: Connection, sessions: Iterable[str], held: Mapping[str, int], reason: Reason
) -> int:
    """Put sessions before an adjudicator; return of how many that is new."""
    return sum(
        assignment.ask_again(connection, "session", one, reason, held[one])
        for one in sorted(sessions)
    )
