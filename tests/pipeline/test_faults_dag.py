"""The DAG of the tests of faults runs on the data of a finished run."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
from conftest import Run, linked_copy
from faults import SHORT

from spira_tasks.provenance import ROOT
from spira_tasks.runner import run_step


def test_the_steps_that_faults_are_injected_into_read_an_earlier_run(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = {
        f"{name}.{output}": digest
        for name, result in finished.results.items()
        for output, digest in result.outputs.items()
    }
    (tmp_path / "digests.json").write_text(json.dumps(outputs))
    monkeypatch.setenv("SPIRA_TEST_GIVEN", str(tmp_path))
    monkeypatch.setenv("SPIRA_RUNTIME", "process")
    module = runpy.run_path(str(ROOT / "tests/platform/faults_dag.py"))
    assert module["dag"].task_ids == [*module["NAMES"], "end", "outcome"]
    store = linked_copy(finished.store, tmp_path / "store")
    results = {
        step.name: run_step(step, "faulty", store)
        for step in module["FAULTS"].from_params({"settings": SHORT})
    }
    assert results["split"].key == finished.results["split"].key
    assert set(results) == set(module["NAMES"])
    assert module["dag"].get_task("materialize").upstream_task_ids == {"split"}
