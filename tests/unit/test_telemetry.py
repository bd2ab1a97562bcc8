"""What is kept of answers, for how long, and what of it goes to people who label."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from asking import Ward
from labelling import hospital_ward
from sqlalchemy import select, update

from spira_services import devices, feedback
from spira_services.__main__ import main
from spira_services.collection.documents import REVISIONS, SESSIONS
from spira_services.database import now
from spira_services.devices import Device
from spira_services.events import EVENTS
from spira_services.forgetting import forget
from spira_services.labels import api, store
from spira_services.labels.assignment import TASKS
from spira_services.labels.store import ITEMS
from spira_services.serving import telemetry
from spira_services.serving.inferences import Backlog, Inferences, note_action
from spira_services.serving.tables import ACTIONS, INFERENCES, PREDICTIONS
from spira_services.serving.telemetry import Rule, export, retain, rule
from spira_services.uploads import BLOBS
from spira_tasks.artifacts import Store
from spira_tasks.artifacts.blobs import Blobs
from spira_tasks.artifacts.sources import open_backend
from spira_tasks.contract.pipelines import TELEMETRY
from spira_tasks.intake.pseudonyms import tombstone_tag
from spira_tasks.runner import run_step

DAY = datetime(2026, 3, 1, 12, tzinfo=UTC)
NEXT = DAY + timedelta(days=1)
NUMBER = "55321987B"
LABELS = {"labels": True, "ab": False, "version": "1"}


@pytest.fixture
def ward(address: str, tmp_path: Path) -> Iterator[Ward]:
    with Ward.at(address, tmp_path) as made:
        yield made


def asked(
    ward: Ward, device: Device, at: datetime = DAY, probability: float | None = 0.8, **fields: Any
) -> str:
    """An inference of a time, and its answer."""
    inference_id = ward.ask(device, **{"patient_rgh": NUMBER, **fields}).inference_id
    theirs = INFERENCES.c.inference_id == inference_id
    with ward.engine.begin() as connection:
        connection.execute(update(INFERENCES).where(theirs).values(received_at=at))
        note_action(connection, device.device_id, inference_id, "seen")
        connection.execute(
            update(ACTIONS).where(ACTIONS.c.inference_id == inference_id).values(at=at)
        )
    ward.answer(inference_id, probability=probability, at=at)
    return inference_id


def test_a_day_that_is_over_is_written_once_with_its_digests_and_names_nobody(
    ward: Ward, tmp_path: Path
) -> None:
    device = ward.device()
    inference_ids = {asked(ward, device) for _ in range(2)}
    asked(ward, device, NEXT)
    under = str(tmp_path / "telemetry")
    just = datetime(2026, 3, 2, 0, 59, tzinfo=UTC)
    assert [*export(ward.engine, under, just)] == []  # a transaction of that day may be at work
    (day,) = export(ward.engine, under, just + timedelta(minutes=1))
    assert day.n_rows == {"requests": 2, "predictions": 2, "failures": 0, "actions": 2}
    sheet = json.loads((tmp_path / "telemetry/days/2026-03-01.json").read_text())
    told = ""
    for name, about in sheet["tables"].items():
        file = tmp_path / f"telemetry/{name}/day=2026-03-01/rows.parquet"
        assert hashlib.sha256(file.read_bytes()).hexdigest() == about["sha256"]
        rows = pq.read_table(file).to_pylist()
        assert len(rows) == about["n_rows"]
        told += json.dumps(rows, default=str)
    assert all(one in told for one in inference_ids)
    with ward.engine.connect() as connection:
        rows = connection.execute(select(INFERENCES)).all()
    for row in rows:
        for value in (row.device_id, row.subject_id, row.sha256, row.digest, row.idempotency_key):
            assert value not in told
    assert [*export(ward.engine, under, just + timedelta(hours=1))] == []


def test_an_export_that_was_killed_goes_on_with_what_it_had_written(
    ward: Ward, tmp_path: Path
) -> None:
    device = ward.device()
    asked(ward, device)
    under = tmp_path / "telemetry"
    moment = NEXT + timedelta(hours=1)
    assert len([*export(ward.engine, str(under), moment)]) == 1
    sheet, file = under / "days/2026-03-01.json", under / "actions/day=2026-03-01/rows.parquet"
    before = sheet.read_bytes(), file.read_bytes()
    sheet.unlink()
    (under / "requests/day=2026-03-01/rows.parquet").unlink()
    with ward.engine.begin() as connection:
        connection.execute(ACTIONS.delete())  # what was written says what was
    assert len([*export(ward.engine, str(under), moment)]) == 1
    assert file.read_bytes() == before[1]
    assert sheet.read_bytes() == before[0]
    with ward.engine.begin() as connection:  # as if it were killed before the last step
        connection.execute(EVENTS.delete())
    assert [*export(ward.engine, str(under), moment)] == []
    with ward.engine.connect() as connection:
        assert telemetry.days_of(connection, telemetry.ACTION) == {DAY.date()}
        (said,) = connection.execute(select(EVENTS.c.details)).scalars()
    assert said == json.loads(before[0])


def test_audio_without_consent_goes_first_and_rows_only_of_days_that_were_exported(
    ward: Ward, tmp_path: Path
) -> None:
    device = ward.device()
    kept = rule().model_copy(update={"audio_days": 2, "row_days": 4})
    moment = DAY + timedelta(days=4)
    exported = asked(ward, device, moment - timedelta(days=6))
    old, new = asked(ward, device, DAY), asked(ward, device, DAY + timedelta(days=3))
    agreed = asked(ward, device, DAY, agreed=LABELS)
    nameless = asked(ward, device, DAY, agreed=LABELS, patient_rgh="")  # which nobody may label
    with ward.engine.connect() as connection:
        named = select(INFERENCES.c.inference_id, INFERENCES.c.sha256)
        audio = {row.inference_id: row.sha256 for row in connection.execute(named)}
    assert retain(ward.engine, ward.blobs, kept, moment) == counts(n_expired=3)
    [*export(ward.engine, str(tmp_path / "telemetry"), moment)]
    assert retain(ward.engine, ward.blobs, kept, moment) == counts(n_removed=1)
    assert retain(ward.engine, ward.blobs, kept, moment) == counts()
    with ward.engine.connect() as connection:
        rows = {row.inference_id: row for row in connection.execute(select(INFERENCES))}
        answers = set(connection.execute(select(PREDICTIONS.c.inference_id)).scalars())
    assert set(rows) == answers == {old, agreed, nameless, new}
    assert exported not in rows
    there = {one: ward.blobs.exists(f"sha256:{audio[one]}") for one in rows}
    assert there == {old: False, agreed: True, nameless: False, new: True}
    assert rows[old].subject_id is None
    assert rows[agreed].subject_id is not None


def counts(**some: int) -> dict[str, int]:
    return dict.fromkeys(("n_expired", "n_removed", "n_unnamed"), 0) | some


def test_audio_that_nothing_came_to_name_goes_when_it_is_old(ward: Ward) -> None:
    device, other = ward.device(), ward.device()
    files = [ward.upload(device, bytes([n]) * 9) for n in range(5)]
    of_inference, _, of_two, new, spoken = files
    ward.ask(device, sha256=of_inference, agreed=LABELS)
    with ward.engine.begin() as connection:
        old = update(BLOBS).where(BLOBS.c.sha256 != new)
        connection.execute(old.values(stored_at=DAY))
        of_it = {"session_id": "a", "received_at": DAY}
        who = {"device_id": device.device_id, "hospital_id": device.hospital_id}
        connection.execute(SESSIONS.insert().values(**of_it, **who))
        about = {"revision": 1, "status": "accepted", "digest": "", "schema": "", "problems": []}
        spoken_in = {"document": {"consent_sha256": spoken}}
        connection.execute(REVISIONS.insert().values(**of_it, **about, **spoken_in))
    assert ward.upload(other, bytes([2]) * 9) == of_two  # the same bytes, lately
    assert retain(ward.engine, ward.blobs, rule(), now()) == counts(n_unnamed=1)
    there = [ward.blobs.exists(f"sha256:{one}") for one in files]
    assert there == [True, False, True, True, True]


def chosen(ward: Ward, wanted: Rule) -> tuple[dict[str, int], set[str]]:
    with ward.engine.begin() as connection:
        counts = feedback.sample(connection, DAY.date(), wanted)
        tasks = select(TASKS.c.item_id).where(TASKS.c.item_kind == "inference")
        return counts, set(connection.execute(tasks).scalars())


def undo(ward: Ward) -> None:
    with ward.engine.begin() as connection:
        connection.execute(TASKS.delete())
        connection.execute(EVENTS.delete().where(EVENTS.c.action == feedback.ACTION))


def test_the_least_sure_answers_are_labelled_and_as_many_of_each_site(ward: Ward) -> None:
    wanted = rule().model_copy(update={"sample_a_day": 6, "sample_uncertain": 2})
    with ward.engine.begin() as connection:
        devices.add_site(connection, "icesp", "Another", "cli:test")
    site: dict[str, str] = {}
    device = ward.device()
    for name, n in (("hc", 9), ("icesp", 3)):
        for _ in range(n):
            site[asked(ward, device, agreed=LABELS, probability=0.95)] = name
        with ward.engine.begin() as connection:
            theirs = INFERENCES.c.inference_id.in_([one for one in site if site[one] == name])
            connection.execute(update(INFERENCES).where(theirs).values(hospital_id=name))
    unsure = {asked(ward, device, agreed=LABELS, probability=p) for p in (0.49, 0.52)}
    never = {
        asked(ward, device, probability=0.5),  # nobody agreed
        asked(ward, device, probability=None, agreed=LABELS),
        asked(ward, device, NEXT, probability=0.5, agreed=LABELS),
    }
    counts, first = chosen(ward, wanted)
    assert counts == {"n_uncertain": 2, "n_by_site": 4}
    assert unsure <= first
    assert not first & never
    assert Counter(site[one] for one in first - unsure) == {"hc": 2, "icesp": 2}
    assert chosen(ward, wanted) == ({}, first)  # once a day
    undo(ward)
    assert chosen(ward, wanted) == (counts, first)  # the same seed draws the same
    undo(ward)
    # Ids are drawn anew in each test, so one other seed may come to the same six by chance.
    others = [wanted.model_copy(update={"sample_seed": seed}) for seed in range(2, 8)]
    drawn = []
    for other in others:
        drawn.append(chosen(ward, other)[1])
        undo(ward)
    assert any(one != first for one in drawn)
    gone = next(iter(unsure))
    ward.delete(device, gone)
    assert chosen(ward, wanted)[1] & unsure == unsure - {gone}


def test_a_label_of_an_inference_is_an_outcome_of_the_day_when_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with hospital_ward(tmp_path, monkeypatch) as services:
        blobs = Blobs(open_backend(str(tmp_path / "audio")))
        made = Ward(
            services.engine, blobs, Inferences(services.engine, blobs, Backlog(services.engine))
        )
        device = made.device()
        inference_id = asked(made, device, now() - timedelta(days=2), agreed=LABELS)
        monkeypatch.setenv("SPIRA_SERVICES_DATABASE", str(services.engine.url))
        monkeypatch.setenv("SPIRA_TELEMETRY", str(tmp_path / "telemetry"))
        assert main(["telemetry", "export"]) == 0
        assert "fewer than 5 recordings go to those who label" in capsys.readouterr().out
        for _ in range(2):
            with services.person("clinician") as clinician:
                task = clinician.get("/labels/v1/next").json()
                assert task["session_id"] == inference_id
                assert task["recordings"] == ["SENTENCE"]
                audio = clinician.get(f"/labels/v1/sessions/{inference_id}/SENTENCE")
                assert audio.status_code == 200
                said = {"session_id": inference_id, "label": 1, "confidence": 0.9}
                said |= {"instruction_version": api.current_instruction().version}
                answer = clinician.post(
                    "/labels/v1/answers", json={**said, "submission_id": "a" * 8}
                )
                assert answer.json()["recorded"]
        tomorrow = now() + timedelta(days=1, hours=2)
        feedback.close_days(services.engine, str(tmp_path / "telemetry"), tomorrow, rule())
        files = (tmp_path / "telemetry/outcomes").glob("*/rows.parquet")
        (outcome,) = [row for file in files for row in pq.read_table(file).to_pylist()]
        assert outcome["inference_id"] == inference_id
        assert (outcome["ri_clinical"], outcome["by"]) == (1, "agreement")
        result = run_step(TELEMETRY.step("close_days"), "one", Store(str(tmp_path / "store")))
        assert result.metrics["n_days"] == 0  # all that are over are there
        assert main(["telemetry", "retain"]) == 0
        with services.engine.connect() as connection:
            assert connection.execute(select(INFERENCES.c.deleted_at)).scalar() is None


def test_what_is_deleted_or_past_its_time_is_no_item_of_the_labels(
    ward: Ward, tmp_path: Path
) -> None:
    device, under = ward.device(), str(tmp_path / "telemetry")
    deleted, old = (asked(ward, device, agreed=LABELS) for _ in range(2))
    moment = NEXT + timedelta(hours=1)
    assert feedback.close_days(ward.engine, under, moment, rule())[1] == 2
    assert items(ward) == {deleted, old}
    for _ in range(2):  # again changes nothing
        ward.delete(device, deleted)
    assert items(ward) == {old}
    kept = rule().model_copy(update={"row_days": 1})
    retain(ward.engine, ward.blobs, kept, moment + timedelta(days=2))
    feedback.close_days(ward.engine, under, moment + timedelta(days=2), rule())
    assert items(ward) == set()


def test_a_person_whom_the_labels_alone_know_is_erased_from_them(
    ward: Ward, tmp_path: Path
) -> None:
    subject = "5" * 64
    with ward.engine.begin() as connection:
        store.register_item(connection, "inference", "gone", subject, DAY)
    forget(ward.engine, ward.blobs, str(tmp_path), tombstone_tag(subject), "cli:test")
    assert items(ward) == set()


def items(ward: Ward) -> set[str]:
    with ward.engine.connect() as connection:
        return set(connection.execute(select(ITEMS.c.item_id)).scalars())


def test_who_is_erased_is_labelled_no_more_and_the_exported_rows_lead_nowhere(
    ward: Ward, tmp_path: Path
) -> None:
    device, under = ward.device(), str(tmp_path / "telemetry")
    inference_id = asked(ward, device, agreed=LABELS)
    moment = NEXT + timedelta(hours=1)
    assert feedback.close_days(ward.engine, under, moment, rule())[1] == 1
    with ward.engine.connect() as connection:
        subject = connection.execute(select(INFERENCES.c.subject_id)).scalar_one()
    snapshots = str(tmp_path / "snapshots")
    tag = tombstone_tag(subject)
    counts = forget(ward.engine, ward.blobs, snapshots, tag, "cli:test")
    assert counts["n_inferences"] == 1
    assert feedback.close_days(ward.engine, under, moment + timedelta(days=1), rule())[1] == 0
    assert items(ward) == set()
    with ward.engine.connect() as connection:
        assert connection.execute(select(TASKS)).first() is None
        (left,) = connection.execute(select(INFERENCES)).all()
    assert (left.inference_id, left.subject_id) == (inference_id, None)
