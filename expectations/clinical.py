"""Expectations about units and about values of one patient that contradict one another."""

from __future__ import annotations

from typing import ClassVar

import pandas as pd
from great_expectations.execution_engine import PandasExecutionEngine
from great_expectations.expectations.expectation import (
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


class InUnit(ColumnMapMetricProvider):
    condition_metric_name = "column_values.in_unit"
    condition_value_keys = ("slip_low", "slip_high")

    @column_condition_partial(engine=PandasExecutionEngine)
    def _pandas(
        cls, column: pd.Series, slip_low: float, slip_high: float, **_: object
    ) -> pd.Series:
        return ~column.astype("float64").between(slip_low, slip_high)


class ExpectColumnValuesToBeInUnit(ColumnMapExpectation):
    """Expect no value where the same measurement lies in another unit.

    ``unit`` is the one expected, ``slip`` the one that comes in its place, and ``slip_low`` to
    ``slip_high`` where its values lie.  Has no ``mostly``: a share that is tolerated let 0.93 pass
    for a saturation in percent.
    """

    unit: str
    slip: str
    slip_low: float
    slip_high: float

    map_metric = InUnit.condition_metric_name
    success_keys: ClassVar[tuple[str, ...]] = ("unit", "slip", "slip_low", "slip_high")


class TimesClose(ColumnPairMapMetricProvider):
    condition_metric_name = "column_pair_values.times_close"
    condition_domain_keys = (
        *("batch_id", "table", "column_A", "column_B"),
        *("row_condition", "condition_parser", "ignore_row_if"),
    )
    condition_value_keys = ("max_minutes",)

    @column_pair_condition_partial(engine=PandasExecutionEngine)
    def _pandas(
        cls, column_A: pd.Series, column_B: pd.Series, max_minutes: float, **_: object
    ) -> pd.Series:
        return (column_A - column_B).abs() <= pd.Timedelta(minutes=max_minutes)


class ExpectColumnPairTimesToBeClose(ColumnPairMapExpectation):
    """Expect two times of a row to be at most ``max_minutes`` apart.

    A saturation taken an hour before the recording says little of the voice in it.
    """

    max_minutes: float
    ignore_row_if: str = "either_value_is_missing"

    map_metric = TimesClose.condition_metric_name
    domain_keys: ClassVar[tuple[str, ...]] = (
        *ColumnPairMapExpectation.domain_keys,
        "ignore_row_if",
    )
    success_keys: ClassVar[tuple[str, ...]] = ("column_A", "column_B", "max_minutes", "mostly")


class LabelAgreesWithSigns(MulticolumnMapMetricProvider):
    condition_metric_name = "multicolumn_values.label_agrees_with_signs"
    condition_domain_keys = (
        *("batch_id", "table", "column_list"),
        *("row_condition", "condition_parser", "ignore_row_if"),
    )
    condition_value_keys = ("low_spo2", "normal_spo2", "calm_resp_rate")

    @multicolumn_condition_partial(engine=PandasExecutionEngine)
    def _pandas(
        cls,
        column_list: pd.DataFrame,
        low_spo2: float,
        normal_spo2: float,
        calm_resp_rate: float,
        **_: object,
    ) -> pd.Series:
        label, spo2, on_oxygen, resp_rate = (
            column_list[name].astype("Float64") for name in column_list
        )
        room_air = on_oxygen == 0
        sick_control = (label == 0) & (spo2 < low_spo2) & room_air
        well_patient = (
            (label == 1) & (spo2 >= normal_spo2) & room_air & (resp_rate < calm_resp_rate)
        )
        return ~(sick_control | well_patient).fillna(False).astype(bool)


class ExpectLabelToAgreeWithSigns(MulticolumnMapExpectation):
    """Expect no control to lack oxygen, and no patient to be without any sign.

    ``column_list``: label, SpO2, whether on oxygen, respiratory rate.  In room air, a control below
    ``low_spo2``, or a patient at ``normal_spo2`` or more who breathes calmly, is a label to look at
    again.  What is missing contradicts nothing.
    """

    low_spo2: float = 90
    normal_spo2: float = 97
    calm_resp_rate: float = 20
    ignore_row_if: str = "never"

    map_metric = LabelAgreesWithSigns.condition_metric_name
    domain_keys: ClassVar[tuple[str, ...]] = (
        *MulticolumnMapExpectation.domain_keys,
        "ignore_row_if",
    )
    success_keys: ClassVar[tuple[str, ...]] = (
        *("column_list", "low_spo2", "normal_spo2", "calm_resp_rate", "mostly"),
    )
