"""The profiles of the compose file: several workers, the services, monitoring, HTTPS."""

from __future__ import annotations

import json
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import httpx
import pytest
from answering import ask
from collecting import ANSWERS, Phone, session
from faults import SHORT, Reference, outputs
from production import PORTS, Production, Run, docker

from spira_tasks.speech import golden

pytestmark = [pytest.mark.docker, pytest.mark.slow]


@pytest.fixture(scope="module")
def with_profiles(platform: Production, reference: Reference) -> Production:
    """The platform with two Celery workers, the services and a proxy besides; it is left so."""
    tls = platform.secrets / "tls"
    tls.mkdir(exist_ok=True)
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", tls / "key.pem", "-out", tls / "cert.pem"),
        ],
        check=True,
        capture_output=True,
    )
    with platform.settings.open("a") as settings:
        profiles = "celery,collection,monitoring,queue,serving,tls"
        settings.write(f"SPIRA_EXECUTOR=CeleryExecutor\nCOMPOSE_PROFILES={profiles}\n")
        settings.write("SPIRA_QUEUE=nats://nats:4222\nSPIRA_NATS_IMAGE=spira-nats:local\n")
        settings.write("SPIRA_REDIS_IMAGE=spira-redis:local\nSPIRA_PROXY_IMAGE=spira-proxy:local\n")
        for name in ("PROMETHEUS", "ALERTMANAGER"):
            settings.write(f"SPIRA_{name}_IMAGE=spira-monitoring:local\n")
        settings.write("SPIRA_HTTPS_AIRFLOW=127.0.0.1:31443\nSPIRA_HTTPS_MLFLOW=127.0.0.1:31444\n")
        settings.write("SPIRA_HTTPS_COLLECTION=127.0.0.1:31445\n")
    platform.compose("up", "-d", "--no-build", "--scale", "airflow-worker=2")
    return platform


def test_celery_workers_follow_the_steps(with_profiles: Production, reference: Reference) -> None:
    run = with_profiles.trigger_faulty("celery", **SHORT | {"train.seed": 5})  # not yet trained
    assert run.wait() == "success"
    assert set(run.states.values()) == {("success", 1)}
    # the scheduler itself ends "end", which does nothing
    hosts = {task["hostname"] for name, task in run.tasks.items() if name != "end"}
    workers = docker("ps", "-q", "--filter", "name=airflow-worker").stdout.split()
    assert len(workers) == 2
    assert {host[:12] for host in hosts} <= {worker[:12] for worker in workers}
    assert outputs(run)["materialize"] == reference.outputs["materialize"]
    assert outputs(run)["train"] != reference.outputs["train"]


def test_a_worker_collection_and_the_proxy_become_healthy(with_profiles: Production) -> None:
    servers = (
        "airflow-worker",
        "collection",
        "worker",
        "nats",
        "proxy",
        "prometheus",
        "alertmanager",
    )
    for service in servers:
        for container in with_profiles.container_of(service).split():
            state = ["inspect", "--format", "{{.State.Health.Status}}", container]
            deadline = time.monotonic() + 150
            while (said := docker(*state).stdout.strip()) != "healthy":
                assert time.monotonic() < deadline, f"{service} is {said}"
                time.sleep(1)


def test_the_pages_are_served_by_https(with_profiles: Production) -> None:
    context = ssl.create_default_context(cafile=with_profiles.secrets / "tls/cert.pem")
    url = "https://localhost:31443/api/v2/monitor/health"
    with urllib.request.urlopen(url, context=context, timeout=20) as answer:
        assert json.load(answer)["scheduler"]["status"] == "healthy"
        assert "max-age" in answer.headers["Strict-Transport-Security"]
    with urllib.request.urlopen("https://localhost:31444/health", context=context) as answer:
        assert answer.status == 200


def test_prometheus_reads_the_metrics_with_the_token_of_the_first_start(
    with_profiles: Production,
) -> None:
    password = (with_profiles.secrets / "prometheus/password").read_text()
    address = f"http://127.0.0.1:{PORTS['PROMETHEUS']}/api/v1/query"
    deadline = time.monotonic() + 120
    up = False
    while not up:
        assert time.monotonic() < deadline, "no scrape of the services"
        time.sleep(1)
        asked = {"query": 'count by (job) (up{job=~"services|workers"} == 1)'}
        answer = httpx.get(address, params=asked, auth=("admin", password)).json()
        jobs = {one["metric"]["job"] for one in answer["data"]["result"]}
        up = jobs == {"services", "workers"}


