"""The compose file, brought up for a test: a real engine, Postgres, S3, MLflow and Airflow.

No image can be pulled where these tests run, so Postgres and S3 are images made from Debian's
packages (tests/docker/images.sh), named by the variables that a user would set.
"""

from __future__ import annotations

import base64
import copy
import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from minio import Minio
from minio.deleteobjects import DeleteObject

from spira_tasks.intake.pseudonyms import DEMO_KEY

ROOT = Path(__file__).resolve().parent.parent
DAG = "spira_continuous_training"
FAULTS = "spira_faults"  # tests/platform/faults_dag.py
IMAGES = ("spira-postgres:local", "spira-s3:local", "spira-tasks:0.2.0", "spira-airflow:0.2.0")
# None that conftest gives away.
PORTS = {"AIRFLOW": 31080, "MLFLOW": 31500, "S3": 31333, "COLLECTION": 31090}
PORTS |= {"PROMETHEUS": 31909, "ALERTMANAGER": 31910, "NATS": 31422}
ENDED = ("success", "failed")
FILES = ("-f", "docker-compose.yaml", "-f", "tests/docker/faults.yaml")


def why_not() -> str:
    """Why the production tests cannot run here; empty when they can."""
    if not shutil.which("docker"):
        return "no docker client is installed"
    if docker("info", check=False).returncode:
        return "no Docker engine is reachable"
    missing = [i for i in IMAGES if docker("image", "inspect", i, check=False).returncode]
    return f"images are missing, tests/docker/images.sh makes them: {missing}" if missing else ""


def docker(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=check)


@dataclass
class Run:
    """A DAG run, seen through Airflow's REST API."""

    production: Production
    run_id: str
    dag: str = DAG

    @property
    def path(self) -> str:
        return f"dags/{self.dag}/dagRuns/{quote(self.run_id)}"

    @property
    def state(self) -> str:
        return str(self.production.get(self.path)["state"])

    @property
    def tasks(self) -> dict[str, dict[str, Any]]:
        path = f"{self.path}/taskInstances"
        return {task["task_id"]: task for task in self.production.get(path)["task_instances"]}

    def log(self, task: str, attempt: int | None = None) -> str:
        """The log of one try of a task, or of all of its tries."""
        last = int(self.tasks[task]["try_number"])
        tries = [attempt] if attempt else range(1, last + 1)
        path = f"{self.path}/taskInstances/{task}/logs"
        content = [self.production.get(f"{path}/{n}?full_content=true")["content"] for n in tries]
        return "\n".join(_text(line) for lines in content for line in lines)

    def shown(self, task: str) -> dict[str, Any]:
        """What Airflow's page shows of a step."""
        path = f"{self.path}/taskInstances/{task}/xcomEntries"
        return dict(self.production.get(f"{path}/return_value")["value"])

    def wait(self, seconds: float = 1800) -> str:
        """Wait for the end; the limit is for a run that never ends, not for a slow machine."""
        deadline = time.monotonic() + seconds
        while (state := self.production.patiently(lambda: self.state)) not in ENDED:
            assert time.monotonic() < deadline, f"{self.run_id} still {state}: {self.states}"
            time.sleep(1)
        return str(state)

    @property
    def states(self) -> dict[str, tuple[str, int]]:
        return {n: (t["state"], t["try_number"]) for n, t in self.tasks.items()}

    def container(self, task: str, seconds: float = 900) -> str:
        """Wait until a step works in a container; return its id."""
        labels = [f"label=spira.run={self.run_id}", f"label=spira.task={task}"]
        filters = [part for label in labels for part in ("--filter", label)]
        deadline = time.monotonic() + seconds
        while not (found := docker("ps", "-q", "--no-trunc", *filters).stdout.split()):
            assert time.monotonic() < deadline, f"{task} never started: {self.states}"
            time.sleep(0.2)
        assert len(found) == 1, f"{len(found)} containers work for {task}"
        return found[0]

    def wait_for_line(self, task: str, words: str, seconds: float = 900) -> str:
        """Wait until the container of a step has written some words; return its id."""
        container = self.container(task, seconds)
        deadline = time.monotonic() + seconds
        while words not in docker("logs", container).stderr:
            assert time.monotonic() < deadline, f"{task} never wrote {words!r}"
            time.sleep(0.1)
        return container

    def records(self) -> dict[str, dict[str, Any]]:
        """What the steps left in the store; not the report, which is different each time."""
        store = self.production.s3
        prefix = f"v1/runs/{self.run_id}/"
        names = [o.object_name for o in store.list_objects("spira-store", prefix)]
        read = {name: store.get_object("spira-store", name).read() for name in names if name}
        found = {Path(name).stem: json.loads(content) for name, content in read.items()}
        return {name: record for name, record in found.items() if name != "report"}


