"""A small search from its declaration to its comparison, on real trials."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread
from typing import Any

import pandas as pd
import pytest
from conftest import Run, linked_copy
from small_run import SETTINGS
from test_dags import airflow

from spira_tasks.artifacts import Store
from spira_tasks.cli import main
from spira_tasks.contract import verdict
from spira_tasks.contract.pipelines import BEFORE_FOLDS, EXPERIMENT, TRIAL
from spira_tasks.contract.record import Result
from spira_tasks.contract.step import Step
from spira_tasks.errors import ConfigError
from spira_tasks.experiments import comparison, trials
from spira_tasks.experiments.declaration import parse
from spira_tasks.experiments.stages import plan
from spira_tasks.experiments.trials import (
    AS_THEY_STAND,
    CHOSEN,
    Runs,
    Trial,
    memory_kills,
    trials_of,
)
from spira_tasks.governance import evidence
from spira_tasks.reports.gather import history
from spira_tasks.runner import run_step
from spira_tasks.scratch import alone
from spira_tasks.tracking import Tracker

FIXED = {
    "ingest.as_of": SETTINGS["ingest.as_of"],
    "train.model": "logistic",
    "train.epochs": 1,
    "train.n_threads": 1,
    "evaluate.n_resamples": 200,
    "evaluate.n_threads": 1,
}
HEAD = """
name = "small"
owner = "speech group"
ends = 2099-12-31
question = "Does another rate serve better?"
n_folds = 3
seeds = [1]
"""
LINES = "".join(f"{json.dumps(name)} = {json.dumps(value)}\n" for name, value in FIXED.items())
SEARCH = f"""{HEAD}
[settings]
{LINES}
[search]
budget = 1
nested = false
[search.space]
"train.learning_rate" = {{ low = 0.001, high = 0.1 }}
"""
MATRIX = f"""{HEAD.replace("small", "cells")}
[settings]
{LINES}
[matrix]
"train.learning_rate" = [0.01]
"""


def run_all(runs: Runs) -> int:
    """Run what is missing; return how many trials."""
    n = 0
    while waiting := runs.next_round().trials:
        for trial in waiting:
            runs.run(trial)
            n += 1
    runs.write_study()
    return n


@dataclass(frozen=True)
class Searched:
    store: Store
    cohort: Path
    found: dict[str, Any]
    n_run: int
    sealed: frozenset[str]  # digests of what was removed before the first trial

    def runs(self, text: str = SEARCH) -> Runs:
        return Runs(parse(text, "small"), str(self.cohort), self.store)


@pytest.fixture(scope="module")
def searched(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """A search in a store that has lost every waveform and feature of the test subjects."""
    store = linked_copy(finished.store, tmp_path_factory.mktemp("searched") / "store")
    runs = Runs(parse(SEARCH, "small"), str(finished.cohort), store)
    sealed = set()
    for digest, column in (
        (runs.shared["check_training_set.table"], "waveform"),
        (finished.results["materialize"].outputs["features"], "features"),
    ):
        directory = store.directory(digest)
        (name,) = (one for one in directory.names if one.endswith(".parquet"))
        table = pd.read_parquet(directory.path(name))
        split = store.directory(runs.shared["split.recordings"]).path("recordings.parquet")
        sides = pd.read_parquet(split).set_index("record_id")["split"]
        sealed |= set(table[table["record_id"].map(sides) == "test"][column])
    store.blobs.delete_all(sealed)
    n_run = run_all(runs)
    return Searched(store, finished.cohort, comparison.publish(runs), n_run, frozenset(sealed))


def test_no_trial_reads_a_recording_of_the_sealed_test_set(searched: Searched) -> None:
    """The store has lost them all, and no trial has missed one."""
    assert len(searched.sealed) > 10
    assert not any(searched.store.blobs.size(blob) for blob in searched.sealed)
    assert [arm["n_failed"] for arm in searched.found["arms"]] == [0, 0]
    runs = searched.runs()
    split = searched.store.directory(runs.shared["split.recordings"]).path("recordings.parquet")
    table = pd.read_parquet(split)
    people = set(table[table["split"] == "test"]["subject_id"])
    run_all(runs)
    for trial in (*runs.searched(), *runs.measured()):
        fold = searched.store.runs.read(runs.id_of(trial)).digest("fold.recordings")
        rows = pd.read_parquet(searched.store.directory(fold).path("recordings.parquet"))
        assert not people & set(rows["subject_id"])


def test_after_the_folds_a_trial_reads_only_what_they_hand_on() -> None:
    of_recordings = {"split.recordings", "check_training_set.table", "check_recordings.table"}
    for step in TRIAL:
        if step.name not in (*BEFORE_FOLDS, "fold"):
            assert not of_recordings & set(step.inputs.values()), step.name


def test_a_second_start_finds_every_trial_and_the_same_study(searched: Searched) -> None:
    assert searched.n_run == 9  # three inner folds of the point, and three folds of two arms
    place = "experiments/small/study.json"
    study = searched.store.documents.read(place)
    searched.store.documents.delete(place)
    assert run_all(searched.runs()) == 0
    assert searched.store.documents.read(place) == study
    assert study is not None
    assert [point["state"] for point in study["0"]] == ["complete"]


def test_a_search_is_compared_with_the_settings_as_they_stand(searched: Searched) -> None:
    found = searched.found
    assert [arm["name"] for arm in found["arms"]] == [AS_THEY_STAND, CHOSEN]
    assert found["synthetic"]
    assert found["optimistic"]
    assert found["search_costs"]["cpu_seconds"] > 0
    assert all(arm["costs"]["cpu_seconds"] > arm["costs"]["gpu_seconds"] for arm in found["arms"])
    assert len(found["pairs"]) == 1
    (rate,) = found["arms"][1]["settings"].values()
    assert f"--set train.learning_rate={rate} --set train.seed=1" in found["arms"][1]["command"]
    assert "--set evaluate.n_resamples=200" in found["arms"][1]["command"]


def test_the_command_ends_with_the_comparison_and_says_how_to_go_on(
    searched: Searched, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "small.toml"
    given = ("--data", str(searched.cohort), "--store", searched.store.url)
    file.write_text(SEARCH)
    assert main(["experiment", str(file), *given]) == 0
    printed = capsys.readouterr().out
    for shown in ("synthetic cohort", "As they stand", "Chosen by the search", "pipeline training"):
        assert shown in printed
    file.write_text(SEARCH.replace("n_folds = 3", "n_folds = 4"))
    assert main(["experiment", str(file), *given, "--trials", "0"]) == 0
    assert "trials are missing" in capsys.readouterr().err
    file.write_text(SEARCH.replace("2099-12-31", "2020-12-31"))
    assert main(["experiment", str(file), *given]) == 78
    assert "ended on 2020-12-31: ask its owner, speech group" in capsys.readouterr().err


def test_what_a_fold_of_few_people_came_to_is_not_told(
    searched: Searched,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "cells.toml"
    file.write_text(MATRIX.replace("seeds = [1]", "seeds = [3]"))
    command = ["experiment", str(file), "--data", str(searched.cohort)]
    command += ["--store", searched.store.url, "--trials", "1"]
    assert main(command) == 0
    assert "fold 1: done" in capsys.readouterr().err
    monkeypatch.setattr(verdict, "MIN_CELL", 1)
    assert main(command) == 0
    assert "fold 2: auc " in capsys.readouterr().err


def test_people_see_the_trials_below_their_experiment_in_mlflow(searched: Searched) -> None:
    client = Tracker(searched.store.tracking_uri).client
    experiments = [one.experiment_id for one in client.search_experiments()]
    (parent,) = client.search_runs(experiments, "tags.`spira.experiment` = 'small'")
    children = client.search_runs(
        experiments, f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    )
    assert len(children) == 9
    assert all("spira.trial" in child.data.tags for child in children)


def test_trials_are_no_trainings(searched: Searched, finished: Run) -> None:
    shown = {run.run_id for run in history(searched.store)}
    assert finished.run_id in shown
    not_shown = set(searched.store.runs.ids()) - shown
    assert {searched.runs().id_of(trial) for trial in searched_trials(searched)} <= not_shown


def test_runs_are_compared_on_the_terminal(
    searched: Searched, finished: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = [searched.runs().id_of(trial) for trial in searched_trials(searched)[:2]]
    assert main(["compare", *trials, "--store", searched.store.url]) == 0
    printed = capsys.readouterr().out
    assert "train.learning_rate" in printed
    assert main(["compare", finished.run_id, trials[0], "--store", searched.store.url]) == 78
    assert "no recording" in capsys.readouterr().err


def searched_trials(searched: Searched) -> list[Any]:
    """The first fold of both arms."""
    runs = searched.runs()
    run_all(runs)
    return [trial for trial in runs.measured() if trial.fold == 0]


def test_a_trial_that_fails_for_good_is_told_of_and_tried_again_only_on_demand(
    searched: Searched,
) -> None:
    """A fold of a twentieth has nobody of one class."""
    text = MATRIX.replace("n_folds = 3", "n_folds = 20")
    runs = searched.runs(text)
    trial = next(trial for trial in runs.measured() if trial.fold == 0)
    runs.run(trial)
    assert runs.value(trial) is None
    assert (
        "choose fewer n_folds" in searched.store.runs.read(runs.id_of(trial)).steps["fold"].message
    )
    assert trial not in planned(searched, experiment=text)
    failed = searched.store.runs.step(runs.id_of(trial), "fold")
    assert failed is not None
    long_ago = replace(failed, finished_at="2020-01-01T00:00:00+00:00")
    searched.store.runs.write(runs.id_of(trial), long_ago)
    assert trial in planned(searched, experiment=text, retry="2020-01-02T00:00:00Z")
    with pytest.raises(ConfigError, match="a time to come"):  # it would be tried without an end
        planned(searched, experiment=text, retry="2999-01-01T00:00:00Z")


@pytest.mark.skipif(not memory_kills()[0], reason="the kernel does not say whom it kills")
def test_a_trial_that_is_killed_for_memory_twice_has_failed_and_is_tried_again_on_demand(
    searched: Searched,
) -> None:
    text = MATRIX.replace("seeds = [1]", "seeds = [8]")
    trial = searched.runs(text).next_round().trials[0]
    run_id, written = searched.runs(text).id_of(trial), searched.store.runs

    def kill() -> None:
        while written.step(run_id, "trial") == before:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)

    for _ in range(2):
        before = written.step(run_id, "trial")
        child = os.fork()
        if not child:
            Thread(target=kill, daemon=True).start()
            searched.runs(text).run(trial)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        assert searched.runs(text).record(trial) is None
        left = written.step(run_id, "trial")
        assert left is not None
        # as if the kernel, which has counted one more since, had done it
        counts = {**left.metrics, "n_kills": left.metrics["n_kills"] - 1}
        written.write(run_id, replace(left, metrics=counts))
    runs = searched.runs(text)
    runs.run(trial)
    failed = runs.record(trial)
    assert failed is not None
    assert (failed.error, runs.has_bugs) == ("OutOfMemory", False)
    assert trial not in planned(searched, experiment=text)
    written.write(run_id, replace(failed, finished_at="2020-01-01T00:00:00+00:00"))
    assert trial in planned(searched, experiment=text, retry="2020-01-02T00:00:00Z")
    again = Runs(parse(text, "small"), str(searched.cohort), searched.store, "2020-01-02")
    again.run(trial)
    assert again.value(trial) is not None


def test_of_two_processes_that_run_a_trial_at_once_one_finds_what_the_other_computed(
    searched: Searched, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = MATRIX.replace("seeds = [1]", "seeds = [11]")
    trial = searched.runs(text).next_round().trials[0]
    begun: list[str] = []

    def counted(step: Step, run_id: str, store: Store) -> Result:
        begun.extend({step.name} & {*trials.OWN_STEPS})
        return run_step(step, run_id, store)

    monkeypatch.setattr(trials, "run_step", counted)
    children = []
    for _ in range(2):
        children.append(os.fork())
        if not children[-1]:
            n = 99
            try:
                runs = searched.runs(text)
                runs.run(trial)
                n = 98 if runs.value(trial) is None else len(begun)
            finally:
                os._exit(n)
    ended = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert sorted(ended) == [0, len(trials.OWN_STEPS)]


def test_a_second_command_for_an_experiment_waits_for_the_first(
    searched: Searched, tmp_path: Path
) -> None:
    file = tmp_path / "cells.toml"
    file.write_text(MATRIX.replace("seeds = [1]", "seeds = [12]"))
    command = [sys.executable, "-m", "spira_tasks", "experiment", str(file), "--trials", "0"]
    command += ["--data", str(searched.cohort), "--store", searched.store.url]
    with alone("experiment cells", searched.store.url):
        second = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert second.stderr is not None
        assert "experiment cells: another process" in second.stderr.readline()
    said = second.communicate()[1]
    assert (second.returncode, "3 trials are missing" in said) == (0, True), said


def planned(searched: Searched, **config: str) -> list[Trial]:
    """What a run of the DAG would map; its trials do the same with the plan."""
    step = replace(EXPERIMENT.step("plan"), config={"data": str(searched.cohort), **config})
    digest = run_step(step, "planned", searched.store).outputs["plan"]
    content = searched.store.directory(digest).read("plan.json")
    runs, trials = Runs.of_plan(content, searched.store), trials_of(content)
    assert [trial for trial in trials if runs.record(trial) is None] == trials
    return trials


def test_an_unforeseen_error_of_a_trial_is_reported_and_the_others_go_on(
    searched: Searched, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A number that no float holds passes every check before the training."""
    arms = f'"train.warmup_steps" = [150, 1{"0" * 400}]'
    text = MATRIX.replace('"train.learning_rate" = [0.01]', arms)
    (tmp_path / "cells.toml").write_text(text)
    command = ["experiment", str(tmp_path / "cells.toml"), "--data", str(searched.cohort)]
    command += ["--store", searched.store.url, "--json"]
    assert main(command) == 1
    printed = capsys.readouterr()
    assert printed.err.count(": failed") == 3
    assert [arm["n_failed"] for arm in json.loads(printed.out)["arms"]] == [0, 3]
    assert main(command[:-1]) == 1  # found, and still no success
    again = capsys.readouterr()
    assert ": failed" not in again.err
    assert "failed trials (--retry tries them again)" in again.out
    runs = searched.runs(text)
    records = [runs.record(trial) for trial in runs.measured()]
    assert [one.error for one in records if one] == ["", "", "", *["OverflowError"] * 3]
    failures = json.loads(printed.out)["failures"]
    assert [(one["step"], one["error"]) for one in failures] == [("train", "OverflowError")] * 3
    assert all(one["run"] in again.out for one in failures)


