"""S1: what must hold of the columns that a hospital fills in."""

from __future__ import annotations

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.row_conditions import Column

from expectations.custom import ExpectOneValuePerGroup
from expectations.limits import (
    CLINICAL,
    COMPLETE_FRACTION,
    IMPOSSIBLE,
    PERSONAL_DATA_REGEX,
    UNUSUAL,
    UNUSUAL_FRACTION,
)
from expectations.notes import filled, mostly, note
from spira_tasks.intake.record_contract import COLUMNS, FREE_TEXT, is_extra

HEX64_REGEX = r"^[0-9a-f]{64}$"


def suite(frame: pd.DataFrame) -> gx.ExpectationSuite:
    """The suite for a recordings table; columns that the layout does not have are left out."""
    present = filled(frame)
    canonical = "consent_status" in present  # required there, absent from the published layout
    expectations = [*_identity(present), *_values(frame, present), *_plausibility(frame, present)]
    if canonical:
        expectations += _permission() + _completeness(len(frame))
    return gx.ExpectationSuite(name="metadata", expectations=expectations)


def _identity(present: set[str]) -> list[Expectation]:
    """Which recording, whose, from where: nothing works without it."""
    expectations: list[Expectation] = [
        gxe.ExpectTableRowCountToBeBetween(
            min_value=1, meta=note("an empty table passes every other test")
        ),
        gxe.ExpectColumnValuesToNotBeNull(column="record_id", meta=note("the key of a recording")),
        gxe.ExpectColumnValuesToBeUnique(column="record_id", meta=note("the key of a recording")),
        gxe.ExpectColumnValuesToNotBeNull(
            column="subject_id", meta=note("a recording of nobody cannot be split by subject")
        ),
        gxe.ExpectColumnValuesToMatchRegex(
            column="subject_id",
            regex=HEX64_REGEX,
            meta=note("anything else may be a hospital number"),
        ),
        gxe.ExpectColumnValuesToNotBeNull(column="task", meta=note("models are of one task")),
    ]
    for column in sorted(present):
        if column in FREE_TEXT or is_extra(column):
            expectations.append(
                gxe.ExpectColumnValuesToNotMatchRegex(
                    column=column,
                    regex=PERSONAL_DATA_REGEX,
                    meta=note("personal numbers must not be kept", "data protection officer"),
                )
            )
    if "session_id" in present:
        expectations += [
            gxe.ExpectCompoundColumnsToBeUnique(
                column_list=["session_id", "task"],
                ignore_row_if="any_value_is_missing",
                meta=note("one recording of a task in a session"),
            ),
            ExpectOneValuePerGroup(
                column_A="session_id",
                column_B="subject_id",
                meta=note("two people in a session: one has the other's label"),
            ),
        ]
    if "hospital_id" in present:
        expectations.append(
            gxe.ExpectColumnValuesToMatchRegex(
                column="hospital_id",
                regex=r"^[A-Za-z0-9._-]{1,40}$",
                severity="warning",
                meta=note("typed by hand, a site gets several names, and its patients several ids"),
            )
        )
    return expectations


def _values(frame: pd.DataFrame, present: set[str]) -> list[Expectation]:
    """Only the values of the contract, in the columns that have a list of them."""
    expectations: list[Expectation] = [
        gxe.ExpectColumnValuesToBeInSet(
            column=name,
            value_set=[int(value) for value in column.values]
            if column.kind == "whole"
            else list(column.values),
            meta=note("the values of the record contract"),
        )
        for name, column in COLUMNS.items()
        if column.values and name in present
    ]
    expectations.append(
        gxe.ExpectColumnValuesToNotBeInSet(
            column="sample_type", value_set=["TEST"], meta=note("trials of the app")
        )
    )
    if "cid10" in present:
        expectations.append(
            gxe.ExpectColumnValuesToMatchRegex(
                column="cid10",
                regex=r"^[A-Z]\d{2}(?:\.\d{1,2})?$",
                severity="warning",
                meta=note("a code of the ICD-10", CLINICAL),
            )
        )
    return expectations


def _plausibility(frame: pd.DataFrame, present: set[str]) -> list[Expectation]:
    """Vital signs: none impossible, few unusual, and not against one another or the label."""
    expectations: list[Expectation] = []
    for name in sorted(present & set(IMPOSSIBLE)):
        limit = IMPOSSIBLE[name]
        expectations.append(
            gxe.ExpectColumnValuesToBeBetween(
                column=name,
                min_value=limit.low,
                max_value=limit.high,
                meta=note(limit.rationale, limit.owner, "possible"),
            )
        )
    for name in sorted(present & set(UNUSUAL)):
        limit = UNUSUAL[name]
        expectations.append(
            gxe.ExpectColumnValuesToBeBetween(
                column=name,
                min_value=limit.low,
                max_value=limit.high,
                mostly=mostly(int(frame[name].notna().sum()), UNUSUAL_FRACTION),
                severity="warning",
                meta=note(limit.rationale, limit.owner, "usual"),
            )
        )
    for later, earlier, severity, reason in (
        ("ingested_at", "collected_at", "critical", "nothing arrives before it is recorded"),
        ("bp_sys", "bp_dia", "warning", "systolic and diastolic exchanged"),
    ):
        if {later, earlier} <= present:
            expectations.append(
                gxe.ExpectColumnPairValuesAToBeGreaterThanB(
                    column_A=later,
                    column_B=earlier,
                    or_equal=True,
                    ignore_row_if="either_value_is_missing",
                    severity=severity,
                    meta=note(reason),
                )
            )
    if {"label", "spo2", "on_oxygen"} <= present:
        in_room_air = Column("on_oxygen") == False  # noqa: E712  (builds a condition)
        expectations.append(
            gxe.ExpectColumnValuesToBeBetween(
                column="spo2",
                min_value=90,
                row_condition=(Column("label") == 0) & in_room_air,
                severity="warning",
                meta=note("controls below 90 %: look at the label again", CLINICAL, "controls"),
            )
        )
    if {"label", "spo2", "on_oxygen", "resp_rate"} <= present:
        calm = Column("resp_rate") < 20
        expectations.append(
            gxe.ExpectColumnValuesToBeBetween(
                column="spo2",
                max_value=96,
                row_condition=(Column("label") == 1) & in_room_air & calm,
                severity="warning",
                meta=note("patients without a sign: look at the label again", CLINICAL, "patients"),
            )
        )
    return expectations


def _permission() -> list[Expectation]:
    return [
        gxe.ExpectColumnValuesToNotBeNull(
            column="consent_status",
            meta=note("no consent, no use", "data protection officer"),
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="consent_status",
            value_set=["granted"],
            meta=note("no consent, no use", "data protection officer", "granted"),
        ),
    ]


def _completeness(n: int) -> list[Expectation]:
    required: list[Expectation] = [
        gxe.ExpectColumnValuesToNotBeNull(column=name, meta=note("required by the record contract"))
        for name in ("session_id", "hospital_id", "collected_at", "sex", "age", "sample_type")
    ]
    return required + [
        gxe.ExpectColumnValuesToNotBeNull(
            column=name,
            mostly=mostly(n, 1 - fraction),
            severity="warning",
            meta=note("without it a confound cannot be looked for"),
        )
        for name, fraction in COMPLETE_FRACTION.items()
    ]
