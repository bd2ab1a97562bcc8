"""Who is recorded, where and by which device: what a model must know more than.

A model that does no better than these columns may have learned them in place of the illness.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from spira_tasks.evaluation import probes
from spira_tasks.speech import metrics

NUMBERS = ("age",)
CATEGORIES = ("sex", "hospital_id", "device_model", "mask_type")


def encoded(table: pd.DataFrame) -> pd.DataFrame:
    """The columns that the table has as numbers; one column for each category, missing ones too."""
    numbers = [name for name in NUMBERS if name in table]
    categories = table[[name for name in CATEGORIES if name in table]].astype("object")
    filled = categories.where(categories.notna(), "none")
    dummies = pd.get_dummies(filled, dtype=float) if len(filled.columns) else filled
    return pd.concat([table[numbers].astype(float), dummies], axis=1)


def views(columns: Sequence[str]) -> dict[str, list[int]]:
    """Where each of the columns lies among its encoded ones, and all of them together."""
    alone = {
        name: [place for place, column in enumerate(columns) if column.startswith(name)]
        for name in (*NUMBERS, *CATEGORIES)
    }
    return {name: places for name, places in alone.items() if places} | {
        "together": [*range(len(columns))]
    }


def measure(table: pd.DataFrame, test: pd.DataFrame, n_resamples: int, seed: int) -> dict[str, Any]:
    """By how much a model tells patients from controls better than the columns alone.

    Parameters
    ----------
    table : DataFrame
        Recordings of all sides with ``subject_id``, ``split`` and ``label``.
    test : DataFrame
        Scores of the model on the test side: ``subject_id``, ``label``, ``clean``.

    Returns
    -------
    dict
        ``baseline`` and ``model`` (AUCs by person), ``gain`` (model less baseline, paired by
        person), each with its interval; ``n_patients``, ``n_controls``.
    """
    scores = baseline(table)
    people = test.groupby("subject_id")[["label", "clean"]].mean()
    people = people[people["label"].isin([0, 1])].join(scores.rename("baseline"), how="inner")
    labels = people["label"].to_numpy(float)
    weights = metrics.subject_resamples(people.index.to_numpy(str), n_resamples, seed)
    aucs = {
        name: metrics.measure(labels, people[column].to_numpy(float), 0.0, weights)["auc"]
        for name, column in (("model", "clean"), ("baseline", "baseline"))
    }
    aucs["gain"] = aucs["model"] - aucs["baseline"]
    found: dict[str, Any] = {name: asdict(metrics.estimate(one)) for name, one in aucs.items()}
    n_patients = int(labels.sum())
    return found | {"n_patients": n_patients, "n_controls": len(labels) - n_patients}


def baseline(table: pd.DataFrame) -> pd.Series:
    """Score of each test person by the columns alone, fitted on the people of the other sides."""
    values, ill = probes.of_people(encoded(table), table["label"], table["subject_id"])
    is_test = table.groupby("subject_id")["split"].first().loc[values.index].eq("test").to_numpy()
    known, asked = values[~is_test].to_numpy(), values[is_test].to_numpy()
    scores = probes.score(known, ill[~is_test][:, None], asked)[:, 0]
    return pd.Series(scores, index=values.index[is_test])
