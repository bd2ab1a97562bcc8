"""S4: what must hold of the features, one row a recording."""

from __future__ import annotations

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd

from expectations.limits import MAX_PARITY_DIFFERENCE
from expectations.notes import QUARANTINE, note
from expectations.suites import common

VERSION = "2026-11-21"
SHAPE = ("n_frames", "n_bins", "schema")


def suite(_: pd.DataFrame) -> gx.ExpectationSuite:
    """The suite for a features table with the columns that the gate adds.

    ``schema_of_code``, ``n_frames_of_code``, ``n_bins_of_code``: what the code that runs makes;
    ``parity_difference``: of a sample that was computed again.
    """
    equal = "features that are all equal tell nothing"
    expectations = [
        common.not_empty(),
        common.not_null("record_id", "the key of a recording"),
        common.unique("record_id", "the key of a recording"),
        common.is_digest("features", "where the matrix is"),
        common.in_set(
            "finite",
            "one NaN in a batch and every weight is NaN",
            action=QUARANTINE,
            value_set=[True],
        ),
        common.between(
            "n_windows", "a recording has at least one window", action=QUARANTINE, min_value=1
        ),
        common.between("std", equal, action=QUARANTINE, min_value=0, strict_min=True),
        gxe.ExpectColumnPairValuesAToBeGreaterThanB(
            column_A="max", column_B="min", meta=note(equal, action=QUARANTINE)
        ),
        common.between(
            "parity_difference",
            "computed again from the stored waveform, the features are others",
            min_value=0,
            max_value=MAX_PARITY_DIFFERENCE,
        ),
    ]
    expectations += [
        common.not_null(column, "a number was not computed", action=QUARANTINE)
        for column in ("features", "finite", "mean", "std", "min", "max")
    ]
    for column in SHAPE:
        expectations += [
            common.n_values(column, "matrices of two kinds do not stack", min_value=1, max_value=1),
            gxe.ExpectColumnPairValuesToBeEqual(
                column_A=column,
                column_B=f"{column}_of_code",
                meta=note("made by other code, or with other parameters, than what runs now"),
            ),
        ]
    return gx.ExpectationSuite(
        name="features", expectations=expectations, meta={"version": VERSION}
    )
