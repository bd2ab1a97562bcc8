"""Maintenance: what nobody follows is stopped, what nobody looks at is removed, no more."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse
from docker.errors import NotFound
from engines import HERE, SMALL, identity, own_engine, python, start, wait_for

import spira.docker
import spira.engine
import spira.outcome
from spira.docker import reap_all
from spira.engine import Engine, Identity
from spira.site import platform_of

pytestmark = pytest.mark.docker

STORE, NETWORK = "s3://spira-test/v1", "spira-test-reaper"
STATES = {"works": "running", "waits": "queued", "done": "success", "broken": "failed"}
SLEEP = ["sleep", "60"]
AT_ONCE = 0.05 / 3600


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setenv("SPIRA_STORE", STORE)
    monkeypatch.setenv("SPIRA_NETWORK", NETWORK)
    monkeypatch.delenv("SPIRA_SITE", raising=False)
    monkeypatch.setattr(spira.outcome, "STOP_SECONDS", 5.0)
    with own_engine() as found:
        yield found


def of_run(run: str, task: str = "work") -> Identity:
    return replace(identity(run=run, task=task), platform=platform_of(STORE, NETWORK))


def state_of_run(dag: str, run: str) -> str:
    """As Airflow answers it."""
    assert dag == "a_dag"
    if run not in STATES:
        details = {"status_code": 404 if run == "deleted" else 500}
        raise AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail=details))
    return STATES[run]


def reap(keep_hours: float = 48) -> dict[str, int]:
    return reap_all(keep_hours=keep_hours, state_of_run=state_of_run)


def ended(engine: Engine, who: Identity, script: str = "pass") -> str:
    container = start(engine, python(script), who)
    wait_for(lambda: not engine.is_running(container))
    return container


def test_what_works_for_a_run_that_goes_on_is_left_alone(engine: Engine) -> None:
    containers = [start(engine, SLEEP, of_run(run)) for run in ("works", "waits")]
    assert reap(keep_hours=0) == {"stopped": 0, "removed": 0, "kept": 0}
    assert all(engine.is_running(container) for container in containers)


@pytest.mark.parametrize("run", ["done", "broken", "deleted"])
def test_what_works_for_a_run_that_has_ended_is_stopped(engine: Engine, run: str) -> None:
    script = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
print("ready", file=sys.stderr, flush=True)
time.sleep(30)
"""
    container = start(engine, python(script), of_run(run))
    wait_for(lambda: engine.lines(container, ""))
    assert reap() == {"stopped": 1, "removed": 0, "kept": 0}
    assert engine.ending(container).status == 75  # it could save its state
    assert reap() == {"stopped": 0, "removed": 0, "kept": 1}


def test_what_works_when_its_time_is_long_over_is_stopped(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past its minutes, and those that Airflow may take: the run's own timeout did not come."""
    start_of_day = time.time() - SMALL.minutes * 60 - 900
    with monkeypatch.context() as patch:
        patch.setattr(spira.engine.time, "time", lambda: start_of_day)
        container = start(engine, SLEEP, of_run("works"))
    assert reap()["stopped"] == 1
    assert not engine.is_running(container)


def test_when_airflow_does_not_tell_the_state_of_a_run_nothing_of_it_is_stopped(
    engine: Engine,
) -> None:
    """And the rest is done."""
    unknown = start(engine, SLEEP, of_run("unknown"))
    orphan = start(engine, SLEEP, of_run("done"))
    assert reap()["stopped"] == 1
    assert engine.is_running(unknown)
    assert not engine.is_running(orphan)


def test_what_has_ended_is_kept_for_a_while_and_then_removed(engine: Engine) -> None:
    container = ended(engine, of_run("broken"))
    assert reap(keep_hours=1) == {"stopped": 0, "removed": 0, "kept": 1}
    time.sleep(1.1)  # the engine's times are read to the second
    assert reap(keep_hours=AT_ONCE) == {"stopped": 0, "removed": 1, "kept": 0}
    with pytest.raises(NotFound):
        engine.client.inspect_container(container)


def test_what_is_about_to_be_started_is_not_removed(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where nothing is kept; what its maker never came back for is."""

    def killed(_: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(engine.client, "start", killed)
        with pytest.raises(KeyboardInterrupt):
            start(engine, SLEEP, of_run("works"))
    time.sleep(1.1)
    assert reap(keep_hours=0)["removed"] == 0
    monkeypatch.setattr(spira.docker, "START_SECONDS", 0.1)
    assert reap(keep_hours=0)["removed"] == 1


def test_containers_of_others_are_never_touched(engine: Engine) -> None:
    """Those of no step, and those of another installation with runs of the same name."""
    stranger = engine.client.create_container(
        "spira-base:local",
        SLEEP,
        labels=["spira-stranger"],
        host_config=engine.client.create_host_config(network_mode="none"),
    )
    engine.client.start(stranger)
    theirs = replace(of_run("done"), platform=platform_of("s3://theirs", NETWORK))
    neighbour = start(engine, SLEEP, theirs)
    try:
        assert reap(keep_hours=0) == {"stopped": 0, "removed": 0, "kept": 0}
        assert engine.is_running(neighbour)
        assert engine.is_running(stranger["Id"])
    finally:
        engine.remove(stranger["Id"])


def test_a_container_that_its_task_removes_meanwhile_is_no_error(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every step that is done does so."""
    gone, left = ended(engine, of_run("works")), ended(engine, of_run("works", task="other"))

    def connect(_: object) -> Engine:
        listed = engine.client.containers
        monkeypatch.setattr(
            engine.client, "containers", lambda **o: (listed(**o), engine.remove(gone))[0]
        )
        return engine

    monkeypatch.setattr(spira.docker, "connect", connect)
    time.sleep(1.1)
    assert reap(keep_hours=0) == {"stopped": 0, "removed": 1, "kept": 0}
    with pytest.raises(NotFound):
        engine.client.inspect_container(left)


def test_an_engine_that_is_away_is_named_when_the_others_are_done(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site.toml"
    site.write_text(
        f'[engines.away]\nurl = "tcp://127.0.0.1:1"\n[engines.here]\nurl = "{HERE.url}"\n'
    )
    monkeypatch.setenv("SPIRA_SITE", str(site))
    monkeypatch.setenv("SPIRA_DOCKER_URL", "tcp://127.0.0.1:2")
    orphan = start(engine, SLEEP, of_run("done"))
    with pytest.raises(AirflowException, match=r"did not answer: tcp://127\.0\.0\.1:2, away$"):
        reap()
    assert not engine.is_running(orphan)
