"""What a killed step left is known at once; a step that lives keeps its temporary files."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from spira_services.serving.models import Models
from spira_tasks import scratch
from spira_tasks.artifacts import Store
from spira_tasks.provenance import ROOT

KILLED = """
import os, signal
from spira_tasks import scratch
with scratch.folder() as folder:
    (folder / "output").mkdir()
    (folder / "output/waveform.wav").write_bytes(b"sound")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def leave_as_a_killed_step(place: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(place)}
    killed = subprocess.run([sys.executable, "-c", KILLED], env=environment, cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL


def test_what_a_killed_step_left_a_moment_ago_goes_with_its_folder(place: Path) -> None:
    leave_as_a_killed_step(place)
    (left,) = scratch.left_behind()
    assert left.name == "waveform.wav"
    assert scratch.sweep() == 1
    assert list(place.iterdir()) == []


def test_what_killed_steps_left_goes_when_the_next_step_begins(place: Path) -> None:
    leave_as_a_killed_step(place)
    with scratch.folder() as other, scratch.folder() as folder:
        assert set(place.iterdir()) == {other, folder}


def test_a_step_that_works_keeps_what_it_is_at_work_on_and_loses_what_is_a_day_old(
    place: Path,
) -> None:
    with scratch.folder() as folder:
        young, old = folder / "being-written", folder / "fetched-yesterday"
        for file in (young, old):
            file.write_bytes(b"sound")
        os.utime(old, (time.time() - 90_000, time.time() - 90_000))
        assert scratch.left_behind() == [old]
        assert scratch.sweep() == 1
        assert list(folder.iterdir()) == [young]
    assert list(place.iterdir()) == []


def test_a_worker_keeps_the_files_of_its_models_however_old_they_are(
    place: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    models = Models(Store(str(tmp_path_factory.mktemp("store"))), lambda *_: None)
    (folder,) = place.iterdir()
    (weights := folder / "weights").write_bytes(b"old")
    os.utime(weights, (0, 0))
    assert (scratch.left_behind(), scratch.sweep()) == ([], 0)
    assert weights.exists()
    os.close(models._held)  # as of a worker that was killed
    assert scratch.sweep() == 1
    assert list(place.iterdir()) == []


def test_a_child_that_outlives_its_step_keeps_the_folder(place: Path) -> None:
    folder, lock = scratch.make()
    (folder / "file").write_bytes(b"sound")
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    try:
        os.close(lock)
        assert scratch.left_behind() == []
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert scratch.left_behind() == [folder / "file"]


def test_folders_of_other_programs_are_left_alone(place: Path) -> None:
    other = place / "spira-site"
    other.mkdir()
    (other / "file").write_bytes(b"sound")
    (place / "spira-abcd1234").symlink_to(other)
    assert scratch.sweep() == 0
    assert (other / "file").exists()


def test_a_process_that_is_killed_keeps_nobody_waiting(place: Path) -> None:
    child = os.fork()
    if not child:
        with scratch.alone("a trial", "a store"):
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    (left,) = place.iterdir()
    with scratch.alone("a trial", "a store"), scratch.alone("a trial", "another store"):
        assert left in place.iterdir()
    assert list(place.iterdir()) == []


def test_a_second_process_waits_until_the_first_has_ended_what_it_does_alone(
    place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said = ""
    with scratch.alone("a trial", "a store"):
        child = os.fork()  # it has the lock's file open, and is not taken for its holder afterwards
        if not child:
            scratch.log.addHandler(logging.StreamHandler(sys.stderr))
            with scratch.alone("a trial", "a store"):
                os._exit(len(list(place.iterdir())))
        while "another process" not in said:
            assert os.waitpid(child, os.WNOHANG) == (0, 0)
            time.sleep(0.01)
            said += capfd.readouterr().err
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
