"""What the suites let pass, what they warn of, and what they block."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expectations import audio, features, metadata, training_set
from expectations.custom import cramers_v
from expectations.limits import AUDIO, IMPOSSIBLE, PERSONAL_DATA_REGEX, UNUSUAL, tolerated
from expectations.notes import mostly
from spira_tasks import quality
from spira_tasks.artifacts import Store
from spira_tasks.cohort import write_cohort
from spira_tasks.cohort.recorder import FAULTS
from spira_tasks.contract import Step
from spira_tasks.intake.record_contract import COLUMNS, typed
from spira_tasks.runner import run_step

N = 240
Table = pd.DataFrame


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
            "collected_at": "2026-03-04T10:20:30-03:00",
            "ingested_at": "2026-03-04T11:20:30-03:00",
            "sex": rng.choice(["F", "M"], n // 2).repeat(2),
            "age": (40 + subject % 50).astype(str),
            "mask_type": rng.choice(["NONE", "THIN"], n // 2).repeat(2),
            "device_model": rng.choice(["Moto G7", "Galaxy A32"], n // 2).repeat(2),
            "spo2": np.where(label, "92", "97"),
            "on_oxygen": "false",
            "resp_rate": "18",
            "heart_rate": "80",
            "bp_sys": "120",
            "bp_dia": "80",
            "cid10": np.where(label, "U07.1", ""),
            "sample_type": np.where(label, "PATIENT", "CONTROL"),
            "ri_clinical": label.astype(str),
            "consent_status": "granted",
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
    )


def split(table: Table) -> Table:
    subject = table["subject_id"].map(lambda text: int(text, 16) // 2)
    sides = np.array(["train", "train", "train", "validation", "test"])
    return table.assign(split=sides[subject % 5])


def failing(make: quality.SuiteFor, table: Table) -> dict[str, str]:
    """Names of the expectations that did not pass, and what that means."""
    report = quality.check(table, make(table))
    return {v.name: v.verdict for v in report.verdicts if v.verdict != "pass"}


def first(n: int, column: str, value: object) -> Callable[[Table], Table]:
    """Spoil the first ``n`` rows of a column."""

    def spoil(table: Table) -> Table:
        table.loc[table.index[:n], column] = value
        return table

    return spoil


@pytest.mark.parametrize("make", [metadata.suite, audio.suite])
def test_a_clean_table_passes(make: quality.SuiteFor) -> None:
    assert failing(make, recordings()) == {}


def test_a_clean_training_set_passes() -> None:
    assert failing(training_set.suite, split(recordings())) == {}


@pytest.mark.parametrize("make", [metadata.suite, audio.suite, features.suite])
def test_an_empty_table_is_blocked(make: quality.SuiteFor) -> None:
    empty = recordings().iloc[:0] if make is not features.suite else feature_table().iloc[:0]
    if make is audio.suite:  # what there is not cannot be too long; the other suite blocks
        assert failing(make, empty) == {}
    else:
        assert "block" in failing(make, empty).values()


BETWEEN, IN_SET = "expect_column_values_to_be_between", "expect_column_values_to_be_in_set"
NOT_NULL, UNIQUE = "expect_column_values_to_not_be_null", "expect_column_values_to_be_unique"
REGEX, NOT_REGEX = (
    "expect_column_values_to_match_regex",
    "expect_column_values_to_not_match_regex",
)
PAIR, ONE = (
    "expect_column_pair_values_a_to_be_greater_than_b",
    "expect_one_value_per_group",
)


@pytest.mark.parametrize(
    ("spoil", "name", "verdict"),
    [
        (first(2, "record_id", "same"), f"{UNIQUE}(record_id)", "block"),
        (first(1, "subject_id", None), f"{NOT_NULL}(subject_id)", "block"),
        (first(1, "subject_id", "1234567A"), f"{REGEX}(subject_id)", "block"),
        (first(1, "task", "COUGH"), f"{IN_SET}(task)", "block"),
        (first(1, "ri_clinical", 3), f"{IN_SET}(ri_clinical)", "block"),
        (first(1, "age", 130), f"{BETWEEN}(age, possible)", "block"),
        (first(1, "spo2", 0), f"{BETWEEN}(spo2, possible)", "block"),
        (first(20, "spo2", 60), f"{BETWEEN}(spo2, usual)", "warn"),
        (first(20, "spo2", None), f"{NOT_NULL}(spo2)", "warn"),
        (first(N, "spo2", None), f"{NOT_NULL}(spo2)", "warn"),
        (first(1, "bp_dia", 130.0), f"{PAIR}(bp_sys, bp_dia)", "warn"),
        (
            first(1, "ingested_at", pd.Timestamp("2026-03-01", tz="UTC")),
            f"{PAIR}(ingested_at, collected_at)",
            "block",
        ),
        (first(1, "spo2", 85), f"{BETWEEN}(spo2, controls)", "warn"),
        (first(4, "spo2", 99), f"{BETWEEN}(spo2, patients)", "warn"),
        (first(1, "consent_status", "pending"), f"{IN_SET}(consent_status, granted)", "block"),
        (first(1, "sample_type", "TEST"), f"{IN_SET.replace('to_be', 'to_not_be')}(sample_type)",
         "block"),
        (first(1, "hospital_id", "Hosp. A, 3"), f"{REGEX}(hospital_id)", "warn"),
        (first(1, "hospital_id", None), f"{NOT_NULL}(hospital_id)", "block"),
        (first(1, "device_model", "x 000.000.001-91"), f"{NOT_REGEX}(device_model)", "block"),
        (first(1, "cid10", "covid"), f"{REGEX}(cid10)", "warn"),
        (first(1, "subject_id", "f" * 64), f"{ONE}(session_id, subject_id)", "block"),
        (
            first(3, "session_id", "s0"),
            "expect_compound_columns_to_be_unique(session_id, task)",
            "block",
        ),
    ],
)  # fmt: skip
def test_what_a_hospital_gets_wrong_is_seen(
    spoil: Callable[[Table], Table], name: str, verdict: str
) -> None:
    assert failing(metadata.suite, spoil(recordings())).get(name) == verdict


def test_a_column_carried_along_is_searched_for_persons_too() -> None:
    table = recordings().assign(x_note=["call (11) 98765-4321", *[""] * (N - 1)])
    assert failing(metadata.suite, table) == {f"{NOT_REGEX}(x_note)": "block"}


@pytest.mark.parametrize(
    "text",
    ["000.000.001-91", "CPF 00000000191", "+55 11 98765-4321", "a.b@c.org", "1234567A"],
)
def test_what_leads_to_a_person_is_found(text: str) -> None:
    assert pd.Series([f"on {text} today"]).str.contains(PERSONAL_DATA_REGEX).all()


@pytest.mark.parametrize(
    "text",
    [
        "2026-03-04T10:20:30-03:00",
        "clean1-000123-0-sentence",
        "PTT-20200405-WA0012",
        "0f8fad5b-d9cb-469f-a165-708677289501",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "1634056560",
        "Android 11; 10.4.2",
    ],
)
def test_times_digests_and_versions_do_not_lead_to_a_person(text: str) -> None:
    assert not pd.Series([text]).str.contains(PERSONAL_DATA_REGEX).any()


@pytest.mark.parametrize(
    ("column", "bad"),
    [
        ("duration_seconds", 0.8),
        ("level_dbfs", -70.0),
        ("clipping_fraction", 0.1),
        ("dc_offset", -0.2),
        ("snr_db", -3.0),
        ("bandwidth_hz", 3_000.0),
        ("speech_fraction", 0.02),
        ("longest_digital_silence_seconds", 2.0),
    ],
)
def test_one_useless_recording_is_reported_and_many_block(column: str, bad: float) -> None:
    table = recordings()
    table.loc[table.index[1], column] = bad  # a sentence
    verdicts = failing(audio.suite, table)
    assert set(verdicts.values()) == {"warn"}
    assert all(name.startswith(f"{BETWEEN}({column}") for name in verdicts)
    table.loc[table.index[:60], column] = bad
    assert "block" in failing(audio.suite, table).values()


def test_a_quiet_room_is_no_quiet_voice() -> None:
    table = recordings()
    table.loc[table.index[:60], ["task", "level_dbfs", "snr_db"]] = ["AMBIENT", -75.0, -1.0]
    assert failing(audio.suite, table) == {}


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (first(1, "native_sample_rate_hz", 8_000), f"{BETWEEN}(native_sample_rate_hz)"),
        (first(1, "n_channels", 6), f"{BETWEEN}(n_channels)"),
        (first(1, "waveform", "audio/r1.wav"), f"{REGEX}(waveform)"),
        (first(2, "audio_sha256", "0" * 64), f"{UNIQUE}(audio_sha256)"),
    ],
)
def test_what_ingest_should_have_refused_is_blocked(
    spoil: Callable[[Table], Table], name: str
) -> None:
    assert failing(audio.suite, spoil(recordings())) == {name: "block"}


def test_the_published_layout_is_not_asked_for_what_it_lacks() -> None:
    table = recordings()
    there = ["record_id", "task", "sample_type", "ri_clinical", "sex", "age"]
    for name in set(COLUMNS) & set(table) - set(there):
        table[name] = pd.Series(None, index=table.index, dtype=table[name].dtype)
    table["split_given"] = split(table)["split"]
    assert failing(metadata.suite, table) == {}
    assert failing(audio.suite, table) == {}
    assert failing(training_set.suite, table.assign(split=table["split_given"])) == {}


def test_a_voice_on_two_sides_is_blocked() -> None:
    table = split(recordings())
    table.loc[0, "split"] = "test"
    assert failing(training_set.suite, table) == {f"{ONE}(subject_id, split)": "block"}


def test_a_recording_on_two_sides_is_blocked() -> None:
    table = split(recordings())
    table.loc[0, "audio_sha256"] = table.loc[table["split"] == "test", "audio_sha256"].iloc[0]
    assert failing(training_set.suite, table) == {f"{ONE}(audio_sha256, split)": "block"}


def test_a_side_without_one_of_the_classes_is_blocked() -> None:
    table = split(recordings(600))
    table = table[(table["split"] != "test") | (table["label"] == 1)]
    name = "expect_column_unique_value_count_to_be_between(subject_id, controls in test)"
    assert failing(training_set.suite, table) == {name: "block"}


@pytest.mark.parametrize("value", [None, "holdout"])
def test_every_recording_has_one_of_three_sides(value: str | None) -> None:
    table = split(recordings())
    table.loc[[0, 1], "split"] = value
    assert list(failing(training_set.suite, table).values()) == ["block"]


def test_classes_out_of_balance_are_reported_and_then_blocked() -> None:
    table = split(recordings(1_000))
    patients = table["label"] == 1
    some, few = patients & (table.index % 20 >= 14), patients & (table.index % 40 >= 38)
    name = "expect_column_mean_to_be_between(label, {})"
    assert failing(training_set.suite, table[~patients | some])[name.format("typical")] == "warn"
    assert failing(training_set.suite, table[~patients | few])[name.format("limit")] == "block"


def test_few_subjects_are_no_reason_to_block() -> None:
    verdicts = failing(training_set.suite, split(recordings(40)))
    assert set(verdicts.values()) == {"warn"}
    assert all("subject_id" in name for name in verdicts)


@pytest.mark.parametrize("column", ["device_model", "hospital_id", "sex", "codec"])
def test_what_goes_with_the_label_is_reported(column: str) -> None:
    table = split(recordings())
    table[column] = np.where(table["label"] == 1, "one", "other")
    name = f"expect_association_with_label_to_be_weak({column})"
    assert failing(training_set.suite, table) == {name: "warn"}


def test_an_age_that_goes_with_the_label_is_reported() -> None:
    table = split(recordings())
    table["age"] = table["age"] + 25 * table["label"].astype(int)
    name = "expect_association_with_label_to_be_weak(age)"
    assert failing(training_set.suite, table) == {name: "warn"}


def test_cramers_v_knows_chance_from_association() -> None:
    rng = np.random.default_rng([8])
    label = pd.Series(rng.integers(0, 2, 400))
    assert cramers_v(label, label)[0] == pytest.approx(1.0)
    assert cramers_v(pd.Series(["same"] * 400), label)[0] == 0.0
    beyond = 0
    for _ in range(300):
        v, chance = cramers_v(pd.Series(rng.integers(0, 5, 400)), label)
        beyond += v > chance
    assert beyond <= 3  # one in a thousand is expected


def feature_table() -> Table:
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
        }
    )


def test_clean_features_pass() -> None:
    assert failing(features.suite, feature_table()) == {}


@pytest.mark.parametrize(
    ("column", "value", "name"),
    [
        ("finite", False, f"{IN_SET}(finite)"),
        ("n_windows", 0, f"{BETWEEN}(n_windows)"),
        ("std", 0.0, f"{BETWEEN}(std)"),
        ("mean", np.nan, f"{NOT_NULL}(mean)"),
        ("max", -3.0, f"{PAIR}(max, min)"),
        ("n_frames", 301, "expect_column_unique_value_count_to_be_between(n_frames)"),
        ("schema", "xyz", "expect_column_unique_value_count_to_be_between(schema)"),
        ("features", "r1.npy", f"{REGEX}(features)"),
    ],
)
def test_one_wrong_matrix_blocks(column: str, value: object, name: str) -> None:
    assert failing(features.suite, first(1, column, value)(feature_table())) == {name: "block"}


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
        k = tolerated(n, 0.05)
        name = f"{BETWEEN}(snr_db, RHYME+SENTENCE few useless)"
        assert name not in failing(audio.suite, first(k, "snr_db", -9.0)(table.copy()))
        assert name in failing(audio.suite, first(k + 1, "snr_db", -9.0)(table.copy()))


def test_limits_are_in_order_and_give_a_reason() -> None:
    for limit in [*IMPOSSIBLE.values(), *UNUSUAL.values()]:
        assert limit.rationale
        assert limit.owner
        assert limit.low is None or limit.high is None or limit.low < limit.high
    for name, limit in UNUSUAL.items():  # within what is possible
        assert IMPOSSIBLE[name].low <= limit.low < limit.high <= IMPOSSIBLE[name].high
    for limit in AUDIO:
        low, high = limit.limit
        assert low is None or low <= limit.typical[0]
        assert high is None or high >= limit.typical[1]


@pytest.mark.slow
def test_a_clean_synthetic_cohort_is_not_blocked(tmp_path: Path) -> None:
    write_cohort(tmp_path / "data", subjects=12, seed=5, progress=False)
    store = Store(str(tmp_path / "store"))
    ingest = run_step(Step("ingest", "ingest", {"data": f"folder:{tmp_path}/data"}), "r", store)
    assert ingest.metrics["n_quarantined"] == 0
    assert {verdict.verdict for verdict in ingest.verdicts} == {"pass"}
    gate = Step("gate", "validate", {"table": "ingest.recordings"}, {"suite": "recordings"})
    assert run_step(gate, "r", store).metrics["n_blocked"] == 0


REASONS = {
    "partial_sync": "missing_audio",
    "dup_upload": "duplicate_audio",
    "8k": "low_sample_rate",
    "zero_len": "empty",
    "truncated": "truncated",
    "not_audio": "unknown_container",
    "nan": "not_finite",
    "silent": "constant",
    "unit_error": "bad_value",
    "tz_naive": "naive_timestamp",
    "personal_data": "personal_data_in_text",
}
REPORTED = {
    "clip": f"{BETWEEN}(clipping_fraction, none useless)",
    "dc": f"{BETWEEN}(dc_offset, none useless)",
    "free_text_hospital": f"{REGEX}(hospital_id)",
}


@pytest.mark.slow
def test_every_fault_of_a_delivery_is_put_aside_or_reported(tmp_path: Path) -> None:
    assert set(REASONS) | set(REPORTED) == set(FAULTS)
    write_cohort(tmp_path / "data", subjects=9, seed=5, faults=list(FAULTS), progress=False)
    store = Store(str(tmp_path / "store"))
    config = {"max_quarantine_fraction": 1.0, "max_site_quarantine_fraction": 1.0}
    step = Step("ingest", "ingest", {"data": f"folder:{tmp_path}/data"}, config)
    made = store.directory(run_step(step, "r", store).outputs["quarantine"])
    reasons = pd.read_parquet(made.path("quarantine.parquet")).set_index("row")["reason"]
    truth = pd.read_csv(tmp_path / "data/truth.csv", index_col="record_id", keep_default_na=False)
    table = pd.read_csv(tmp_path / "data/recordings.csv", index_col="record_id")
    fault = truth["fault"].reindex(table.index).to_numpy()
    found = dict(zip(fault[reasons.index - 1], reasons, strict=True))
    assert found == REASONS
    gate = Step("gate", "validate", {"table": "ingest.recordings"}, {"suite": "recordings"})
    verdicts = run_step(gate, "r", store).verdicts  # few useless recordings do not end a run
    failed = {verdict.name for verdict in verdicts if verdict.verdict == "warn"}
    assert set(REPORTED.values()) <= failed
