"""A ward that asks a model: devices, requests with audio that has come, and answers to them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from databases import migrated
from sqlalchemy import Engine, func, select

from spira_services import devices, feedback, people, uploads
from spira_services.database import now
from spira_services.devices import Device
from spira_services.serving.inferences import Asked, Backlog, Inferences, SentInference
from spira_services.serving.tables import FAILURES, PREDICTIONS
from spira_tasks.artifacts.blobs import Blobs, hex_of
from spira_tasks.artifacts.sources import open_backend

SITE = "hc"
RECORDED_AT = datetime(2024, 3, 1, 12, tzinfo=UTC)
ANSWER: dict[str, Any] = {
    "version": "3",
    "classifier": "sha256:classifier",
    "feature_schema": "sha256:features",
    "synthetic": False,
    "arm": "champion",
    "shown": True,
    "probability": 0.81,
    "decision": "positive",
    "record_again": [],
    "unusual": ["snr_db_low"],
    "window_scores": [0.8, 0.82],
    "operating_point": 0.5,
    "waited_seconds": 0.1,
    "compute_seconds": 0.02,
}


@dataclass
class Ward:
    """The services' database and store A, without a server."""

    engine: Engine
    blobs: Blobs
    inferences: Inferences

    @classmethod
    @contextmanager
    def at(cls, address: str, folder: Path, **limits: int) -> Iterator[Ward]:
        with migrated(address, folder) as engine:
            with engine.begin() as connection:
                devices.add_site(connection, SITE, "Hospital", "cli:test")
            blobs = Blobs(open_backend(str(folder / "audio")))
            yield cls(engine, blobs, Inferences(engine, blobs, Backlog(engine, **limits)))

    def device(self) -> Device:
        with self.engine.begin() as connection:
            person = people.add(connection, uuid4().hex, ["collector"], None, "cli:test")
            code = devices.new_code(connection, SITE, person, "cli:test")
            found = devices.enrol(connection, code, "Moto G", "Android 14")
        assert found is not None
        return found[0]

    def upload(self, device: Device, content: bytes = b"") -> str:
        """Audio that has come from a device; no part of the store looks into it."""
        content = content or uuid4().bytes
        sha256 = hex_of(self.blobs.put(content))
        with self.engine.begin() as connection:
            uploads.note(connection, device.device_id, sha256, len(content))
        return sha256

    def ask(self, device: Device, key: UUID | None = None, **fields: Any) -> Asked:
        given = {"sha256": self.upload(device)} | fields if "sha256" not in fields else fields
        return self.inferences.ask(device, key or uuid4(), request(**given))

    def answer(self, inference_id: str, **changes: Any) -> None:
        answer(self.engine, inference_id, **changes)

    def delete(self, device: Device, inference_id: str) -> None:
        feedback.delete_own(self.engine, self.blobs, device, inference_id)

    def fail(self, inference_id: str, reason: str) -> None:
        row = {"inference_id": inference_id, "reason": reason, "n_tries": 5, "at": now()}
        with self.engine.begin() as connection:
            connection.execute(FAILURES.insert().values(**row))

    def count(self, table: Any, *where: Any) -> int:
        with self.engine.connect() as connection:
            asked = select(func.count()).select_from(table).where(*where)
            return connection.execute(asked).scalar_one()


def request(**fields: Any) -> SentInference:
    return SentInference.model_validate({"recorded_at": RECORDED_AT.isoformat(), **fields})


def answer(engine: Engine, inference_id: str, **changes: Any) -> None:
    """Write the row of a prediction, as a worker does."""
    row = ANSWER | {"inference_id": inference_id, "at": now()} | changes
    with engine.begin() as connection:
        connection.execute(PREDICTIONS.insert().values(**row))
