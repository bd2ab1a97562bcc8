"""A run asks a person in a real Airflow: parked without a slot, answered, reminded of, expired."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import urllib3
from started import free_port
from test_approval import AT, WHY, Registry, prepared
from test_dags import airflow, home
from test_governance_page import Server, decide, token, wait_for

from spira_tasks.contract.run import StepRecord
from spira_tasks.contract.verdict import Verdict
from spira_tasks.provenance import ROOT

pytestmark = pytest.mark.slow
__all__ = ["home", "prepared"]  # fixtures

SECONDS = 240.0
PARKED_SECONDS = 5.0
USERS = {"admin": "admin", "bia": "user", "officer": "viewer"}
DAG = "spira_continuous_training"


@dataclass(frozen=True)
class Asked:
    """An Airflow with the DAGs of ``asking_dags.py``, and a registry that they work on."""

    registry: Registry
    port: int
    tokens: dict[str, str]
    folder: Path

    def ask(self, method: str, path: str, user: str = "admin", **body: Any) -> Any:
        answer = urllib3.request(
            method,
            f"http://127.0.0.1:{self.port}/api/v2/{path}",
            body=json.dumps(body) if body else None,
            headers={
                "Content-Type": "application/json",
                "Authorization": f"Bearer {self.tokens[user]}",
            },
            timeout=60.0,
        )
        return answer.status, json.loads(answer.data or b"{}")

    def start(self, dag: str, run_id: str) -> None:
        status, said = self.ask(
            "POST", f"dags/{dag}/dagRuns", dag_run_id=run_id, logical_date=None, conf={}
        )
        assert status == 200, said

    def state(self, dag: str, run_id: str, task: str) -> str:
        return str(self.ask("GET", f"dags/{dag}/dagRuns/{run_id}/taskInstances/{task}")[1]["state"])

    def until(self, dag: str, run_id: str, task: str, *states: str) -> str:
        return self.wait(lambda: self.state(dag, run_id, task), *states)

    def wait(self, found: Callable[[], str], *wanted: str) -> str:
        until = time.monotonic() + SECONDS
        while (state := found()) not in wanted:
            assert time.monotonic() < until, (state, (self.folder / "output").read_text()[-6000:])
            time.sleep(0.5)
        return state

    def details(self, dag: str, run_id: str) -> dict[str, Any]:
        status, said = self.ask(
            "GET", f"dags/{dag}/dagRuns/{run_id}/taskInstances/ask/-1/hitlDetails"
        )
        assert status == 200, said
        return dict(said)

    def answer(self, dag: str, run_id: str, user: str, chosen: str, reason: str) -> int:
        """Answer once the question is open.

        The scheduler has to hear first that the task was parked: it takes a task that is queued
        again before that for one that was lost, and tries it again, which asks again.
        """
        self.until(dag, run_id, "ask", "awaiting_input")
        time.sleep(PARKED_SECONDS)
        path = f"dags/{dag}/dagRuns/{run_id}/taskInstances/ask/-1/hitlDetails"
        status, _ = self.ask(
            "PATCH", path, user, chosen_options=[chosen], params_input={"reason": reason}
        )
        return int(status)

    def decide(self, dag: str, run_id: str, user: str, chosen: str, reason: str) -> None:
        """Answer as often as Airflow asks: on a busy machine it may ask again, see ``answer``."""
        until = time.monotonic() + SECONDS
        while (state := self.state(dag, run_id, "ask")) != "success":
            assert time.monotonic() < until, (state, (self.folder / "output").read_text()[-6000:])
            if state == "awaiting_input" and not self.details(dag, run_id)["response_received"]:
                assert self.answer(dag, run_id, user, chosen, reason) == 200
            time.sleep(0.5)

    def until_open(self, dag: str, run_id: str) -> None:
        """Wait until nobody's answer is there."""
        self.wait(lambda: str(self.details(dag, run_id)["response_received"]), "False")


@pytest.fixture(scope="module")
def asked(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    folder = tmp_path_factory.mktemp("asked")
    place = folder / "copy"
    shutil.copytree(prepared, place)
    registry = Registry(place)
    (folder / "dags").mkdir()
    for file in ("tests/asking_dags.py", "dags/spira_model_decision.py"):
        shutil.copy(ROOT / file, folder / "dags")
    (folder / "users.json").write_text(json.dumps({user: f"{user}-secret" for user in USERS}))
    port = free_port()
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "SPIRA_RUNTIME": "process",
        "SPIRA_STORE": registry.store.url,
        "SPIRA_APPROVAL_LOOK_SECONDS": "10",
        "SPIRA_RETRY_SECONDS": "1",
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder}/airflow.db",
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__PARALLELISM": "2",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(
            f"{user}:{role}" for user, role in USERS.items()
        ),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(folder / "users.json"),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "1",
    }
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "TERM", "--"),
                *(sys.executable, "-m", "airflow", "standalone"),
            ],
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
        )
        try:
            wait_for(f"http://127.0.0.1:{port}/api/v2/version", process, folder / "output")
            found = Asked(registry, port, {user: token(port, user) for user in USERS}, folder)
            found.wait(lambda: str(found.ask("GET", "dags/asks")[0]), "200")
            yield found
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            time.sleep(2.0)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=60)


