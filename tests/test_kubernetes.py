"""Steps as pods: held against Kubernetes' schemas, and driven against a stand-in for its API."""

from __future__ import annotations

import copy
import json
import re
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate
import pytest
import yaml
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from airflow.serialization.serialized_objects import DagSerialization
from kubernetes.client import ApiClient
from spira_kubernetes import NEEDED, VARIABLES, StepPodOperator
from spira_operators import step_operator
from spira_secrets import secrets_of
from spira_status import command_line

from spira_tasks.contract import Resources
from spira_tasks.pipelines import TRAINING, configured
from spira_tasks.provenance import ROOT

VERSIONS = [f"1.{minor}" for minor in range(30, 38)]
RUN_ID = "scheduled__2026-11-21T03:00:00+00:00"
PARAMS = {
    "data": "s3://spira-data/recordings",
    "settings": {"train.note": "$(SPIRA_S3_SECRET_KEY)"},
}
VALUES = {name: f"value-of-{name.lower()}" for names in VARIABLES.values() for name in names}


@pytest.fixture(autouse=True)
def connections(monkeypatch: pytest.MonkeyPatch) -> None:
    s3 = {
        "conn_type": "aws",
        "host": VALUES["SPIRA_S3_ENDPOINT"],
        "login": VALUES["SPIRA_S3_ACCESS_KEY"],
        "password": VALUES["SPIRA_S3_SECRET_KEY"],
        "extra": {"region": VALUES["SPIRA_S3_REGION"]},
    }
    mlflow = {
        "conn_type": "http",
        "host": VALUES["MLFLOW_TRACKING_URI"],
        "login": VALUES["MLFLOW_TRACKING_USERNAME"],
        "password": VALUES["MLFLOW_TRACKING_PASSWORD"],
    }
    pseudonyms = {"conn_type": "generic", "password": VALUES["SPIRA_PSEUDONYM_KEY"]}
    monkeypatch.setenv("AIRFLOW_CONN_SPIRA_S3", json.dumps(s3))
    monkeypatch.setenv("AIRFLOW_CONN_SPIRA_MLFLOW", json.dumps(mlflow))
    monkeypatch.setenv("AIRFLOW_CONN_SPIRA_PSEUDONYMS", json.dumps(pseudonyms))
    signing = {"conn_type": "generic", "password": VALUES["SPIRA_SIGNING_KEY"]}
    monkeypatch.setenv("AIRFLOW_CONN_SPIRA_SIGNING", json.dumps(signing))
    monkeypatch.setenv("SPIRA_STORE", "s3://spira-store/v1")
    monkeypatch.delenv("SPIRA_SITE", raising=False)


class Notes(dict[str, Any]):
    """What a try leaves for the next one, as Airflow's task_state_store."""

    def set(self, name: str, value: Any) -> None:
        self[name] = value


def context_of(task: str, *, attempt: int = 1, notes: Notes | None = None) -> dict[str, Any]:
    ti = SimpleNamespace(
        dag_id="spira_continuous_training",
        task_id=task,
        run_id=RUN_ID,
        map_index=-1,
        try_number=attempt,
        pushed={},
    )
    ti.xcom_push = lambda key, value: ti.pushed.update({key: value})
    return {
        "ti": ti,
        "run_id": RUN_ID,
        "params": PARAMS,
        "dag": SimpleNamespace(),
        "task_state_store": Notes() if notes is None else notes,
    }


def operator_of(task: str) -> StepPodOperator:
    step = next(step for step in TRAINING if step.name == task)
    operator = step_operator(step, TRAINING, "kubernetes")
    assert isinstance(operator, StepPodOperator)
    return operator


def pod_of(task: str) -> dict[str, Any]:
    """The pod of a step as it would be sent."""
    pod = operator_of(task).build_pod_request_obj(context_of(task), dry_run=True)
    sent: dict[str, Any] = ApiClient().sanitize_for_serialization(pod)
    return sent


def hold_against_schema(resource: dict[str, Any]) -> None:
    for version in VERSIONS:
        kubernetes_validate.validate(resource, version, strict=True)


