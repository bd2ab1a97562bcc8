"""Shards work ahead of a step: on several workers, each retried alone, and nothing is different."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from stores import remembered
from test_dags import airflow, home

from spira.store import n_files
from spira_tasks import show
from spira_tasks.artifacts import Store, open_source, put_source
from spira_tasks.cohort import write_cohort
from spira_tasks.contract.pipelines import TRAINING, Pipeline
from spira_tasks.contract.record import Result
from spira_tasks.contract.step import MAX_SHARDS, Resources, Shard, Step
from spira_tasks.errors import ConfigError
from spira_tasks.provenance import ROOT
from spira_tasks.reports import gather
from spira_tasks.runner import run_step

__all__ = ["home"]  # a fixture

ALONE = Pipeline(
    "alone",
    (
        TRAINING.step("ingest"),
        replace(TRAINING.step("materialize"), inputs={"recordings": "ingest.recordings"}),
    ),
    entry="ingest.data",
)
LIMITS = {"ingest.max_quarantine_fraction": 1.0, "ingest.max_site_quarantine_fraction": 1.0}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharded") / "c"
    write_cohort(folder, subjects=6, seed=5, workers=1)
    return folder


@pytest.fixture(scope="module")
def alone(data: Path) -> dict[str, Result]:
    """The two steps without shards."""
    store = Store(str(data.parent / "alone"))
    steps = ALONE.configure(data=str(data), settings=LIMITS)
    return {step.name: run_step(step, "r", store) for step in steps}


def sharded(data: Path, n_rows: int) -> Pipeline:
    steps = ALONE.configure(data=str(data), settings=LIMITS)
    few = [replace(step, resources=Resources(rows_per_shard=n_rows)) for step in steps]
    return replace(steps, steps=tuple(few))


def test_every_name_is_in_one_shard_and_stays_there() -> None:
    names = [f"r{number}" for number in range(300)]
    parts = [[name for name in names if Shard(k, 3).has(name)] for k in (1, 2, 3)]
    assert sorted(name for part in parts for name in part) == sorted(names)
    assert all(70 < len(part) < 130 for part in parts)
    assert parts[0][:3] == ["r0", "r2", "r3"]


def test_a_step_has_as_many_shards_as_its_rows_ask_for() -> None:
    resources = Resources(rows_per_shard=100)
    assert [resources.n_shards(n) for n in (0, 100, 101, 250)] == [0, 0, 2, 3]
    assert resources.n_shards(10**9) == MAX_SHARDS
    assert Resources().n_shards(10**9) == 0


def test_a_shard_is_part_of_the_command_line_of_its_step() -> None:
    step = Step("materialize", "materialize", {"recordings": "split.recordings"})
    second = step.shards(3)[1]
    assert second.record == "materialize.2-of-3"
    assert Step.from_json(second.to_json()) == second
    assert Step.from_json(step.to_json()) == step


def test_with_shards_the_results_are_the_same_and_nothing_is_left_to_do(
    data: Path, alone: dict[str, Result], tmp_path: Path
) -> None:
    store = Store(str(tmp_path / "store"))
    pipeline = sharded(data, 8)
    for step in pipeline:
        n = {"ingest": 6, "materialize": 3}[step.name]
        for part in step.shards(n):
            run_step(part, "r", store)
        before = remembered(store)
        result = run_step(step, "r", store)
        n_noises = alone["ingest"].metrics["n_ward_noises"] if step.name == "ingest" else 0
        assert len(remembered(store) - before) == n_noises  # only a bank's worth of noise
        assert result.outputs == alone[step.name].outputs
        assert result.key == alone[step.name].key
    run = store.runs.read("r")
    assert list(run.steps) == ["ingest", "materialize"]
    n_done = sum(record.metrics["n_recordings"] for record in run.shards["materialize"])
    assert n_done == alone["materialize"].metrics["n_recordings"]
    assert [step["n_shards"] for step in show.describe("r", store)["steps"]] == [6, 3]
    (*_, materialize) = pipeline
    run_step(materialize.shards(3)[0], "r", store)  # where the result is there, nothing is read
    assert store.runs.read("r").shards["materialize"][0].found


def test_a_shard_that_fails_fails_the_run_until_its_step_is_done(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(str(tmp_path / "store"))
    ingest, _ = sharded(data, 8)
    first, *_ = ingest.shards(2)
    with pytest.raises(ConfigError):
        run_step(replace(first, config={"min_duration_seconds": -1}), "r", store)
    assert store.runs.read("r").outcome == "failed"
    show.render("r", store, [])
    assert "ingest.1-of-2 failed: ConfigError step 'ingest'" in capsys.readouterr().out
    (first_step, *_) = gather._steps(store.runs.read("r"))
    assert (first_step.name, first_step.state) == ("ingest", "failed")
    assert first_step.message.startswith("ingest.1-of-2: ")
    run_step(ingest, "r", store)
    assert store.runs.read("r").outcome == "running"


def test_a_stage_that_has_no_shards_says_so(tmp_path: Path, data: Path) -> None:
    split = Step("split", "split", {"recordings": f"folder:{data}"}, shard=Shard(1, 2))
    with pytest.raises(ConfigError, match="does not work in shards"):
        run_step(split, "r", Store(str(tmp_path / "s")))


def test_the_files_of_a_source_are_counted(bucket: str, data: Path, tmp_path: Path) -> None:
    n = put_source(open_source(f"folder:{data}"), bucket, [], replace=False)
    assert n_files(bucket, os.environ) == n_files(f"folder:{data}", {}) == n
    assert n_files(f"folder:{tmp_path}/not-here", {}) == 0


FAILING_ONCE = """#!/bin/sh
case "$*" in *'"name": "materialize"'*'"number": 2, "of": 3'*)
  if [ ! -e "$0.failed" ]; then touch "$0.failed"; echo "a service is away" >&2; exit 75; fi;;
esac
exec {python} "$@"
"""


@pytest.mark.slow
def test_airflow_maps_a_step_over_shards_and_tries_a_failed_one_again_alone(
    data: Path, alone: dict[str, Result], home: Path, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text(FAILING_ONCE.format(python=sys.executable))
    python.chmod(0o755)
    conf = json.dumps({"data": str(data), "settings": LIMITS})
    process = airflow(
        *("dags", "test", "spira_sharded", "-c", conf),
        home=home,
        SPIRA_STORE=str(tmp_path / "store"),
        SPIRA_PYTHON=str(python),
        SPIRA_RETRY_SECONDS="1",
        AIRFLOW__CORE__DAGS_FOLDER=str(ROOT / "tests/pipeline"),
        PYTHONPATH=os.pathsep.join([str(ROOT), str(ROOT / "plugins")]),
    )
    assert process.returncode == 0, process.stdout[-3000:]
    assert process.stdout.count("starting task_id=materialize_shard map_index=1 ") == 2
    for once in (0, 2):
        assert process.stdout.count(f"starting task_id=materialize_shard map_index={once} ") == 1
    assert "ended with status 75: a service did not answer" in process.stdout
    store = Store(str(tmp_path / "store"))
    (run_id,) = store.runs.ids()
    run = store.runs.read(run_id)
    assert [one.step for one in run.shards["materialize"]] == [
        f"materialize.{number}-of-3" for number in (1, 2, 3)
    ]
    for name, result in alone.items():
        assert dict(run.steps[name].outputs) == dict(result.outputs)
