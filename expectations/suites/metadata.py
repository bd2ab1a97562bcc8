"""S1: what must hold of the columns that a hospital fills in."""

from __future__ import annotations

from typing import Any

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.row_conditions import Column

from expectations.limits import (
    AGE_SPREAD_YEARS,
    CAPTURE,
    CLINICAL,
    COMPLETE_FRACTION,
    FIRST_DAY,
    IMPOSSIBLE,
    OLDEST_AGE,
    PRIVACY,
    SPO2_MINUTES,
    SYNC_HOURS,
    UNIT_SLIPS,
    UNUSUAL,
    UNUSUAL_FRACTION,
    Limit,
)
from expectations.notes import QUARANTINE, note
from expectations.personal import IDENTIFIERS
from expectations.suites import common, custom
from spira_tasks.intake.record_contract import COLUMNS, FREE_TEXT, RAW_IDENTIFIERS, is_extra

VERSION = "2026-11-29.1"

HEX64_REGEX = r"^[0-9a-f]{64}$"
RAW = (*RAW_IDENTIFIERS, "audio_uri")  # they name a person; ingest drops them


def suite(frame: pd.DataFrame) -> gx.ExpectationSuite:
    """The suite for a recordings table; columns that the layout does not have are left out."""
    present = common.filled(frame)
    canonical = "consent_status" in present  # required there, absent from the published layout
    expectations = [
        *_identity(present),
        *_people(present),
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
    contract = [name for name in COLUMNS if name not in RAW]
    return [
        common.not_empty(),
        gxe.ExpectTableColumnsToMatchSet(
            column_set=[*contract, "subject_id", "label", "audio_sha256", "waveform"],
            exact_match=False,
            meta=note("a column of the record contract is missing: ingest made another table"),
        ),
        common.not_null("record_id", "the key of a recording"),
        common.unique("record_id", "the key of a recording"),
        common.not_null(
            "subject_id", "a recording of nobody cannot be split by subject", action=QUARANTINE
        ),
        common.not_null("task", "models are of one task", action=QUARANTINE),
        *common.optional(
            present,
            gxe.ExpectCompoundColumnsToBeUnique(
                column_list=["session_id", "task"],
                ignore_row_if="any_value_is_missing",
                meta=note("one recording of a task in a session", action=QUARANTINE),
            ),
            custom.ExpectOneValuePerGroup(
                column_A="session_id",
                column_B="subject_id",
                meta=note("two people in a session: one has the other's label", action=QUARANTINE),
            ),
            common.matches(
                "hospital_id",
                "typed by hand, a site gets several names, and its patients several ids",
                severity="warning",
                regex=r"^[A-Za-z0-9._-]{1,40}$",
            ),
        ),
    ]


def _people(present: set[str]) -> list[Expectation]:
    """What does not change from one recording of a person to the next."""
    shared = "two people under one number: which recording is whose, nobody can tell"

    def same(column: str, condition: Any) -> Expectation:
        return custom.ExpectOneValuePerGroup(
            column_A="subject_id",
            column_B=column,
            row_condition=condition,
            meta=note(shared, action=QUARANTINE),
        )

    dated = ["collected_at"] if "collected_at" in present else []
    return common.optional(
        present,
        same("sex", Column("sex").is_in(["M", "F"])),
        # Who was ill and recovered has both labels; the second visit is marked AFTERCOVID.
        same("label", Column("sample_type").is_in(["PATIENT", "CONTROL"])),
        custom.ExpectAgesToFitOnePerson(
            column_list=["subject_id", "age", *dated],
            max_years=AGE_SPREAD_YEARS,
            row_condition=Column("age") < OLDEST_AGE,
            meta=note(shared, action=QUARANTINE),
        ),
    )


def _privacy(present: set[str]) -> list[Expectation]:
    """Nothing that leads to a person: pseudonyms, and nothing else in any text."""
    number = "anything else may be a hospital number"
    why = "few are older, and known by it: write 90 for all of them"
    return [
        custom.ExpectColumnsToBeAbsent(
            column_list=[*RAW], meta=note("raw identifiers are never kept", PRIVACY, firm=True)
        ),
        *common.optional(
            present,
            *(
                common.matches(
                    column, number, PRIVACY, action=QUARANTINE, firm=True, regex=HEX64_REGEX
                )
                for column in ("subject_id", "collector_pid")
            ),
            common.between("age", why, PRIVACY, "coarse", severity="warning", max_value=OLDEST_AGE),
        ),
        *(
            custom.ExpectColumnValuesToHoldNoPersonalData(
                column=column,
                is_identifier=column in IDENTIFIERS,
                meta=note("personal numbers must not be kept", PRIVACY, "", QUARANTINE, firm=True),
            )
            for column in sorted(present)
            if column in FREE_TEXT or is_extra(column)
        ),
    ]


def _values(present: set[str]) -> list[Expectation]:
    """Only the values of the contract, in the columns that have a list of them."""
    return [
        common.no_trials(),
        *common.optional(
            present,
            *(
                common.in_set(
                    name,
                    "the values of the record contract",
                    action=QUARANTINE,
                    value_set=[
                        int(value) if column.kind == "whole" else value for value in column.values
                    ],
                )
                for name, column in COLUMNS.items()
                if column.values
            ),
            common.matches(
                "cid10",
                "a code of the ICD-10",
                CLINICAL,
                severity="warning",
                regex=r"^[A-Z]\d{2}(?:\.\d{1,2})?$",
            ),
        ),
    ]


def _plausibility(frame: pd.DataFrame, present: set[str]) -> list[Expectation]:
    """Vital signs: none impossible, few unusual, and not against one another or the label."""

    def within(name: str, limit: Limit, aspect: str, **given: Any) -> Expectation:
        bounds: dict[str, Any] = {"min_value": limit.low, "max_value": limit.high}
        return common.between(name, limit.rationale, limit.owner, aspect, **bounds, **given)

    expectations = [
        within(name, limit, "possible", action=QUARANTINE)
        for name, limit in IMPOSSIBLE.items()
        if name in present
    ]
    for name, limit in UNUSUAL.items():
        if name in present:
            share = common.mostly(int(frame[name].notna().sum()), UNUSUAL_FRACTION)
            expectations.append(within(name, limit, "usual", severity="warning", mostly=share))
    expectations += [
        custom.ExpectColumnValuesToBeInUnit(
            column=name,
            unit=slip.unit,
            slip=slip.slip,
            slip_low=slip.low,
            slip_high=slip.high,
            meta=note(f"{slip.unit}, not {slip.slip}", slip.owner, "", QUARANTINE),
        )
        for name, slip in UNIT_SLIPS.items()
        if name in present
    ]
    return expectations


def _consistency(present: set[str]) -> list[Expectation]:
    """Values of one recording that must not contradict one another."""
    expectations = common.optional(
        present,
        common.between(
            "collected_at",
            "before SPIRA began: a clock that was never set",
            action=QUARANTINE,
            min_value=f"{FIRST_DAY} 00:00:00",
        ),
        gxe.ExpectColumnPairValuesAToBeGreaterThanB(
            column_A="ingested_at",
            column_B="collected_at",
            or_equal=True,
            ignore_row_if="either_value_is_missing",
            meta=note("nothing arrives before it is recorded", action=QUARANTINE),
        ),
        gxe.ExpectColumnPairValuesAToBeGreaterThanB(
            column_A="bp_sys",
            column_B="bp_dia",
            ignore_row_if="either_value_is_missing",
            severity="warning",
            meta=note("systolic and diastolic exchanged", CLINICAL),
        ),
        custom.ExpectColumnPairTimesToBeClose(
            column_A="spo2_at",
            column_B="collected_at",
            max_minutes=SPO2_MINUTES,
            severity="warning",
            meta=note("a saturation of another hour says little of this voice", CLINICAL),
        ),
    )
    if {"ri_clinical", "spo2", "on_oxygen"} <= present:
        why = "a control who lacks oxygen, or a patient without any sign: look at the label again"
        signs = ["ri_clinical", "spo2", "on_oxygen", "resp_rate"]
        meta = note(why, CLINICAL)
        expectations.append(
            custom.ExpectLabelToAgreeWithSigns(column_list=signs, severity="warning", meta=meta)
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
        custom.ExpectSessionsToBeComplete(
            column_list=columns,
            tasks=usual,
            hours=SYNC_HOURS,
            severity="warning",
            meta=note("a part of the session never arrived, or was refused: synchronise again"),
        )
    ]


def _permission(frame: pd.DataFrame, present: set[str]) -> list[Expectation]:
    expectations = [
        common.not_null(
            "consent_status", "no consent, no use", PRIVACY, action=QUARANTINE, firm=True
        ),
        common.consent_granted("granted"),
    ]
    if {"retention_until", "ingested_at"} <= present:
        newest = frame["ingested_at"].max().date().isoformat()  # today is this day or later
        meta = note("kept no longer than promised", PRIVACY, "", QUARANTINE, firm=True)
        expectations.append(
            custom.ExpectColumnDaysNotToBeBefore(column="retention_until", first=newest, meta=meta)
        )
    return expectations


def _completeness(n: int) -> list[Expectation]:
    required = [
        common.not_null(name, "required by the record contract", action=QUARANTINE)
        for name in ("session_id", "hospital_id", "collected_at", "sex", "age", "sample_type")
    ]
    shares = [
        common.not_null(
            name,
            "without it a confound cannot be looked for",
            severity="warning",
            mostly=common.mostly(n, 1 - fraction),
        )
        for name, fraction in COMPLETE_FRACTION.items()
    ]
    capture = [
        gxe.ExpectColumnProportionOfNonNullValuesToBeBetween(
            column=name,
            min_value=0,
            strict_min=True,
            severity="warning",
            meta=note("a column that nobody fills in hides a confound instead of showing it"),
        )
        for name in CAPTURE
    ]
    return required + shares + capture
