"""A training step that was stopped goes on, and ends as one that never was: bit for bit."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Run, linked_copy
from safetensors.torch import load_file
from small_run import SETTINGS

from spira_tasks.artifacts import Checkpoint, Store
from spira_tasks.contract.pipelines import TRAINING
from spira_tasks.contract.record import Result
from spira_tasks.contract.step import Step
from spira_tasks.errors import ServiceUnavailable
from spira_tasks.runner import run_step
from spira_tasks.speech.training import pack, unpack
from spira_tasks.stages import train
from spira_tasks.tracking import Tracker

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
N_EPOCHS = 5  # a signal that is sent after the second arrives before the end


def training(**settings: Any) -> Step:
    changed = {f"train.{name}": value for name, value in settings.items()}
    values = {**SETTINGS, "train.epochs": N_EPOCHS, "train.patience_epochs": N_EPOCHS, **changed}
    steps = TRAINING.configure(data="unused", settings=values)
    return next(step for step in steps if step.name == "train")


@pytest.fixture
def store(finished: Run, tmp_path: Path) -> Store:
    return linked_copy(finished.store, tmp_path / "store")


@pytest.fixture(scope="module")
def undisturbed(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Result:
    folder = tmp_path_factory.mktemp("undisturbed") / "store"
    return run_step(training(), "first", linked_copy(finished.store, folder))


def checkpoints(store: Store) -> list[Path]:
    return sorted(Path(store.url).glob("checkpoints/*"))


def number_of(pattern: str, log: str) -> int:
    found = re.search(pattern, log)
    assert found is not None, log
    return int(found[1])


def assert_the_same(result: Result, undisturbed: Result) -> None:
    assert result.key == undisturbed.key
    assert result.outputs == undisturbed.outputs
    assert result.metrics == undisturbed.metrics


def mlflow_run(store: Store, result: Result) -> Any:
    tracker = Tracker(store.tracking_uri)
    return tracker.client.get_run(tracker.run_of(result.outputs["model"], name="not made"))


COMMAND = [sys.executable, "-m", "spira_tasks"]
SAVING_ALWAYS = """
import sys
from spira_tasks.cli import main
from spira_tasks.stages import train

train.CHECKPOINT_SECONDS = 0.0
sys.exit(main(sys.argv[1:]))
"""


def start(command: list[str], store: Store) -> subprocess.Popen[str]:
    argv = [*command, "run", training().to_json(), "--run-id", "first", "--store", store.url]
    return subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )


def stop_after(epoch: int, process: subprocess.Popen[str], signum: signal.Signals) -> str:
    """Send the signal once the line of an epoch is there; return everything it said."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith(f"epoch {epoch} of"):
            process.send_signal(signum)
    process.communicate()
    return "".join(lines)


def test_a_terminated_step_says_that_its_state_is_saved_and_goes_on_from_there(
    store: Store, undisturbed: Result
) -> None:
    process = start(COMMAND, store)
    said = stop_after(2, process, signal.SIGTERM)
    assert process.returncode == 128 + signal.SIGTERM
    number = number_of(r"stopped after epoch (\d+): its state is saved, run it again", said)
    assert 2 <= number < N_EPOCHS
    assert len(checkpoints(store)) == 1
    assert store.find_result(undisturbed.key) is None

    process = start(COMMAND, store)
    answer, said = process.communicate()
    assert process.returncode == 0, said
    assert f"goes on after epoch {number} of {N_EPOCHS} (checkpoint of 20" in said
    computed = [int(epoch) for epoch in re.findall(r"^epoch (\d+) of", said, re.MULTILINE)]
    assert computed == list(range(number + 1, N_EPOCHS + 1))
    assert_the_same(Result.from_json(answer), undisturbed)
    assert checkpoints(store) == []


