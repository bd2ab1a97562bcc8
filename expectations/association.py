"""Expectations about the classes and what is not the voice: device, site, channel, prompt, age.

What goes with the label can be learned in place of the illness.  People are counted, not
recordings, and every bound is widened to what chance alone gives with so few of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from great_expectations.execution_engine import PandasExecutionEngine
from great_expectations.expectations.expectation import BatchExpectation
from great_expectations.expectations.metrics.metric_provider import metric_value
from great_expectations.expectations.metrics.table_metric_provider import TableMetricProvider

MAX_CATEGORIES = 10  # a number with more values than this is cut into quarters
CONFIDENCE = 0.999  # of what chance alone does not exceed; high, because many columns are looked at


class PeopleByClass(TableMetricProvider):
    """What is told of people, one row each: all statistics of this module, for one column."""

    metric_name = "table.people_by_class"
    value_keys = ("column", "label", "group", "task", "missing_is_a_level")

    @metric_value(engine=PandasExecutionEngine)
    def _pandas(
        cls,
        execution_engine: PandasExecutionEngine,
        metric_domain_kwargs: dict[str, Any],
        metric_value_kwargs: dict[str, Any],
        **_: object,
    ) -> dict[str, dict[str, float]]:
        frame, _, _ = execution_engine.get_compute_domain(metric_domain_kwargs, domain_type="table")
        column, label, group = (metric_value_kwargs[key] for key in ("column", "label", "group"))
        if metric_value_kwargs["task"]:
            frame = frame[frame["task"] == metric_value_kwargs["task"]]
        people = frame.drop_duplicates(group)[[column, label]].dropna(subset=[label])
        if not metric_value_kwargs["missing_is_a_level"]:
            people = people.dropna()
        values, patient = people[column], people[label].astype(float) == 1
        levels = values
        if pd.api.types.is_numeric_dtype(values) and values.nunique() > MAX_CATEGORIES:
            levels = pd.qcut(values, 4, duplicates="drop")
        levels, known = numbered(levels), values.dropna()
        v, chance = cramers_v(levels, patient)
        apart, apart_by_chance = difference(known, patient[known.index])
        return {
            "association": {"value": v, "chance": chance, "n": len(people)},
            "one_class": {"value": one_class_share(levels, patient), "n": len(people)},
            "difference": {"value": apart, "chance": apart_by_chance, "n": len(known)},
            "unbalanced": {"value": n_unbalanced(levels, patient), "n": levels.nunique()},
        }


class _AboutPeople(BatchExpectation):
    """The common part: one statistic of a column, and the most that it may be."""

    column: str
    label: str = "label"
    group: str = "subject_id"
    task: str = ""  # the recordings that the column is about; empty for all
    missing_is_a_level: bool = False  # where an empty cell may tell the class as any value may
    max_value: float

    statistic: ClassVar[str]
    metric_dependencies: ClassVar[tuple[str, ...]] = (PeopleByClass.metric_name,)
    success_keys: ClassVar[tuple[str, ...]] = (
        *("column", "label", "group", "task", "missing_is_a_level", "max_value"),
    )

    def _validate(self, metrics: Mapping[str, Any], **_: object) -> dict[str, Any]:
        found = metrics[PeopleByClass.metric_name][self.statistic]
        allowed = max(self.max_value, found.get("chance", 0.0))
        details = {"max_value": allowed, "n": found["n"]}
        return {
            "success": bool(found["value"] <= allowed),
            "result": {"observed_value": found["value"], "details": details},
        }


class ExpectAssociationWithLabelToBeWeak(_AboutPeople):
    """Expect ``column`` to say little about the label: Cramér's V, one row a ``group``.

    ``max_value`` is raised to what chance alone would give with so few people.
    """

    statistic: ClassVar[str] = "association"


class ExpectNoLevelOfOneClass(_AboutPeople):
    """Expect no level of ``column`` with one class only to hold many of the people.

    ``max_value`` is the share of the people.  A level counts only where chance would hardly leave
    so many people without the other class.
    """

    statistic: ClassVar[str] = "one_class"


class ExpectClassesToBeAlike(_AboutPeople):
    """Expect the classes to differ little in ``column``: standardised mean difference.

    Of a number, in standard deviations; of categories, the largest over their shares.
    ``max_value`` is raised to what chance alone would give with so few people.
    """

    statistic: ClassVar[str] = "difference"


class ExpectBothClassesInEveryLevel(_AboutPeople):
    """Expect every level of ``column`` with many people to have enough of both classes.

    Enough are 10, or what one balanced level of this size in a thousand falls below.  ``max_value``
    is how many levels may have too few.
    """

    statistic: ClassVar[str] = "unbalanced"


def numbered(levels: pd.Series) -> pd.Series:
    """A number for each level; missing values, where there are any, are one more level."""
    return pd.Series(pd.factorize(levels, use_na_sentinel=False)[0], index=levels.index)


def cramers_v(
    left: pd.Series, right: pd.Series, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Strength of association of two categorical columns, and how strong chance makes it.

    Parameters
    ----------
    left, right : Series
        One row a subject, no missing values.
    confidence : float
        Of the second number.

    Returns
    -------
    v : float
        Cramér's V, in [0, 1]; 0 when a column is constant.
    chance : float
        The value that independent columns of this size exceed with probability 1 - confidence,
        by the chi-squared approximation.
    """
    from scipy.stats import chi2

    table = pd.crosstab(left, right).to_numpy(dtype=float)
    if min(table.shape) < 2:
        return 0.0, 1.0
    n = table.sum()
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / n
    statistic = ((table - expected) ** 2 / expected).sum()
    freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
    scale = n * (min(table.shape) - 1)
    chance = chi2.ppf(confidence, freedom)
    return float(np.sqrt(statistic / scale)), float(min(1.0, np.sqrt(chance / scale)))


