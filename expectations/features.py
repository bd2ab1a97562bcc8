"""S4: what must hold of the features, one row a recording."""

from __future__ import annotations

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.expectations.expectation import Expectation

from expectations.audio import DIGEST_REGEX
from expectations.notes import note


def suite(frame: pd.DataFrame) -> gx.ExpectationSuite:
    """The suite for a features table; all of it holds for any table, so ``frame`` is not read."""
    expectations: list[Expectation] = [
        gxe.ExpectTableRowCountToBeBetween(
            min_value=1, meta=note("an empty table passes every other test")
        ),
        gxe.ExpectColumnValuesToNotBeNull(column="record_id", meta=note("the key of a recording")),
        gxe.ExpectColumnValuesToBeUnique(column="record_id", meta=note("the key of a recording")),
        gxe.ExpectColumnValuesToMatchRegex(
            column="features", regex=DIGEST_REGEX, meta=note("where the matrix is")
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="finite",
            value_set=[True],
            meta=note("one NaN in a batch and every weight is NaN"),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="n_windows", min_value=1, meta=note("a recording has at least one window")
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="std",
            min_value=0,
            strict_min=True,
            meta=note("features that are all equal tell nothing"),
        ),
        gxe.ExpectColumnPairValuesAToBeGreaterThanB(
            column_A="max", column_B="min", meta=note("features that are all equal tell nothing")
        ),
    ]
    expectations += [
        gxe.ExpectColumnValuesToNotBeNull(column=column, meta=note("a number was not computed"))
        for column in ("features", "finite", "mean", "std", "min", "max")
    ]
    expectations += [
        gxe.ExpectColumnUniqueValueCountToBeBetween(
            column=column,
            min_value=1,
            max_value=1,
            meta=note("matrices of two kinds do not stack"),
        )
        for column in ("n_frames", "n_bins", "schema")
    ]
    return gx.ExpectationSuite(name="features", expectations=expectations)