STEPS = [step.name for step in TRAINING]


# -- the pod ---------------------------------------------------------------------------------


@pytest.mark.parametrize("task", STEPS)
def test_the_pod_of_every_step_fits_kubernetes_schema(task: str) -> None:
    hold_against_schema(pod_of(task))


@pytest.mark.parametrize(
    "change",
    [
        lambda pod: pod["spec"].update(restartPolice="Never"),
        lambda pod: pod["spec"]["containers"][0]["securityContext"].update(privileged="no"),
        lambda pod: pod["spec"]["containers"][0].pop("name"),
        lambda pod: pod["spec"]["volumes"][0]["emptyDir"].update(sizeLimits="1Mi"),
    ],
)
def test_the_schema_check_can_fail(change: Callable[[dict[str, Any]], None]) -> None:
    pod = copy.deepcopy(pod_of("train"))
    change(pod)
    with pytest.raises(kubernetes_validate.ValidationError):
        hold_against_schema(pod)


@pytest.mark.parametrize("task", STEPS)
def test_a_pod_runs_the_command_line_of_every_runtime(task: str) -> None:
    (container,) = pod_of(task)["spec"]["containers"]
    words = [expanded(word, VALUES) for word in container["command"]]
    assert words == command_line("python", configured(task, TRAINING, PARAMS), RUN_ID)
    assert not container.get("args")


def expanded(text: str, values: dict[str, str]) -> str:
    """What Kubernetes makes of a word: ``$(NAME)`` is a variable and ``$$`` is ``$``."""

    def replace(found: re.Match[str]) -> str:
        return "$" if found[0] == "$$" else values.get(found[1], found[0])

    return re.sub(r"\$\$|\$\((\w+)\)", replace, text)


@pytest.mark.parametrize("task", STEPS)
def test_a_pod_may_do_nothing_that_a_step_need_not_do(task: str) -> None:
    spec = pod_of(task)["spec"]
    (container,) = spec["containers"]
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "fsGroup": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "runAsNonRoot": True,
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["restartPolicy"] == "Never"
    assert spec["terminationGracePeriodSeconds"] == 60
    assert not spec.get("hostNetwork")
    assert [set(volume) for volume in spec["volumes"]] == [{"name", "emptyDir"}] * 2


def test_a_pod_has_the_limits_of_its_step() -> None:
    spec = pod_of("train")["spec"]
    (container,) = spec["containers"]
    fixed = {"memory": "4096Mi", "ephemeral-storage": "256Mi"}
    assert container["resources"] == {
        "limits": {"cpu": "2", **fixed},
        "requests": {"cpu": "0.5", **fixed},
    }
    assert spec["activeDeadlineSeconds"] == 24 * 3600
    assert operator_of("train").execution_timeout.total_seconds() == 24 * 3600
    assert [volume["emptyDir"] for volume in spec["volumes"]] == [
        {"medium": "Memory", "sizeLimit": "1024Mi"},
        {"medium": "Memory", "sizeLimit": "256Mi"},
    ]
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/tmp", "/dev/shm"]


