"""Inferences as the interface stores them, and answers as a worker leaves them."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, select

from spira_services import devices, people
from spira_services.database import now
from spira_services.serving.tables import INFERENCES, OUTBOX, PREDICTIONS

SITE = "hc"


def device(connection: Connection, site: str = SITE) -> str:
    """A site with a device that is enrolled."""
    devices.add_site(connection, site, "Hospital", "cli:test")
    person = people.add(connection, uuid4().hex, ["collector"], None, "cli:test")
    found = devices.enrol(
        connection, devices.new_code(connection, site, person, "cli:test"), "Moto G", "Android 14"
    )
    assert found is not None
    return found[0].device_id


def asked(connection: Connection, device_id: str, at: datetime | None = None, **more: Any) -> str:
    """An inference that waits; its id."""
    inference_id, at = str(uuid4()), at or now()
    row: dict[str, Any] = {
        "inference_id": inference_id,
        "device_id": device_id,
        "hospital_id": SITE,
        "idempotency_key": uuid4().hex,
        "digest": uuid4().hex,
        "task": "SENTENCE",
        "sha256": uuid4().hex * 2,
        "n_bytes": 128_044,
        "subject_id": uuid4().hex * 2,
        "agreed": {"labels": True, "ab": False},
        "about": {},
        "recorded_at": at,
        "received_at": at,
    }
    connection.execute(INFERENCES.insert().values(row | more))
    connection.execute(OUTBOX.insert().values(inference_id=inference_id, stored_at=at))
    return inference_id


def answered(
    connection: Connection, inference_id: str, probability: float | None = 0.9, **more: Any
) -> None:
    """The answer of a model; without a probability it is to record again."""
    received = select(INFERENCES.c.received_at).where(INFERENCES.c.inference_id == inference_id)
    decision = None if probability is None else "positive" if probability > 0.5 else "negative"
    row: dict[str, Any] = {
        "inference_id": inference_id,
        "version": "3",
        "classifier": "c" * 64,
        "feature_schema": "f" * 64,
        "arm": "champion",
        "shown": True,
        "probability": probability,
        "decision": decision,
        "record_again": [] if probability is not None else ["snr_db_low"],
        "unusual": [],
        "window_scores": [] if probability is None else [probability],
        "operating_point": 0.5,
        "waited_seconds": 0.02,
        "compute_seconds": 0.1,
        "at": connection.execute(received).scalar_one(),
    }
    connection.execute(PREDICTIONS.insert().values(row | more))
