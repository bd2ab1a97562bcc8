"""What the gates make of whole synthetic cohorts: sound ones, faulty ones, confounded ones."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd
import pytest
from small_run import COHORT
from suites import BETWEEN, COUNT, LEVEL, REGEX, WEAK

from spira_tasks.artifacts import Store
from spira_tasks.cohort import write_cohort
from spira_tasks.cohort.recorder import FAULTS
from spira_tasks.contract.pipelines import TRAINING
from spira_tasks.contract.step import Step
from spira_tasks.errors import GateRejected
from spira_tasks.runner import run_step

pytestmark = pytest.mark.slow
GATE = Step(
    "gate",
    "validate",
    {"table": "ingest.recordings", "source": "ingest.report"},
    {"gate": "recordings"},
)


def test_a_clean_synthetic_cohort_is_not_blocked(tmp_path: Path) -> None:
    write_cohort(tmp_path / "data", subjects=12, seed=5, workers=1)
    store = Store(str(tmp_path / "store"))
    ingest = run_step(Step("ingest", "ingest", {"data": f"folder:{tmp_path}/data"}), "r", store)
    assert ingest.metrics["n_quarantined"] == 0
    assert {verdict.status for verdict in ingest.verdicts} == {"pass"}
    assert run_step(GATE, "r", store).metrics["n_blocked"] == 0


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
    "clip": f"{BETWEEN}(clipping_fraction, usable)",
    "dc": f"{BETWEEN}(dc_offset, usable)",
    "free_text_hospital": f"{REGEX}(hospital_id)",
}


def test_every_fault_of_a_delivery_is_put_aside_or_reported(tmp_path: Path) -> None:
    assert set(REASONS) | set(REPORTED) == set(FAULTS)
    write_cohort(tmp_path / "data", subjects=9, seed=5, faults=list(FAULTS), workers=1)
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
    gate = dataclasses.replace(GATE, config={**GATE.config, **config})
    verdicts = run_step(gate, "r", store).verdicts  # useless recordings by themselves end nothing
    failed = {verdict.id for verdict in verdicts if verdict.status == "warn"}
    assert set(REPORTED.values()) <= failed


def until_training_set(folder: Path, **cohort: object) -> dict[str, str]:
    """What the gate of the training set says of a cohort, without passes."""
    write_cohort(folder / "data", **cohort)  # type: ignore[arg-type]
    store = Store(str(folder / "store"))
    for step in TRAINING.configure(data=str(folder / "data")):
        try:
            run_step(step, "r", store)
        except GateRejected:
            assert step.name == "check_training_set"
        if step.name == "check_training_set":
            break
    record = store.runs.step("r", "check_training_set")
    assert record is not None
    return {v.id: v.status for v in record.verdicts if v.status != "pass"}


def test_a_small_cohort_without_a_confound_is_only_warned_of_its_size(tmp_path: Path) -> None:
    found = until_training_set(tmp_path, **COHORT)
    assert found == {f"{COUNT}(subject_id, {who})": "warn" for who in ("patients", "controls")}


def test_a_channel_of_the_patients_alone_ends_the_run(tmp_path: Path) -> None:
    found = until_training_set(tmp_path, subjects=40, seed=3, confounds=["channel"])
    for column in ("app", "capture_ns", "codec_original"):
        assert found[f"{WEAK}({column}, strong)"] == "block"
        assert found[f"{LEVEL}({column})"] == "block"
