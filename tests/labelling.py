"""The services on one address, with a phone and people who sign in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from collecting import SITE, Phone, served
from databases import migrated
from sqlalchemy import Engine

from spira_services import devices, people
from spira_services.server import AUDIO_VARIABLE, FOLDER_VARIABLE, application

PASSWORD = "a long password"


@dataclass
class Ward:
    """All services, as a laptop runs them."""

    engine: Engine
    address: str
    client: httpx.Client

    def phone(self) -> Phone:
        with self.engine.begin() as connection:
            person = people.add(connection, uuid4().hex, ["collector"], None, "cli:test")
            code = devices.new_code(connection, SITE, person, "cli:test")
        sent = {"code": code, "model": "Moto G", "os": "Android 14"}
        enrolled = self.client.post("/collection/v1/devices", json=sent).json()
        return Phone(self.client, enrolled["key"])

    def add(self, *roles: str) -> dict[str, str]:
        """A new person; how they sign in."""
        who = {"name": uuid4().hex, "password": PASSWORD}
        with self.engine.begin() as connection:
            people.add(connection, who["name"], roles, PASSWORD, "cli:test")
        return who

    @contextmanager
    def person(self, *roles: str) -> Iterator[httpx.Client]:
        who = self.add(*roles)
        with httpx.Client(base_url=self.address) as client:
            assert client.post("/sign-in", json=who).status_code == 204
            yield client


@pytest.fixture
def ward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ward]:
    with hospital_ward(tmp_path, monkeypatch) as ward:
        yield ward


@contextmanager
def hospital_ward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ward]:
    monkeypatch.setenv(AUDIO_VARIABLE, str(tmp_path / "audio"))
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    with migrated("", tmp_path) as engine:
        with engine.begin() as connection:
            devices.add_site(connection, SITE, "Hospital", "cli:test")
        with (
            application(engine) as app,
            served(app) as address,
            httpx.Client(base_url=address) as client,
        ):
            yield Ward(engine, address, client)
