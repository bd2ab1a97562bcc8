"""What the suites of ingest's table let pass, put aside, warn of, and block."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from suites import (
    BETWEEN,
    IN_SET,
    NEAR,
    NOT_NULL,
    ONE,
    PAIR,
    PERSONAL,
    REGEX,
    UNIQUE,
    UNIT,
    N,
    Table,
    checked,
    failed,
    failing,
    feature_table,
    firm,
    first,
    follows,
    recordings,
    said,
    split,
)

from expectations.limits import AUDIO, IMPOSSIBLE, UNUSUAL, Limit, tolerated
from expectations.suites import audio, features, metadata, training_set
from expectations.suites.common import mostly
from spira_tasks import quality
from spira_tasks.intake.record_contract import COLUMNS


@pytest.mark.parametrize("make", [metadata.suite, audio.suite])
def test_a_clean_table_passes(make: quality.SuiteFor) -> None:
    assert failing(make, recordings()) == {}


@pytest.mark.parametrize("make", [metadata.suite, audio.suite, features.suite])
def test_an_empty_table_is_blocked(make: quality.SuiteFor) -> None:
    empty = recordings().iloc[:0] if make is not features.suite else feature_table().iloc[:0]
    if make is audio.suite:  # what there is not cannot be too long; the other suite blocks
        assert failing(make, empty) == {}
    else:
        assert "block" in failing(make, empty).values()


SESSION = "session_id, task, collected_at, ingested_at"
SIGNS = "ri_clinical, spo2, on_oxygen, resp_rate"


@pytest.mark.parametrize(
    ("spoil", "name", "verdict"),
    [
        (first(2, "record_id", "same"), f"{UNIQUE}(record_id)", "block"),
        (first(1, "subject_id", None), f"{NOT_NULL}(subject_id)", "quarantine"),
        (first(1, "subject_id", "1234567A"), f"{REGEX}(subject_id)", "quarantine"),
        (first(1, "collector_pid", "Maria"), f"{REGEX}(collector_pid)", "quarantine"),
        (first(1, "task", "COUGH"), f"{IN_SET}(task)", "quarantine"),
        (first(1, "ri_clinical", 3), f"{IN_SET}(ri_clinical)", "quarantine"),
        (first(1, "age", 130), f"{BETWEEN}(age, possible)", "quarantine"),
        (first(1, "age", 93), f"{BETWEEN}(age, coarse)", "warn"),
        (first(1, "spo2", 0), f"{BETWEEN}(spo2, possible)", "quarantine"),
        (first(20, "spo2", 60), f"{BETWEEN}(spo2, usual)", "warn"),
        (first(20, "spo2", None), f"{NOT_NULL}(spo2)", "warn"),
        (first(N, "spo2", None), f"{NOT_NULL}(spo2)", "warn"),
        (first(N, "device_model", None), f"{NOT_NULL}(device_model)", "warn"),
        (first(1, "spo2", 1), f"{UNIT}(spo2)", "quarantine"),
        (first(1, "temp", 98.6), f"{UNIT}(temp)", "quarantine"),
        (first(1, "height", 1.7), f"{UNIT}(height)", "quarantine"),
        (first(1, "bp_dia", 130.0), f"{PAIR}(bp_sys, bp_dia)", "warn"),
        (
            first(1, "ingested_at", pd.Timestamp("2026-03-01", tz="UTC")),
            f"{PAIR}(ingested_at, collected_at)",
            "quarantine",
        ),
        (
            first(1, "collected_at", pd.Timestamp("2019-12-31", tz="UTC")),
            f"{BETWEEN}(collected_at)",
            "quarantine",
        ),
        (
            first(1, "spo2_at", pd.Timestamp("2026-03-04 12:00", tz="UTC")),
            "expect_column_pair_times_to_be_close(spo2_at, collected_at)",
            "warn",
        ),
        (first(1, "spo2", 85), f"expect_label_to_agree_with_signs({SIGNS})", "warn"),
        (first(4, "spo2", 99), f"expect_label_to_agree_with_signs({SIGNS})", "warn"),
        (first(1, "consent_status", "pending"), f"{IN_SET}(consent_status, granted)",
         "quarantine"),
        (
            first(1, "retention_until", "2026-03-03"),
            "expect_column_days_not_to_be_before(retention_until)",
            "quarantine",
        ),
        (first(1, "sample_type", "TEST"), f"{IN_SET.replace('to_be', 'to_not_be')}(sample_type)",
         "quarantine"),
        (first(1, "hospital_id", "Hosp. A, 3"), f"{REGEX}(hospital_id)", "warn"),
        (first(1, "hospital_id", None), f"{NOT_NULL}(hospital_id)", "quarantine"),
        (first(1, "device_model", "x 000.000.001-91"), f"{PERSONAL}(device_model)", "quarantine"),
        (first(1, "cid10", "covid"), f"{REGEX}(cid10)", "warn"),
        (first(1, "subject_id", "f" * 64), f"{ONE}(session_id, subject_id)", "quarantine"),
        (
            first(3, "session_id", "s0"),
            "expect_compound_columns_to_be_unique(session_id, task)",
            "quarantine",
        ),
    ],
)  # fmt: skip
def test_what_a_hospital_gets_wrong_is_seen(
    spoil: Callable[[Table], Table], name: str, verdict: str
) -> None:
    assert follows(metadata.suite, spoil(recordings()), name) == verdict


def test_a_field_of_the_capture_that_nobody_fills_in_is_reported() -> None:
    """With nothing in it, nothing can be said of whether it goes with the label."""
    columns = ["app", "prompt_version", "codec_original", "capture_ns"]
    table = recordings()
    for column in columns:
        table = first(N, column, None)(table)
    kind = "expect_column_proportion_of_non_null_values_to_be_between"
    assert failing(metadata.suite, table) == {f"{kind}({column})": "warn" for column in columns}
    table.loc[0, columns] = recordings().loc[0, columns]  # the association can be looked at
    assert failing(metadata.suite, table) == {}


def test_a_control_on_oxygen_and_a_patient_who_breathes_fast_contradict_nothing() -> None:
    table = recordings()
    table.loc[table["label"] == 0, ["spo2", "on_oxygen"]] = [88, True]
    table.loc[table["label"] == 1, ["spo2", "resp_rate"]] = [98, 28.0]
    table.loc[table.index[:8], ["on_oxygen", "resp_rate"]] = None
    assert "agree_with_signs" not in str(failing(metadata.suite, table))


def test_a_session_that_lacks_a_task_is_reported_once_it_has_had_its_time() -> None:
    table = recordings().drop(index=3)
    name = f"expect_sessions_to_be_complete({SESSION})"
    assert follows(metadata.suite, table, name) is None  # its telephone may still be sending
    later = table.index[-10:]
    table.loc[later, "ingested_at"] += pd.Timedelta(hours=72)
    assert failing(metadata.suite, table) == {name: "warn"}


def test_a_raw_identifier_in_the_table_blocks_and_nobody_may_waive_it() -> None:
    raw = ["patient_rgh", "patient_pid", "audio_uri"]
    name = f"expect_columns_to_be_absent({', '.join(raw)})"
    for column in raw:
        table = recordings().assign(**{column: "7654321B"})
        assert follows(metadata.suite, table, name) == "block"
    report = checked(metadata.suite, table)
    assert failed(report) == {name: "block"}
    assert name in firm(report)
    assert "7654321B" not in said(report)


def test_a_missing_column_of_the_contract_blocks() -> None:
    table = recordings().drop(columns="pao2")
    assert list(failing(metadata.suite, table).values()) == ["block"]


def test_no_value_of_a_patient_is_in_what_is_said() -> None:
    """No text, and no number."""
    planted = {
        "device_model": "Planted 529.982.247-25",
        "cid10": "Planted-Value",
        "hospital_id": "Planted Hospital; bed 7",
        "ri_cause": "planted@example.org",
        "subject_id": "Planted-7654321B",
        "task": "PLANTED",
    }
    table = recordings()
    for number, (column, value) in enumerate(planted.items()):
        table.loc[number, column] = value
    table.loc[6, ["age", "temp", "bp_sys"]] = [7654321, 765432.1, 87654.25]
    report = checked(metadata.suite, table)
    assert set(report.faults) >= {0, 3, 4, 5, 6}  # the cells were looked at
    text = said(report)
    assert "lanted" not in text.lower().replace("implanted", "")
    assert not any(value in text for value in planted.values())
    assert "7654" not in text
    table.loc[0, ["dc_offset", "snr_db"]] = [8765.25, -8765.25]
    assert "8765" not in said(checked(audio.suite, table))


def test_a_column_carried_along_is_searched_for_persons_too() -> None:
    table = recordings().assign(x_note=["call (11) 98765-4321", *[""] * (N - 1)])
    assert failing(metadata.suite, table) == {f"{PERSONAL}(x_note)": "quarantine"}


def test_a_useless_recording_is_put_aside() -> None:
    useless = {
        "duration_seconds": 0.8,
        "level_dbfs": -70.0,
        "clipping_fraction": 0.1,
        "dc_offset": -0.2,
        "snr_db": -3.0,
        "bandwidth_hz": 3_000.0,
        "speech_fraction": 0.02,
        "longest_digital_silence_seconds": 2.0,
        "dropouts_per_second": 3.0,
    }
    table = recordings()
    sentences = table.index[table["task"] == "SENTENCE"]
    rows = dict(zip(useless, map(int, sentences), strict=False))
    for column, row in rows.items():
        table.loc[row, column] = useless[column]
    report = checked(audio.suite, table)
    assert report.faults == {row: (f"{BETWEEN}:{column}",) for column, row in rows.items()}
    assert set(failed(report).values()) == {"quarantine"}


def test_a_quiet_room_is_no_quiet_voice() -> None:
    table = recordings()
    table.loc[table.index[:60], ["task", "level_dbfs", "snr_db"]] = ["AMBIENT", -75.0, -1.0]
    assert failing(audio.suite, table) == {}


@pytest.mark.parametrize(
    ("spoil", "name", "verdict"),
    [
        (first(1, "native_sample_rate_hz", 8_000), f"{BETWEEN}(native_sample_rate_hz)",
         "quarantine"),
        (first(1, "n_channels", 6), f"{BETWEEN}(n_channels)", "quarantine"),
        (first(1, "n_channels", 2), f"{BETWEEN}(n_channels, one)", "warn"),
        (first(1, "waveform", "audio/r1.wav"), f"{REGEX}(waveform)", "quarantine"),
        (first(2, "audio_sha256", "0" * 64), f"{UNIQUE}(audio_sha256)", "quarantine"),
    ],
)  # fmt: skip
def test_what_ingest_should_have_refused_is_put_aside(
    spoil: Callable[[Table], Table], name: str, verdict: str
) -> None:
    assert follows(audio.suite, spoil(recordings()), name) == verdict


def test_a_copy_of_a_recording_is_reported_however_it_came() -> None:
    table = recordings()
    copy = [*table.loc[0, "fingerprint"]]
    copy[::80] = "7" * len(copy[::80])  # what another codec changes
    table.loc[9, ["fingerprint", "duration_seconds"]] = [
        "".join(copy),
        table.loc[0, "duration_seconds"] + 0.1,
    ]
    name = f"{NEAR}(fingerprint, duration_seconds)"
    assert failing(audio.suite, table) == {name: "warn"}
    table.loc[9, "duration_seconds"] += 1  # another length: another recording
    assert follows(audio.suite, table, name) is None


def test_the_published_layout_is_not_asked_for_what_it_lacks() -> None:
    table = recordings()
    there = ["record_id", "task", "sample_type", "ri_clinical", "sex", "age"]
    for name in set(COLUMNS) & set(table) - set(there):
        table[name] = pd.Series(None, index=table.index, dtype=table[name].dtype)
    table["split_given"] = split(table)["split"]
    assert failing(metadata.suite, table) == {}
    assert failing(audio.suite, table) == {}
    trained = (table["task"] == "SENTENCE").astype(int)
    table = table.assign(split=table["split_given"], erased=False, trained=trained)
    assert failing(training_set.suite, table) == {}


@given(st.integers(0, 3_000), st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_what_is_tolerated_grows_with_n_and_stays_above_the_share(n: int, share: float) -> None:
    k = tolerated(n, share)
    assert 0 <= k <= n
    assert k <= tolerated(n + 1, share)
    assert k >= int(n * share) - 1
    assert 0 <= mostly(n, share) <= 1


def test_a_share_that_is_just_tolerated_passes_to_the_last_row() -> None:
    """``mostly`` is a fraction: rounding must not cost the row that was still allowed."""
    for n in (20, 999):
        table = recordings(2 * n)
        table = table[table["task"] == "SENTENCE"]
        k = tolerated(n, 0.10)
        name = f"{BETWEEN}(snr_db, RHYME+SENTENCE typical)"
        assert follows(audio.suite, first(k, "snr_db", 4.0)(table.copy()), name) is None
        assert follows(audio.suite, first(k + 1, "snr_db", 4.0)(table.copy()), name) == "warn"


def both_ends(limit: Limit) -> tuple[float, float]:
    assert limit.low is not None
    assert limit.high is not None
    return limit.low, limit.high


def test_limits_are_in_order_and_give_a_reason() -> None:
    for limit in [*IMPOSSIBLE.values(), *UNUSUAL.values()]:
        assert limit.rationale
        assert limit.owner
        assert limit.low is None or limit.high is None or limit.low < limit.high
    for name, limit in UNUSUAL.items():  # within what is possible
        (least, most), (low, high) = both_ends(IMPOSSIBLE[name]), both_ends(limit)
        assert least <= low < high <= most
    for measure in AUDIO:
        (lowest, highest), (low_end, high_end) = measure.limit, measure.typical
        assert lowest is None or (low_end is not None and lowest <= low_end)
        assert highest is None or (high_end is not None and highest >= high_end)


@pytest.mark.parametrize(
    ("column", "value", "other", "name"),
    [
        ("sex", "F", "M", f"{ONE}(subject_id, sex)"),
        ("label", 1, 0, f"{ONE}(subject_id, label)"),
        ("age", 40, 43, "expect_ages_to_fit_one_person(subject_id, age, collected_at)"),
    ],
)
def test_two_people_under_one_number_are_put_aside(
    column: str, value: object, other: object, name: str
) -> None:
    table = recordings()
    table.loc[[20, 21], column] = [value, other]
    report = checked(metadata.suite, table)
    assert failed(report) == {name: "quarantine"}
    assert set(report.faults) == {20, 21}


def test_what_may_differ_between_the_recordings_of_one_person() -> None:
    """A recovery, an unknown sex, birthdays, and ages that are written as 90 for all."""
    table = recordings()
    table.loc[[20, 21], "sex"] = ["F", "UNKNOWN"]
    table.loc[[22, 23], ["label", "sample_type"]] = [[1, "PATIENT"], [0, "AFTERCOVID"]]
    table.loc[[24, 25], "age"] = [40, 46]
    table.loc[25, ["collected_at", "ingested_at"]] += pd.Timedelta(days=5 * 365)
    table.loc[[26, 27], "age"] = 90
    table.loc[27, ["collected_at", "ingested_at"]] += pd.Timedelta(days=5 * 365)
    assert not checked(metadata.suite, table).faults
