"""``make up``: it starts, says how to log in, and leaves no process behind however it ends."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import urllib.request
from pathlib import Path
from urllib.error import HTTPError

import psutil
import pytest
from started import Up

from spira_tasks.provenance import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One state for all starts of this module, so that the database is made once."""
    return tmp_path_factory.mktemp("up")


@pytest.fixture
def up(folder: Path) -> Up:
    (folder / "output").write_text("")
    return Up(folder)


def status_of(url: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as response:
            return int(response.status)
    except HTTPError as error:
        return error.code


def listening(starter: int) -> set[int]:
    """The ports that the servers of a starter listen on, of this machine alone."""
    addresses = {
        one.laddr
        for process in psutil.Process(starter).children(recursive=True)
        for one in process.net_connections("inet")
        if one.status == psutil.CONN_LISTEN
    }
    assert {address.ip for address in addresses} == {"127.0.0.1"}, addresses
    return {address.port for address in addresses}


def test_it_starts_says_how_to_log_in_and_ends_clean_on_ctrl_c(up: Up) -> None:
    process = up.start()
    try:
        up.wait_until_ready(process)
        assert f"password {up.password}" in up.output
        assert status_of(f"{up.airflow}/spira/") == 401
        assert status_of(f"{up.mlflow}/api/2.0/mlflow/experiments/search?max_results=1") == 401
        secrets = up.folder / "up" / "secrets.json"
        assert stat.S_IMODE(secrets.stat().st_mode) == 0o600
        assert listening(process.pid) >= {up.airflow_port, up.mlflow_port}

        second = subprocess.run(
            up_again(up), capture_output=True, text=True, check=False, env=_environment(up)
        )
        assert second.returncode == 1
        assert f"it is up already: process {process.pid}, Airflow {up.airflow}" in second.stderr
    finally:
        process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 0
    assert up.processes() == {}
    events = (up.folder / "up.log").read_text().splitlines()
    assert events[-1].endswith("stopped; nothing is left running")
    assert all(line[:2] == "20" for line in events)  # one event, one line, each with its time


def test_nothing_survives_when_it_is_killed(up: Up) -> None:
    process = up.start()
    up.wait_until_ready(process)
    assert len(up.processes()) > 4
    process.kill()
    process.wait()
    up.wait_until_gone()


def test_nothing_survives_when_its_keeper_is_killed(up: Up) -> None:
    process = up.start()
    while "started mlflow" not in up.output:
        assert process.poll() is None, up.output
    (keeper,) = (pid for pid, line in up.processes().items() if line.endswith("--keep "))
    os.kill(keeper, signal.SIGKILL)
    assert process.wait(timeout=60) == 1
    assert up.processes() == {}


def test_it_ends_when_its_starter_is_killed(up: Up) -> None:
    """While it still starts, too."""
    shell = up.start("bash", "-c", '"$@"; true', "bash")
    while "started mlflow" not in up.output:
        assert shell.poll() is None, up.output
    shell.kill()
    shell.wait()
    up.wait_until_gone()


def test_a_port_that_is_taken_is_said_before_anything_starts(up: Up) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", up.mlflow_port))
        taken.listen()
        process = up.start()
        assert process.wait(timeout=60) == 1
    assert f"port {up.mlflow_port} of 127.0.0.1 cannot be used" in up.output
    assert "--mlflow-port" in up.output
    assert up.processes() == {}


def test_a_server_that_ends_by_itself_ends_the_rest_and_is_named(up: Up) -> None:
    """While it still starts, too."""
    process = up.start()
    while "started mlflow" not in up.output:
        assert process.poll() is None, up.output
    (scheduler,) = (
        int(line.split()[-1].rstrip(")"))
        for line in up.output.splitlines()
        if line.startswith("started scheduler")
    )
    os.kill(scheduler, signal.SIGKILL)
    assert process.wait(timeout=120) == 1
    assert "scheduler has ended with status -9" in up.output
    assert up.processes() == {}


def test_help_has_examples() -> None:
    process = subprocess.run(
        [sys.executable, ROOT / "scripts" / "up.py", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert 'make up ARGUMENTS="--airflow-port 8081' in process.stdout
    assert "--keep" not in process.stdout


def up_again(up: Up) -> list[str]:
    return [sys.executable, str(ROOT / "scripts" / "up.py")]


def _environment(up: Up) -> dict[str, str]:
    return os.environ | {
        "SPIRA_UP": str(up.folder / "up"),
        "SPIRA_STORE": str(up.folder / "store"),
        "AIRFLOW_HOME": str(up.folder / "airflow"),
    }
