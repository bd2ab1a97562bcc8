"""One person from the phone through the labels to a model, and back by ``trace``."""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from browser import NEEDS_CHROMIUM
from collecting import Collection, Session
from on_phone import RATE_HZ, enrol, kept, phone, record, wav
from small_run import SETTINGS
from sqlalchemy import select
from test_collection_browser import STORED, consent, fill_in

from spira_services.__main__ import main as services
from spira_services.collection.documents import REVISIONS
from spira_services.collection.form import FIELDS
from spira_services.labelling import prepare
from spira_services.labels import store as labels
from spira_services.labels.store import LabelEvent
from spira_services.retraining import rule
from spira_tasks.artifacts import Store
from spira_tasks.cli import main
from spira_tasks.contract.pipelines import SNAPSHOT, TRAINING
from spira_tasks.errors import GateRejected
from spira_tasks.runner import run_step

pytestmark = NEEDS_CHROMIUM
Row = dict[str, str]


@dataclass
class Ward:
    """A collection server, and people of a synthetic cohort by their session."""

    collection: Collection
    folder: Path
    people: dict[str, list[Row]]

    def take(self, row: Row) -> bytes:
        return (self.folder / row["audio_uri"]).read_bytes()

    def send(self, rows: list[Row]) -> tuple[str, int]:
        """Send a person's session; its id, and the label that the cohort knows."""
        first = rows[0]
        form = {field.name: first[field.name] for field in FIELDS if first.get(field.name)}
        form.pop("cid10", None)  # the cohort may name several
        at = datetime.fromisoformat(first["collected_at"])
        sent = Session({row["task"]: self.take(row) for row in rows}, form=form, recorded_at=at)
        answer = self.collection.device().send(sent).json()
        assert answer["status"] == "accepted", answer["problems"]
        return str(sent.session_id), int(first["ri_clinical"])

    def label(self, said: dict[str, int]) -> None:
        """What the hospital's records say of the sessions."""
        with self.collection.engine.begin() as connection:
            prepare(connection)
            for session_id, value in said.items():
                asked = select(REVISIONS.c.document).where(REVISIONS.c.session_id == session_id)
                document = connection.execute(asked).scalar_one()
                event = LabelEvent(
                    "session",
                    session_id,
                    value,
                    "hospital_record",
                    "hospital:hc",
                    valid_from=datetime.fromisoformat(document["recorded_at"]),
                    recorded_at=datetime.now(UTC),
                    unique_key=session_id,
                )
                assert labels.record(connection, event)


@pytest.fixture
def ward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_people: int, seed: int
) -> Iterator[Ward]:
    cohort = tmp_path / "cohort"
    assert main(["cohort", str(cohort), f"--subjects={n_people}", f"--seed={seed}"]) == 0
    people = defaultdict(list)
    for row in csv.DictReader(io.StringIO((cohort / "recordings.csv").read_text())):
        people[row["session_id"]].append(row)
    (tmp_path / "server").mkdir()
    with Collection.at(tmp_path / "server") as collection:
        monkeypatch.setenv("SPIRA_SERVICES_DATABASE", str(collection.engine.url))
        monkeypatch.setenv("SPIRA_COLLECTION_AUDIO", str(collection.folder / "audio"))
        yield Ward(collection, cohort, people)


def by_phone(ward: Ward, rows: list[Row], tmp_path: Path) -> str:
    """A person is recorded on the page, by a microphone that plays the cohort's voice."""
    takes = {row["task"]: row for row in rows}
    microphone = tmp_path / "voice.wav"
    with phone(tmp_path / "profile", microphone) as page:
        enrol(page, ward.collection)
        consent(page)
        for task in ("AMBIENT", "VOWEL", "SENTENCE"):
            samples, rate_hz = soundfile.read(io.BytesIO(ward.take(takes[task])), dtype="float32")
            sound = soxr.resample(samples, rate_hz, RATE_HZ)
            record(page, microphone, task, wav(np.round(32_767 * sound).astype(np.int16)))
            if task == "VOWEL":
                page.click("#skip")
        fill_in(page, patient_rgh=rows[0]["patient_rgh"], age=rows[0]["age"])
        page.click("#next")
        page.click("#finish")
        page.wait(STORED)
        (session,) = kept(page, "store.sessions()")
        return str(session["id"])


def walk(ward: Ward, store: Store, tmp_path: Path, settings: dict[str, Any]) -> str:
    """From the phone to the end of a training; the session of the person with the phone."""
    patients = [rows for rows in ward.people.values() if rows[0]["ri_clinical"] == "1"]
    others = [rows for rows in ward.people.values() if rows is not patients[0]]
    session_id = by_phone(ward, patients[0], tmp_path)
    with ThreadPoolExecutor(4) as pool:
        said = dict(pool.map(ward.send, others))
    ward.label(said | {session_id: 1})
    least = rule().model_dump() | {"of_each_label": 3}  # of some 24 people
    config = {"under": str(tmp_path / "snapshots"), "rule": least}
    snapshot = run_step(replace(SNAPSHOT.step("snapshot"), config=config), "taken", store)
    decision = json.loads(store.directory(snapshot.outputs["snapshot"]).read("decision.json"))
    assert decision["wakes"], decision["missing"]
    for step in TRAINING.configure(data=decision["place"], settings=settings):
        try:
            run_step(step, "woken", store)
        except GateRejected:
            if step.name != "promote":
                raise
    return session_id


def back(model: str, session_id: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a model to the recordings, and from one of them to the device and the consent."""
    capsys.readouterr()
    assert main(["trace", model, "--json"]) == 0
    recordings = json.loads(capsys.readouterr().out)["recordings"]
    (ours,) = (one for one in recordings if one["record_id"] == f"{session_id}-sentence")
    assert ours["role"] in {"trained on", "validated on", "tested on"}
    under = str(tmp_path / "snapshots")
    assert services(["trace", ours["record_id"], "--snapshots", under]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["session_id"], found["labels"][0]["label"]) == (session_id, 1)
    assert ours["audio_sha256"] in {file["sha256"] for file in found["files"]}
    assert [one["status"] for one in found["consents"]] == ["granted"]
    assert len(found["snapshots"]) == 1
    assert main(["trace", ours["record_id"]]) == 0
    assert "python -m spira_services trace" in capsys.readouterr().out


# Of this seed, both classes fall on every side of the split.
@pytest.mark.parametrize(("n_people", "seed"), [(24, 37)])
def test_a_person_is_followed_from_the_phone_to_a_model_and_back(
    ward: Ward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(str(tmp_path / "store"))
    monkeypatch.setenv("SPIRA_STORE", store.url)
    session_id = walk(ward, store, tmp_path, SETTINGS)
    back("spira/1", session_id, tmp_path, capsys)


@pytest.mark.nightly
@pytest.mark.parametrize(("n_people", "seed"), [(400, 1)])  # as the demo has them
def test_a_person_is_followed_from_the_phone_to_a_promoted_model_and_back(
    ward: Ward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(str(tmp_path / "store"))
    monkeypatch.setenv("SPIRA_STORE", store.url)
    session_id = walk(ward, store, tmp_path, {"train.epochs": 30})
    assert main(["model", "approve", "1", "--why", "a test on synthetic people"]) == 0
    assert main(["quarantine", "rerun", "woken"]) == 0
    back("spira@champion", session_id, tmp_path, capsys)