NUMBERS = ("98765407", "98765417")  # of the hospital; too long for a chance within a digest
DUMP = "PGPASSWORD=$(cat /run/secrets/password) pg_dumpall -h 127.0.0.1 -U postgres"
# What a hospital says of sessions, in the container of the server: arguments are ids and labels.
LABELS = """
import json, os, sys
from datetime import UTC, datetime
os.environ |= json.load(open("/run/secrets/environment.json"))
from spira_services import server
from spira_services.database import open_engine
from spira_services.labelling import OfCollection
from spira_services.labels import store
with open_engine().begin() as connection:
    OfCollection(server.audio()).prepare(connection)
    for session, label in json.loads(sys.argv[1]).items():
        now = datetime.now(UTC)
        event = store.LabelEvent("session", session, label, "hospital_record", "hospital:hc",
                                 valid_from=now, recorded_at=now, unique_key=session)
        assert store.record(connection, event)
"""


@contextmanager
def telephone(platform: Production) -> Iterator[Phone]:
    """A device of the site ``hc``, which sends by HTTPS."""
    platform.services("sites", "add", "hc", "--name", "Hospital")
    name = uuid4().hex
    platform.services("people", "add", name, "--role", "collector")
    code = platform.services("devices", "code", "hc", "--collector", name).strip()
    context = ssl.create_default_context(cafile=platform.secrets / "tls/cert.pem")
    with httpx.Client(base_url="https://localhost:31445", verify=context, timeout=60) as client:
        sent = {"code": code, "model": "Moto G", "os": "Android 14"}
        yield Phone(client, client.post("/collection/v1/devices", json=sent).json()["key"])


def test_who_asks_by_https_is_answered_by_a_worker_through_the_queue(
    with_profiles: Production,
) -> None:
    password = (with_profiles.secrets / "mlflow/admin_password").read_text()
    moved = httpx.post(  # as promote does; the model of this test has learned too little for it
        f"http://127.0.0.1:{PORTS['MLFLOW']}/api/2.0/mlflow/registered-models/alias",
        json={"name": "spira", "alias": "champion", "version": "1"},
        auth=("admin", password),
    )
    assert moved.status_code == 200, moved.text
    with telephone(with_profiles) as phone:
        phone.client.headers.update(phone.headers)
        asked = ask(phone.client, golden.clips()[0].content)
        assert asked.status_code == 202, asked.text
        deadline = time.monotonic() + 150
        while (found := phone.client.get(asked.headers["Location"]).json())["state"] == "queued":
            assert time.monotonic() < deadline, "nobody answers"
            time.sleep(0.5)
    assert (found["state"], found["version"]) == ("answered", "1")
    assert found["probability"] is not None
    assert "0 wait, 0 were taken and are not done" in with_profiles.services("queue", "show")


def test_what_a_phone_sends_by_https_becomes_a_snapshot_that_wakes_a_training(
    with_profiles: Production,
) -> None:
    labels = {}
    with telephone(with_profiles) as phone:
        for number in range(2):
            kind = {"sample_type": ("CONTROL", "PATIENT")[number]}
            kind["patient_rgh"] = NUMBERS[number]
            person = session(number, form=ANSWERS | kind | {"cid10": None})
            assert phone.send(person).json()["status"] == "accepted"
            labels[str(person.session_id)] = number
    with_profiles.compose("exec", "-T", "collection", "python", "-c", LABELS, json.dumps(labels))
    one = {"of_each_label": 1, "of_each_label_at_a_site": 1, "sites": 1, "cool_down_hours": 0}
    settings = {"snapshot.rule": {"owner": "a test", **one}}
    run = with_profiles.start(Run(with_profiles, "taken", "spira_snapshot"), {"settings": settings})
    assert run.wait() == "success"
    assert run.states == {"snapshot": ("success", 1), "wake": ("success", 1)}

    path = "dags/spira_continuous_training/dagRuns?run_type=asset_triggered"
    deadline = time.monotonic() + 150
    while not (woken := with_profiles.get(path)["dag_runs"]):
        assert time.monotonic() < deadline, "no training was woken"
        time.sleep(1)
    training = Run(with_profiles, woken[0]["dag_run_id"])
    assert training.wait() == "failed"  # the noise of a test is no voice
    ingest = training.records()["ingest"]
    assert ingest["metrics"]["n_recordings"] == 6
    place = ingest["inputs"]["data"]
    assert place.startswith("s3://spira-data/snapshots/")
    printed = with_profiles.spira(with_profiles.given, "audit", "list", "--json").stdout
    events = [one for one in json.loads(printed) if one["details"].get("run") == training.run_id]
    assert {one["actor"] for one in events} == {f"event:training:{place.rpartition('/')[2]}"}
    containers = docker("ps", "-aq", "--filter", f"name={with_profiles.name}").stdout.split()
    logs = [docker("logs", one) for one in containers]
    printed += "".join(log.stdout + log.stderr for log in logs) + training.log("ingest")
    printed += with_profiles.compose("exec", "-T", "postgres", "sh", "-c", DUMP).stdout
    assert str(person.session_id) in printed  # it is the database that was looked at
    assert not [number for number in NUMBERS if number in printed]