def one_class_share(levels: pd.Series, patient: pd.Series) -> float:
    """The largest share of the people in a level of one class only, where that is not chance.

    Parameters
    ----------
    levels, patient : Series
        One row a subject, no missing values; ``patient`` is boolean.
    """
    if patient.nunique() < 2:
        return 0.0
    n_levels, share, largest = levels.nunique(), float(patient.mean()), 0.0
    for _, here in patient.groupby(levels, observed=True):
        of_class = share if here.all() else 1 - share
        by_chance = n_levels * of_class ** len(here)
        if here.nunique() == 1 and by_chance < 1 - CONFIDENCE:
            largest = max(largest, len(here) / len(patient))
    return largest


def difference(values: pd.Series, patient: pd.Series) -> tuple[float, float]:
    """Standardised mean difference of the classes, and what chance makes it.

    Parameters
    ----------
    values, patient : Series
        One row a subject, no missing values.

    Returns
    -------
    difference : float
        Of a number: of means, in pooled standard deviations.  Of categories: the largest of the
        differences of their shares.  0 where a class has fewer than two people.
    chance : float
        What classes that do not differ exceed with probability 1 - confidence, by the normal
        approximation.
    """
    from scipy.stats import norm

    n_patients, n_controls = int(patient.sum()), int((~patient).sum())
    if min(n_patients, n_controls) < 2:
        return 0.0, 0.0
    if pd.api.types.is_numeric_dtype(values):
        numbers = values.astype(float).to_frame()
    else:
        numbers = pd.get_dummies(values).astype(float)
    ill, well = numbers[patient.to_numpy()], numbers[~patient.to_numpy()]
    pooled = np.sqrt((ill.var() + well.var()) / 2)
    apart = (ill.mean() - well.mean()).abs()
    largest = float((apart / pooled.where(pooled > 0, np.inf)).max())
    if ((pooled == 0) & (apart > 0)).any():  # all of one class have it, none of the other
        largest = 10.0
    z = norm.ppf(1 - (1 - CONFIDENCE) / 2 / numbers.shape[1])
    return largest, float(z * np.sqrt(1 / n_patients + 1 / n_controls))


def n_unbalanced(levels: pd.Series, patient: pd.Series, enough: int = 10) -> int:
    """How many levels have too few people of one class; see ``ExpectBothClassesInEveryLevel``."""
    from scipy.stats import binom

    n_bad = 0
    for _, here in patient.groupby(levels, observed=True):
        needed = min(enough, int(binom.ppf(1 - CONFIDENCE, len(here), 0.5)))
        n_bad += min(int(here.sum()), int((~here).sum())) < needed
    return n_bad
