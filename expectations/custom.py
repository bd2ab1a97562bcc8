"""Expectations that Great Expectations does not have."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pandas as pd
from great_expectations.execution_engine import PandasExecutionEngine
from great_expectations.expectations.expectation import BatchExpectation, ColumnPairMapExpectation
from great_expectations.expectations.metrics.map_metric_provider import (
    ColumnPairMapMetricProvider,
    column_pair_condition_partial,
)
from great_expectations.expectations.metrics.metric_provider import metric_value
from great_expectations.expectations.metrics.table_metric_provider import TableMetricProvider

MAX_CATEGORIES = 10  # a number with more values than this is cut into quarters


class OneValuePerGroup(ColumnPairMapMetricProvider):
    condition_metric_name = "column_pair_values.one_value_per_group"
    condition_domain_keys = (
        *("batch_id", "table", "column_A", "column_B"),
        *("row_condition", "condition_parser", "ignore_row_if"),
    )
    condition_value_keys = ()

    @column_pair_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column_A: pd.Series, column_B: pd.Series, **_: object) -> pd.Series:
        return column_B.groupby(column_A).transform("nunique") == 1


class ExpectOneValuePerGroup(ColumnPairMapExpectation):
    """Expect all rows with the same ``column_A`` to share one ``column_B``.

    For a subject and a split: a voice heard in training is recognised in testing, and the accuracy
    reported is then that of recognising people, not illness.
    """

    ignore_row_if: str = "either_value_is_missing"

    map_metric = OneValuePerGroup.condition_metric_name
    domain_keys: ClassVar[tuple[str, ...]] = (
        *ColumnPairMapExpectation.domain_keys,
        "ignore_row_if",
    )
    success_keys: ClassVar[tuple[str, ...]] = ("column_A", "column_B", "mostly")


class AssociationWithLabel(TableMetricProvider):
    metric_name = "table.association_with_label"
    value_keys = ("column", "label", "group")

    @metric_value(engine=PandasExecutionEngine)
    def _pandas(
        cls,
        execution_engine: PandasExecutionEngine,
        metric_domain_kwargs: dict[str, Any],
        metric_value_kwargs: dict[str, Any],
        **_: object,
    ) -> dict[str, float]:
        frame, _, _ = execution_engine.get_compute_domain(metric_domain_kwargs, domain_type="table")
        column, label, group = (metric_value_kwargs[key] for key in ("column", "label", "group"))
        one_each = frame.drop_duplicates(group)[[column, label]].dropna()
        values = one_each[column]
        if pd.api.types.is_numeric_dtype(values) and values.nunique() > MAX_CATEGORIES:
            values = pd.qcut(values, 4, duplicates="drop")
        v, chance = cramers_v(values, one_each[label])
        return {"v": v, "chance": chance, "n": len(one_each)}


class ExpectAssociationWithLabelToBeWeak(BatchExpectation):
    """Expect ``column`` to say little about the label: Cramér's V, one row a ``group``.

    What is not the voice (a device, a site, an age) and goes with the label can be learned in its
    place.  ``max_value`` is raised to what chance alone would give with so few people.
    """

    column: str
    label: str = "label"
    group: str = "subject_id"
    max_value: float

    metric_dependencies: ClassVar[tuple[str, ...]] = (AssociationWithLabel.metric_name,)
    success_keys: ClassVar[tuple[str, ...]] = ("column", "label", "group", "max_value")

    def _validate(self, metrics: dict[str, Any], **_: object) -> dict[str, Any]:
        found = metrics[AssociationWithLabel.metric_name]
        allowed = max(self.max_value, found["chance"])
        details = {"max_value": allowed, "n": found["n"]}
        return {
            "success": bool(found["v"] <= allowed),
            "result": {"observed_value": found["v"], "details": details},
        }


def cramers_v(left: pd.Series, right: pd.Series, confidence: float = 0.999) -> tuple[float, float]:
    """Strength of association of two categorical columns, and how strong chance makes it.

    Parameters
    ----------
    left, right : Series
        One row a subject, no missing values.
    confidence : float
        Of the second number; high, because many columns are looked at.

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
