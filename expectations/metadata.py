"""S1: what must hold of the columns that a hospital fills in."""

from __future__ import annotations

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.expectations.expectation import Expectation

from expectations.clinical import (
    ExpectColumnPairTimesToBeClose,
    ExpectColumnValuesToBeInUnit,
    ExpectLabelToAgreeWithSigns,
)
from expectations.custom import (
    ExpectColumnDaysNotToBeBefore,
    ExpectColumnsToBeAbsent,
    ExpectColumnValuesToHoldNoPersonalData,
    ExpectOneValuePerGroup,
    ExpectSessionsToBeComplete,
)
from expectations.limits import (
    CAPTURE,
    CLINICAL,
    COMPLETE_FRACTION,
    FIRST_DAY,
    IMPOSSIBLE,
    OLDEST_AGE,
    SPO2_MINUTES,
    SYNC_HOURS,
    UNIT_SLIPS,
    UNUSUAL,
    UNUSUAL_FRACTION,
)
from expectations.notes import QUARANTINE, filled, mostly, note
from expectations.personal import IDENTIFIERS
from spira_tasks.intake.record_contract import COLUMNS, FREE_TEXT, RAW_IDENTIFIERS, is_extra

VERSION = "2026-11-21.2"

HEX64_REGEX = r"^[0-9a-f]{64}$"
PRIVACY = "data protection officer"
RAW = (*RAW_IDENTIFIERS, "audio_uri")  # they name a person; ingest drops them


def suite(frame: pd.DataFrame) -> gx.ExpectationSuite:
    """The suite for a recordings table; columns that the layout does not have are left out."""
    present = filled(frame)
    canonical = "consent_status" in present  # required there, absent from the published layout
    expectations = [
        *_identity(present),
        *_privacy(present),
        *_values(present),
        *_plausibility(frame, present),
        *_consistency(present),
        *_sessions(frame, present),
    ]
    if canonical:
        expectations += _permission(frame, present) + _completeness(len(frame))
    return gx.ExpectationSuite(
        name="metadata", expectations=expectations, meta={"version": VERSION}
    )


