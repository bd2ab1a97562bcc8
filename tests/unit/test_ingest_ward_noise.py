"""Ward noises keep their pool; and what holds of any input of ingest."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pandas as pd
import pytest
from folders import Cohort, Ingested, cohort, voice
from hypothesis import given, settings
from hypothesis import strategies as st

from spira_tasks.artifacts import Store
from spira_tasks.contract.step import Step
from spira_tasks.errors import GateRejected
from spira_tasks.intake.audio_reader import pools
from spira_tasks.intake.record_contract import COLUMNS, typed
from spira_tasks.runner import run_step

__all__ = ["cohort"]  # the fixture


def add_ward_noise(cohort: Cohort, lines: list[str]) -> None:
    (cohort.folder / "ward_noise").mkdir()
    for number in range(5):
        path = cohort.folder / f"ward_noise/{number}.wav"
        path.write_bytes(voice(200 + number, seconds=2))
    (cohort.folder / "ward_noise.csv").write_text("\n".join(lines))


def test_ward_noises_keep_the_pool_they_were_given(cohort: Cohort, store: Store) -> None:
    pool = ["train", "train", "evaluation", "train", "tryout"]
    lines = [f"ward_noise/{number}.wav,{pool[number]}" for number in range(5)]
    add_ward_noise(cohort, ["file_path,x_pool", *lines])
    made = Ingested(cohort.write(), store)
    bank = made.table("ward_noise")
    assert list(bank.columns) == [
        "noise_id",
        "pool",
        "hospital_id",
        "waveform",
        "duration_seconds",
        "level_dbfs",
        "peak",
        "syllabic_modulation_db",
    ]
    assert bank["pool"].value_counts().to_dict() == {"train": 3, "evaluation": 1}
    assert list(made.table("quarantine", "ward_noise")["reason"]) == ["bad_value"]
    assert made.verdicts["ward_noise_files"].status == "warn"
    assert not made.blocked


def test_a_list_of_ward_noises_has_the_rules_of_the_table(cohort: Cohort, store: Store) -> None:
    """Names in capitals, any order of columns, empty rows; a bad line costs itself."""
    pool = ["train", "train", "evaluation", "train", "evaluation"]
    lines = [f"{pool[number]},ward_noise/{number}.wav,site-a" for number in range(5)]
    lines[3] += ",note"
    add_ward_noise(cohort, ["X_Pool,File_Path,hospital_id", *lines, ",,"])
    made = Ingested(cohort.write(), store)
    assert made.table("ward_noise")["pool"].value_counts().to_dict() == {
        "train": 2,
        "evaluation": 2,
    }
    assert set(made.table("ward_noise")["hospital_id"]) == {"site-a"}
    assert list(made.table("quarantine", "ward_noise")["reason"]) == ["wrong_number_of_cells"]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("file_path,x_pool,File_Path", "names a column twice"),
        ("audio,x_pool,hospital_id", r"required columns are not there \(file_path\)"),
        ("file_path,pool,hospital_id", "does not know; by their places from the left: 2"),
    ],
)
def test_a_list_of_ward_noises_that_is_none_is_refused(
    header: str, message: str, cohort: Cohort, store: Store
) -> None:
    add_ward_noise(cohort, [header, "ward_noise/0.wav,train,site-a"])
    with pytest.raises(GateRejected, match=message):
        run_step(Step("ingest", "ingest", {"data": cohort.write()}), "r", store)


def test_a_broken_ward_noise_is_put_aside(cohort: Cohort, store: Store) -> None:
    add_ward_noise(cohort, ["file_path", *(f"ward_noise/{number}.wav" for number in range(6))])
    (cohort.folder / "ward_noise/1.wav").write_bytes(b"RIFF")
    (cohort.folder / "ward_noise/2.wav").write_bytes(voice(200, seconds=2))
    made = Ingested(cohort.write(), store)
    reasons = made.table("quarantine", "ward_noise").set_index("row")["reason"].to_dict()
    assert reasons == {2: "unknown_container", 3: "duplicate_audio", 6: "missing_audio"}
    assert set(made.table("ward_noise")["pool"]) == {"train", "evaluation"}


@given(st.integers(2, 40), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_both_pools_of_ward_noise_hold_something(n: int, fraction: float) -> None:
    sha256 = pd.Series([hashlib.sha256(bytes([number])).hexdigest() for number in range(n)])
    free = pd.Series(None, index=sha256.index, dtype="str")
    assert set(pools(sha256, free, fraction)) == {"train", "evaluation"}


def test_a_ward_noise_keeps_its_pool_as_the_bank_grows() -> None:
    sha256 = pd.Series([hashlib.sha256(bytes([number])).hexdigest() for number in range(60)])
    free = pd.Series(None, index=sha256.index, dtype="str")
    some, more = pools(sha256[:20], free[:20], 0.3), pools(sha256, free, 0.3)
    assert (some == more[:20]).all()


@given(st.dictionaries(st.sampled_from(sorted(COLUMNS)), st.text(max_size=30)))
@settings(max_examples=60, deadline=None)
def test_any_text_in_any_cell_is_a_value_or_a_fault(cells: dict[str, str]) -> None:
    rows = pd.DataFrame([cells], dtype="str")
    rows = rows.where(rows != "")
    table, faults = typed(rows, required=())
    assert list(table.columns) == list(COLUMNS)
    for name, cell in rows.iloc[0].dropna().items():
        assert 0 in faults or pd.notna(table.loc[0, name]), (name, cell)
    for _, detail in faults.values():
        assert detail.split(":")[0] in COLUMNS


def test_the_stage_is_imported_without_what_it_works_with() -> None:
    """A step that finds its result never waits for numpy, let alone torch."""
    program = (
        "import sys, spira_tasks.stages.ingest, spira_tasks.stages.validate;"
        "heavy = {'pandas', 'numpy', 'soundfile', 'torch', 'great_expectations'};"
        "print(heavy & set(sys.modules))"
    )
    process = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == "set()"
