"""``make up``: it starts, says how to log in, and leaves no process behind however it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote

import psutil
import pytest
from folders import Cohort
from receiving import TO, Received, receiving
from started import Up

from scripts.doctor import checks
from spira_tasks.artifacts import Store
from spira_tasks.provenance import ROOT

pytestmark = pytest.mark.slow
RUNS_SECONDS = 900.0
OUTCOMES = ("is late", "refused the data")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One state for all starts of this module, so that the database is made once."""
    return tmp_path_factory.mktemp("up")


@pytest.fixture
def up(folder: Path) -> Iterator[Up]:
    """Nothing of it is left for the next test, whatever this one finds."""
    (folder / "output").write_text("")
    up = Up(folder)
    yield up
    for pid in up.processes():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    up.wait_until_gone()


@pytest.fixture(scope="module")
def received() -> Iterator[Received]:
    with receiving() as received:
        yield received


@pytest.fixture(scope="module")
def scheduled(folder: Path, received: Received) -> Iterator[tuple[Up, subprocess.Popen[bytes]]]:
    """Started with a training every minute, on recordings that a gate refuses."""
    cohort = Cohort(folder / "cohort")
    cohort.write()
    last = datetime.now(UTC) - timedelta(hours=3)
    up = Up(
        folder,
        variables={
            "SPIRA_SCHEDULE": "* * * * *",
            "SPIRA_RETENTION_SCHEDULE": last.strftime("%M %H * * %w"),
            "SPIRA_DATA": str(cohort.folder),
            "SPIRA_RETRY_SECONDS": "10",  # the first try may come before the server answers
            "SPIRA_LATE_HOURS": "0.0003",  # a second: every run is late
            **received.connections,
        },
    )
    (folder / "output").write_text("")
    process = up.start()
    yield up, process
    process.kill()
    up.wait_until_gone()


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


def test_it_starts_and_says_how_to_log_in(scheduled: tuple[Up, subprocess.Popen[bytes]]) -> None:
    up, process = scheduled
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


@pytest.fixture(scope="module")
def runs(scheduled: tuple[Up, subprocess.Popen[bytes]]) -> list[dict[str, Any]]:
    """The runs that the schedule started, once two of one day have ended.

    Ingest takes the day into its key, so a run after midnight computes again.
    """
    up, process = scheduled
    up.wait_until_ready(process)
    until = time.monotonic() + RUNS_SECONDS
    path = "api/v2/dags/spira_continuous_training/dagRuns?order_by=start_date"
    while True:
        found: list[dict[str, Any]] = up.ask("GET", path)["dag_runs"]
        ended = [run for run in found if run["end_date"]]
        if len({run["start_date"][:10] for run in ended[-2:]}) == 1 < len(ended):
            return ended
        assert time.monotonic() < until, found
        time.sleep(2)


def test_a_schedule_starts_runs_that_do_not_overlap_and_find_what_is_computed(
    scheduled: tuple[Up, subprocess.Popen[bytes]], runs: list[dict[str, Any]]
) -> None:
    up, _ = scheduled
    assert {(run["run_type"], run["state"]) for run in runs} == {("scheduled", "failed")}
    for earlier, later in pairwise(runs):
        assert later["start_date"] >= earlier["end_date"]
    store = Store(str(up.folder / "store"))
    first, second = (store.runs.read(run["dag_run_id"]).training for run in runs[-2:])
    assert first.outcome == second.outcome == "blocked"
    assert all(record.found for record in second.steps.values()), second
    # What the doctor says, by the query that it sends to Postgres.
    with closing(sqlite3.connect(f"file:{up.folder}/airflow/airflow.db?mode=ro", uri=True)) as base:
        rows = base.execute(checks.SCHEDULES).fetchall()
    training, retention = (checks.schedule(row, datetime.now(UTC)) for row in rows)
    assert training.detail.startswith(f"last run {datetime.now(UTC).date()}")
    assert (retention.level, retention.detail[:16]) == ("ok", "no run yet; next")
    # three hours after the last time of the schedule: no run for that one
    assert up.ask("GET", "api/v2/dags/spira_retention/dagRuns")["dag_runs"] == []


def test_each_channel_is_notified_once_of_each_outcome_of_a_run(
    scheduled: tuple[Up, subprocess.Popen[bytes]], runs: list[dict[str, Any]], received: Received
) -> None:
    up, _ = scheduled
    until = time.monotonic() + RUNS_SECONDS
    for run in runs:
        page = f"/runs/{quote(run['dag_run_id'], safe='')}/plugin/governance_run"
        while True:
            of_run = [text for text in received.texts if page in text]
            titles = sorted(title for text in of_run for title in OUTCOMES if title in text)
            if titles == ["is late"] * 2 + ["refused the data"] * 2:
                break
            assert len(of_run) <= 4, of_run
            assert time.monotonic() < until, of_run
            time.sleep(2)
    assert {mail["To"] for mail in received.mails} == {TO}
    remembered = json.loads(up.ask("GET", "api/v2/variables/spira_notified")["value"])
    wanted = {(runs[-1]["dag_run_id"], "refused", name) for name in ("spira_smtp", "spira_webhook")}
    assert wanted <= {tuple(what[1:]) for what in remembered}
    refused = next(text for text in received.posts if "refused the data" in text)
    assert "quarantine_share" not in refused  # words, not names
    assert "check_recordings: Too many faulty recordings: 6 of 12; 2 are tolerated." in refused
    assert f"{up.airflow}/dags/spira_continuous_training/runs/" in refused
    assert "1234567" not in "".join(received.texts)


def test_it_ends_clean_on_ctrl_c_while_runs_are_scheduled(
    scheduled: tuple[Up, subprocess.Popen[bytes]],
) -> None:
    up, process = scheduled
    up.wait_until_ready(process)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 0
    assert up.processes() == {}
    events = (up.folder / "up.log").read_text().splitlines()
    assert events[-1].endswith("stopped; nothing is left running")
    log = (up.folder / "up" / "collection.log").read_text()
    assert "Application shutdown complete" in log  # not killed while somebody sends
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
    # By its parent: a server that the keeper has just forked has the keeper's command line.
    (keeper,) = psutil.Process(process.pid).children()
    keeper.kill()
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
