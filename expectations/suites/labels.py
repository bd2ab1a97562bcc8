"""S7: what must hold of the labels that a model is trained and measured on.

Other suites look at the values of the label columns, at one label a person, at labels against vital
signs (S1), and at classes and versions (S3).  How far the people agree who gave the labels is in
the sheet of a snapshot: a table of recordings does not say it.
"""

from __future__ import annotations

import great_expectations as gx
import pandas as pd
from great_expectations.expectations.row_conditions import Column

from expectations import limits
from expectations.notes import QUARANTINE, note
from expectations.suites import common
from expectations.suites.custom import ExpectOneValuePerGroup
from spira_tasks.intake.record_contract import WEAK_SIDES, WEAK_SOURCES

VERSION = "2026-11-30"

MEASURED = ("validation", "test")


def template(recordings: pd.DataFrame) -> pd.DataFrame:
    """A table to show the suite for: with the columns that the gate adds."""
    return recordings.assign(trained=(recordings["task"] == "SENTENCE").astype(int))


def suite(frame: pd.DataFrame) -> gx.ExpectationSuite:
    """The suite for a recordings table with ``split``; the gate adds ``trained``."""
    present = common.filled(frame)
    heard = frame[frame["trained"] == 1]
    n_learned = int((heard["split"].isin(WEAK_SIDES) & heard["label_source"].notna()).sum())
    n_confident = int(heard["label_confidence"].notna().sum())
    trained = Column("trained") == 1
    expectations = common.optional(
        present,
        ExpectOneValuePerGroup(
            column_A="session_id",
            column_B="label",
            meta=note("two labels of a session: which holds, nobody can tell", action=QUARANTINE),
        ),
        common.not_in_set(
            "label_source",
            "a model may be behind a weak label: nothing can be measured on it",
            limits.CLINICAL,
            "measured",
            firm=True,
            value_set=[*WEAK_SOURCES],
            row_condition=Column("split").is_in([*MEASURED]),
        ),
        common.not_in_set(
            "label_source",
            "a model learns the mistakes of rules of thumb, too",
            limits.CLINICAL,
            "learned",
            severity="warning",
            value_set=[*WEAK_SOURCES],
            mostly=common.mostly(n_learned, limits.WEAK_FRACTION),
            row_condition=(Column("split") == "train") & trained,
        ),
        common.in_set(
            "label_source",
            "what a model is tested on, a clinician has to have said",
            limits.CLINICAL,
            "gold",
            severity="warning",
            value_set=["clinician"],
            row_condition=(Column("split") == "test") & trained,
        ),
        common.not_null(
            "label_source",
            "a label that nobody stands behind",
            severity="warning",
            row_condition=trained,
        ),
        common.between(
            "label_confidence",
            "below, one label in five is wrong",
            limits.CLINICAL,
            severity="warning",
            min_value=limits.LEAST_CONFIDENCE,
            mostly=common.mostly(n_confident, limits.UNSURE_FRACTION),
            row_condition=trained,
        ),
    )
    return gx.ExpectationSuite(name="labels", expectations=expectations, meta={"version": VERSION})
