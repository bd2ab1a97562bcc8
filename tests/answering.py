"""A server, workers, and a queue in processes of their own, asked over the network as in a ward."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import httpx
from in_use import put_into_use
from serving import publish
from sqlalchemy import Engine
from started import free_port

from spira_services import devices, people
from spira_services.database import migrate, open_engine
from spira_tasks.artifacts import Store
from spira_tasks.artifacts.blobs import digest_of, hex_of
from spira_tasks.provenance import ROOT
from spira_tasks.tracking import Tracker

RECORDED_AT = datetime.now(UTC).isoformat()  # part of what a key asks: always the same


@dataclass
class Stand:
    """What serves, in ``folder``; the processes can be killed and started again.

    ``variables`` come on top of the environment, as those of another queue or database.
    """

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)  # of the workers' metrics

    @property
    def store(self) -> Store:
        return Store(str(self.folder / "store"))

    @property
    def watched(self) -> list[str]:
        """Where the workers show their metrics."""
        return [f"http://127.0.0.1:{port}" for port in self.ports.values()]

    @property
    def environment(self) -> dict[str, str]:
        return {
            "SPIRA_SERVICES_FOLDER": str(self.folder),
            "SPIRA_SERVICES_DATABASE": f"sqlite:///{self.folder}/services.db",
            "SPIRA_COLLECTION_AUDIO": str(self.folder / "audio"),
            "SPIRA_STORE": str(self.folder / "store"),
            **self.variables,
        }

    def engine(self) -> Engine:
        return open_engine(self.environment["SPIRA_SERVICES_DATABASE"])

    def prepare(self, n_versions: int = 1, edit: Callable[[Path], None] = lambda _: None) -> str:
        """Make the database, a device and versions of the model; the device's key."""
        for seed in range(1, n_versions + 1):
            publish(self.store, self.folder, seed, edit, n_hidden=None)
        put_into_use(Tracker(self.store.tracking_uri), "1")
        engine = self.engine()
        migrate(engine)
        with engine.begin() as connection:
            devices.add_site(connection, "hc", "Hospital", "cli:test")
            person = people.add(connection, uuid4().hex, ["collector"], None, "cli:test")
            code = devices.new_code(connection, "hc", person, "cli:test")
            enrolled = devices.enrol(connection, code, "test", "")
        engine.dispose()
        assert enrolled is not None
        return enrolled[1]

    def start(self, name: str) -> None:
        """Start ``server``, or a worker of any other name; it may not answer yet."""
        if name != "server":
            self.ports.setdefault(name, free_port())
        port = str(self.port if name == "server" else self.ports[name])
        arguments = ["serve" if name == "server" else "work", "--port", port]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "spira_services", *arguments],
                cwd=ROOT,
                env=os.environ | self.environment,
                stdout=log,
                stderr=log,
            )

    def end(self, name: str, signum: int = signal.SIGTERM) -> None:
        process = self.processes.pop(name)
        process.send_signal(signum)
        process.wait()

    def wait_until_it_answers(self) -> None:
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{self.port}/health")
                return
            except httpx.TransportError:
                assert self.processes["server"].poll() is None, "the server has ended"
                time.sleep(0.05)

    def client(self, key: str) -> httpx.Client:
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", headers=headers, timeout=httpx.Timeout(60)
        )


@contextmanager
def standing(
    folder: Path,
    workers: int,
    variables: Mapping[str, str],
    edit: Callable[[Path], None] = lambda _: None,
) -> Iterator[tuple[Stand, str]]:
    """A stand whose server and workers run, with a device's key; ``edit`` as in ``publish``."""
    stand = Stand(folder, dict(variables))
    key = stand.prepare(2, edit)
    try:
        for name in ("server", *(f"worker-{n}" for n in range(workers))):
            stand.start(name)
        stand.wait_until_it_answers()
        yield stand, key
    finally:
        for name in [*stand.processes]:
            stand.end(name)


def ask(client: httpx.Client, audio: bytes, key: str = "") -> httpx.Response:
    """Ask about a recording; the same key asks the same again."""
    sent = {"sha256": hex_of(digest_of(audio)), "recorded_at": RECORDED_AT}
    return client.post(
        "/v1/inferences",
        headers={"Idempotency-Key": key or str(uuid4())},
        files={
            "audio": ("audio.wav", audio),
            "request": (None, json.dumps(sent), "application/json"),
        },
    )