def test_a_gpu_is_asked_for_only_where_the_step_must_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site.toml"
    site.write_text("[steps.train]\ngpu_optional = false\ncpus = 8\nqueue = 'gpu'\n")
    monkeypatch.setenv("SPIRA_SITE", str(site))
    pod = pod_of("train")
    hold_against_schema(pod)
    resources = pod["spec"]["containers"][0]["resources"]
    assert resources["limits"]["nvidia.com/gpu"] == "1"
    assert resources["limits"]["cpu"] == "8"
    assert pod["spec"]["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert operator_of("train").queue == "gpu"
    assert "nvidia.com/gpu" not in json.dumps(pod_of("split"))


@pytest.mark.parametrize("task", STEPS)
def test_the_labels_of_a_pod_are_valid_and_say_whose_it_is(task: str) -> None:
    labels = pod_of(task)["metadata"]["labels"]
    assert labels["spira.dag"] == "spira_continuous_training"
    assert labels["spira.task"] == task
    assert labels["spira.run"].startswith("scheduled__2026-11-21T030000")
    for name, value in labels.items():
        assert re.fullmatch(r"[A-Za-z0-9]([\w.-]*[A-Za-z0-9])?", name), name
        assert re.fullmatch(r"([A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?)?", value), value


# -- keys ------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", STEPS)
def test_keys_come_from_a_secret_and_are_nowhere_in_a_pod_or_a_dag(task: str) -> None:
    operator = operator_of(task)
    operator._secrets = secrets_of(operator.limits)
    pod = operator.build_pod_request_obj(context_of(task), dry_run=True)
    (container,) = pod.spec.containers
    clear = {variable.name: variable.value for variable in container.env if variable.value}
    assert clear == {"SPIRA_STORE": "s3://spira-store/v1", "SPIRA_ACTOR": "airflow:scheduler"}
    references = [v.value_from.secret_key_ref for v in container.env if v.value_from]
    assert {reference.name for reference in references} == {f"spira-{operator.limits.access}"}
    assert {reference.key for reference in references} == set(operator._secrets)
    assert {reference.key for reference in references if not reference.optional} == set(NEEDED)
    with DAG("dag") as dag:
        operator.dag = dag
    shown = json.dumps([pod.to_dict(), DagSerialization.to_dict(dag)], default=str)
    assert operator.template_fields == ()
    assert not [value for value in VALUES.values() if value in shown]


@pytest.mark.parametrize("access", VARIABLES)
def test_a_pod_has_the_variables_that_a_container_has(access: Any) -> None:
    assert set(VARIABLES[access]) == set(secrets_of(Resources(access=access)))


def test_namespace_and_secret_are_the_sites_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pod_of("split")["metadata"]["namespace"] == "spira"
    monkeypatch.setenv("SPIRA_KUBERNETES_NAMESPACE", "ward")
    monkeypatch.setenv("SPIRA_KUBERNETES_SECRET", "ward-7")
    pod = pod_of("split")
    assert pod["metadata"]["namespace"] == "ward"
    assert '"name": "ward-7-store"' in json.dumps(pod)


def test_a_folder_of_recordings_is_refused() -> None:
    context = context_of("ingest") | {"params": {"data": "/srv/recordings"}}
    with pytest.raises(AirflowFailException, match="a pod sees none"):
        operator_of("ingest").build_pod_request_obj(context, dry_run=True)


# -- the document ----------------------------------------------------------------------------


def test_the_yaml_of_the_document_fits_kubernetes_schema() -> None:
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.S)]
    assert [block["kind"] for block in blocks] == ["Role", "NetworkPolicy"]
    for block in blocks:
        hold_against_schema(block)
    (expression,) = blocks[1]["spec"]["podSelector"]["matchExpressions"]
    assert expression["key"] in pod_of("split")["metadata"]["labels"]
    assert all(name in text for names in VARIABLES.values() for name in names)


# -- a try, against a stand-in for the API server ----------------------------------------------


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


@pytest.fixture
def attempt(tmp_path: Path) -> Callable[..., Any]:
    """One try of a step, as Airflow makes it."""
    notes = Notes()

    def run(number: int = 1, task: str = "train") -> tuple[dict[str, Any], dict[str, Any]]:
        operator = operator_of(task)
        operator.store = str(tmp_path)
        context = context_of(task, attempt=number, notes=notes)
        result = StepPodOperator.execute.__wrapped__(operator, context)
        return result, context["ti"].pushed

    return run


def leave_record(folder: Path, **fields: Any) -> None:
    file = folder / "runs" / RUN_ID / "train.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(fields))


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
    assert result == {"key": "abc", "seconds": 3.0, "mlflow_run": "4/5"}
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
    monkeypatch.setattr("spira_kubernetes.START_SECONDS", 0)
    waiting = {"reason": "CreateContainerConfigError", "message": 'secret "spira-models" not found'}
    status = status_of("Pending", {"waiting": waiting})
    status["conditions"] = [{"type": "PodScheduled", "status": "True"}]
    cluster.endings = [status]
    with pytest.raises(AirflowException, match='secret "spira-models" not found'):
        attempt()
    assert cluster.pods == {}