def test_a_round_is_no_larger_than_airflow_maps(
    searched: Searched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "MAX_TRIALS", 2)
    assert len(planned(searched, experiment=MATRIX.replace("seeds = [1]", "seeds = [9]"))) == 2
    plan_record = searched.store.runs.step("planned", "plan")
    assert plan_record is not None
    assert plan_record.metrics == {"n_trials": 2.0, "n_later": 1.0}


@pytest.mark.slow
def test_trials_run_side_by_side_as_processes(
    searched: Searched, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = MATRIX.replace("seeds = [1]", "seeds = [6]")
    (tmp_path / "cells.toml").write_text(text)
    command = ["experiment", str(tmp_path / "cells.toml"), "--data", str(searched.cohort)]
    command += ["--store", searched.store.url, "--jobs", "2"]
    assert main([*command, "--trials", "2"]) == 0
    assert "1 trials are missing" in capfd.readouterr().err
    runs = searched.runs(text)
    (missing,) = runs.next_round().trials
    ended = [trial for trial in runs.measured() if trial != missing]
    assert all(runs.value(trial) is not None for trial in ended)
    shared = searched.store.runs.read(runs.run_id).steps
    assert {shared[f"trial-{number}"].state for number in range(2)} == {"done"}


@pytest.mark.slow
def test_the_dag_runs_a_trial_in_each_mapped_task_and_then_compares(
    searched: Searched, tmp_path: Path
) -> None:
    assert airflow("db", "migrate", home=tmp_path).returncode == 0
    conf = {"experiment": MATRIX, "data": str(searched.cohort)}
    process = airflow(
        *("dags", "test", "spira_experiments", "-c", json.dumps(conf)),
        home=tmp_path,
        SPIRA_STORE=searched.store.url,
    )
    assert process.returncode == 0, process.stdout[-2000:]
    (run_id,) = (one for one in searched.store.runs.ids() if one.startswith("manual"))
    records = searched.store.runs.read(run_id).steps
    assert set(records) == {"plan", "trial-0", "trial-1", "trial-2", "compare"}
    assert records["compare"].metrics == {"n_missing": 0.0, "n_failed": 0.0}
    found = searched.store.documents.read("experiments/cells/comparison.json")
    assert found is not None
    assert [arm["name"] for arm in found["arms"]] == ["learning_rate=0.01"]


def measured(store: Store) -> set[str]:
    """Trials that have come to their result."""
    return {one for one in store.runs.ids() if store.runs.step(one, "evaluate")}


@pytest.mark.slow
def test_a_search_that_is_killed_computes_nothing_again_and_ends_in_the_same_point(
    searched: Searched, tmp_path: Path
) -> None:
    store = linked_copy(searched.store, tmp_path / "s")
    text = SEARCH.replace("[1]", "[2]").replace('"small"', '"killed"')
    (tmp_path / "killed.toml").write_text(text)
    command = [sys.executable, "-m", "spira_tasks", "experiment", str(tmp_path / "killed.toml")]
    known = measured(store)
    process = subprocess.Popen(
        [*command, "--data", str(searched.cohort), "--store", store.url],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    runs = Runs(parse(text, "killed"), str(searched.cohort), store)
    first, second, _ = runs.next_round().trials
    while runs.record(first) is None or not store.runs.read(runs.id_of(second)).steps:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)  # in the middle of the second trial
    process.wait()
    before = {entry.name: entry.modified for entry in store.entries("results")}
    n_done = len(measured(store) - known)
    assert n_done > 0
    assert run_all(Runs(parse(text, "killed"), str(searched.cohort), store)) == 9 - n_done
    after = {entry.name: entry.modified for entry in store.entries("results")}
    assert before == {name: after[name] for name in before}


SITES = MATRIX.replace('"cells"', '"sites"').replace("n_folds = 3", 'folds = "site"\nn_folds = 3')
SEEDS = MATRIX.replace('"cells"', '"seeds"').replace("seeds = [1]", "seeds = [1, 2]")


def recipe(runs: Runs) -> str:
    """The recipe of all trials, as a promotion finds it by the model."""
    records = (runs.store.runs.step(runs.id_of(trial), "train") for trial in runs.measured())
    models = [one.outputs["model"] for one in records if one is not None]
    (found,) = {evidence.recipe_of(runs.store, model) for model in models}
    assert found is not None
    return found


def test_what_a_recipe_comes_to_at_each_hospital_is_kept_for_a_promotion(
    searched: Searched,
) -> None:
    runs = searched.runs(SITES)
    run_all(runs)
    found = comparison.publish(runs)
    kept = evidence.find(searched.store, "unseen_sites", recipe(runs), synthetic=True)
    assert kept is not None
    assert set(kept["levels"]) == set(runs.levels) == {f"hospital-{letter}" for letter in "abcd"}
    n_done = sum(runs.value(trial) is not None for trial in runs.measured())
    assert found["arms"][0]["n_failed"] == 4 - n_done  # where a hospital has one class
    for trial in runs.measured():
        fold = searched.store.runs.read(runs.id_of(trial)).digest("fold.recordings")
        if fold:
            table = searched.store.directory(fold).path("recordings.parquet")
            sides = pd.read_parquet(table).groupby("hospital_id")["split"].unique()
            assert [*sides.pop(runs.levels[trial.fold or 0])] == ["test"]
            assert "test" not in {side for sides_of_one in sides for side in sides_of_one}


@pytest.mark.slow
def test_what_a_recipe_comes_to_with_each_seed_is_kept_whatever_the_seed(
    searched: Searched,
) -> None:
    runs = searched.runs(SEEDS)
    run_all(runs)
    comparison.publish(runs)
    kept = evidence.find(searched.store, "seed_stability", recipe(runs), synthetic=True)
    assert kept is not None
    of_real = evidence.find(searched.store, "seed_stability", recipe(runs), synthetic=False)
    assert of_real is None  # these people are invented
    assert set(kept["values"]) == {"1", "2"}
    other = searched.runs(MATRIX)
    run_all(other)
    assert evidence.find(searched.store, "cross_cohort", recipe(other), synthetic=True) is None
