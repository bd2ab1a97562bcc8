"""Labelling in Label Studio: nothing goes there that would tell, and each answer comes back once.

The exchanges in ``label_studio.json`` were recorded with Label Studio 1.23.2 by the test that reads
them.  To record them again, on a new database: SPIRA_TEST_LABEL_STUDIO="ADDRESS TOKEN-FILE FOLDER",
of a server that serves files of FOLDER, with a personal access token of lab@example.org.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from collecting import ANSWERS, Collection, session
from exchanges import exchanged
from sqlalchemy import select

from spira_services import people
from spira_services.__main__ import main
from spira_services.collection.documents import CONSENTS
from spira_services.labels import store
from spira_services.labels.api import Instruction
from spira_services.labels.label_studio import Session, answers, label_config, storage_of, task
from spira_services.labels.store import LABEL, LabelEvent
from spira_tasks.contract.exits import EXIT_CONFIG, EXIT_UNAVAILABLE
from spira_tasks.errors import ConfigError

RECORDED = Path(__file__).with_name("label_studio.json")
REAL, TOKEN, FOLDER = (os.environ.get("SPIRA_TEST_LABEL_STUDIO", "").split() + [""] * 3)[:3]
EMAIL = "lab@example.org"
RUI = "a" * 64
SHOWN = {"session_id", "instruction_version", "AMBIENT", "SENTENCE", "VOWEL"}


@pytest.fixture
def collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Collection]:
    with Collection.at(tmp_path / "collection") as running:
        monkeypatch.setenv("SPIRA_SERVICES_DATABASE", str(running.engine.url))
        monkeypatch.setenv("SPIRA_COLLECTION_AUDIO", str(running.folder / "audio"))
        with running.engine.begin() as connection:
            row = {"person_id": RUI, "name": "rui", "roles": ["clinician"]}
            connection.execute(people.PEOPLE.insert().values(**row, added_at=datetime.now(UTC)))
        yield running


def send(collection: Collection, n: int) -> str:
    """A session of which a rule of thumb and another clinician have said something."""
    number = {"patient_rgh": str(1_000_000 + n)}
    sent = session(n, 3.0, session_id=UUID(int=n), form=ANSWERS | number)
    phone = collection.device()
    assert phone.send(sent).json()["status"] == "accepted"
    name, at = str(sent.session_id), datetime.now(UTC)
    with collection.engine.begin() as connection:
        store.register_item(connection, "session", name, f"person {n}", sent.recorded_at)
        about: dict[str, Any] = {"item_kind": "session", "item_id": name, "label": 1}
        about |= {"valid_from": sent.recorded_at, "recorded_at": at, "confidence": 0.987}
        for source in ("weak", "clinician"):
            value = {"probability": 0.987} if source == "weak" else {"blind": True}
            about |= {"source": source, "unique_key": f"{source} {n}"}
            assert store.record(
                connection, LabelEvent(**about, annotator=f"planted {source}", value=value)
            )
    return name


def said(collection: Collection) -> list[tuple[str, int | None, Any]]:
    with collection.engine.begin() as connection:
        events = store.events_as_of(connection, datetime.now(UTC), LABEL)
    return [(one.item_id, one.label, one.value) for one in events if one.annotator == RUI]


def test_sessions_go_to_label_studio_blind_and_answers_come_back_once(
    collection: Collection, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token, storage = tmp_path / "token", tmp_path / "storage.json"
    token.write_text(Path(TOKEN).read_text() if REAL else "a token")
    folder = {"path": f"{FOLDER}/blobs" if REAL else "/served/blobs", "title": "store A"}
    about = {"audio_at": "/data/local-files/?d=", "kind": "localfiles", **folder}
    storage.write_text(json.dumps(about))
    with exchanged(RECORDED, REAL, FOLDER) as (address, asked):
        options = ["--email", EMAIL, "--token-file", str(token), "--storage", str(storage)]

        def sync() -> str:
            assert main(["labels", "studio-sync", "rui", address, *options]) == 0
            return capsys.readouterr().out.strip()

        first, second = send(collection, 1), send(collection, 2)
        assert sync() == "fewer than 5 put"
        assert sync() == "nothing new"
        annotate(address, token, {first: "0", second: "?"})
        assert sync() == "fewer than 5 new, fewer than 5 removed"
        blind = {"blind": True}
        assert said(collection) == [(first, 0, blind), (second, None, blind)]
        assert sync() == "nothing new"
        assert len(said(collection)) == 2

        third = send(collection, 3)
        assert sync() == "fewer than 5 put"
        withdraw(collection, third)
        assert sync() == "fewer than 5 removed"
    sent = [one["body"] for one in asked if one["method"] == "POST" and "/import" in one["path"]]
    assert {frozenset(row["data"]) for body in sent for row in body} == {frozenset(SHOWN)}
    assert all(set(row) == {"data"} for body in sent for row in body)
    everything = json.dumps([one["body"] for one in asked])
    assert [word for word in ("planted", "0.987") if word in everything] == []


def annotate(address: str, token: Path, values: dict[str, str]) -> None:
    """As the person does by Label Studio's page."""
    with httpx.Client(base_url=address, timeout=60) as client:
        refreshed = client.post("/api/token/refresh/", json={"refresh": token.read_text().strip()})
        client.headers["Authorization"] = f"Bearer {refreshed.json()['access']}"
        (project,) = client.get("/api/projects/", params={"title": "SPIRA"}).json()["results"]
        of_project = {"project": project["id"], "fields": "all"}
        tasks = client.get("/api/tasks/", params=of_project).json()["tasks"]
        ids = {one["data"]["session_id"]: one["id"] for one in tasks}
        for session_id, value in values.items():
            choice = {"from_name": "label", "to_name": "AMBIENT", "type": "choices"}
            result = [choice | {"value": {"choices": [value]}}]
            place = f"/api/tasks/{ids[session_id]}/annotations/"
            assert client.post(place, json={"result": result}).status_code == 201


