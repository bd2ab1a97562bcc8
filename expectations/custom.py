"""Expectations that Great Expectations does not have: about rows that belong together.

More of them: ``association`` (classes against what is not the voice), ``clinical`` (units, signs)
and ``duplicates`` (recordings that sound the same).
"""

from __future__ import annotations

from typing import Any, ClassVar

import pandas as pd
from great_expectations.execution_engine import PandasExecutionEngine
from great_expectations.expectations.expectation import (
    BatchExpectation,
    ColumnMapExpectation,
    ColumnPairMapExpectation,
    MulticolumnMapExpectation,
)
from great_expectations.expectations.metrics.map_metric_provider import (
    ColumnMapMetricProvider,
    ColumnPairMapMetricProvider,
    MulticolumnMapMetricProvider,
    column_condition_partial,
    column_pair_condition_partial,
    multicolumn_condition_partial,
)

from expectations.personal import holds_personal_data


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


class HoldNoPersonalData(ColumnMapMetricProvider):
    condition_metric_name = "column_values.hold_no_personal_data"
    condition_value_keys = ("is_identifier",)

    @column_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column: pd.Series, is_identifier: bool, **_: object) -> pd.Series:
        texts = column.astype("str")
        return ~texts.isin([t for t in texts.unique() if holds_personal_data(t, is_identifier)])


class ExpectColumnValuesToHoldNoPersonalData(ColumnMapExpectation):
    """Expect no cell to hold a CPF, a CNS, a telephone, an e-mail address or a hospital number.

    Bare digits count as a CPF or a CNS only with the right check digits, so counters and times do
    not.  Where ``is_identifier``, fewer kinds of numbers count; see ``expectations.personal``.
    """

    is_identifier: bool = False

    map_metric = HoldNoPersonalData.condition_metric_name
    success_keys: ClassVar[tuple[str, ...]] = ("is_identifier", "mostly")


class DayNotBefore(ColumnMapMetricProvider):
    condition_metric_name = "column_values.day_not_before"
    condition_value_keys = ("first",)

    @column_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column: pd.Series, first: str, **_: object) -> pd.Series:
        return column.astype("str") >= first


class ExpectColumnDaysNotToBeBefore(ColumnMapExpectation):
    """Expect every day (ISO 8601 text, so that it sorts) to be ``first`` or later."""

    first: str

    map_metric = DayNotBefore.condition_metric_name
    success_keys: ClassVar[tuple[str, ...]] = ("first", "mostly")


class SessionComplete(MulticolumnMapMetricProvider):
    condition_metric_name = "multicolumn_values.session_complete"
    condition_domain_keys = (
        *("batch_id", "table", "column_list"),
        *("row_condition", "condition_parser", "ignore_row_if"),
    )
    condition_value_keys = ("tasks", "hours")

    @multicolumn_condition_partial(engine=PandasExecutionEngine)
    def _pandas(
        cls, column_list: pd.DataFrame, tasks: list[str], hours: float, **_: object
    ) -> pd.Series:
        session, task, recorded, arrived = (column_list[name] for name in column_list)
        n_there = task.where(task.isin(tasks)).groupby(session).transform("nunique")
        waited = arrived.max() - recorded.groupby(session).transform("max")
        return (n_there >= len(tasks)) | (waited < pd.Timedelta(hours=hours))


class ExpectSessionsToBeComplete(MulticolumnMapExpectation):
    """Expect every session to have all ``tasks``, ``hours`` after its last recording.

    ``column_list``: session, task, time of recording, time of arrival.  What still misses then was
    lost on the way: a telephone that never finished sending.  Now is the newest arrival.
    """

    tasks: list[str]
    hours: float = 48
    ignore_row_if: str = "any_value_is_missing"

    map_metric = SessionComplete.condition_metric_name
    domain_keys: ClassVar[tuple[str, ...]] = (
        *MulticolumnMapExpectation.domain_keys,
        "ignore_row_if",
    )
    success_keys: ClassVar[tuple[str, ...]] = ("column_list", "tasks", "hours", "mostly")


class ExpectColumnsToBeAbsent(BatchExpectation):
    """Expect the table to have none of the columns of ``column_list``."""

    column_list: list[str]

    metric_dependencies: ClassVar[tuple[str, ...]] = ("table.columns",)
    success_keys: ClassVar[tuple[str, ...]] = ("column_list",)

    def _validate(self, metrics: dict[str, Any], **_: object) -> dict[str, Any]:
        n_there = len(set(self.column_list) & set(metrics["table.columns"]))
        return {
            "success": n_there == 0,
            "result": {"observed_value": n_there, "details": {"max_value": 0}},
        }
