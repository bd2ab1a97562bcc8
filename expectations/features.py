"""S4: what must hold of the features, one row a recording."""

from __future__ import annotations

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.expectations.expectation import Expectation

from expectations.audio import DIGEST_REGEX
from expectations.limits import MAX_PARITY_DIFFERENCE
from expectations.notes import QUARANTINE, note

VERSION = "2026-11-21"


def template() -> pd.DataFrame:
    """What ``catalogue`` shows the suite for; all of it holds for any table."""
    return pd.DataFrame()


def suite(frame: pd.DataFrame) -> gx.ExpectationSuite:
    """The suite for a features table with the columns that the gate adds; ``frame`` is not read.

    ``schema_of_code``, ``n_frames_of_code``, ``n_bins_of_code``: what the code that runs makes;
    ``parity_difference``: of a sample that was computed again.
    """
    expectations: list[Expectation] = [
        gxe.ExpectTableRowCountToBeBetween(
            min_value=1, meta=note("an empty table passes every other test")
        ),
        gxe.ExpectColumnValuesToNotBeNull(column="record_id", meta=note("the key of a recording")),
        gxe.ExpectColumnValuesToBeUnique(column="record_id", meta=note("the key of a recording")),
        gxe.ExpectColumnValuesToMatchRegex(
            column="features",
            regex=DIGEST_REGEX,
            meta=note("where the matrix is", action=QUARANTINE),
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="finite",
            value_set=[True],
            meta=note("one NaN in a batch and every weight is NaN", action=QUARANTINE),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="n_windows",
            min_value=1,
            meta=note("a recording has at least one window", action=QUARANTINE),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="std",
            min_value=0,
            strict_min=True,
            meta=note("features that are all equal tell nothing", action=QUARANTINE),
        ),
        gxe.ExpectColumnPairValuesAToBeGreaterThanB(
            column_A="max",
            column_B="min",
            meta=note("features that are all equal tell nothing", action=QUARANTINE),
        ),
    ]
    expectations += [
        gxe.ExpectColumnValuesToNotBeNull(
            column=column, meta=note("a number was not computed", action=QUARANTINE)
        )
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
    expectations += [
        gxe.ExpectColumnPairValuesToBeEqual(
            column_A=column,
            column_B=f"{column}_of_code",
            meta=note("made by other code, or with other parameters, than what runs now"),
        )
        for column in ("n_frames", "n_bins", "schema")
    ]
    expectations.append(
        gxe.ExpectColumnValuesToBeBetween(
            column="parity_difference",
            min_value=0,
            max_value=MAX_PARITY_DIFFERENCE,
            meta=note("computed again from the stored waveform, the features are others"),
        )
    )
    return gx.ExpectationSuite(
        name="features", expectations=expectations, meta={"version": VERSION}
    )
