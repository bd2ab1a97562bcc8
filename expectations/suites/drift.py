"""S5: what must hold of new people beside those of the champion's training set.

The statistics are made by the stage ``drift``, one row a feature, for no expectation of Great
Expectations knows how many people there are.  Nothing here blocks: another population is no fault
of the data, and the reason to train again.
"""

from __future__ import annotations

from typing import Any, ClassVar

import great_expectations as gx
import pandas as pd
from great_expectations.expectations.expectation import BatchExpectation

from expectations.limits import CLINICAL, DATA
from expectations.notes import note
from expectations.suites.custom import TableMetric

VERSION = "2026-11-21"
MAX_EFFECT = 0.2  # Wasserstein distance in standard deviations of the reference
MAX_COEFFICIENT = 4.0  # standard deviations of the frames of the training set
MAX_STANDARD_ERRORS = 3.0  # between two shares of positives: chance passes it once in 370 times
MIN_PSI = 0.1  # the usual "small" one; what chance gives with few people is held against too


def template(_: pd.DataFrame) -> pd.DataFrame:
    """A table to show the suite for: one feature of each kind."""
    return pd.DataFrame(
        {
            "feature": ["age", "hospital_id", "coefficients", "positive_rate"],
            "kind": ["number", "category", "coefficients", "positive_rate"],
            "compared": True,
        }
    )


def suite(frame: pd.DataFrame) -> gx.ExpectationSuite:
    """The suite for a table of the stage ``drift``; features with too few people are left out."""
    expectations = [
        expectation(column=row.feature, max_value=most, severity="warning", meta=note(why, owner))
        for row in frame[frame["compared"]].itertuples()
        for expectation, most, why, owner in BY_KIND[row.kind]
    ]
    return gx.ExpectationSuite(name="drift", expectations=expectations, meta={"version": VERSION})


class RowOfFeature(TableMetric):
    metric_name = "table.row_of_feature"
    value_keys = ("column",)

    @staticmethod
    def of(frame: pd.DataFrame, column: str) -> dict[str, Any]:
        (row,) = frame[frame["feature"] == column].to_dict("records")
        return dict(row)


class _AboutFeature(BatchExpectation):
    """The common part: a number of the row of a feature, and the most that it may be."""

    column: str
    max_value: float

    number: ClassVar[str] = "effect"
    beyond_chance: ClassVar[bool] = False  # whether what chance alone gives is no difference
    metric_dependencies: ClassVar[tuple[str, ...]] = (RowOfFeature.metric_name,)
    success_keys: ClassVar[tuple[str, ...]] = ("column", "max_value")

    def _validate(self, metrics: dict[str, Any], **_: object) -> dict[str, Any]:
        row = metrics[RowOfFeature.metric_name]
        allowed, is_sure = self.max_value, True
        if self.beyond_chance and row["kind"] == "category":
            allowed = max(allowed, row["null99"])
        elif self.beyond_chance:
            is_sure = bool(row["significant"])
        return {
            "success": not is_sure or bool(row[self.number] <= allowed),
            "result": {
                "observed_value": row[self.number],
                "details": {"max_value": allowed, "n": int(row["n_new"])},
            },
        }


class ExpectFeatureToBeAsBefore(_AboutFeature):
    """Expect new people to be like those of the reference in one feature.

    Of a number: fails where a Kolmogorov-Smirnov test finds a difference, at a false discovery rate
    of 5 % over all features, and it is at least ``max_value`` standard deviations wide.  Of a
    category: fails where the population stability index exceeds ``max_value`` and what chance gives
    with so few people, in 99 of 100 cases.
    """

    beyond_chance: ClassVar[bool] = True


class ExpectNoNewCategories(_AboutFeature):
    """Expect no category of new people that nobody of the reference has.

    A site, a device or a version of the app that is new is named in no report: look at the table.
    """

    number: ClassVar[str] = "n_new_categories"


class ExpectCoefficientsToBeAsBefore(_AboutFeature):
    """Expect the mean of every feature bin of new people to be near that of the training set.

    The farthest bin counts, in standard deviations of the training set's frames.
    """


class ExpectPositiveRateToBeAsBefore(_AboutFeature):
    """Expect the champion to call as many new people positive as it called test people.

    In standard errors of the difference between the two shares.
    """


# By the kind of a row: what is expected, the most that a number may be, why, and the owner.
UNKNOWN = "the model was never given such features"
ALARMS = "more alarms, or fewer: other people, or a model that ages"
OTHERS = "the people are others than those the champion learned from"
BY_KIND: dict[str, list[tuple[type[_AboutFeature], float, str, str]]] = {
    "number": [(ExpectFeatureToBeAsBefore, MAX_EFFECT, OTHERS, CLINICAL)],
    "category": [
        (ExpectFeatureToBeAsBefore, MIN_PSI, OTHERS, CLINICAL),
        (ExpectNoNewCategories, 0, "the champion has never met it", DATA),
    ],
    "coefficients": [(ExpectCoefficientsToBeAsBefore, MAX_COEFFICIENT, UNKNOWN, DATA)],
    "positive_rate": [(ExpectPositiveRateToBeAsBefore, MAX_STANDARD_ERRORS, ALARMS, CLINICAL)],
}
