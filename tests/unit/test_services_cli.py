"""The command line of the services: who may send, and who may see."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select

from spira_services import devices
from spira_services.__main__ import main
from spira_services.database import open_engine
from spira_services.devices import DEVICES
from spira_services.people import sign_in, who
from spira_services.serving.queue import SqlQueue
from spira_tasks.contract.exits import EXIT_CONFIG


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    url = f"sqlite:///{tmp_path}/services.db"
    monkeypatch.setenv("SPIRA_SERVICES_DATABASE", url)
    return url


def test_a_device_is_enrolled_by_the_code_that_is_printed_and_ended_by_its_name(
    database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sites", "add", "hc", "--name", "Hospital"]) == 0
    assert main(["devices", "code", "hc", "--collector", "ana"]) == EXIT_CONFIG
    assert main(["people", "add", "ana", "--role", "collector"]) == 0
    capsys.readouterr()
    assert main(["devices", "code", "hc", "--collector", "ana"]) == 0
    engine = open_engine(database)
    with engine.begin() as connection:
        found = devices.enrol(connection, capsys.readouterr().out.strip(), "Moto G", "Android 14")
    assert found is not None
    device, key = found
    assert main(["devices", "end", device.device_id]) == 0
    assert main(["devices", "end", device.device_id]) == EXIT_CONFIG
    with engine.begin() as connection:
        assert devices.of_key(connection, key) is None
        assert connection.execute(select(DEVICES.c.ended_at)).scalar() is not None
    engine.dispose()


def test_a_person_signs_in_until_it_is_ended(
    database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = tmp_path / "password"
    secret.write_text("a long password\n")
    assert (
        main(["people", "add", "rui", "--role", "clinician", "--password-file", str(secret)]) == 0
    )
    assert main(["people", "add", "rui", "--role", "clinician"]) == EXIT_CONFIG
    assert main(["people", "add", "eva", "--role", "doctor"]) == EXIT_CONFIG
    assert "clinician" in capsys.readouterr().err  # the roles that there are
    engine = open_engine(database)
    with engine.begin() as connection:
        token = sign_in(connection, "rui", "a long password")
        assert token
    secret.write_text("another password\n")
    assert main(["people", "password", "rui", "--password-file", str(secret)]) == 0
    assert main(["people", "password", "eva", "--password-file", str(secret)]) == EXIT_CONFIG
    with engine.begin() as connection:
        assert who(connection, token) is None
        assert sign_in(connection, "rui", "a long password") is None
        assert sign_in(connection, "rui", "another password")
    assert main(["people", "end", "rui"]) == 0
    assert main(["people", "password", "rui", "--password-file", str(secret)]) == EXIT_CONFIG
    with engine.begin() as connection:
        assert sign_in(connection, "rui", "another password") is None
    engine.dispose()


def test_a_mistake_is_one_line_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPIRA_SERVICES_DATABASE", "mysql://user:secret@host/name")
    assert main(["people", "end", "rui"]) == EXIT_CONFIG
    monkeypatch.setenv("SPIRA_SERVICES_DATABASE", f"sqlite:///{tmp_path}/services.db")
    assert main(["people", "add", "eva", "--role", "clinician", "--password-file", "none"]) == 78
    assert main(["sites", "add", "hc", "--name", "Hospital", "--keeps-numbers"]) == EXIT_CONFIG
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    assert (
        main(["people", "add", "eva", "--role", "clinician", "--password-file", str(binary)]) == 78
    )
    assert main(["people", "add", " ", "--role", "clinician"]) == EXIT_CONFIG
    assert main(["sites", "add", "", "--name", "Hospital"]) == EXIT_CONFIG
    monkeypatch.setenv("SPIRA_SERVICES_DATABASE", f"sqlite:///{binary}")
    assert main(["people", "end", "rui"]) == EXIT_CONFIG
    said = capsys.readouterr().err
    assert "secret" not in said
    assert "Traceback" not in said
    assert said.count("error: ") == 7
    assert main(["serve", "--port", "99999"]) == 2  # it would listen on another port


def test_what_no_try_will_answer_is_ended_by_its_id(
    database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["queue", "show"]) == 0  # which makes the tables
    engine = open_engine(database)
    queue = SqlQueue(engine)
    queue.put(["damaged", "good"])
    for message in queue.take(2, 0):
        queue.bury(message, "crashed")
    assert main(["queue", "discard", "damaged", "unknown"]) == 0
    assert "1 of 2 ended" in capsys.readouterr().out
    assert [letter.id for letter in queue.dead()] == ["good"]
    engine.dispose()


def test_a_site_has_one_writing(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sites", "add", "hc", "--name", "Hospital"]) == 0
    assert main(["sites", "add", "HC ", "--name", "Hospital"]) == EXIT_CONFIG
    assert "set up as hc" in capsys.readouterr().err