def waiting(registry: Registry, run_id: str, at: str = "", **names: tuple[str, ...]) -> None:
    """What a promotion leaves that waits for a person."""
    verdict = Verdict("approved_by_a_person", "warn", names={"version": ("7",), **names})
    at = at or datetime.now(UTC).isoformat(timespec="seconds")
    registry.store.runs.write(
        run_id, StepRecord("promote", "promote", "done", at, 0.0, verdicts=(verdict,))
    )


def test_a_run_asks_and_is_promoted_in_the_name_of_who_answered(asked: Asked) -> None:
    registry = asked.registry
    registry.add(1)
    outputs = registry.place / "outputs"
    for step, stage, output, folder in (
        ("check_confounds", "confounds", "recordings", "recordings"),
        ("evaluate", "evaluate", "report", "provisional"),
    ):
        digest = registry.store.put_directory(outputs / folder)
        left = StepRecord(step, stage, "done", AT, 0.0, key="0" * 64, outputs={output: digest})
        registry.store.runs.write("run-1", left)
    asked.start(DAG, "run-1")
    asked.until(DAG, "run-1", "ask", "awaiting_input")
    assert asked.state(DAG, "run-1", "report_asked") == "success"  # there is a page to read
    assert registry.store.documents.read("site/runs/run-1.json") is not None
    pool = asked.ask("GET", "pools/default_pool")[1]
    assert (pool["running_slots"], pool["queued_slots"], pool["deferred_slots"]) == (0, 0, 0)
    detail = asked.details(DAG, "run-1")
    assert detail["subject"] == "May version 1 of the model serve?"
    assert "- **Finds the patients** (sensitivity_floor)." in detail["body"]
    assert "A versão 1 do modelo pode ser usada?" in detail["body"]
    assert registry.champion() is None

    assert asked.answer(DAG, "run-1", "officer", "Approve", WHY) == 403
    asked.decide(DAG, "run-1", "bia", "Approve", WHY)
    asked.until(DAG, "run-1", "promote_approved", "success", "failed")
    assert registry.champion() == "1"
    (decision,) = [one for one in registry.events() if one.action == "approval"]
    assert (decision.actor, decision.details["why"]) == ("airflow:bia", WHY)
    record = registry.store.runs.step("run-1", "promote")
    assert record is not None
    assert record.metrics["promoted"]
    asked.until(DAG, "run-1", "outcome", "success", "failed", "skipped")
    assert asked.state(DAG, "run-1", "outcome") == "success"


def test_who_may_not_approve_or_gives_no_reason_is_asked_again(asked: Asked) -> None:
    waiting(asked.registry, "excluding", excluded=("admin",))
    asked.start("asks", "excluding")
    for user, reason in (("admin", WHY), ("bia", "ok")):
        assert asked.answer("asks", "excluding", user, "Approve", reason) == 200
        asked.until_open("asks", "excluding")
    asked.decide("asks", "excluding", "admin", "Reject", WHY)  # a refusal may be


def test_a_decision_by_the_command_line_ends_the_wait(asked: Asked) -> None:
    asked.registry.add(2)
    waiting(asked.registry, "run-2")
    asked.start("asks", "run-2")
    asked.until("asks", "run-2", "ask", "awaiting_input")
    assert asked.registry.model("approve", "2", "--why", WHY) == 0
    asked.until("asks", "run-2", "ask", "success")
    path = "dags/asks/dagRuns/run-2/taskInstances/ask/xcomEntries/return_value"
    assert asked.ask("GET", path)[1]["value"] == {"decided": True}


def test_a_decision_on_the_governance_page_is_written_by_a_run_and_ends_the_wait(
    asked: Asked,
) -> None:
    registry = asked.registry
    registry.add(3)
    waiting(registry, "run-3")
    asked.start("asks", "run-3")
    asked.until("asks", "run-3", "ask", "awaiting_input")
    server = Server(asked.port, registry.store, asked.tokens)
    assert decide(server, "run-3", "bia", act="approve", version="3").status == 200
    asked.until("asks", "run-3", "ask", "success")
    (decision,) = [
        one
        for one in registry.events()
        if one.action == "approval" and one.details["version"] == "3"
    ]
    assert decision.actor == "airflow:bia"


def test_a_question_that_nobody_answers_expires_and_one_that_is_none_is_not_asked(
    asked: Asked,
) -> None:
    asked.registry.add(4)
    waiting(asked.registry, "run-4", at=AT)  # long ago
    asked.start("asks", "run-4")
    asked.start("asks", "nothing")
    assert asked.until("asks", "run-4", "ask", "skipped", "failed", "success") == "skipped"
    assert asked.until("asks", "nothing", "ask", "skipped", "failed", "success") == "skipped"


def test_airflow_dags_test_asks_nobody_and_ends(home: Path, tmp_path: Path) -> None:
    """There nothing would bring an answer, and Airflow would wait for ever."""
    folder = {"AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "tests" / "asking_dags.py")}
    process = airflow("dags", "test", "asks", home=home, SPIRA_STORE=str(tmp_path / "s"), **folder)
    assert process.returncode == 0, process.stdout[-2000:]
    assert "airflow dags test asks nobody" in process.stdout
