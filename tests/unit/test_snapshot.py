"""Snapshots: from what a phone sent and people labelled to a table that ingest reads."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from collecting import ANSWERS, Collection, Session, session, sha
from databases import BACKENDS, HAS_POSTGRES, server
from folders import Ingested
from sqlalchemy import select, text

from spira_services import retraining, snapshot
from spira_services.__main__ import main
from spira_services.collection.documents import CONSENTS, REVISIONS, SESSIONS
from spira_services.forgetting import forget
from spira_services.labelling import OfCollection
from spira_services.labels import store as labels
from spira_services.labels.store import LabelEvent
from spira_tasks.artifacts import Store, open_source
from spira_tasks.artifacts.blobs import Blobs
from spira_tasks.artifacts.sources import open_backend
from spira_tasks.contract.exits import EXIT_CONFIG
from spira_tasks.contract.pipelines import SNAPSHOT
from spira_tasks.errors import ConfigError, ServiceUnavailable
from spira_tasks.intake.pseudonyms import tombstone_tag
from spira_tasks.runner import run_step

CONTROL = ANSWERS | {"sample_type": "CONTROL", "patient_rgh": "1230987", "cid10": None}


@pytest.fixture
def collection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Collection]:
    with (
        server(getattr(request, "param", "sqlite")) as address,
        Collection.at(tmp_path / "collection", address) as running,
    ):
        yield running


def label(collection: Collection, sent: Session, value: int) -> None:
    """What the hospital says of a session."""
    moment = datetime.now(UTC)
    with collection.engine.begin() as connection:
        OfCollection(collection.blobs).prepare(connection)
        event = LabelEvent(
            item_kind="session",
            item_id=str(sent.session_id),
            label=value,
            source="hospital_record",
            annotator="hospital:hc",
            valid_from=sent.recorded_at,
            recorded_at=moment,
            unique_key=f"{sent.session_id}:{moment.isoformat()}",
        )
        assert labels.record(connection, event)


def taken(collection: Collection, tmp_path: Path, as_of: datetime) -> snapshot.Snapshot:
    under = str(tmp_path / "snapshots")
    return snapshot.write(collection.engine, collection.blobs, under, as_of)


def test_what_was_accepted_and_labelled_is_a_table_that_ingest_takes_whole(
    collection: Collection, tmp_path: Path
) -> None:
    phone = collection.device()
    patient, control, unlabelled = session(1), session(2, form=CONTROL), session(3)
    refused = session(4, form=ANSWERS | {"age": 7})
    for sent in (patient, control, unlabelled, refused):
        phone.send(sent)
    label(collection, patient, 1)
    label(collection, control, 0)
    made = taken(collection, tmp_path, datetime.now(UTC))
    assert (made.is_new, made.about["n_recordings"], made.about["n_subjects"]) == (True, 6, 2)

    today = datetime.now(UTC).date().isoformat()
    ingested = Ingested(f"folder:{made.place}", Store(str(tmp_path / "store")), as_of=today)
    table = ingested.table("recordings")
    assert ingested.table("quarantine").empty
    verdicts = ingested.verdicts.values()
    said = {one.id: one.status for one in verdicts if one.suite == "labels"}
    assert said == {"label_agreement": "insufficient", "second_opinion": "pass"}
    assert set(table["label_source"]) == {"hospital_record"}
    assert sorted(table.groupby("subject_id")["label"].first()) == [0, 1]
    kept = {row.task: row.sha256 for row in table.itertuples() if row.label == 1}
    assert kept == {task: sha(content) for task, content in patient.takes.items()}


@pytest.mark.parametrize("collection", BACKENDS, indirect=True)
def test_as_of_a_past_time_a_snapshot_is_the_same_whatever_came_later(
    collection: Collection, tmp_path: Path
) -> None:
    phone = collection.device()
    first, second = session(5), session(6, form=CONTROL)
    phone.send(first)
    label(collection, first, 1)
    then = datetime.now(UTC)
    made = taken(collection, tmp_path, then)
    phone.send(second)
    label(collection, second, 0)
    label(collection, first, 0)  # a correction
    place = f"/collection/v1/sessions/{first.session_id}/withdraw"
    assert phone.client.post(place, headers=phone.headers).json()["status"] == "withdrawn"

    again = taken(collection, tmp_path, then)
    assert again == replace(made, is_new=False)
    assert again.rows == made.rows
    elsewhere = str(tmp_path / "elsewhere")
    assert snapshot.write(collection.engine, collection.blobs, elsewhere, then).is_new
    later = taken(collection, tmp_path, datetime.now(UTC))
    assert later.place != made.place
    assert later.about["n_subjects_by_label"] == {"0": 1}  # the person who withdrew is left out
    assert (later.changes["n_subjects_new"], later.changes["n_subjects_gone"]) == (1, 1)
    taken(collection, tmp_path, then)  # made anew for a past time: the newest stays the newest
    found = open_source(f"folder:{tmp_path}/snapshots")
    assert found.digest == open_source(f"folder:{later.place}").digest


def test_a_mark_of_the_newest_that_names_none_is_written_anew(
    collection: Collection, tmp_path: Path
) -> None:
    phone, sent, under = collection.device(), session(7), tmp_path / "snapshots"
    phone.send(sent)
    label(collection, sent, 1)
    under.mkdir()
    for content in ("{", "[]", '{"snapshot": "x"}', '{"as_of": "soon", "snapshot": "x"}'):
        (under / "newest.json").unlink(missing_ok=True)
        (under / "newest.json").write_text(content)
        made = taken(collection, tmp_path, datetime.now(UTC))
        assert made.changes["since"] == ""
        assert open_source(f"folder:{under}").digest == open_source(f"folder:{made.place}").digest
    (under / "other").mkdir()
    (under / "other" / "recordings.csv").write_text("audio_uri\n")
    with pytest.raises(ConfigError, match=r"other/recordings\.csv"):  # who is in it cannot be known
        forget(collection.engine, collection.blobs, str(under), "ab" * 16, "cli:test")


@pytest.mark.skipif(not HAS_POSTGRES, reason="SQLite has one writer at a time")
@pytest.mark.parametrize("collection", ["postgresql"], indirect=True)
def test_a_withdrawal_that_is_being_written_is_waited_for(
    collection: Collection, tmp_path: Path
) -> None:
    stays, goes = session(30), session(31, form=CONTROL)
    phone = collection.device()
    for sent, value in ((stays, 1), (goes, 0)):
        phone.send(sent)
        label(collection, sent, value)
    with ThreadPoolExecutor() as pool, collection.engine.connect() as holding:
        # The withdrawal has its session and its time, and is not committed yet.
        theirs = CONSENTS.c.session_id == str(goes.session_id)
        session_of = SESSIONS.c.session_id == str(goes.session_id)
        holding.execute(select(SESSIONS.c.session_id).where(session_of).with_for_update())
        given = holding.execute(select(CONSENTS).where(theirs)).mappings().one()
        row = {**given, "number": 99, "status": "withdrawn", "received_at": datetime.now(UTC)}
        holding.execute(CONSENTS.insert().values(row))
        writing = pool.submit(taken, collection, tmp_path, datetime.now(UTC))
        waits = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        with collection.engine.connect() as watching:
            while not watching.execute(waits).scalar_one():
                assert not writing.done()
                watching.rollback()
                time.sleep(0.05)
        holding.commit()
        assert writing.result().about["n_subjects_by_label"] == {"1": 1}


def test_a_consent_that_came_later_counts_from_then_on(
    collection: Collection, tmp_path: Path
) -> None:
    phone = collection.device()
    sent, pending = session(9), session(10, form=CONTROL, consent="pending")
    for one in (sent, pending):
        phone.send(one)
    with collection.engine.begin() as connection:  # the control has a label before its consent
        item = str(pending.session_id), "control", pending.recorded_at
        labels.register_item(connection, "session", *item)
    label(collection, sent, 1)
    label(collection, pending, 0)
    before = datetime.now(UTC)
    first = taken(collection, tmp_path, before)
    assert first.about["n_subjects_by_label"] == {"1": 1}
    given = {"version": "2", "scope": "research", "at": datetime.now(UTC).isoformat()}
    place = f"/collection/v1/sessions/{pending.session_id}/consent"
    assert phone.client.post(place, json=given, headers=phone.headers).status_code == 200
    assert taken(collection, tmp_path, before).place == first.place
    later = taken(collection, tmp_path, datetime.now(UTC))
    assert later.about["n_subjects_by_label"] == {"0": 1, "1": 1}
    assert ",granted,2,research" in (Path(later.place) / "recordings.csv").read_text()


def test_before_anything_is_labelled_it_says_what_to_do(
    collection: Collection, tmp_path: Path
) -> None:
    collection.device().send(session(7))
    with pytest.raises(ConfigError, match="labelling page"):
        taken(collection, tmp_path, datetime.now(UTC))
    with pytest.raises(ConfigError, match="past time"):
        taken(collection, tmp_path, datetime.now(UTC) + timedelta(days=1))


def test_the_command_writes_a_snapshot_and_says_what_comes_next(
    collection: Collection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SPIRA_SERVICES_DATABASE", str(collection.engine.url))
    monkeypatch.setenv("SPIRA_COLLECTION_AUDIO", str(collection.folder / "audio"))
    sent = session(8)
    collection.device().send(sent)
    under = str(tmp_path / "snapshots")
    assert main(["snapshot", under]) == EXIT_CONFIG
    label(collection, sent, 1)
    assert [main(["snapshot", under]) for _ in "12"] == [0, 0]
    first, again = capsys.readouterr().out.split("wrote ")[1].split("there already: ")
    assert first == again
    assert "3 recordings of 1 people" in first
    assert Path(first.splitlines()[0], "recordings.csv").exists()


def test_the_step_writes_the_snapshot_and_says_whether_it_wakes_a_training(
    collection: Collection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SPIRA_SERVICES_DATABASE", str(collection.engine.url))
    monkeypatch.setenv("SPIRA_COLLECTION_AUDIO", str(collection.folder / "audio"))
    phone, store = collection.device(), Store(str(tmp_path / "store"))
    under = {"under": str(tmp_path / "snapshots")}
    rule = retraining.rule().model_dump() | {"of_each_label": 1, "of_each_label_at_a_site": 1}

    def decision(run_id: str) -> dict[str, Any]:
        step = replace(SNAPSHOT.step("snapshot"), config=under | {"rule": rule})
        result = run_step(step, run_id, store)
        content = store.directory(result.outputs["snapshot"]).read("decision.json")
        return dict(json.loads(content))

    for number, (form, value) in enumerate([(ANSWERS, 1), (CONTROL, 0)], start=11):
        sent = session(number, form=form)
        phone.send(sent)
        label(collection, sent, value)
    first = decision("one")
    assert (first["wakes"], first["new"]) == (True, {"hc": {"0": 1, "1": 1}})
    assert Path(first["place"], "recordings.csv").is_file()
    rooms = Path(first["place"], "ward_noise.csv").read_text().splitlines()
    assert len(rooms) == 3  # a header, and the ambient track of each session
    assert decision("one")["wakes"]  # a try that was killed is made again
    assert decision("two")["missing"] == ["new_snapshot"]

    capsys.readouterr()
    record = f"{sent.session_id}-sentence"
    assert main(["trace", record, "--snapshots", under["under"]]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["session_id"], found["model"]) == (str(sent.session_id), "Moto G")
    assert {file["sha256"] for file in found["files"]} == {sha(one) for one in sent.takes.values()}
    assert [(one["label"], one["annotator"]) for one in found["labels"]] == [(0, "hospital:hc")]
    assert found["snapshots"] == [Path(first["place"]).name]
    assert found["consents"][0]["status"] == "granted"
    assert str(CONTROL["patient_rgh"]) not in str(found)
    assert main(["trace", "nobody", "--snapshots", under["under"]]) == EXIT_CONFIG
    monkeypatch.setenv("SPIRA_SNAPSHOTS", under["under"])
    capsys.readouterr()
    assert main(["trace", record]) == 0
    assert json.loads(capsys.readouterr().out) == [json.loads(json.dumps(found))]


def test_a_snapshot_during_which_a_person_is_erased_does_not_stay(
    collection: Collection, tmp_path: Path
) -> None:
    phone, under = collection.device(), str(tmp_path / "snapshots")
    sent = sorted((session(40), session(41, form=CONTROL)), key=max_sha)
    for one in sent:
        phone.send(one)
        label(collection, one, 1)
    asked = select(REVISIONS.c.subject_id).where(REVISIONS.c.session_id == str(sent[0].session_id))
    with collection.engine.connect() as connection:
        tag = tombstone_tag(connection.execute(asked).scalar_one())

    class Erased(Blobs):
        """Erases the first person when the last file, of the other person, is copied."""

        def path(self, digest: str) -> Path:
            if digest == f"sha256:{max_sha(sent[1])}":
                forget(collection.engine, collection.blobs, under, tag, "cli:test")
            return super().path(digest)

    blobs = Erased(open_backend(str(collection.folder / "audio")))
    with pytest.raises(ServiceUnavailable):
        snapshot.write(collection.engine, blobs, under, datetime.now(UTC))
    assert [path for path in Path(under).rglob("*") if path.is_file()] == []


def max_sha(sent: Session) -> str:
    return max(sha(one) for one in sent.takes.values())


def test_an_erased_person_is_gone_from_documents_audio_labels_and_snapshots_and_stays_away(
    collection: Collection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    phone = collection.device()
    stays, goes = session(21), session(22, form=CONTROL)
    for sent, value in ((stays, 1), (goes, 0)):
        phone.send(sent)
        label(collection, sent, value)
    made = taken(collection, tmp_path, datetime.now(UTC))
    (person,) = {row["patient_pid"] for row in made.rows if row["ri_clinical"] == 0}
    tag, under = tombstone_tag(person), str(tmp_path / "snapshots")

    counts = forget(collection.engine, collection.blobs, under, tag, "cli:test")
    expected = {
        "n_snapshots": 1,
        "n_sessions": 1,
        "n_files": 3,
        "n_facts": 0,
        "n_label_events": 1,
        "n_inferences": 0,
    }
    assert counts == expected
    (newest,) = (path for path in Path(under).iterdir() if (path / "recordings.csv").is_file())
    assert (newest / "recordings.csv").read_text().count("\n") == 4  # a header and three takes
    assert open_source(f"folder:{under}").digest == open_source(f"folder:{newest}").digest
    collection.engine.dispose()  # the last connection writes the journal back
    traces = (person.encode(), *goes.takes.values())
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert [path.name for path, content in files.items() if any(t in content for t in traces)] == []

    again = phone.send(goes)  # from a phone that was away
    assert (again.status_code, again.json()["error"]) == (410, "erased")
    assert not any(collection.blobs.exists(f"sha256:{sha(one)}") for one in goes.takes.values())
    assert phone.send(session(23)).json()["status"] == "accepted"
    monkeypatch.setenv("SPIRA_SERVICES_DATABASE", str(collection.engine.url))
    monkeypatch.setenv("SPIRA_COLLECTION_AUDIO", str(collection.folder / "audio"))
    assert main(["erase", tag, "--snapshots", under]) == 0
    monkeypatch.delenv("SPIRA_SNAPSHOTS", raising=False)
    assert main(["erase", tag]) == 2  # snapshots that are elsewhere would stay
    repeated = "0 snapshots, 0 facts, 0 label events, 0 inferences, 0 sessions, 0 files\n"
    assert capsys.readouterr().out == repeated
