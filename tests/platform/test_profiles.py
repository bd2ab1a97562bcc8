"""The profiles of the compose file: several workers by Celery, and HTTPS by a reverse proxy."""

from __future__ import annotations

import json
import ssl
import subprocess
import time
import urllib.request

import pytest
from faults import SHORT, Reference, outputs
from production import Production, docker

pytestmark = [pytest.mark.docker, pytest.mark.slow]


@pytest.fixture(scope="module")
def with_profiles(platform: Production, reference: Reference) -> Production:
    """The platform with two Celery workers and a proxy besides; it is left so."""
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
        settings.write("SPIRA_EXECUTOR=CeleryExecutor\nCOMPOSE_PROFILES=celery,tls\n")
        settings.write("SPIRA_REDIS_IMAGE=spira-redis:local\nSPIRA_PROXY_IMAGE=spira-proxy:local\n")
        settings.write("SPIRA_HTTPS_AIRFLOW=127.0.0.1:31443\nSPIRA_HTTPS_MLFLOW=127.0.0.1:31444\n")
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


def test_a_worker_and_the_proxy_become_healthy(with_profiles: Production) -> None:
    for service in ("airflow-worker", "proxy"):
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
