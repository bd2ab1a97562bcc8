"""What is doubtful about the labels of a table, and about what is missing in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from expectations.signs import contradicted
from spira_tasks.contract.verdict import is_small
from spira_tasks.evaluation.association import counted, cramers_v
from spira_tasks.speech import metrics

GREY_SPO2 = (90, 94)  # percent, inclusive: neither sick nor well in room air
TASKS = ("VOWEL", "RHYME", "SENTENCE")


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


def quality(table: pd.DataFrame, predictions: pd.DataFrame) -> dict[str, Any]:
    """How far the labels of a table can be relied on.

    Parameters
    ----------
    table : DataFrame
        Recordings: ``subject_id``, ``label`` and, where known, ``spo2``, ``on_oxygen``,
        ``resp_rate`` and ``label_source``.
    predictions : DataFrame
        ``subject_id``, ``label`` and ``clean``, of people from whom the model has not learned.

    Returns
    -------
    dict
        ``n``, people with a prediction, and of these ``n_patients`` and ``n_controls``;
        ``suspects``, the share of them whose label the model is confident to be another, with its
        Wilson interval, None without any; ``contradicted``, ``grey`` and ``not_by_clinician``:
        shares of the people of the table whose vital signs speak against the label, whose SpO2 is
        in between in room air, and whose label is of no clinician; None where the table has no
        such column, or where they would tell of few people.
    """
    people = table[table["label"].notna()].drop_duplicates("subject_id")
    of_people = predictions.groupby("subject_id")[["label", "clean"]].mean().dropna()
    labels = of_people["label"].round().to_numpy(int)
    n_patients = int(labels.sum())
    found: dict[str, Any] = {"n": len(labels), "n_patients": n_patients, "suspects": None}
    found["n_controls"] = len(labels) - n_patients
    if len(labels):
        share = float(confident(labels, of_people["clean"].to_numpy(float)).mean())
        low, high = metrics.wilson_interval(share, len(labels))
        found["suspects"] = {"value": share, "low": low, "high": high}
    found |= dict.fromkeys(("contradicted", "grey", "not_by_clinician"))
    signs = ("spo2", "on_oxygen", "resp_rate")
    if len(people) and set(signs) <= set(people):
        spo2, on_oxygen, resp_rate = (people[name] for name in signs)
        against = contradicted(people["label"], spo2, on_oxygen, resp_rate)
        room_air = on_oxygen.astype("Float64") == 0
        is_grey = spo2.astype("Float64").between(*GREY_SPO2) & room_air
        found |= {"contradicted": _share(against), "grey": _share(is_grey)}
    if len(people) and "label_source" in people:
        found["not_by_clinician"] = _share(people["label_source"] != "clinician")
    return found


def missingness(table: pd.DataFrame) -> dict[str, Any]:
    """The task whose absence goes most with the label.

    Returns
    -------
    dict
        ``task``, empty where nobody lacks one that others have; ``value``, Cramér's V with the
        label; ``chance``, what chance alone does not exceed; and ``n`` people.
    """
    known = table[table["label"].notna()]
    n_recordings = counted(known["subject_id"], known["task"])
    has = pd.DataFrame(n_recordings.to_numpy() > 0, n_recordings.index, pd.unique(known["task"]))
    ill = known.groupby("subject_id")["label"].first().loc[has.index] == 1
    worst: dict[str, Any] = {"task": "", "value": 0.0, "chance": 1.0, "n": len(has)}
    for task in TASKS:
        if task not in has or has[task].all():
            continue
        value, chance = cramers_v(counted(ill, ~has[task]))
        if value >= worst["value"]:
            worst |= {"task": task, "value": value, "chance": chance}
    return worst


def _share(which: pd.Series) -> float | None:
    """None also where it would tell of few people."""
    known = which.fillna(False).astype(bool)
    return None if is_small(int(known.sum())) else float(known.mean())
