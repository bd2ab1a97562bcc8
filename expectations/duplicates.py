"""Recordings that sound the same: one file sent twice by different ways."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pandas as pd
from great_expectations.execution_engine import PandasExecutionEngine
from great_expectations.expectations.expectation import MulticolumnMapExpectation
from great_expectations.expectations.metrics.map_metric_provider import (
    MulticolumnMapMetricProvider,
    multicolumn_condition_partial,
)
from numpy.typing import NDArray

SAME_SECONDS = 0.25  # a copy through another codec keeps its length up to its padding
BLOCK = 2048  # rows compared at a time: 2048 x 20,000 cosines are 160 MB


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


class NearDuplicates(MulticolumnMapMetricProvider):
    condition_metric_name = "multicolumn_values.near_duplicates"
    condition_domain_keys = (
        *("batch_id", "table", "column_list"),
        *("row_condition", "condition_parser", "ignore_row_if"),
    )
    condition_value_keys = ("min_cosine",)

    @multicolumn_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column_list: pd.DataFrame, min_cosine: float, **_: object) -> pd.Series:
        fingerprint, seconds, *rest = (column_list[name] for name in column_list)
        one, other = near_pairs(fingerprint, seconds, min_cosine)
        if rest:  # only pairs that this column parts
            parted = rest[0].to_numpy()[one] != rest[0].to_numpy()[other]
            one, other = one[parted], other[parted]
        alone = np.ones(len(fingerprint), dtype=bool)
        alone[one] = alone[other] = False
        return pd.Series(alone, index=fingerprint.index)


class ExpectNoNearDuplicates(MulticolumnMapExpectation):
    """Expect no two recordings to sound the same: same length, fingerprints at ``min_cosine``.

    ``column_list``: fingerprint, seconds, and optionally a column that parts them; then only pairs
    on different sides of it count.  Finds what the hash of a file cannot: a copy through another
    codec, at another volume.
    """

    min_cosine: float
    ignore_row_if: str = "any_value_is_missing"

    map_metric = NearDuplicates.condition_metric_name
    domain_keys: ClassVar[tuple[str, ...]] = (
        *MulticolumnMapExpectation.domain_keys,
        "ignore_row_if",
    )
    success_keys: ClassVar[tuple[str, ...]] = ("column_list", "min_cosine", "mostly")
