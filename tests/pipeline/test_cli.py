"""The command line, as a process: what Airflow starts, and what a person types."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Run
from small_run import SETTINGS

from spira_tasks.artifacts import Store
from spira_tasks.contract.exits import EXIT_CONFIG, EXIT_REJECTED
from spira_tasks.contract.pipelines import TRAINING
from spira_tasks.contract.record import Result
from spira_tasks.provenance import ROOT

STEPS = {step.name: step for step in TRAINING}


def command(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "spira_tasks", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


def test_finding_a_result_imports_neither_torch_nor_great_expectations(finished: Run) -> None:
    steps = [
        step.to_json()
        for step in TRAINING.configure(data=str(finished.cohort), settings=SETTINGS)
        if step.name != "promote"
    ]
    script = f"""
import sys
from spira_tasks.cli import main
assert not {{"numpy", "pandas"}} & set(sys.modules)  # every step and every command would wait
for step in {steps!r}:
    assert main(["run", "--store", {finished.store.url!r}, "--run-id", "light", step]) == 0
heavy = {{"torch", "great_expectations", "librosa", "torchaudio", "sklearn"}} & set(sys.modules)
assert not heavy, heavy
"""
    process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert process.returncode == 0, process.stderr
    # register and check_drift ask the registry each time, check_confounds the policy
    assert process.stderr.count(": found") == len(steps) - 3


def test_stdout_carries_the_result_and_nothing_else(finished: Run) -> None:
    step = TRAINING.configure(data=str(finished.cohort), settings=SETTINGS).step("ingest")
    process = command("run", "--store", finished.store.url, "--run-id", "out", step.to_json())
    assert process.returncode == 0
    assert Result.from_json(process.stdout).stage == "ingest"
    assert len(process.stdout.splitlines()) == 1


def test_a_refusal_is_an_outcome_with_its_own_exit_status(finished: Run) -> None:
    settings = [f"--set={name}={json.dumps(value)}" for name, value in SETTINGS.items()]
    process = command(
        "pipeline", "training", "--data", finished.cohort, "--store", finished.store.url, "--json",
        *settings,
    )  # fmt: skip
    assert process.returncode == EXIT_REJECTED
    description = json.loads(process.stdout)
    assert description["outcome"] == "blocked"
    assert all(step["found"] for step in description["steps"])
    assert "Traceback" not in process.stderr


def test_show_prints_a_run_for_a_person(finished: Run) -> None:
    process = command("show", "first", "--store", finished.store.url)
    assert process.returncode == 0, process.stderr
    said = " ".join(process.stdout.split())
    for text in ("blocked", "no measure is shown, because", "spira version 1 (challenger)"):
        assert text in said


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["show", "nothing"], EXIT_CONFIG, "has no run 'nothing'"),
        (["pipeline", "training", "--data", "/nowhere"], EXIT_CONFIG, "/nowhere does not exist"),
        (["pipeline", "training", "--data", "docs"], EXIT_CONFIG, "recordings.csv"),
        (["pipeline", "training", "--data", ".", "--set", "train.epoch=5"], EXIT_CONFIG, "epochs"),
        (["pipeline", "training", "--data", ".", "--set", "tran.epochs=5"], EXIT_CONFIG, "tran"),
        (["pipeline", "training", "--data", ".", "--set", "epochs"], 2, "<step>.<key>=<value>"),
        (["run", "{"], 2, "not a step"),
        (["pipeline", "training", "--data", ".", "--run-id", "a/b"], EXIT_CONFIG, "'a/b' cannot"),
        (["cohort", "{tmp}", "--confound", "nothing"], EXIT_CONFIG, "ward_noise"),
    ],
)
def test_a_mistake_is_explained_in_a_sentence(
    arguments: list[str], status: int, message: str, tmp_path: Path
) -> None:
    places = [argument.replace("{tmp}", str(tmp_path / "c")) for argument in arguments]
    process = command(*places, SPIRA_STORE=str(tmp_path / "store"))
    assert process.returncode == status, process.stderr
    assert message in process.stderr
    assert "Traceback" not in process.stderr


def test_help_shows_examples() -> None:
    assert "examples:" in command("--help").stdout


def test_no_patient_value_reaches_a_message_or_a_record(tmp_path: Path, finished: Run) -> None:
    """Markers in the hospital number, the session, free text and a file's name."""
    folder = tmp_path / "data"
    (folder / "audio").mkdir(parents=True)
    markers = {"7770001K": "number", "zzsessionzz": "session", "zztextzz": "text", "zzfile": "name"}
    source = next((finished.cohort / "audio").glob("*sentence*"))
    (folder / "audio" / "zzfile.wav").write_bytes(source.read_bytes())
    (folder / "audio" / "zzfile2.wav").write_bytes(b"not audio")
    columns = (
        "record_id,task,audio_uri,patient_rgh,session_id,hospital_id,collected_at,sex,age,"
        "sample_type,ri_clinical,consent_status,device_model"
    )
    row = (
        "{},SENTENCE,audio/{},7770001K,zzsessionzz{},h,2026-01-01T10:00:00-03:00,F,{},PATIENT,1,"
        "granted,zztextzz"
    )
    rows = [
        row.format("a", "zzfile.wav", 1, 50),
        row.format("b", "zzfile2.wav", 2, 50),
        row.format("c", "zzfile3.wav", 3, 50),
        row.format("d", "zzfile.wav", 4, "zztextzz"),
    ]
    (folder / "recordings.csv").write_text("\n".join([columns, *rows]) + "\n")
    process = command("pipeline", "training", "--data", folder, SPIRA_STORE=str(tmp_path / "s"))
    assert process.returncode == EXIT_REJECTED
    records = "".join(path.read_text() for path in (tmp_path / "s" / "runs").rglob("*.json"))
    results = "".join(path.read_text() for path in (tmp_path / "s" / "results").rglob("*.json"))
    for marker in markers:
        assert marker not in process.stdout + process.stderr + records + results


@pytest.mark.slow
def test_killed_at_any_moment_a_pipeline_goes_on_where_it_was(
    finished: Run, tmp_path: Path
) -> None:
    """SIGKILL, again and again; then the same digests as the run that nobody disturbed."""
    settings = [f"--set={name}={json.dumps(value)}" for name, value in SETTINGS.items()]
    store = tmp_path / "store"
    argv = [
        *(sys.executable, "-m", "spira_tasks", "pipeline", "training", "--json"),
        *("--data", str(finished.cohort), "--store", str(store), "--run-id", "r", *settings),
    ]
    rng = random.Random(11)
    for _ in range(6):
        process = subprocess.Popen(
            argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT
        )
        time.sleep(rng.uniform(0.5, 9))
        process.send_signal(signal.SIGKILL)
        process.wait()
    ended = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=ROOT)
    assert ended.returncode == EXIT_REJECTED, ended.stderr
    outputs = {step["name"]: step["outputs"] for step in json.loads(ended.stdout)["steps"]}
    for name, result in finished.results.items():
        assert outputs[name] == result.outputs
    blobs = Store(str(store)).blobs
    for path in (store / "blobs").rglob("*"):
        if path.is_file():
            blobs.read(f"sha256:{path.name}")  # raises where content and name differ