def _identity(present: set[str]) -> list[Expectation]:
    """Which recording, whose, from where: nothing works without it."""
    expectations: list[Expectation] = [
        gxe.ExpectTableRowCountToBeBetween(
            min_value=1, meta=note("an empty table passes every other test")
        ),
        gxe.ExpectTableColumnsToMatchSet(
            column_set=[
                *(name for name in COLUMNS if name not in RAW),
                *("subject_id", "label", "audio_sha256", "waveform"),
            ],
            exact_match=False,
            meta=note("a column of the record contract is missing: ingest made another table"),
        ),
        gxe.ExpectColumnValuesToNotBeNull(column="record_id", meta=note("the key of a recording")),
        gxe.ExpectColumnValuesToBeUnique(column="record_id", meta=note("the key of a recording")),
        gxe.ExpectColumnValuesToNotBeNull(
            column="subject_id",
            meta=note("a recording of nobody cannot be split by subject", action=QUARANTINE),
        ),
        gxe.ExpectColumnValuesToNotBeNull(
            column="task", meta=note("models are of one task", action=QUARANTINE)
        ),
    ]
    if "session_id" in present:
        expectations += [
            gxe.ExpectCompoundColumnsToBeUnique(
                column_list=["session_id", "task"],
                ignore_row_if="any_value_is_missing",
                meta=note("one recording of a task in a session", action=QUARANTINE),
            ),
            ExpectOneValuePerGroup(
                column_A="session_id",
                column_B="subject_id",
                meta=note("two people in a session: one has the other's label", action=QUARANTINE),
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


def _privacy(present: set[str]) -> list[Expectation]:
    """Nothing that leads to a person: pseudonyms, and nothing else in any text."""
    expectations: list[Expectation] = [
        ExpectColumnsToBeAbsent(
            column_list=[*RAW],
            meta=note("raw identifiers are never kept", PRIVACY, firm=True),
        ),
    ]
    expectations += [
        gxe.ExpectColumnValuesToMatchRegex(
            column=column,
            regex=HEX64_REGEX,
            meta=note("anything else may be a hospital number", PRIVACY, "", QUARANTINE, firm=True),
        )
        for column in ("subject_id", "collector_pid")
        if column in present
    ]
    expectations += [
        ExpectColumnValuesToHoldNoPersonalData(
            column=column,
            is_identifier=column in IDENTIFIERS,
            meta=note("personal numbers must not be kept", PRIVACY, "", QUARANTINE, firm=True),
        )
        for column in sorted(present)
        if column in FREE_TEXT or is_extra(column)
    ]
    if "age" in present:
        expectations.append(
            gxe.ExpectColumnValuesToBeBetween(
                column="age",
                max_value=OLDEST_AGE,
                severity="warning",
                meta=note(
                    "few are older, and known by it: write 90 for all of them", PRIVACY, "coarse"
                ),
            )
        )
    return expectations


def _values(present: set[str]) -> list[Expectation]:
    """Only the values of the contract, in the columns that have a list of them."""
    expectations: list[Expectation] = [
        gxe.ExpectColumnValuesToBeInSet(
            column=name,
            value_set=[int(value) for value in column.values]
            if column.kind == "whole"
            else list(column.values),
            meta=note("the values of the record contract", action=QUARANTINE),
        )
        for name, column in COLUMNS.items()
        if column.values and name in present
    ]
    expectations.append(
        gxe.ExpectColumnValuesToNotBeInSet(
            column="sample_type",
            value_set=["TEST"],
            meta=note("trials of the app", action=QUARANTINE),
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
                meta=note(limit.rationale, limit.owner, "possible", QUARANTINE),
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
    for name in sorted(present & set(UNIT_SLIPS)):
        slip = UNIT_SLIPS[name]
        expectations.append(
            ExpectColumnValuesToBeInUnit(
                column=name,
                unit=slip.unit,
                slip=slip.slip,
                slip_low=slip.low,
                slip_high=slip.high,
                meta=note(f"{slip.unit}, not {slip.slip}", slip.owner, "", QUARANTINE),
            )
        )
    return expectations


def _consistency(present: set[str]) -> list[Expectation]:
    """Values of one recording that must not contradict one another."""
    expectations: list[Expectation] = []
    if "collected_at" in present:
        expectations.append(
            gxe.ExpectColumnValuesToBeBetween(
                column="collected_at",
                min_value=f"{FIRST_DAY} 00:00:00",
                meta=note("before SPIRA began: a clock that was never set", action=QUARANTINE),
            )
        )
    if {"ingested_at", "collected_at"} <= present:
        expectations.append(
            gxe.ExpectColumnPairValuesAToBeGreaterThanB(
                column_A="ingested_at",
                column_B="collected_at",
                or_equal=True,
                ignore_row_if="either_value_is_missing",
                meta=note("nothing arrives before it is recorded", action=QUARANTINE),
            )
        )
    if {"bp_sys", "bp_dia"} <= present:
        expectations.append(
            gxe.ExpectColumnPairValuesAToBeGreaterThanB(
                column_A="bp_sys",
                column_B="bp_dia",
                ignore_row_if="either_value_is_missing",
                severity="warning",
                meta=note("systolic and diastolic exchanged", CLINICAL),
            )
        )
    if {"spo2_at", "collected_at"} <= present:
        expectations.append(
            ExpectColumnPairTimesToBeClose(
                column_A="spo2_at",
                column_B="collected_at",
                max_minutes=SPO2_MINUTES,
                severity="warning",
                meta=note("a saturation of another hour says little of this voice", CLINICAL),
            )
        )
    if {"ri_clinical", "spo2", "on_oxygen"} <= present:
        expectations.append(
            ExpectLabelToAgreeWithSigns(
                column_list=["ri_clinical", "spo2", "on_oxygen", "resp_rate"],
                severity="warning",
                meta=note(
                    "a control who lacks oxygen, or a patient without any sign: look at the label "
                    "again",
                    CLINICAL,
                ),
            )
        )
    return expectations


def _sessions(frame: pd.DataFrame, present: set[str]) -> list[Expectation]:
    """Sessions have the tasks that most sessions have: which ones, differs between studies."""
    columns = ["session_id", "task", "collected_at", "ingested_at"]
    if not set(columns) <= present:
        return []
    n_sessions = frame["session_id"].nunique()
    n_by_task = frame.groupby("task")["session_id"].nunique()
    usual = sorted(str(task) for task in n_by_task.index[n_by_task * 2 >= n_sessions])
    return [
        ExpectSessionsToBeComplete(
            column_list=columns,
            tasks=usual,
            hours=SYNC_HOURS,
            severity="warning",
            meta=note("a part of the session never arrived, or was refused: synchronise again"),
        )
    ]


def _permission(frame: pd.DataFrame, present: set[str]) -> list[Expectation]:
    expectations: list[Expectation] = [
        gxe.ExpectColumnValuesToNotBeNull(
            column="consent_status",
            meta=note("no consent, no use", PRIVACY, "", QUARANTINE, firm=True),
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="consent_status",
            value_set=["granted"],
            meta=note("no consent, no use", PRIVACY, "granted", QUARANTINE, firm=True),
        ),
    ]
    if {"retention_until", "ingested_at"} <= present:
        newest = frame["ingested_at"].max().date().isoformat()  # today is this day or later
        expectations.append(
            ExpectColumnDaysNotToBeBefore(
                column="retention_until",
                first=newest,
                meta=note("kept no longer than promised", PRIVACY, "", QUARANTINE, firm=True),
            )
        )
    return expectations


def _completeness(n: int) -> list[Expectation]:
    required: list[Expectation] = [
        gxe.ExpectColumnValuesToNotBeNull(
            column=name, meta=note("required by the record contract", action=QUARANTINE)
        )
        for name in ("session_id", "hospital_id", "collected_at", "sex", "age", "sample_type")
    ]
    shares: list[Expectation] = [
        gxe.ExpectColumnValuesToNotBeNull(
            column=name,
            mostly=mostly(n, 1 - fraction),
            severity="warning",
            meta=note("without it a confound cannot be looked for"),
        )
        for name, fraction in COMPLETE_FRACTION.items()
    ]
    return [*required, *shares] + [
        gxe.ExpectColumnProportionOfNonNullValuesToBeBetween(
            column=name,
            min_value=0,
            strict_min=True,
            severity="warning",
            meta=note("a column that nobody fills in hides a confound instead of showing it"),
        )
        for name in CAPTURE
    ]
