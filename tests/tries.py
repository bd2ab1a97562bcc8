"""The tries of one task as Airflow makes them with the Docker operator, on a real engine.

Who imports the fixture ``task`` imports those that it needs, too: ``image``, and ``engine`` of
engines.py; and ``surroundings``, which then stand around every test of the module.
"""

from __future__ import annotations

import io
import json
import logging
import multiprocessing
import os
import signal
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from engines import HERE, IMAGE, SMALL, USER, wait_for

import spira.docker
import spira.engine
import spira.outcome
from spira.docker import StepDockerOperator
from spira.engine import Engine, Identity
from spira.site import Place, platform_of
from spira_tasks.contract.pipelines import Pipeline
from spira_tasks.contract.step import Resources, Step

STORE, NETWORK = "s3://spira-test/v1", "none"
SECRETS = {
    "SPIRA_S3_ENDPOINT": "http://s3.example.org:8333",
    "SPIRA_S3_ACCESS_KEY": "an-access-key",
    "SPIRA_S3_SECRET_KEY": "an-access-key-and-a-secret",
    "MLFLOW_TRACKING_PASSWORD": "a-password",
}
RECORD = {"key": "k", "metrics": {"n": 1}}

# What stands in for the package of the steps: it does what the step's configuration says.
PROGRAM = """
import json, os, signal, sys, time
command, option, run_id, step = sys.argv[1:]
assert (command, option) == ("run", "--run-id")
def say(*words):
    print(*words, file=sys.stderr, flush=True)
exec(json.loads(step)["config"]["script"])
"""
DOCKERFILE = f"FROM {IMAGE}\nCOPY spira_tasks /usr/local/lib/python3.11/site-packages/spira_tasks\n"

# A step that saves its state when it is stopped.
PATIENT = """
def end(*_):
    say("state saved")
    sys.exit(75)
signal.signal(signal.SIGTERM, end)
say("ready")
time.sleep(20)
"""


@pytest.fixture(scope="module")
def image(engine: Engine) -> Iterator[str]:
    name = f"spira-test-steps:{uuid4().hex[:12]}"
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for path, text in {
            "Dockerfile": DOCKERFILE,
            "spira_tasks/__init__.py": "",
            "spira_tasks/__main__.py": PROGRAM,
        }.items():
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(text.encode()), 0o644
            tar.addfile(member, io.BytesIO(text.encode()))
    content.seek(0)
    answer = list(engine.client.build(fileobj=content, custom_context=True, tag=name, rm=True))
    assert engine.client.images(name), answer[-1]
    yield name
    engine.client.remove_image(name, force=True)


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No store and no Airflow around the operator; and nobody waits for long."""
    monkeypatch.setattr(spira.outcome, "result_of", lambda *_: dict(RECORD))
    monkeypatch.setattr(spira.outcome, "reason_of", lambda *_: "")
    monkeypatch.setattr(spira.docker, "secrets_of", lambda _: dict(SECRETS))
    monkeypatch.setattr(spira.engine, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(spira.docker, "SAMPLE_SECONDS", 0.1)
    monkeypatch.setattr(spira.outcome, "STOP_SECONDS", 5.0)
    standard = logging.getLogger("airflow.task")
    log = property(lambda operator: operator.__dict__.get("log_of_try", standard))
    monkeypatch.setattr(StepDockerOperator, "log", log)


class Notes:
    """Airflow's task_state_store: what a try leaves for the next one, whatever became of it."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def get(self, name: str, default: Any = None) -> Any:
        return self._all().get(name, default)

    def set(self, name: str, value: Any) -> None:
        content = json.dumps({**self._all(), name: value})
        scratch = self.file.with_suffix(".new")
        scratch.write_text(content)
        scratch.replace(self.file)

    def _all(self) -> dict[str, Any]:
        return dict(json.loads(self.file.read_text())) if self.file.exists() else {}


class Task:
    """One task of one DAG run, and its tries."""

    def __init__(self, engine: Engine, image: str, folder: Path) -> None:
        self.engine, self.image, self.folder = engine, image, folder
        self.run_id = f"manual__{uuid4().hex}"
        self.notes = Notes(folder / "notes.json")
        self.handlers: list[logging.Handler] = []

    def operator(
        self,
        script: str,
        attempt: int = 1,
        *,
        limits: Resources = SMALL,
        place: Place = HERE,
        **options: Any,
    ) -> StepDockerOperator:
        operator = StepDockerOperator(
            task_id="work",
            pipeline=Pipeline("test", (Step("work", "a_stage", config={"script": script}),)),
            limits=limits,
            place=place,
            store=STORE,
            user=USER,
            **{"image": self.image, "network": NETWORK, **options},
        )
        log = logging.getLogger(f"{self.run_id}.{attempt}")
        log.setLevel(logging.INFO)
        log.propagate = False
        self.handlers.append(logging.FileHandler(self.folder / f"try{attempt}.log"))
        log.addHandler(self.handlers[-1])
        operator.__dict__["log_of_try"] = log
        return operator

    def context(self, attempt: int = 1) -> Any:
        ti = SimpleNamespace(
            dag_id="a_dag", task_id="work", run_id=self.run_id, map_index=None, try_number=attempt
        )
        return {"ti": ti, "run_id": self.run_id, "params": {}, "task_state_store": self.notes}

    def execute(self, script: str, attempt: int = 1, **options: Any) -> dict[str, Any]:
        return dict(self.operator(script, attempt, **options).execute(self.context(attempt)))

    def log(self, attempt: int = 1) -> list[str]:
        file = self.folder / f"try{attempt}.log"
        return file.read_text().splitlines() if file.exists() else []

    def ticks(self, attempt: int) -> list[str]:
        return [line for line in self.log(attempt) if line.startswith("tick ")]

    def containers(self) -> list[dict[str, Any]]:
        platform = platform_of(STORE, NETWORK)
        return self.engine.find(Identity("a_dag", "work", self.run_id, -1, 1, platform))

    def abandon(self, script: str, until: Callable[[], bool], **options: Any) -> str:
        """Let the process of the first try be killed when it has come so far."""
        process = multiprocessing.get_context("fork").Process(
            target=self.execute, args=(script,), kwargs=options
        )
        process.start()
        try:
            wait_for(until)
        finally:
            assert process.pid
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        (found,) = self.containers()
        return str(found["Id"])


@pytest.fixture
def task(engine: Engine, image: str, tmp_path: Path) -> Iterator[Task]:
    made = Task(engine, image, tmp_path)
    yield made
    for handler in made.handlers:
        handler.close()