def withdraw(collection: Collection, session_id: str) -> None:
    with collection.engine.begin() as connection:
        newest = select(CONSENTS).where(CONSENTS.c.session_id == session_id)
        row = dict(connection.execute(newest).mappings().one())
        row |= {"status": "withdrawn", "received_at": datetime.now(UTC)}
        del row["number"]
        connection.execute(CONSENTS.insert().values(**row))


INSTRUCTION = Instruction("3", ("spo2",), {"en": 'Is "it" so?'}, {"en": "Listen."})


def test_a_task_has_the_signs_that_the_instruction_shows() -> None:
    about = Session("s", {"VOWEL": "sha256:" + "0" * 64}, {"spo2": 91, "temp": 40})
    made = task(about, INSTRUCTION, "s3://audio/")
    assert made == {
        "data": {
            "session_id": "s",
            "instruction_version": "3",
            "VOWEL": f"s3://audio/blobs/00/{'0' * 64}",
            "signs": "spo2: 91, temp: 40",
        }
    }
    config = label_config(["VOWEL"], INSTRUCTION, "en")
    assert "value='Is \"it\" so?'" in config
    assert 'value="$signs"' in config


def annotation(**changes: Any) -> dict[str, Any]:
    choice = {"from_name": "label", "to_name": "VOWEL", "value": {"choices": ["1"]}}
    about = {"was_cancelled": False, "completed_by": 3, "result": [choice], "unique_id": "u"}
    return about | {"updated_at": "2026-11-30T08:22:44Z"} | changes


def export(*annotations: dict[str, Any]) -> list[dict[str, Any]]:
    data = {"session_id": "s", "instruction_version": "1"}
    return [{"data": data, "annotations": [*annotations]}]


def test_what_another_user_answered_or_skipped_is_not_the_persons() -> None:
    other = annotation(completed_by={"id": 4, "email": "x@example.org"})
    found = [*answers(export(annotation(), other, annotation(was_cancelled=True)), 3)]
    assert [one and (one.item_id, one.label) for one in found] == [("s", 1), None]


@pytest.mark.parametrize(
    "spoilt",
    [
        [{"session_id": "s", "label": "1"}],  # the form JSON-MIN
        {"detail": "not found"},
        export(annotation(result=[])),
        export(annotation(result=[{"from_name": "label", "value": {"choices": ["Yes"]}}])),
    ],
)
def test_another_export_is_refused(spoilt: Any) -> None:
    with pytest.raises(ConfigError, match="as JSON"):
        [*answers(spoilt, 3)]


def test_a_file_of_tasks_goes_out_and_answers_come_in(
    collection: Collection, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, file = send(collection, 4), tmp_path / "tasks.json"
    assert main(["labels", "studio-export", "rui", str(file), "--audio-at", "s3://audio/"]) == 0
    (made,) = json.loads(file.read_text())
    assert set(made) == {"data"}
    assert set(made["data"]) == SHOWN
    others = [annotation(completed_by=4, unique_id="v")]
    file.write_text(json.dumps([made | {"annotations": [annotation(), *others]}]))
    capsys.readouterr()
    command = ["labels", "studio-import", "rui", str(file), "--user", "3"]
    assert [main(command) for _ in "12"] == [0, 0]
    first, again = capsys.readouterr().out.splitlines()
    assert first == "0 known, fewer than 5 new, fewer than 5 refused"
    assert again == "fewer than 5 known, 0 new, fewer than 5 refused"
    assert said(collection) == [(name, 1, {"blind": True})]
    foreign = made | {"data": made["data"] | {"session_id": "not given"}}
    file.write_text(json.dumps([foreign | {"annotations": [annotation(unique_id="w")]}]))
    assert main(command) == 0
    assert "0 new, fewer than 5 refused" in capsys.readouterr().out


def test_what_is_wrong_is_said(
    collection: Collection, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "any"
    file.write_text("no JSON")
    assert main(["labels", "studio-import", "rui", str(file), "--user", "3"]) == EXIT_CONFIG
    assert "export the project as JSON" in capsys.readouterr().err
    file.write_text("[]")
    assert main(["labels", "studio-import", "ana", str(file), "--user", "3"]) == EXIT_CONFIG
    assert "no clinician of that name" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="audio_at"):
        storage_of("[]")
    storage = tmp_path / "storage"
    storage.write_text('{"audio_at": "s3://audio/", "kind": "s3"}')
    options = ["--email", EMAIL, "--token-file", str(file), "--storage", str(storage)]
    nobody = str(collection.client.base_url)  # another server
    capsys.readouterr()
    assert main(["labels", "studio-sync", "rui", nobody, *options]) == EXIT_UNAVAILABLE
    assert "POST /api/token/refresh/ 404" in capsys.readouterr().err
