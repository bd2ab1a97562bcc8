"""How well a model does within groups of the test people, and how much of it the groups explain.

Among patients of whom most are women and controls of whom most are men, a model that hears the sex
tells patients from controls.  Pairs of a patient and a control of the same group show that with all
people at once, also where no group has enough of both to be looked at alone.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from spira_tasks.contract.verdict import MIN_CELL, is_small
from spira_tasks.speech import metrics
from spira_tasks.speech.metrics import Array, Estimate

MIN_PEOPLE = 15  # of each class, for a group to be looked at alone
MIN_PAIRED = 20  # of each class, in groups that have both
BANDS = ("<18", "18-39", "40-59", "60-74", "75+")
AGES = (-1000, 18, 40, 60, 75, 1000)  # the bands' edges
OTHER = "other"
LEVELS = ("quiet", "middle", "noisy")  # thirds of the test recordings by signal-to-noise ratio
# Who has one of these is a patient: the controls of such a group are all controls.
OF_PATIENTS = ("aetiology",)


def categories(test: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """The groups of each test recording, one column a way of grouping; missing values stay.

    Sites, devices and causes, which people name, are numbered as ``#1`` in their order; a version
    that is no number is another one.

    Parameters
    ----------
    test, table : DataFrame
        Test recordings of the task of the model, and all recordings.
    """
    tasks = table.groupby("subject_id")["task"].agg(lambda one: "+".join(sorted(set(one))))
    ratio = test["snr_db"].astype(float)
    thirds = ratio.rank(method="first", ascending=False, pct=True)
    ill = test["label"] == 1
    version = test["app_version"].astype(object)
    is_number = version.astype("str").str.fullmatch(r"\d{1,4}(\.\d{1,6}){0,3}")
    found = pd.DataFrame(
        {
            "sex": test["sex"],
            "age_band": pd.cut(test["age"].astype(float), AGES, right=False, labels=BANDS),
            "mask": test["mask_type"],
            "site": numbered(test["hospital_id"], table["hospital_id"]),
            "device": numbered(test["device_model"], table["device_model"]),
            "app_version": version.where(version.isna() | is_number, OTHER),
            "aetiology": numbered(test["ri_cause"].where(ill), table["ri_cause"]),
            "noise_level": pd.cut(thirds, (0, 1 / 3, 2 / 3, 1), labels=LEVELS),
            "tasks": test["subject_id"].map(tasks),
        }
    )
    return found.astype(object).where(found.notna(), None)


def numbered(some: pd.Series, everything: pd.Series) -> pd.Series:
    names = sorted(name for name, n in everything.value_counts().items() if n >= MIN_CELL)
    return some.map({name: f"#{number}" for number, name in enumerate(names, start=1)})


def measure(
    groups: pd.DataFrame,
    subjects: pd.Series,
    labels: Array,
    scores: Array,
    *,
    threshold: float,
    weights: Array,
) -> dict[str, Any]:
    """Measure every group that has people enough, and every way of grouping as a whole.

    Parameters
    ----------
    groups : DataFrame
        As ``categories`` makes it, one row a recording.
    subjects : Series
    labels, scores : (recording,) arrays
    threshold : float
    weights : (resample, recording) array

    Returns
    -------
    dict
        ``slices``: by way and group, the number of people of each class, None where it is small or
        would tell one that is, and estimates of ``auc``, ``sensitivity``, ``specificity`` and of
        ``apart``, by how much the AUC is lower than in the other groups that have people enough.
        The interval of ``apart`` is as wide as the number of groups asks (Bonferroni), since the
        worst of many is looked at.
        ``within``: by way, the AUC over pairs of a patient and a control of one group, and
        ``explained``, by how much the AUC over all pairs of people with a group is larger.  Where
        too few people are in a group that has both classes, only how many these are.
    """
    found: dict[str, Any] = {"slices": {}, "within": {}}
    ill = labels == 1
    people = subjects.to_numpy(str)
    alone: dict[tuple[str, str], Array] = {}
    for way in groups:
        column = groups[way].to_numpy(object)
        by_group = found["slices"].setdefault(way, {})
        for group in sorted({one for one in column if one is not None}):
            inside = column == group
            if way in OF_PATIENTS:
                inside = inside | ~ill
            n_patients, n_controls = (len(set(people[inside & one])) for one in (ill, ~ill))
            by_group[group] = {"n_patients": n_patients, "n_controls": n_controls}
            if min(n_patients, n_controls) < MIN_PEOPLE:
                continue
            alone[way, group] = inside
            sample = metrics.measure(labels[inside], scores[inside], threshold, weights[:, inside])
            estimates = {
                name: metrics.estimate(sample[name])
                for name in ("auc", "sensitivity", "specificity")
            }
            for name, n in (("sensitivity", n_patients), ("specificity", n_controls)):
                bounds = metrics.wilson_interval(estimates[name].value, n)
                estimates[name] = metrics.widened(estimates[name], *bounds)
            by_group[group] |= {name: asdict(one) for name, one in estimates.items()}
        for name in ("n_patients", "n_controls"):
            hide(by_group, name)
        if way not in OF_PATIENTS:
            found["within"] |= within(way, column, people, labels, scores, weights=weights)
    compare(found["slices"], alone, labels, scores, weights)
    return found


def hide(by_group: dict[str, Any], name: str) -> None:
    """Take away small counts, and the next larger until the total of all does not tell them."""
    counts = sorted((one[name], group) for group, one in by_group.items() if one[name])
    hidden: list[int] = []
    for n, group in counts:
        if is_small(n) or len(hidden) == 1 or 0 < sum(hidden) < MIN_CELL:
            hidden.append(n)
            by_group[group][name] = None


def compare(
    slices: dict[str, Any],
    alone: dict[tuple[str, str], Array],
    labels: Array,
    scores: Array,
    weights: Array,
) -> None:
    """Add ``apart`` to each group that has others to be compared with."""
    from scipy.stats import norm

    pairs = [(way, group) for way, group in alone if sum(one == way for one, _ in alone) > 1]
    for way, group in pairs:
        inside = alone[way, group]
        others = np.any([m for (w, g), m in alone.items() if w == way and g != group], axis=0)
        own, other = (
            metrics.measure(labels[one], scores[one], 0.5, weights[:, one])["auc"]
            for one in (inside, others)
        )
        apart = other - own
        z = norm.ppf(1 - (1 - metrics.CONFIDENCE) / 2 / len(pairs))
        half = float(z * np.nanstd(apart[1:]))
        value = float(apart[0])
        slices[way][group]["apart"] = asdict(Estimate(value, value - half, value + half))


def within(
    way: str, column: Any, people: Any, labels: Array, scores: Array, *, weights: Array
) -> dict[str, Any]:
    """AUC over pairs of one group; nothing where everybody is of one group."""
    ill = labels == 1
    if len({*column} - {None}) < 2:
        return {}
    both = {*column[ill]} & {*column[~ill]} - {None}
    paired_people = np.array([one in both for one in column])
    n = min(len(set(people[paired_people & one])) for one in (ill, ~ill))
    if n < MIN_PAIRED:  # the groups may be the classes themselves
        return {way: {"n": None if is_small(n) else n}}
    known = np.array([one is not None for one in column])
    a, b = known & ill, known & ~ill
    w_a, w_b = weights[:, a], weights[:, b]
    wins = (np.sign(scores[a][:, None] - scores[b][None, :]) + 1) / 2
    same = column[a][:, None] == column[b][None, :]

    def auc(pairs: Array) -> Array:
        share: Array = ((w_a @ (wins * pairs)) * w_b).sum(axis=1)
        share /= ((w_a @ pairs) * w_b).sum(axis=1)
        return share

    with np.errstate(invalid="ignore", divide="ignore"):
        paired, of_all = auc(same.astype(float)), auc(np.ones_like(wins))
    return {
        way: {
            "auc": asdict(metrics.estimate(paired)),
            "explained": asdict(metrics.estimate(of_all - paired)),
            "n": n,
        }
    }
