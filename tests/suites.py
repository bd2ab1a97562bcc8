"""Clean tables as the stages leave them, and what the suites say of spoilt ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import TypeAlias

import great_expectations as gx
import numpy as np
import pandas as pd

from spira_tasks import quality
from spira_tasks.intake.record_contract import typed

N = 240
Table: TypeAlias = pd.DataFrame

BETWEEN, IN_SET = "expect_column_values_to_be_between", "expect_column_values_to_be_in_set"
NOT_IN_SET = "expect_column_values_to_not_be_in_set"
NOT_NULL, UNIQUE = "expect_column_values_to_not_be_null", "expect_column_values_to_be_unique"
REGEX = "expect_column_values_to_match_regex"
PAIR, EQUAL = (
    "expect_column_pair_values_a_to_be_greater_than_b",
    "expect_column_pair_values_to_be_equal",
)
ONE, PERSONAL = ("expect_one_value_per_group", "expect_column_values_to_hold_no_personal_data")
UNIT = "expect_column_values_to_be_in_unit"
COUNT = "expect_column_unique_value_count_to_be_between"
NEAR = "expect_no_near_duplicates"
WEAK = "expect_association_with_label_to_be_weak"
LEVEL = "expect_no_level_of_one_class"
ALIKE = "expect_classes_to_be_alike"


def recordings(n: int = N) -> Table:
    """A clean recordings table as ingest leaves it: two tasks a subject, classes alternating."""
    rng = np.random.default_rng([3, n])
    subject = np.arange(n) // 2
    label = subject % 2
    text = pd.DataFrame(
        {
            "record_id": [f"r{number:05d}" for number in range(n)],
            "task": np.where(np.arange(n) % 2, "SENTENCE", "VOWEL"),
            "session_id": [f"s{number}" for number in subject],
            "hospital_id": rng.choice(["site-a", "site-b"], n // 2).repeat(2),
            "collector_pid": "c" * 64,
            "collected_at": "2026-03-04T10:20:30-03:00",
            "ingested_at": "2026-03-04T11:20:30-03:00",
            "sex": rng.choice(["F", "M"], n // 2).repeat(2),
            "age": (40 + subject % 50).astype(str),
            "mask_type": rng.choice(["NONE", "THIN"], n // 2).repeat(2),
            "device_model": rng.choice(["Moto G7", "Galaxy A32"], n // 2).repeat(2),
            "app": "spira-app",
            "app_version": "3.2.0",
            "prompt_version": "essa_fase",
            "capture_ns": "false",
            "capture_agc": "false",
            "capture_aec": "false",
            "codec_original": "pcm16",
            "spo2": np.where(label, "92", "97"),
            "spo2_at": "2026-03-04T10:10:00-03:00",
            "on_oxygen": "false",
            "resp_rate": "18",
            "heart_rate": "80",
            "temp": "36.5",
            "height": "170",
            "weight": "70",
            "bp_sys": "120",
            "bp_dia": "80",
            "cid10": np.where(label, "U07.1", ""),
            "sample_type": np.where(label, "PATIENT", "CONTROL"),
            "ri_clinical": label.astype(str),
            "label_version": "1",
            "consent_status": "granted",
            "consent_version": "2",
            "retention_until": "2046-03-04",
        },
        dtype="str",
    )
    table, faults = typed(text.where(text != ""), required=())
    assert not faults
    table = table.drop(columns=["audio_uri", "patient_rgh", "patient_pid"])
    return table.assign(
        subject_id=[f"{number:064x}" for number in subject],
        label=table["ri_clinical"].astype("Int8"),
        split_given=pd.Series(None, index=table.index, dtype="str"),
        audio_sha256=[f"{number:064x}" for number in range(n)],
        waveform=[f"sha256:{number:064x}" for number in range(n)],
        native_sample_rate_hz=48_000,
        n_channels=1,
        container="wav",
        codec="pcm16",
        duration_seconds=rng.uniform(6, 12, n),
        level_dbfs=rng.normal(-22, 2, n),
        peak=0.4,
        clipping_fraction=0.0,
        dc_offset=0.001,
        snr_db=rng.uniform(12, 40, n),
        bandwidth_hz=7_500.0,
        speech_fraction=0.6,
        longest_digital_silence_seconds=0.001,
        dropouts_per_second=0.0,
        syllabic_modulation_db=4.0,
        fingerprint=["".join(row) for row in rng.choice([*"0123456789abcde"], (n, 288))],
    )


def split(table: Table) -> Table:
    """The table with the columns that the stage and the gate add."""
    subject = table["subject_id"].map(lambda text: int(text, 16) // 2)
    sides = np.array(["train", "train", "train", "validation", "test"])
    trained = (table["task"] == "SENTENCE").astype(int)
    return table.assign(split=sides[subject % 5], erased=False, trained=trained)


def feature_table() -> Table:
    """As ``materialize`` leaves it, with the columns that the gate adds."""
    return pd.DataFrame(
        {
            "record_id": [f"r{number}" for number in range(20)],
            "features": [f"sha256:{number:064x}" for number in range(20)],
            "n_windows": 5,
            "n_frames": 401,
            "n_bins": 40,
            "finite": True,
            "mean": 0.1,
            "std": 1.0,
            "min": -3.0,
            "max": 3.0,
            "schema": "abc",
            "n_frames_of_code": 401,
            "n_bins_of_code": 40,
            "schema_of_code": "abc",
            "parity_difference": [0.0, 1e-6] + [np.nan] * 18,
        }
    )


def ward_noises(n: int = 20) -> Table:
    """As ingest leaves the bank, with the column that the gate adds."""
    return pd.DataFrame(
        {
            "noise_id": [f"noise-{number}" for number in range(n)],
            "pool": np.where(np.arange(n) % 3, "train", "evaluation"),
            "hospital_id": "site-a",
            "waveform": [f"sha256:{number:064x}" for number in range(n)],
            "duration_seconds": 30.0,
            "level_dbfs": -30.0,
            "peak": 0.2,
            "syllabic_modulation_db": 0.7,
            "longest_recording_seconds": 20.0,
        }
    )


def checked(make: quality.SuiteFor, table: Table) -> quality.Report:
    return quality.check(table, make(table))


def failing(make: quality.SuiteFor, table: Table) -> dict[str, str]:
    """Names of the expectations that did not pass, and what follows."""
    return failed(checked(make, table))


def follows(make: quality.SuiteFor, table: Table, name: str) -> str | None:
    """What follows of one expectation; None where it passes.  A whole suite takes seconds."""
    suite = make(table)
    (one,) = (e for e in suite.expectations if quality.verdict_name(e.configuration) == name)
    alone = gx.ExpectationSuite(suite.name, [one], meta=suite.meta)
    return failed(quality.check(table, alone)).get(name)


def failed(report: quality.Report) -> dict[str, str]:
    """As ``failing``; ``quarantine`` for a critical one whose rows are put aside."""
    return {
        v.id: "quarantine" if (v.severity, v.status) == ("critical", "warn") else v.status
        for v in report.verdicts
        if v.status != "pass"
    }


def firm(report: quality.Report) -> set[str]:
    """Names of the expectations that nobody may waive."""
    return {verdict.id for verdict in report.verdicts if verdict.firm}


def said(report: quality.Report) -> str:
    """All that is kept of a check, as text."""
    return json.dumps(asdict(report) | {"firm": sorted(report.firm)})


def first(n: int, column: str, value: object) -> Callable[[Table], Table]:
    """Spoil the first ``n`` rows of a column."""

    def spoil(table: Table) -> Table:
        table.loc[table.index[:n], column] = value
        return table

    return spoil
