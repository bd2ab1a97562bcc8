"""A model is built again from its record, and is the same to the last bit."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Run, linked_copy

from spira_tasks.artifacts import Store
from spira_tasks.cli import main
from spira_tasks.contract.exits import EXIT_REJECTED

CONFIG_ERROR = 78


@pytest.fixture(scope="module")
def store(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A copy of the finished run alone: other tests have run it again."""
    store = linked_copy(finished.store, tmp_path_factory.mktemp("reproduce") / "store")
    for run_id in {*store.runs.ids()} - {finished.run_id}:
        shutil.rmtree(Path(store.url, "runs", run_id))
    return store


@pytest.fixture(autouse=True)
def with_the_gpus_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command hides them from its process, which is that of the tests here."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def test_a_version_is_built_again_from_its_record_bit_for_bit(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {entry.name for entry in store.entries("results")} | {*store.runs.ids()}
    assert main(["reproduce", "spira/1", "--store", store.url, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["is_same"]
    assert [one["step"] for one in found["steps"]] == ["materialize", "train", "evaluate"]
    assert all(one["rebuilt"] == one["recorded"] for one in found["steps"])
    assert {entry.name for entry in store.entries("results")} | {*store.runs.ids()} == before


def test_a_record_that_says_something_else_comes_to_other_weights(
    finished: Run, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    record = store.runs.step(finished.run_id, "train")
    assert record is not None
    other = replace(record, config={**record.config, "seed": 7}, provenance={"code": "before"})
    store.runs.write(finished.run_id, other)
    try:
        assert main(["reproduce", "1", "--store", store.url]) == EXIT_REJECTED
    finally:
        store.runs.write(finished.run_id, record)
    said = capsys.readouterr().out
    assert "train comes to another result" in said
    assert "model/weights.safetensors" in said
    assert "what runs is not what ran then: code, packages" in said


def test_a_version_that_there_is_not_or_that_no_record_explains_is_refused(
    finished: Run, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", "9", "--store", store.url]) == CONFIG_ERROR
    assert "has no version '9' of the model; it has: 1" in capsys.readouterr().err
    record = Path(store.url, "runs", finished.run_id, "evaluate.json")
    content = record.read_bytes()
    record.unlink()
    try:
        assert main(["reproduce", "1", "--store", store.url]) == CONFIG_ERROR
    finally:
        record.write_bytes(content)
    assert "no record says how the classifier" in capsys.readouterr().err
