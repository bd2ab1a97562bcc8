"""Expectations of our own: groups, texts, days, sessions, units, signs, and near duplicates.

Those of one suite alone are beside it: ``training_set`` (classes against what is not the voice) and
``drift``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
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
from great_expectations.expectations.metrics.metric_provider import metric_value
from great_expectations.expectations.metrics.table_metric_provider import TableMetricProvider
from numpy.typing import NDArray

from expectations import signs
from expectations.personal import holds_personal_data

SAME_SECONDS = 0.25  # a copy through another codec keeps its length up to its padding
BLOCK = 2048  # rows compared at a time: 2048 x 20,000 cosines are 160 MB

# By the kind of an expectation about rows: how many columns its metric is called with, the first
# part of that metric's name, and what Great Expectations makes it with.
ROW_METRICS = {
    ColumnMapExpectation: (1, "column_values", ColumnMapMetricProvider, column_condition_partial),
    ColumnPairMapExpectation: (
        *(2, "column_pair_values"),
        *(ColumnPairMapMetricProvider, column_pair_condition_partial),
    ),
    MulticolumnMapExpectation: (
        *(1, "multicolumn_values"),
        *(MulticolumnMapMetricProvider, multicolumn_condition_partial),
    ),
}


class TableMetric(TableMetricProvider):
    """A metric of a whole table: ``of(frame, …)``, with the values of ``value_keys`` by name."""

    of: ClassVar[Callable[..., Any]]

    @metric_value(engine=PandasExecutionEngine)
    def _pandas(
        cls,
        execution_engine: PandasExecutionEngine,
        metric_domain_kwargs: dict[str, Any],
        metric_value_kwargs: dict[str, Any],
        **_: object,
    ) -> Any:
        frame, _, _ = execution_engine.get_compute_domain(metric_domain_kwargs, domain_type="table")
        return cls.of(frame, **metric_value_kwargs)


class _ByRow:
    """Mixin of an expectation about rows: ``good`` says of which rows it holds.

    ``good`` is called with a column, with two, or with a table of several.  Its other parameters
    are fields of the expectation.  The metric that Great Expectations asks for is made of it.
    """

    good: ClassVar[Callable[..., pd.Series]]
    map_metric: ClassVar[str]
    success_keys: ClassVar[tuple[str, ...]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        n_columns, prefix, provider, condition = next(
            parts for kind, parts in ROW_METRICS.items() if issubclass(cls, kind)
        )
        fields = tuple(inspect.signature(cls.good).parameters)[n_columns:]

        def of_rows(_: object, *columns: Any, **given: Any) -> pd.Series:
            return cls.good(*columns, **{field: given[field] for field in fields})

        cls.map_metric, cls.success_keys = f"{prefix}.{cls.__name__}", (*fields, "mostly")
        metric = {
            "condition_metric_name": cls.map_metric,
            "condition_value_keys": fields,
            "_pandas": condition(engine=PandasExecutionEngine)(of_rows),
        }
        type(f"{cls.__name__}Metric", (provider,), metric)  # its metaclass registers it


class _PairExpectation(ColumnPairMapExpectation):
    """Rows where a value is missing are left out."""

    ignore_row_if: str = "either_value_is_missing"
    domain_keys: ClassVar[tuple[str, ...]] = (
        *ColumnPairMapExpectation.domain_keys,
        "ignore_row_if",
    )


class ExpectOneValuePerGroup(_ByRow, _PairExpectation):
    """Expect all rows with the same ``column_A`` to share one ``column_B``.

    For a subject and a split: a voice heard in training is recognised in testing, and the accuracy
    reported is then that of recognising people, not illness.
    """

    @staticmethod
    def good(column_A: pd.Series, column_B: pd.Series) -> pd.Series:
        return column_B.groupby(column_A).transform("nunique") == 1


class ExpectAgesToFitOnePerson(_ByRow, MulticolumnMapExpectation):
    """Expect the ages of a group to lead to one year of birth, up to ``max_years``.

    ``column_list``: group, age, and optionally the time at which the age was so.
    """

    max_years: float
    ignore_row_if: str = "any_value_is_missing"

    @staticmethod
    def good(column_list: pd.DataFrame, max_years: float) -> pd.Series:
        group, age, *at = (column_list[name] for name in column_list)
        age = age.astype("float64")
        born = at[0].dt.year + at[0].dt.day_of_year / 366 - age if at else -age
        of_group = born.groupby(group)
        return of_group.transform("max") - of_group.transform("min") <= max_years


class ExpectColumnValuesToHoldNoPersonalData(_ByRow, ColumnMapExpectation):
    """Expect no cell to hold a CPF, a CNS, a telephone, an e-mail address or a hospital number.

    Bare digits count as a CPF or a CNS only with the right check digits, so counters and times do
    not.  Where ``is_identifier``, fewer kinds of numbers count; see ``expectations.personal``.
    """

    is_identifier: bool = False

    @staticmethod
    def good(column: pd.Series, is_identifier: bool) -> pd.Series:
        texts = column.astype("str")
        return ~texts.isin([t for t in texts.unique() if holds_personal_data(t, is_identifier)])


class ExpectColumnDaysNotToBeBefore(_ByRow, ColumnMapExpectation):
    """Expect every day (ISO 8601 text, so that it sorts) to be ``first`` or later."""

    first: str

    @staticmethod
    def good(column: pd.Series, first: str) -> pd.Series:
        return column.astype("str") >= first


class ExpectSessionsToBeComplete(_ByRow, MulticolumnMapExpectation):
    """Expect every session to have all ``tasks``, ``hours`` after its last recording.

    ``column_list``: session, task, time of recording, time of arrival.  What still misses then was
    lost on the way: a telephone that never finished sending.  Now is the newest arrival.
    """

    tasks: list[str]
    hours: float = 48
    ignore_row_if: str = "any_value_is_missing"

    @staticmethod
    def good(column_list: pd.DataFrame, tasks: list[str], hours: float) -> pd.Series:
        session, task, recorded, arrived = (column_list[name] for name in column_list)
        n_there = task.where(task.isin(tasks)).groupby(session).transform("nunique")
        waited = arrived.max() - recorded.groupby(session).transform("max")
        return (n_there >= len(tasks)) | (waited < pd.Timedelta(hours=hours))


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


class ExpectColumnValuesToBeInUnit(_ByRow, ColumnMapExpectation):
    """Expect no value where the same measurement lies in another unit.

    ``unit`` is the one expected, ``slip`` the one that comes in its place, and ``slip_low`` to
    ``slip_high`` where its values lie.  Give it no ``mostly``: a share that is tolerated let 0.93
    pass for a saturation in percent.
    """

    unit: str
    slip: str
    slip_low: float
    slip_high: float

    @staticmethod
    def good(column: pd.Series, slip_low: float, slip_high: float) -> pd.Series:
        return ~column.astype("float64").between(slip_low, slip_high)


class ExpectColumnPairTimesToBeClose(_ByRow, _PairExpectation):
    """Expect two times of a row to be at most ``max_minutes`` apart.

    A saturation taken an hour before the recording says little of the voice in it.
    """

    max_minutes: float

    @staticmethod
    def good(column_A: pd.Series, column_B: pd.Series, max_minutes: float) -> pd.Series:
        return (column_A - column_B).abs() <= pd.Timedelta(minutes=max_minutes)


class ExpectLabelToAgreeWithSigns(_ByRow, MulticolumnMapExpectation):
    """Expect no control to lack oxygen, and no patient to be without any sign.

    ``column_list``: label, SpO2, whether on oxygen, respiratory rate.  In room air, a control below
    ``low_spo2``, or a patient at ``normal_spo2`` or more who breathes calmly, is a label to look at
    again.  What is missing contradicts nothing.
    """

    low_spo2: float = signs.LOW_SPO2
    normal_spo2: float = signs.NORMAL_SPO2
    calm_resp_rate: float = signs.CALM_RESP_RATE
    ignore_row_if: str = "never"

    @staticmethod
    def good(
        column_list: pd.DataFrame, low_spo2: float, normal_spo2: float, calm_resp_rate: float
    ) -> pd.Series:
        limits = {"low_spo2": low_spo2, "normal_spo2": normal_spo2}
        columns = [column_list[name] for name in column_list]
        return ~signs.contradicted(*columns, **limits, calm_resp_rate=calm_resp_rate)


class ExpectNoNearDuplicates(_ByRow, MulticolumnMapExpectation):
    """Expect no two recordings to sound the same: same length, fingerprints at ``min_cosine``.

    ``column_list``: fingerprint, seconds, and optionally a column that parts them; then only pairs
    on different sides of it count.  Finds what the hash of a file cannot: a copy through another
    codec, at another volume.
    """

    min_cosine: float
    ignore_row_if: str = "any_value_is_missing"

    @staticmethod
    def good(column_list: pd.DataFrame, min_cosine: float) -> pd.Series:
        fingerprint, seconds, *rest = (column_list[name] for name in column_list)
        one, other = near_pairs(fingerprint, seconds, min_cosine)
        if rest:  # only pairs that this column parts
            parted = rest[0].to_numpy()[one] != rest[0].to_numpy()[other]
            one, other = one[parted], other[parted]
        alone = np.ones(len(fingerprint), dtype=bool)
        alone[one] = alone[other] = False
        return pd.Series(alone, index=fingerprint.index)


def near_pairs(
    fingerprints: pd.Series, seconds: pd.Series, min_cosine: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of all pairs of rows that sound the same, each pair once, the lower first.

    Parameters
    ----------
    fingerprints : Series of str
        Hex digits, as ``spira_tasks.speech.probe.fingerprint`` makes them; 7 is zero.
    seconds : Series of float
        Durations: a pair has the same up to ``SAME_SECONDS``.
    min_cosine : float
    """
    if fingerprints.empty:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    order = np.argsort(seconds.to_numpy(float), kind="stable")  # so that few need comparing
    text = "".join(fingerprints.iloc[order]).encode()
    digits = np.frombuffer(text, dtype=np.uint8).reshape(len(order), -1).astype(np.float32)
    numbers = np.where(digits >= ord("a"), digits - ord("a") + 10, digits - ord("0")) - 7
    norms = np.linalg.norm(numbers, axis=1, keepdims=True)
    unit = numbers / np.where(norms > 0, norms, 1)
    length = seconds.to_numpy(float)[order]
    left, right = [], []
    for start in range(0, len(unit), BLOCK):
        stop = min(start + BLOCK, len(unit))
        end = int(np.searchsorted(length, length[stop - 1] + SAME_SECONDS, side="right"))
        near = unit[start:stop] @ unit[start:end].T >= min_cosine
        near &= np.abs(length[start:stop, None] - length[None, start:end]) <= SAME_SECONDS
        one, other = np.nonzero(np.triu(near, 1))
        left.append(order[one + start])
        right.append(order[other + start])
    first, second = np.concatenate(left), np.concatenate(right)
    return np.minimum(first, second), np.maximum(first, second)
