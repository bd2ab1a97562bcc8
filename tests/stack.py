"""A part of the platform in containers: Postgres and S3, and what a first start makes in them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from started import free_port

from scripts.backup import Platform
from scripts.deployment import ROOT, Docker, Settings

AS_ADMIN = """
import json, os, sys
from io import BytesIO
from pathlib import Path
from minio import Minio
users = json.loads(Path("/run/secrets/identities.json").read_text())["identities"]
def client(name):
    key = next(one for one in users if one["name"] == name)["credentials"][0]
    host = os.environ["SPIRA_S3_ENDPOINT"].split("//")[1]
    return Minio(host, key["accessKey"], key["secretKey"], secure=False)
"""


@dataclass(frozen=True)
class Stack:
    """A Compose project of the test's own: Postgres, S3, and what a first start makes in them."""

    env_file: Path
    settings: Settings
    docker: Docker

    def compose(self, *arguments: str) -> None:
        done = subprocess.run(
            [ROOT / "scripts/compose.sh", *arguments],
            env={**os.environ, "SPIRA_ENV_FILE": str(self.env_file)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]

    def start(self) -> None:
        self.compose("up", "-d", "bootstrap")
        wait = self.docker("wait", f"{self.settings.project}_bootstrap_1", seconds=150)
        if not wait.good:  # Compose 2 has another sign between the words
            wait = self.docker("wait", f"{self.settings.project}-bootstrap-1", seconds=150)
        assert wait.out.strip() == "0"

    def wait(self) -> None:
        """Wait until both servers answer: another test may just have restarted the engine."""
        deadline = time.monotonic() + 150
        for service in ("postgres", "s3"):
            health = "{{.State.Health.Status}}"
            own = f"--filter=label=com.docker.compose.project={self.settings.project}"
            label = f"--filter=label=com.docker.compose.service={service}"
            container = self.docker("ps", "-aq", own, label).out.strip()
            while (said := self.docker("inspect", "--format", health, container).out.strip()) != (
                "healthy"
            ):
                assert time.monotonic() < deadline, f"{service} is {said}"
                time.sleep(1)

    def python(self, program: str) -> str:
        """Run a program that knows ``client(name)`` in the network of the steps."""
        answer = self.docker.probe(
            self.settings["SPIRA_TASKS_IMAGE"],
            AS_ADMIN + program,
            network=self.settings["SPIRA_NETWORK"],
            mounts={self.settings.secrets / "s3/identities.json": "/run/secrets/identities.json"},
            variables={"SPIRA_S3_ENDPOINT": self.settings["SPIRA_S3_ENDPOINT"]},
            seconds=120,
        )
        assert answer.good, answer.err[-2000:]
        return answer.out

    def in_secrets(self, program: str) -> None:
        """Run a program as the owner of the secrets, which lie under /secrets."""
        answer = self.docker.probe(
            self.settings["SPIRA_TASKS_IMAGE"],
            program,
            user="0:0",
            more=[f"--mount=type=bind,source={self.settings.secrets},target=/secrets"],
        )
        assert answer.good, answer.err[-2000:]

    def run(self, script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, ROOT / script, "--env-file", self.env_file]
        return subprocess.run(
            [*map(str, command), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    @property
    def platform(self) -> Platform:
        return Platform(self.docker, self.settings)


@contextmanager
def started(folder: Path) -> Iterator[Stack]:
    """The stack, with the images that the tests have, and with secrets and settings in a folder."""
    local = subprocess.run([ROOT / "tests/docker/local_env.sh"], capture_output=True, check=True)
    project = f"spiratest{uuid4().hex[:8]}"
    own = {
        "COMPOSE_PROJECT_NAME": project,
        "SPIRA_SECRETS": folder / "secrets",
        "SPIRA_NETWORK": f"{project}_steps",
        "SPIRA_SERVICES_NETWORK": f"{project}_services",
        **{f"SPIRA_{name}_PORT": free_port() for name in ("S3", "MLFLOW", "AIRFLOW")},
    }
    given = local.stdout.decode().splitlines()
    kept = [line for line in given if line.split("=")[0] not in own]
    env_file = folder / "env"
    env_file.write_text("\n".join([*kept, *(f"{name}={value}" for name, value in own.items())]))
    settings = Settings.read(env_file)
    stack = Stack(env_file, settings, Docker())
    try:
        stack.start()
        yield stack
    finally:
        if (folder / "secrets").exists():
            stack.in_secrets("import shutil; shutil.rmtree('/secrets', ignore_errors=True)")
        stack.compose("down", "-v")
