"""One try of a step as a pod, driven against a stand-in for Kubernetes' API server."""

from __future__ import annotations

import copy
import inspect
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from pods import RUN_ID, VALUES, Notes, connections, context_of, hold_against_schema, operator_of

from spira.kubernetes import StepPodOperator
from spira_tasks.artifacts import Store
from spira_tasks.contract.run import StepRecord

__all__ = ["connections"]  # the fixture

# -- the stand-in ------------------------------------------------------------------------------


class Cluster(ThreadingHTTPServer):
    """As much of the API server as a pod needs; a new pod's status is the next of ``endings``."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pods: dict[str, dict[str, Any]] = {}
        self.created: list[dict[str, Any]] = []
        self.endings: list[dict[str, Any]] = []
        self.lines: list[str] = []
        self.log_fails = 0


class Handler(BaseHTTPRequestHandler):
    server: Cluster

    def answer(self, content: Any, status: int = 200) -> None:
        raw = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        kind = "text/plain" if isinstance(content, str) else "application/json"
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def body(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def do_POST(self) -> None:
        pod = self.body()
        hold_against_schema(pod)
        self.server.created.append(copy.deepcopy(pod))
        pod["status"] = self.server.endings.pop(0)
        self.server.pods[pod["metadata"]["name"]] = pod
        self.answer(pod, 201)

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        place = url.path.split("/")[5:]  # after /api/v1/namespaces/spira
        if place == ["events"]:
            self.answer({"items": [], "metadata": {"resourceVersion": "1"}})
        elif place == ["pods"]:
            selector = parse_qs(url.query)["labelSelector"][0].split(",")
            found = [p for p in self.server.pods.values() if selected(p, selector)]
            self.answer({"items": found, "metadata": {}})
        elif place[1] not in self.server.pods:
            self.answer({"message": "not found"}, 404)
        elif place[-1] == "log":
            if self.server.log_fails:
                self.server.log_fails -= 1
                self.answer({"message": "forbidden"}, 403)
            else:
                now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
                self.answer("".join(f"{now} {line}\n" for line in self.server.lines))
        else:
            self.answer(self.server.pods[place[1]])

    def do_PATCH(self) -> None:
        pod = self.server.pods[self.path.split("/")[-1]]
        pod["metadata"]["labels"].update(self.body()["metadata"]["labels"])
        self.answer(pod)

    def do_DELETE(self) -> None:
        self.answer(self.server.pods.pop(urlsplit(self.path).path.split("/")[-1]))

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


def selected(pod: dict[str, Any], selector: list[str]) -> bool:
    labels = pod["metadata"]["labels"]
    for term in selector:
        name, equals, value = term.partition("=")
        if term.startswith("!"):
            matches = term[1:] not in labels
        elif name.endswith("!"):
            matches = labels.get(name[:-1]) != value
        else:
            assert equals
            matches = labels.get(name) == value
        if not matches:
            return False
    return True


def status_of(phase: str, state: dict[str, Any] | None = None, **others: str) -> dict[str, Any]:
    container = {
        "name": "base",
        "image": "",
        "imageID": "",
        "ready": False,
        "restartCount": 0,
        "state": state,
    }
    return {"phase": phase, "containerStatuses": [container] if state else None, **others}


def ended(code: int, reason: str = "Error") -> dict[str, Any]:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    state = {"terminated": {"exitCode": code, "reason": reason, "finishedAt": now}}
    return status_of("Failed" if code else "Succeeded", state)


def running() -> dict[str, Any]:
    return status_of("Running", {"running": {}})


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    server = Cluster()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    kubeconfig = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "clusters": [
            {"name": "here", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
        ],
        "users": [{"name": "me", "user": {}}],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    connection = {
        "conn_type": "kubernetes",
        "extra": {"kube_config_path": str(tmp_path / "kubeconfig")},
    }
    monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", json.dumps(connection))
    yield server
    server.shutdown()
    server.server_close()


# -- a try -------------------------------------------------------------------------------------


@pytest.fixture
def attempt(tmp_path: Path) -> Callable[..., Any]:
    """One try of a step, as Airflow makes it."""
    notes = Notes()

    def run(number: int = 1, task: str = "train") -> tuple[dict[str, Any], dict[str, Any]]:
        operator = operator_of(task)
        operator.store = str(tmp_path)
        context = context_of(task, attempt=number, notes=notes)
        result = inspect.unwrap(StepPodOperator.execute)(operator, context)
        return result, context["ti"].pushed

    return run


def leave_record(folder: Path, **fields: Any) -> None:
    record = StepRecord("train", "train", "done", "2026-11-21T12:00:00+00:00", 3.0)
    Store(str(folder)).runs.write(RUN_ID, replace(record, **fields))


def test_a_pod_that_succeeds_shows_its_record_and_goes(
    cluster: Cluster, attempt: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leave_record(
        tmp_path,
        key="abc",
        seconds=3.0,
        outputs={"model": "sha256:1"},
        provenance={"mlflow_run": "4/5"},
    )
    cluster.endings = [ended(0)]
    cluster.lines = ["epoch 1", f"a slip: {VALUES['SPIRA_S3_SECRET_KEY']}"]
    result, pushed = attempt()
    assert result == pushed["return_value"]
    state = {"state": "done", "found": False, "metrics": {}, "verdicts": []}
    assert result == {"key": "abc", "seconds": 3.0, "mlflow_run": "4/5", **state}
    assert cluster.pods == {}
    log = capsys.readouterr().out
    assert "epoch 1" in log
    assert "a slip: ***" in log
    assert VALUES["SPIRA_S3_SECRET_KEY"] not in log


def test_what_a_gate_refused_fails_for_good_with_the_reason_of_the_record(
    cluster: Cluster, attempt: Any, tmp_path: Path
) -> None:
    leave_record(tmp_path, message="too few patients")
    cluster.endings = [ended(65)]
    with pytest.raises(AirflowFailException, match=r"status 65: .*\ntoo few patients"):
        attempt()
    (pod,) = cluster.pods.values()  # kept, and not taken for the next try's
    assert pod["metadata"]["labels"]["already_checked"] == "True"


@pytest.mark.parametrize(
    ("ending", "message"),
    [
        (ended(75), "status 75: a service did not answer"),
        (ended(137), "killed from outside"),
        (ended(143), "stopped from outside"),
        (status_of("Failed", reason="Evicted", message="low on disk"), "Evicted; low on disk"),
        ({**ended(1), "reason": "DeadlineExceeded"}, "the cluster ended .*DeadlineExceeded"),
    ],
)
def test_an_outage_is_tried_again(
    cluster: Cluster, attempt: Any, ending: dict[str, Any], message: str
) -> None:
    cluster.endings = [ending, ended(65)]
    cluster.lines = ["the last line"]
    with pytest.raises(AirflowException, match=message) as caught:
        attempt()
    assert not isinstance(caught.value, AirflowFailException)
    with pytest.raises(AirflowFailException):
        attempt(2)
    assert len(cluster.created) == 2


def test_a_step_without_enough_memory_gets_more_and_then_fails_for_good(
    cluster: Cluster, attempt: Any
) -> None:
    cluster.endings = [ended(137, "OOMKilled"), ended(137, "OOMKilled")]
    with pytest.raises(AirflowException, match="limit is 4096 MiB; the next try has 8192 MiB"):
        attempt()
    with pytest.raises(AirflowFailException, match="limit is 8192 MiB; give it more"):
        attempt(2)
    limits = [pod["spec"]["containers"][0]["resources"]["limits"] for pod in cluster.created]
    assert [limit["memory"] for limit in limits] == ["4096Mi", "8192Mi"]


def test_a_pod_outlives_the_process_that_follows_it(
    cluster: Cluster, attempt: Any, tmp_path: Path
) -> None:
    cluster.endings = [running()]
    cluster.log_fails = 1
    with pytest.raises(AirflowException, match="API refused: 403"):
        attempt()
    (pod,) = cluster.pods.values()
    leave_record(tmp_path, key="abc")
    timer = threading.Timer(0.5, lambda: pod.update(status=ended(0)))
    timer.start()
    result, _ = attempt(2)
    assert result["key"] == "abc"
    assert len(cluster.created) == 1
    assert pod["metadata"]["labels"]["try_number"] == "2"


def test_only_the_try_that_follows_a_pod_stops_it(cluster: Cluster, attempt: Any) -> None:
    cluster.endings = [running()]
    cluster.log_fails = 1
    with pytest.raises(AirflowException):
        attempt()
    (pod,) = cluster.pods.values()
    for number, n_left in ((2, 1), (1, 0)):
        operator = operator_of("train")
        operator._attempt = str(number)
        operator.pod = operator.client.read_namespaced_pod(pod["metadata"]["name"], "spira")
        operator.on_kill()
        assert len(cluster.pods) == n_left


def test_a_pod_that_cannot_start_says_why_and_goes(
    cluster: Cluster, attempt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spira.kubernetes.START_SECONDS", 0)
    waiting = {"reason": "CreateContainerConfigError", "message": 'secret "spira-models" not found'}
    status = status_of("Pending", {"waiting": waiting})
    status["conditions"] = [{"type": "PodScheduled", "status": "True"}]
    cluster.endings = [status]
    with pytest.raises(AirflowException, match='secret "spira-models" not found'):
        attempt()
    assert cluster.pods == {}