def _text(line: Mapping[str, Any]) -> str:
    """A line of a log as the page shows it: what happened, and the exception with it."""
    errors = [f"{e['exc_type']}: {e['exc_value']}" for e in line.get("error_detail") or ()]
    return "\n".join([str(line.get("event", "")), *errors])


class Production:
    """A project of its own: other ports, secrets, volumes and network than a user's."""

    def __init__(self, folder: Path, name: str = "spira-test") -> None:
        self.name = name
        self.secrets = folder / "secrets"
        self.given = folder / "given"
        self.given.mkdir()
        self.given.chmod(0o755)
        self.site = folder / "site.toml"
        self.site.write_text("")
        self.site.chmod(0o644)
        settings = {
            "COMPOSE_PROJECT_NAME": name,
            "SPIRA_POSTGRES_IMAGE": "spira-postgres:local",
            "SPIRA_S3_IMAGE": "spira-s3:local",
            "SPIRA_NETWORK": f"{name}_steps",
            "SPIRA_SERVICES_NETWORK": f"{name}_services",
            "SPIRA_SECRETS": str(self.secrets),
            "SPIRA_SITE_FILE": str(self.site),
            "SPIRA_TEST_GIVEN": str(self.given),
            "SPIRA_SCHEDULE": "",
            "SPIRA_RETENTION_SCHEDULE": "",
            "SPIRA_RETRY_SECONDS": "2",
            "SPIRA_HEARTBEAT_TIMEOUT": "15",
            "DOCKER_GID": str(Path("/var/run/docker.sock").stat().st_gid),
            **{f"SPIRA_{part}_PORT": str(port) for part, port in PORTS.items()},
            "SPIRA_AIRFLOW_PAGE": f"http://127.0.0.1:{PORTS['AIRFLOW']}",
            "SPIRA_MLFLOW_PAGE": f"http://127.0.0.1:{PORTS['MLFLOW']}",
        }
        self.settings = folder / "env"
        self.settings.write_text("".join(f"{k}={v}\n" for k, v in settings.items()))
        self._token = ""
        # The key of the runs in processes that these are compared with; the first start keeps it.
        (self.secrets / "steps").mkdir(parents=True)
        (self.secrets / "steps/pseudonym_key").write_bytes(DEMO_KEY)

    def compose(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SPIRA_", "AIRFLOW"))}
        return subprocess.run(
            [ROOT / "scripts/compose.sh", *FILES, "-p", self.name, *arguments],
            cwd=ROOT,
            env=inherited | {"SPIRA_ENV_FILE": str(self.settings)},
            capture_output=True,
            text=True,
            check=check,
        )

    def services(self, *words: str) -> str:
        """What the command line of collection and labels prints, as the documents show it."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SPIRA_", "AIRFLOW"))}
        process = subprocess.run(
            [ROOT / "scripts/services.sh", *words],
            env=inherited | {"SPIRA_ENV_FILE": str(self.settings)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert process.returncode == 0, process.stderr
        return process.stdout

    def spira(self, reports: Path, *words: str) -> subprocess.CompletedProcess[str]:
        """The command line of a person on the host, as the documents show it."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SPIRA_", "AIRFLOW"))}
        return subprocess.run(
            [ROOT / "scripts/spira.sh", *words],
            env=inherited | {"SPIRA_ENV_FILE": str(self.settings), "SPIRA_REPORTS": str(reports)},
            capture_output=True,
            text=True,
            check=False,
        )

    def up(self) -> None:
        process = self.compose("up", "-d", "--no-build", check=False)
        if process.returncode:
            logs = self.compose("logs", "--tail=30", check=False).stdout
            raise AssertionError(f"compose up failed:\n{process.stderr[-3000:]}\n{logs[-6000:]}")
        for dag in (DAG, FAULTS):  # which compose creates unpaused
            found = self.patiently(lambda name=dag: self.get(f"dags/{name}"), seconds=120)
            assert not found["is_paused"]

    def down(self) -> None:
        steps = docker("ps", "-aq", "--filter", "label=spira.step").stdout.split()
        if steps:
            docker("rm", "-f", *steps, check=False)
        self.compose("down", "-v", "--remove-orphans", check=False)

    def address_of(self, service: str) -> str:
        inspected = json.loads(docker("inspect", self.container_of(service)).stdout)[0]
        networks = inspected["NetworkSettings"]["Networks"]
        return str(networks[f"{self.name}_backend"]["IPAddress"])

    def container_of(self, service: str) -> str:
        labels = {"project": self.name, "service": service}
        filters = [f"--filter=label=com.docker.compose.{k}={v}" for k, v in labels.items()]
        return docker("ps", "-aq", "--no-trunc", *filters).stdout.strip()

    # -- Airflow -----------------------------------------------------------------------------

    def as_user(self, name: str, password: str) -> Production:
        """The same platform, whose Airflow is called by another user."""
        other = copy.copy(self)
        other._token = ""
        login = {"username": name, "password": password}
        other._token = str(json.loads(other._send("POST", "/auth/token", login))["access_token"])
        return other

    def call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        self._log_in()
        return dict(json.loads(self._send(method, f"/api/v2/{path}", body)))

    def get(self, path: str) -> dict[str, Any]:
        return self.call("GET", path)

    def page(self, path: str) -> str:
        """A page of Airflow's web server, for its admin."""
        self._log_in()
        return self._send("GET", path, None).decode()

    def _log_in(self) -> None:
        if not self._token:
            password = (self.secrets / "airflow_admin/password").read_text()
            login = {"username": "admin", "password": password}
            answer = json.loads(self._send("POST", "/auth/token", login))
            self._token = str(answer["access_token"])

    def _send(self, method: str, path: str, body: Any) -> bytes:
        headers = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(
            f"http://127.0.0.1:{PORTS['AIRFLOW']}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers=headers,
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return bytes(answer.read())

    def patiently(self, ask: Any, seconds: float = 180) -> Any:
        """Ask again while Airflow is being restarted."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return ask()
            except (OSError, urllib.error.HTTPError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)

    def trigger(self, run_id: str, data: Path, **settings: Any) -> Run:
        """Start the training on a folder of recordings."""
        return self.start(Run(self, run_id), {"data": str(data), "settings": settings})

    def trigger_faulty(self, run_id: str, **settings: Any) -> Run:
        """Start the part of the training that faults are injected into."""
        return self.start(Run(self, run_id, FAULTS), {"settings": settings})

    def start(self, run: Run, conf: dict[str, Any]) -> Run:
        body = {"dag_run_id": run.run_id, "conf": conf, "logical_date": None}
        self.patiently(lambda: self.call("POST", f"dags/{run.dag}/dagRuns", body))
        return run

    def mlflow(self, path: str) -> dict[str, Any]:
        """What MLflow's REST API answers its admin."""
        password = (self.secrets / "mlflow/admin_password").read_text()
        token = base64.b64encode(f"admin:{password}".encode()).decode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{PORTS['MLFLOW']}/api/2.0/mlflow/{path}",
            headers={"Authorization": f"Basic {token}"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return dict(json.load(answer))

    # -- S3 ----------------------------------------------------------------------------------

    @property
    def keys(self) -> Mapping[str, Any]:
        identities = json.loads((self.secrets / "s3/identities.json").read_text())["identities"]
        return {one["name"]: one["credentials"][0] for one in identities}

    @property
    def s3(self) -> Minio:
        admin = self.keys["admin"]
        return Minio(
            f"127.0.0.1:{PORTS['S3']}", admin["accessKey"], admin["secretKey"], secure=False
        )

    def mentioning(self, prefix: str, words: bytes) -> list[str]:
        """Names in the store under a prefix whose content has some words."""
        found = self.s3.list_objects("spira-store", f"v1/{prefix}", recursive=True)
        names = [o.object_name for o in found if o.object_name]
        read = {name: self.s3.get_object("spira-store", name).read() for name in names}
        return [name.removeprefix("v1/") for name, content in read.items() if words in content]

    def remove(self, *names: str) -> None:
        """Remove what is in the store under some names, or under prefixes that end with a slash."""
        for name in names:
            found = self.s3.list_objects("spira-store", f"v1/{name}", recursive=True)
            doomed = [DeleteObject(o.object_name) for o in found if o.object_name]
            assert not list(self.s3.remove_objects("spira-store", doomed))


@contextmanager
def production(folder: Path) -> Iterator[Production]:
    """Bring the compose file up, and take it down with everything it made."""
    project = Production(folder)
    project.down()
    try:
        project.up()
        yield project
    finally:
        project.down()
