"""Prometheus and Alertmanager as docker/monitoring sets them up, beside a server of ours."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from asking import Ward
from collecting import served
from fastapi import FastAPI
from started import free_port

from spira_services.metrics import TOKEN_VARIABLE
from spira_services.serving import router
from spira_services.serving.gauges import of_answers, of_models, of_queue
from spira_services.serving.inferences import note_action
from spira_services.serving.queue import SqlQueue
from spira_services.web import create_app
from spira_tasks.provenance import ROOT

MONITORING = ROOT / "docker/monitoring"
ALERTMANAGER = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
PROMETHEUS = shutil.which("prometheus")

pytestmark = pytest.mark.skipif(
    not (PROMETHEUS and ALERTMANAGER),
    reason="no Prometheus here: apt-get install prometheus prometheus-alertmanager",
)


@dataclass
class Watched:
    ward: Ward
    queue: SqlQueue
    prometheus: httpx.Client
    targets: dict[str, str]  # job: address
    messages: list[dict[str, Any]]  # that people got


@contextmanager
def running(folder: Path, *command: str | Path) -> Iterator[None]:
    with (folder / f"{Path(command[0]).name}.log").open("wb") as log:
        process = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log, cwd=folder)
        try:
            yield
        finally:
            process.terminate()
            process.wait()


def until(found: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (got := found()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.1)
    return got


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """All of it on this machine, with the secrets of a first start, and quicker."""
    folder = tmp_path_factory.mktemp("monitoring")
    bootstrap = [sys.executable, str(ROOT / "docker/bootstrap.py"), "secrets", str(folder / "all")]
    subprocess.run(bootstrap, check=True, capture_output=True)
    secrets = folder / "all/prometheus"
    messages: list[dict[str, Any]] = []
    taker = FastAPI()

    @taker.post("/")
    def take(message: dict[str, Any]) -> None:
        messages.append(message)

    ports = {"prometheus": free_port(), "alertmanager": free_port()}
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv(TOKEN_VARIABLE, (secrets / "token").read_text())
        ward = stack.enter_context(Ward.at("", folder))
        app = create_app("SPIRA", ward.engine)
        queue = SqlQueue(ward.engine)
        app.state.metrics.add("queue", of_queue(queue.depth))
        app.state.metrics.add("models", of_models(lambda: {"3": "champion"}))
        app.state.metrics.add("answers", of_answers(ward.engine))
        server = stack.enter_context(served(app)).removeprefix("http://")
        hook = stack.enter_context(served(taker))
        (folder / "alertmanager.yaml").write_text(
            "route: {receiver: hook, group_wait: 0s}\n"
            f"receivers: [{{name: hook, webhook_configs: [{{url: '{hook}'}}]}}]\n"
        )
        targets = {
            "services": server,
            **{name: f"127.0.0.1:{port}" for name, port in ports.items()},
        }
        text = (MONITORING / "prometheus.yaml").read_text()
        for was, now in (
            ("collection:8090", server),
            ("127.0.0.1:9090", targets["prometheus"]),
            ("alertmanager:9093", targets["alertmanager"]),
            ("/run/secrets", str(secrets)),
            ("/etc/monitoring", str(MONITORING)),
            ("interval: 15s", "interval: 1s"),
        ):
            assert was in text
            text = text.replace(was, now)
        (folder / "prometheus.yaml").write_text(text)
        for name, program, storage in (
            ("prometheus", PROMETHEUS, "--storage.tsdb.path=data"),
            ("alertmanager", ALERTMANAGER, "--storage.path=alerts"),
        ):
            assert program is not None
            command = [program, f"--config.file={name}.yaml", storage]
            command += [f"--web.config.file={secrets / 'web.yaml'}"]
            command += [f"--web.listen-address={targets[name]}"]
            command += ["--cluster.listen-address="] if name == "alertmanager" else []
            stack.enter_context(running(folder, *command))
        password = (secrets / "password").read_text()
        address = f"http://{targets['prometheus']}"
        client = stack.enter_context(httpx.Client(base_url=address, auth=("admin", password)))

        def answers() -> bool:
            try:
                return client.get("/-/ready").status_code == 200
            except httpx.TransportError:
                return False

        until(answers)
        yield Watched(ward, queue, client, targets, messages)


def query(watched: Watched, expression: str) -> list[dict[str, Any]]:
    answer = watched.prometheus.get("/api/v1/query", params={"query": expression}).json()
    assert answer["status"] == "success", answer
    return list(answer["data"]["result"])


def test_each_target_is_scraped_with_its_key_and_refuses_who_has_none(watched: Watched) -> None:
    up = until(lambda: (found := query(watched, "up == 1")) and len(found) == 3 and found)
    found = {one["metric"]["job"]: one["metric"]["instance"] for one in up}
    assert found == watched.targets
    for job, status in (("services", 404), ("prometheus", 401), ("alertmanager", 401)):
        assert httpx.get(f"http://{watched.targets[job]}/metrics").status_code == status


def test_each_panel_of_the_dashboard_shows_something_where_there_is_something(
    watched: Watched,
) -> None:
    ward, device = watched.ward, watched.ward.device()
    asked = ward.ask(device).inference_id
    ward.answer(asked)
    ward.fail(ward.ask(device).inference_id, "no_audio")
    with ward.engine.begin() as connection:
        note_action(connection, device.device_id, asked, "agreed")
        router.start(connection, "shadow", "4", 0.5, by="cli:test", why="a new version")
    panels = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    expressions = [one["expr"] for panel in panels for one in panel.get("targets", ())]
    assert len(expressions) > len(panels) / 2
    for expression in expressions:
        until(partial(query, watched, expression))


def test_an_alert_reaches_the_people_who_are_to_be_notified(watched: Watched) -> None:
    watched.queue.put(["one", "another"])
    for message in watched.queue.take(2, 0):
        watched.queue.bury(message, "no_audio")
    (sent,) = until(lambda: watched.messages)
    (alert,) = sent["alerts"]
    assert alert["labels"]["alertname"] == "DeadLetters"
    assert alert["annotations"] == {
        "summary": "2 inferences were given up",
        "runbook": "docs/runbook.md#deadletters",
    }
