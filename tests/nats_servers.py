"""NATS servers for tests: the program that docker-compose.yaml names, with one user."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from s3_servers import ENDS_WITH_US, free_ports

from spira_tasks.provenance import ROOT

START_SECONDS = 60


@dataclass
class NatsServer:
    """A server on a free port that can be killed and started again on what it has stored."""

    folder: Path
    tls: str = ""
    port: int = field(default_factory=lambda: free_ports(1))
    password: str = field(default_factory=lambda: uuid4().hex)

    @property
    def address(self) -> str:
        return f"{'tls' if self.tls else 'nats'}://127.0.0.1:{self.port}"

    @property
    def credentials(self) -> Path:
        return self.folder / "credentials"

    @property
    def variables(self) -> dict[str, str]:
        """Of the environment of a process that uses this queue."""
        return {"SPIRA_QUEUE": self.address, "SPIRA_QUEUE_CREDENTIALS": str(self.credentials)}

    def start(self) -> None:
        self.credentials.write_text(f"tests:{self.password}\n")
        (self.folder / "nats.conf").write_text(
            f"listen: '127.0.0.1:{self.port}'\n{self.tls}\n"
            f"jetstream {{ store_dir: '{self.folder}/data', sync_interval: always }}\n"
            f"authorization {{ users: [{{user: tests, password: '{self.password}'}}] }}\n"
        )
        self.run("-c", str(self.folder / "nats.conf"))

    def run(self, *arguments: str) -> None:
        program = Path(sys.executable).with_name("nats-server")
        command = [*ENDS_WITH_US, str(program), *arguments]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            log_text = (self.folder / "log").read_text()[-3000:]
            assert self._process.poll() is None, f"nats-server ended:\n{log_text}"
            assert time.monotonic() < deadline, f"nats-server does not answer:\n{log_text}"
            time.sleep(0.02)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
        except OSError:
            return False
        return True


@contextmanager
def nats_of_production(folder: Path) -> Iterator[str]:
    """The server by the files of production, with the users that the bootstrap makes."""
    command = [sys.executable, str(ROOT / "docker/bootstrap.py"), "secrets", str(folder / "run")]
    subprocess.run(command, check=True, capture_output=True)
    (folder / "run/nats").rename(folder / "run/secrets")  # as it is mounted
    shutil.copytree(ROOT / "docker/nats", folder / "etc/nats")
    port = free_ports(2)
    given = ["-c", f"{folder}/etc/nats/nats.conf", "-sd", f"{folder}/data", "-a", "127.0.0.1"]
    server = NatsServer(folder, port=port)
    server.run(*given, "-p", str(port), "-m", str(port + 1))
    try:
        yield server.address
    finally:
        server.kill()


@contextmanager
def nats_server(folder: Path, tls: str = "") -> Iterator[NatsServer]:
    """Run a server with a folder of its own; ``tls`` is a block of its configuration."""
    server = NatsServer(folder, tls)
    server.start()
    try:
        yield server
    finally:
        server.kill()