def test_a_killed_step_goes_on_from_what_was_last_saved(store: Store, undisturbed: Result) -> None:
    process = start([sys.executable, "-c", SAVING_ALWAYS], store)
    said = stop_after(2, process, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert "stopped" not in said

    process = start(COMMAND, store)
    answer, said = process.communicate()
    assert process.returncode == 0, said
    assert number_of(r"goes on after epoch (\d+)", said) >= 2
    assert_the_same(Result.from_json(answer), undisturbed)
    assert checkpoints(store) == []


class Interruption:
    """Stops a training in this process, as Ctrl-C does, when it has shown an epoch."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.epoch = 0
        self.error: BaseException = KeyboardInterrupt()
        log_epoch = Tracker.log_epoch

        def log_and_stop(tracker: Tracker, *args: Any) -> str:
            place = log_epoch(tracker, *args)
            if args[2] == self.epoch:
                self.epoch = 0
                raise self.error
            return place

        patch.setattr(Tracker, "log_epoch", log_and_stop)


@pytest.fixture
def interruption(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Interruption:
    caplog.set_level(logging.INFO, "spira_tasks")
    return Interruption(monkeypatch)


def interrupted(
    store: Store, interruption: Interruption, epoch: int, error: BaseException, **settings: Any
) -> None:
    interruption.epoch, interruption.error = epoch, error
    with pytest.raises(type(error)) as raised:
        run_step(training(**settings), "first", store)
    assert raised.value is error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143)])
def test_whatever_stops_a_training_its_epochs_are_kept(
    store: Store,
    undisturbed: Result,
    interruption: Interruption,
    caplog: pytest.LogCaptureFixture,
    error: BaseException,
) -> None:
    """In its first epoch, twice at the same place, where nothing is new, and in its last."""
    interrupted(store, interruption, 1, error)
    assert checkpoints(store) == []
    interrupted(store, interruption, 3, error)
    assert "stopped after epoch 2" in caplog.text
    saved = checkpoints(store)[0].stat().st_mtime_ns
    interrupted(store, interruption, 3, error)
    assert checkpoints(store)[0].stat().st_mtime_ns == saved
    interrupted(store, interruption, 5, error)
    assert "stopped after epoch 4" in caplog.text
    record = store.runs.step("first", "train")
    assert record is not None
    assert record.error == "Stopped"
    assert_the_same(run_step(training(), "first", store), undisturbed)


@pytest.mark.parametrize("damage", ["cut short", "of another network", "of other facts"])
def test_a_checkpoint_that_cannot_be_used_is_set_aside(
    store: Store,
    undisturbed: Result,
    interruption: Interruption,
    caplog: pytest.LogCaptureFixture,
    damage: str,
) -> None:
    interrupted(store, interruption, 2, KeyboardInterrupt())
    content = store.checkpoint(undisturbed.key).load() or b""
    tensors, facts = unpack(content)
    content = {
        "cut short": content[:-1000],
        "of another network": pack({**tensors, "network.more": torch.zeros(1)}, facts),
        "of other facts": pack(tensors, {"history": facts["history"]}),
    }[damage]
    store.checkpoint(undisturbed.key).save(content)

    assert_the_same(run_step(training(), "first", store), undisturbed)
    assert "the checkpoint is set aside" in caplog.text
    assert "goes on after" not in caplog.text
    assert checkpoints(store) == []
    aside = Path(store.url) / "corrupt" / "checkpoints" / f"{undisturbed.key}.safetensors"
    assert aside.read_bytes().endswith(content)


def test_a_store_that_is_away_when_a_training_stops_hides_nothing(
    store: Store,
    undisturbed: Result,
    interruption: Interruption,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The epochs since the last checkpoint are computed again, and shown in MLflow once."""
    interrupted(store, interruption, 2, KeyboardInterrupt())
    with monkeypatch.context() as patch:

        def save(checkpoint: Checkpoint, content: bytes) -> None:
            raise ServiceUnavailable("the store is away")

        patch.setattr(Checkpoint, "save", save)
        patch.setattr(train, "CHECKPOINT_SECONDS", 0.0)
        interrupted(store, interruption, 4, KeyboardInterrupt())
    assert "the state after epoch 3 is not saved: the store is away" in caplog.text
    assert "stopped after epoch 3" not in caplog.text

    caplog.clear()
    assert_the_same(run_step(training(), "first", store), undisturbed)
    assert "goes on after epoch 1 of" in caplog.text
    run = mlflow_run(store, undisturbed)
    client = Tracker(store.tracking_uri).client
    points = client.get_metric_history(run.info.run_id, "val_loss")
    assert sorted(point.step for point in points) == list(range(1, N_EPOCHS + 1))
    assert run.info.run_name == "first/train"
    assert run.info.status == "FINISHED"


def test_a_second_signal_while_the_state_is_saved_leaves_the_state_before(
    store: Store, undisturbed: Result, interruption: Interruption, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(store, interruption, 2, KeyboardInterrupt())
    before = checkpoints(store)[0].read_bytes()
    with monkeypatch.context() as patch:
        seal = os.fchmod

        def seal_and_stop(descriptor: int, mode: int) -> None:
            seal(descriptor, mode)
            raise SystemExit(143)  # the whole file is written, but not in its place yet

        patch.setattr(os, "fchmod", seal_and_stop)
        interruption.epoch = 4
        with pytest.raises(SystemExit):
            run_step(training(), "first", store)
    assert checkpoints(store)[0].read_bytes() == before
    assert list((Path(store.url) / "tmp").iterdir()) == []
    assert_the_same(run_step(training(), "first", store), undisturbed)


def test_a_training_that_had_lost_patience_when_it_was_stopped_computes_no_epoch(
    finished: Run,
    store: Store,
    tmp_path: Path,
    interruption: Interruption,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """At this rate the losses jump, and an early epoch is worse than the one before."""
    settings = {"learning_rate": 0.5, "warmup_steps": 1, "averaging": 0.0, "patience_epochs": 1}
    settings["seed"] = 3  # of the seeds with which it does so before the last epoch
    other = linked_copy(finished.store, tmp_path / "other")
    expected = run_step(training(**settings), "first", other)
    n_epochs = int(expected.metrics["n_epochs"])
    assert 2 <= n_epochs < N_EPOCHS
    assert expected.metrics["best_epoch"] == n_epochs - 1

    interrupted(store, interruption, n_epochs, KeyboardInterrupt(), **settings)
    with monkeypatch.context() as patch:

        def put_directory(store: Store, folder: Path) -> str:
            raise ServiceUnavailable("the store is away")

        patch.setattr(train, "CHECKPOINT_SECONDS", 0.0)
        patch.setattr(Store, "put_directory", put_directory)
        with pytest.raises(ServiceUnavailable):
            run_step(training(**settings), "first", store)
    caplog.clear()
    assert_the_same(run_step(training(**settings), "first", store), expected)
    assert f"goes on after epoch {n_epochs} of {N_EPOCHS}" in caplog.text
    assert "train loss" not in caplog.text
    assert mlflow_run(store, expected).info.status == "FINISHED"


def test_a_checkpoint_that_cannot_be_deleted_does_not_fail_the_step(
    store: Store, undisturbed: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    def delete(checkpoint: Checkpoint) -> None:
        raise ServiceUnavailable("the store is away")

    monkeypatch.setattr(Checkpoint, "delete", delete)
    result = run_step(training(epochs=1), "first", store)
    assert store.find_result(result.key) == result


def test_two_processes_train_what_one_does_and_the_first_alone_writes(store: Store) -> None:
    def written() -> list[str]:
        folders = ("results", "runs", "checkpoints", "artifacts")
        return [str(p) for f in folders for p in Path(store.url, f).rglob("*") if p.is_file()]

    def trained(n: int) -> tuple[Result, dict[str, torch.Tensor], int]:
        n_before = len(written())
        result = run_step(training(dropout=0.0, epochs=2, n_processes=n), "first", store)
        weights = store.directory(result.outputs["model"]).path("weights.safetensors")
        return result, load_file(weights), len(written()) - n_before

    (one, weights, n_files), (two, others, n_of_two) = trained(1), trained(2)
    assert one.key != two.key  # the last digits differ, as by the number of threads
    for name, weight in weights.items():
        torch.testing.assert_close(others[name], weight, rtol=0, atol=1e-6)
    for name in ("train_loss", "val_loss"):
        assert two.metrics[name] == pytest.approx(one.metrics[name], abs=1e-6)
    assert n_of_two == n_files > 0
    client, run = Tracker(store.tracking_uri).client, mlflow_run(store, two)
    assert [m.step for m in client.get_metric_history(run.info.run_id, "val_loss")] == [1, 2]
