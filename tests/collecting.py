"""A collection server, a device that is enrolled at it, and sessions to send."""

from __future__ import annotations

import hashlib
import io
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import numpy as np
import soundfile
import uvicorn
from fastapi import FastAPI
from sqlalchemy import Engine, select

from spira_services import devices, feedback, people
from spira_services.collection import api
from spira_services.database import migrate, open_engine
from spira_services.serving import api as serving
from spira_services.serving.queue import SqlQueue
from spira_services.serving.relay import Relay
from spira_services.web import create_app
from spira_tasks.artifacts.blobs import Blobs
from spira_tasks.artifacts.sources import open_backend

SITE = "hc"
NUMBER = "55321987B"
TASKS = ("AMBIENT", "VOWEL", "SENTENCE")


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """Serve an application on a free port of this machine; lend its address."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()  # who connects before the server runs waits
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@dataclass
class Collection:
    """A server on a database of its own, asked in this process."""

    engine: Engine
    client: httpx.Client
    folder: Path
    blobs: Blobs  # store A
    app: FastAPI

    @classmethod
    @contextmanager
    def at(
        cls,
        folder: Path,
        url: str = "",
        *,
        audio: str = "",
        keeps_numbers: bool = False,
        check_letter: bool = False,
    ) -> Iterator[Collection]:
        engine = open_engine(url or f"sqlite:///{folder}/services.db")
        migrate(engine)
        with engine.begin() as connection:
            about = {"keeps_numbers": keeps_numbers, "check_letter": check_letter}
            devices.add_site(connection, SITE, "Hospital", "cli:test", **about)
        app = create_app("SPIRA", engine, api.LARGER | serving.LARGER)
        blobs = Blobs(open_backend(audio or str(folder / "audio")))
        api.add_to(app, engine, blobs, folder / "unfinished")
        relay = Relay(engine, SqlQueue(engine))  # which is not started: the queue is other tests'
        delete = partial(feedback.delete_own, engine, blobs)
        serving.add_to(app, engine, blobs, folder / "unfinished", relay, delete=delete)
        with served(app) as address, httpx.Client(base_url=address) as client:
            yield cls(engine, client, folder, blobs, app)
        engine.dispose()

    def code(self, site: str = SITE, device_id: str = "") -> str:
        """A code of a new person, or of the one who has a device."""
        whose = select(devices.DEVICES.c.collector).where(devices.DEVICES.c.device_id == device_id)
        with self.engine.begin() as connection:
            person = connection.execute(whose).scalar() or people.add(
                connection, uuid4().hex, ["collector"], None, "cli:test"
            )
            return devices.new_code(connection, site, person, "cli:test")

    def device(self) -> Phone:
        sent = {"code": self.code(), "model": "Moto G", "os": "Android 14"}
        enrolled = self.client.post("/collection/v1/devices", json=sent).json()
        return Phone(self.client, enrolled["key"])


@dataclass
class Phone:
    """A device with its key; ``client`` may be in this process or of a server."""

    client: httpx.Client
    key: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def head(self, sha256: str) -> tuple[int, str]:
        answer = self.client.head(f"/collection/v1/blobs/{sha256}", headers=self.headers)
        assert answer.status_code == 200, answer.status_code
        return int(answer.headers["Upload-Offset"]), answer.headers["Upload-Complete"]

    def put(
        self, content: bytes, offset: int = 0, n_bytes: int | None = None, sha256: str = ""
    ) -> httpx.Response:
        end = len(content) if n_bytes is None else offset + n_bytes
        return self.client.put(
            f"/collection/v1/blobs/{sha256 or sha(content)}",
            content=content[offset:end],
            headers={
                **self.headers,
                "Upload-Offset": str(offset),
                "Upload-Length": str(len(content)),
            },
        )

    def commit(self, session: Session) -> httpx.Response:
        place = f"/collection/v1/sessions/{session.session_id}"
        return self.client.put(place, json=session.manifest(), headers=self.headers)

    def send(self, session: Session) -> httpx.Response:
        for content in session.takes.values():
            self.put(content)
        return self.commit(session)

    def ask(
        self, audio: bytes, key: str = "", headers: dict[str, str] | None = None, **fields: Any
    ) -> httpx.Response:
        """Ask a model, with the audio in the same request."""
        sent = {"sha256": sha(audio), "recorded_at": "2024-03-01T12:00:00Z", **fields}
        return self.client.post(
            "/v1/inferences",
            files={"audio": ("take.wav", audio), "request": (None, json.dumps(sent))},
            headers={**self.headers, "Idempotency-Key": key or str(uuid4()), **(headers or {})},
        )

    def get(self, place: str) -> httpx.Response:
        return self.client.get(f"/v1/{place}", headers=self.headers)

    def receipts(self) -> list[dict[str, Any]]:
        answer = self.client.get("/collection/v1/sessions", headers=self.headers)
        return [*answer.json()]


@dataclass
class Session:
    """What a phone has of a person."""

    takes: dict[str, bytes]
    session_id: UUID = field(default_factory=uuid4)
    form: dict[str, Any] = field(default_factory=lambda: dict(ANSWERS))
    revision: int = 1
    consent: str = "granted"
    recorded_at: datetime = field(default_factory=lambda: datetime.now(UTC) - timedelta(days=2))

    def manifest(self) -> dict[str, Any]:
        at = self.recorded_at.isoformat()
        return {
            "form_version": "1",
            "app_version": "0.1",
            "revision": self.revision,
            "recorded_at": at,
            "sent_at": datetime.now(UTC).isoformat(),
            "consent": {"status": self.consent, "version": "1", "scope": "research", "at": at},
            "form": self.form,
            "capture": {"ns": False, "agc": False, "aec": False, "sample_rate_hz": 48_000},
            "files": [
                {
                    "task": task,
                    "sha256": sha(content),
                    "n_bytes": len(content),
                    "recorded_at": at,
                    "prompt_version": "essa_fase",
                }
                for task, content in self.takes.items()
            ],
        }


ANSWERS: dict[str, Any] = {
    "sample_type": "PATIENT",
    "patient_rgh": NUMBER,
    "sex": "F",
    "age": 61,
    "unit": "WARD",
    "mask_type": "THIN",
    "spo2": 91,
    "on_oxygen": False,
    "temp": 37.2,
    "cid10": "J96.0",
}


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def session(seed: int = 0, seconds: float = 3.5, **changes: Any) -> Session:
    """A session whose takes are noise of their own."""
    generator = np.random.default_rng(seed)
    takes = {task: noise(generator, seconds) for task in TASKS}
    return Session(takes, **changes)


def noise(generator: np.random.Generator, seconds: float, rate_hz: int = 16_000) -> bytes:
    samples = generator.normal(0, 0.05, int(seconds * rate_hz))
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, format="WAV", subtype="PCM_16")
    return file.getvalue()
