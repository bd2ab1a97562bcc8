"""``make up`` in a test: started with folders of its own, its processes found by a mark."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import urllib3

from spira_tasks.provenance import ROOT

READY_SECONDS = 400.0
MARK = "SPIRA_TEST_MARK"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Up:
    """The pages, or the attempt to start them, in ``folder``."""

    folder: Path
    airflow_port: int = field(default_factory=free_port)
    mlflow_port: int = field(default_factory=free_port)
    collection_port: int = field(default_factory=free_port)
    mark: str = field(default_factory=lambda: uuid4().hex)
    variables: dict[str, str] = field(default_factory=dict)  # of its environment, besides

    @property
    def airflow(self) -> str:
        return f"http://127.0.0.1:{self.airflow_port}"

    @property
    def mlflow(self) -> str:
        return f"http://127.0.0.1:{self.mlflow_port}"

    @property
    def password(self) -> str:
        return str(json.loads((self.folder / "up" / "secrets.json").read_text())["password"])

    @property
    def output(self) -> str:
        return (self.folder / "output").read_text()

    def start(self, *before: str) -> subprocess.Popen[bytes]:
        """Start it; ``before`` is a command that starts it in turn."""
        environment = os.environ | {
            MARK: self.mark,
            "PYTHONPATH": str(ROOT),
            "SPIRA_RUNTIME": "process",
            "SPIRA_STORE": str(self.folder / "store"),
            "SPIRA_SERVICES_FOLDER": str(self.folder / "services"),
            "SPIRA_SERVICES_DATABASE": f"sqlite:///{self.folder}/services/services.db",
            "SPIRA_UP": str(self.folder / "up"),
            "AIRFLOW_HOME": str(self.folder / "airflow"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.folder}/airflow/airflow.db",
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "2",
            **self.variables,
        }
        ports = [
            *("--airflow-port", str(self.airflow_port), "--mlflow-port", str(self.mlflow_port)),
            *("--collection-port", str(self.collection_port)),
        ]
        with (self.folder / "output").open("ab") as output:
            return subprocess.Popen(
                [*before, sys.executable, str(ROOT / "scripts" / "up.py"), *ports],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
            )

    def wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + READY_SECONDS
        while "Ctrl-C stops everything" not in self.output:
            assert process.poll() is None, self.output
            assert time.monotonic() < until, self.output
            time.sleep(0.5)

    def ask(self, method: str, path: str, **body: str) -> dict[str, Any]:
        """Airflow's answer to the admin."""
        headers: Mapping[str, str] = {"Content-Type": "application/json"}
        if path != "auth/token":
            login = {"username": "admin", "password": self.password}
            token = self.ask("POST", "auth/token", **login)["access_token"]
            headers = {**headers, "Authorization": f"Bearer {token}"}
        content = json.dumps(body) if body else None
        url = f"{self.airflow}/{path}"
        answer = urllib3.request(method, url, body=content, headers=headers, timeout=60.0)
        assert answer.status < 300, answer.data
        return dict(answer.json())

    def processes(self) -> dict[int, str]:
        """Everything that has our mark in its environment: process number to command line."""
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                if f"{MARK}={self.mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(entry.name)] = line.decode(errors="replace")
            except OSError:
                continue  # it has ended, or is another user's
        return found

    def wait_until_gone(self, seconds: float = 120.0) -> None:
        until = time.monotonic() + seconds
        while left := self.processes():
            assert time.monotonic() < until, f"left behind: {left}\n{self.output}"
            time.sleep(0.5)
