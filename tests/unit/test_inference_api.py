"""Who asks a model over the network: what is taken, what is refused, and how the answer comes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from asking import answer
from collecting import NUMBER, Collection, Phone, session, sha
from sqlalchemy import create_engine, func, select

from spira_services import devices, uploads
from spira_services.serving import events, inferences
from spira_services.serving.tables import ACTIONS, INFERENCES, OUTBOX
from spira_tasks.errors import ConfigError
from spira_tasks.provenance import ROOT

SHELL = ("bash", "-c")


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collection]:
    with Collection.at(tmp_path_factory.mktemp("ward")) as running:
        yield running


@pytest.fixture
def phone(ward: Collection) -> Phone:
    return ward.device()


def audio() -> bytes:
    """No audio at all: the interface does not look into it."""
    return b"RIFF" + uuid4().bytes * 200


def asked(phone: Phone, content: bytes = b"", **fields: Any) -> str:
    answered = phone.ask(content or audio(), **fields)
    assert answered.status_code == 202, answered.text
    return str(answered.json()["inference_id"])


def count(ward: Collection, table: Any, *where: Any) -> int:
    with ward.engine.connect() as connection:
        return connection.execute(
            select(func.count()).select_from(table).where(*where)
        ).scalar_one()


def test_a_recording_in_one_request_is_taken_when_all_of_it_is_durable(
    ward: Collection, phone: Phone
) -> None:
    content = audio()
    taken = phone.ask(content, patient_rgh=NUMBER, capture={"ns": False})
    assert taken.status_code == 202, taken.text
    inference_id = taken.json()["inference_id"]
    assert taken.json() == {"inference_id": inference_id, "state": "queued"}
    assert taken.headers["Location"] == f"/v1/inferences/{inference_id}"
    assert ward.blobs.read(f"sha256:{sha(content)}") == content
    of_request = OUTBOX.c.request_id == taken.headers["X-Request-Id"]
    assert count(ward, OUTBOX, OUTBOX.c.inference_id == inference_id, of_request) == 1
    waiting = phone.client.get(taken.headers["Location"], headers=phone.headers).json()
    assert (waiting["state"], waiting["meaning"]) == ("queued", ["queued"])
    assert NUMBER not in json.dumps(waiting)


def test_the_same_request_again_gives_the_same_inference_and_its_state_by_then(
    ward: Collection, phone: Phone
) -> None:
    content, key = audio(), str(uuid4())
    first = phone.ask(content, key).json()
    answer(ward.engine, first["inference_id"])
    again = phone.ask(content, key)
    assert again.status_code == 202
    assert again.json() == {"inference_id": first["inference_id"], "state": "answered"}
    assert phone.ask(content, key, task="VOWEL").status_code == 409


def test_bytes_of_another_hash_are_refused_also_where_the_right_ones_came_before(
    ward: Collection, phone: Phone
) -> None:
    content = audio()
    for _ in range(2):
        refused = phone.ask(audio(), sha256=sha(content))
        assert (refused.status_code, refused.json()["error"]) == (422, "digest_mismatch")
        asked(phone, content)


def test_a_recording_that_was_sent_in_pieces_is_asked_about_by_its_hash(
    ward: Collection, phone: Phone
) -> None:
    content = audio()
    headers = {**phone.headers, "Upload-Length": str(len(content))}
    for offset in (0, 1000):
        piece = content[offset : offset + 1000] if not offset else content[1000:]
        sent = phone.client.put(
            f"/v1/blobs/{sha(content)}",
            content=piece,
            headers={**headers, "Upload-Offset": str(offset)},
        )
        assert sent.status_code == 200, sent.text
    body = {"sha256": sha(content), "recorded_at": "2024-03-01T12:00:00Z"}
    keyed = {**phone.headers, "Idempotency-Key": str(uuid4())}
    taken = phone.client.post("/v1/inferences", json=body, headers=keyed)
    assert taken.status_code == 202, taken.text


def test_audio_that_the_store_lost_is_asked_for_and_stored_when_it_comes_again(
    ward: Collection, phone: Phone
) -> None:
    content, other = audio(), audio()
    for one in (content, other):
        phone.put(one)
        ward.blobs.delete(f"sha256:{sha(one)}")  # as a kill within a deletion leaves it
    body = {"sha256": sha(content), "recorded_at": "2024-03-01T12:00:00Z"}
    keyed = {**phone.headers, "Idempotency-Key": str(uuid4())}
    refused = phone.client.post("/v1/inferences", json=body, headers=keyed)
    assert (refused.status_code, refused.json()["error"]) == (409, "missing_blobs")
    assert phone.put(content).json()["complete"] is True
    assert phone.client.post("/v1/inferences", json=body, headers=keyed).status_code == 202
    asked(phone, other)
    assert ward.blobs.read(f"sha256:{sha(other)}") == other


def test_a_file_that_was_begun_in_pieces_may_come_whole_with_its_request(phone: Phone) -> None:
    content = audio()
    phone.put(content, n_bytes=1000)
    asked(phone, content)


def test_what_a_lost_device_began_long_ago_goes(ward: Collection, phone: Phone) -> None:
    lost, away = audio(), audio()
    lost_device = ward.device()
    for content in (lost, away):
        lost_device.put(content, n_bytes=1000)
    ward.blobs.put(lost)  # as a kill leaves it before a row names its device
    (old,) = (ward.folder / "unfinished").glob(f"*/{sha(lost)}")
    os.utime(old, (0, 0))
    phone.put(audio(), n_bytes=1000)
    assert lost_device.head(sha(lost)) == (0, "?0")
    assert lost_device.head(sha(away)) == (1000, "?0")
    assert not ward.blobs.exists(f"sha256:{sha(lost)}")


def test_a_file_that_another_request_has_just_finished_stops_no_other(
    ward: Collection, phone: Phone
) -> None:
    content = audio()
    phone.put(content, n_bytes=1000)
    (begun,) = (ward.folder / "unfinished").glob(f"*/{sha(content)}")
    (begun.parent / "finished").symlink_to(begun.parent / "gone")  # listed, and not there
    assert phone.put(content, offset=1000).json()["complete"] is True


@pytest.mark.parametrize(
    "files",
    [
        {"audio": ("a.wav", b"x")},
        {"request": (None, "{}")},
        {"audio": (None, "x"), "request": (None, "{}")},
        {"audio": ("a", b"x"), "request": (None, "{}"), "name": (None, "y")},
        {"audio": ("a", b"x"), "request": (None, '{"recorded_at": "now"}')},
    ],
)
def test_a_request_of_another_form_is_refused_and_quotes_no_value(phone: Phone, files: Any) -> None:
    headers = {**phone.headers, "Idempotency-Key": str(uuid4())}
    refused = phone.client.post("/v1/inferences", files=files, headers=headers)
    assert (refused.status_code, refused.json()["error"]) == (422, "malformed"), refused.text
    assert "missing" in {one["rule"] for one in refused.json()["problems"]}
    assert "now" not in refused.text


def test_the_version_of_an_app_is_no_free_text(phone: Phone) -> None:
    asked(phone, app_version="1.4.2-beta+8ac3e8943458")
    refused = phone.ask(audio(), app_version="Maria da Silva")
    assert refused.status_code == 422
    assert refused.json()["problems"][0]["field"] == "app_version"


def test_a_key_and_an_enrolled_device_are_needed(ward: Collection, phone: Phone) -> None:
    files: Any = {"audio": ("a", b"x"), "request": (None, "{}")}
    nameless = phone.client.post("/v1/inferences", files=files, headers=phone.headers)
    assert nameless.status_code == 422
    stranger = Phone(phone.client, "nobody.x")
    assert stranger.ask(audio()).status_code == 401
    for place in ("inferences", "models", "hospitals", "me"):
        assert stranger.get(place).status_code == 401


def test_a_recording_of_more_bytes_than_a_file_has_is_refused_while_it_comes(
    phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = b"\0" * ((1 << 20) + 1)
    headers = {**phone.headers, "Idempotency-Key": str(uuid4()), "Content-Type": "application/json"}
    refused = phone.client.post("/v1/inferences", content=body, headers=headers)
    assert (refused.status_code, refused.json()["error"]) == (413, "too_large")


def test_a_request_that_is_cut_off_is_no_mistake_of_the_server(
    ward: Collection, phone: Phone
) -> None:
    before = by_status(ward)
    for kind in ("multipart/form-data; boundary=x", "application/json"):
        lines = [
            *("POST /v1/inferences HTTP/1.1", "Host: ward", f"Content-Type: {kind}"),
            *("Content-Length: 9999", f"Authorization: Bearer {phone.key}"),
            *(f"Idempotency-Key: {uuid4()}", "", "--x"),
        ]
        place = phone.client.base_url
        with socket.create_connection((place.host, place.port)) as line:
            line.sendall("\r\n".join(lines).encode())  # and no more: the network is lost
    for _ in range(1200):
        if by_status(ward).total() == before.total() + 2:
            break
        time.sleep(0.05)
    assert by_status(ward) - before == {"4xx": 2}


def by_status(ward: Collection) -> Counter[str]:
    """How many requests to ask were answered, by class of status."""
    counted = r'_seconds_count{method="POST",route="/v1/inferences",status="(...)"} (\d+)'
    found = re.findall(counted, ward.app.state.metrics.text().decode())
    return Counter({status: int(n) for status, n in found})


def test_an_answer_is_seen_by_the_device_that_asked_alone(ward: Collection, phone: Phone) -> None:
    inference_id = asked(phone)
    answer(ward.engine, inference_id)
    seen = phone.get(f"inferences/{inference_id}").json()
    assert (seen["state"], seen["decision"], seen["probability"]) == ("answered", "positive", 0.81)
    assert (seen["version"], seen["operating_point"]) == ("3", 0.5)
    other = ward.device()
    assert other.get("inferences").json() == {"inferences": [], "next": None}
    place = f"/v1/inferences/{inference_id}"
    for method, more in (("GET", ""), ("GET", "/events"), ("DELETE", ""), ("POST", "/actions")):
        body = {"action": "seen"} if method == "POST" else None
        refused = phone.client.request(method, place + more, headers=other.headers, json=body)
        assert refused.status_code == 404, (method, more)


def test_the_list_goes_on_where_a_page_ended(phone: Phone) -> None:
    every = [asked(phone) for _ in range(3)]
    first = phone.get("inferences?limit=2").json()
    rest = phone.get(f"inferences?limit=2&before={first['next']}").json()
    found = [one["inference_id"] for one in first["inferences"] + rest["inferences"]]
    assert (found, rest["next"]) == (every[::-1], None)


def test_a_stream_of_events_ends_with_the_answer(ward: Collection, phone: Phone) -> None:
    inference_id = asked(phone)
    place = f"/v1/inferences/{inference_id}/events"
    with phone.client.stream("GET", place, headers=phone.headers) as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        lines = stream.iter_lines()
        assert next(lines) == "event: queued"
        answer(ward.engine, inference_id)
        rest = [*lines]
    assert [line for line in rest if line.startswith("event")] == ["event: answered"]
    data = next(line for line in reversed(rest) if line.startswith("data: "))
    assert json.loads(data.removeprefix("data: ")) == phone.get(f"inferences/{inference_id}").json()


def test_open_streams_are_bounded_and_say_that_they_wait(
    phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MAX_STREAMS_OF_DEVICE", 1)
    monkeypatch.setattr(events, "EVERY_SECONDS", 0.01)  # what has not changed is not said again
    monkeypatch.setattr(events, "KEEP_ALIVE_SECONDS", 0.3)
    place = f"/v1/inferences/{asked(phone)}/events"
    with phone.client.stream("GET", place, headers=phone.headers) as stream:
        lines = stream.iter_lines()  # held: the stream would be closed with it
        assert ": waiting" in lines
        refused = phone.client.get(place, headers=phone.headers)
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "60")


def test_a_stream_goes_on_when_the_database_answers_again(
    ward: Collection, phone: Phone, caplog: pytest.LogCaptureFixture
) -> None:
    inference_id = asked(phone)
    with ward.engine.connect() as connection:
        first = inferences.state(connection, inference_id)
    assert first is not None
    engine = create_engine(ward.engine.url, pool_size=1, max_overflow=0, pool_timeout=0.01)

    async def last() -> str:
        stream = events.Watch(engine).events("device", first)
        await anext(stream)
        with engine.connect():  # the only connection
            while "does not answer" not in caplog.text:
                await asyncio.sleep(0.01)
        answer(ward.engine, inference_id)
        return await anext(stream)

    assert asyncio.run(asyncio.wait_for(last(), 60)).startswith("event: answered")
    engine.dispose()


def test_in_a_batch_each_is_answered_as_it_would_be_alone(ward: Collection, phone: Phone) -> None:
    contents = [audio() for _ in range(3)]
    for content in contents[:2]:
        phone.put(content)
    batch = {
        "inferences": [
            {
                "idempotency_key": str(uuid4()),
                "request": {"sha256": sha(content), "recorded_at": "2024-03-01T12:00:00Z"},
            }
            for content in contents
        ]
    }
    taken = phone.client.post("/v1/inferences/batch", json=batch, headers=phone.headers)
    assert taken.status_code == 202, taken.text
    one, two, three = taken.json()["inferences"]
    assert [item["status"] for item in (one, two, three)] == [202, 202, 409]
    assert three["refusal"]["error"] == "missing_blobs"
    phone.put(contents[2])
    again = phone.client.post("/v1/inferences/batch", json=batch, headers=phone.headers).json()
    ids = [item["inference_id"] for item in again["inferences"]]
    assert ids[:2] == [one["inference_id"], two["inference_id"]]
    assert UUID(ids[2])


def test_too_many_that_wait_are_told_when_to_come_again_and_leave_nothing(
    ward: Collection, phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spira_services.serving.inferences.Backlog.room", lambda *_: 0)
    content = audio()
    refused = phone.ask(content)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "10")
    assert not ward.blobs.exists(f"sha256:{sha(content)}")
    assert count(ward, INFERENCES, INFERENCES.c.sha256 == sha(content)) == 0
    phone.put(content)
    body = {"sha256": sha(content), "recorded_at": "2024-03-01T12:00:00Z"}
    batch = {"inferences": [{"idempotency_key": str(uuid4()), "request": body}]}
    refused = phone.client.post("/v1/inferences/batch", json=batch, headers=phone.headers)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "10")


def test_what_is_deleted_is_gone_and_says_so(ward: Collection, phone: Phone) -> None:
    content = audio()
    inference_id = asked(phone, content)
    for _ in range(2):
        gone = phone.client.delete(f"/v1/inferences/{inference_id}", headers=phone.headers)
        assert gone.status_code == 204
    assert phone.get(f"inferences/{inference_id}").json()["state"] == "deleted"
    assert not ward.blobs.exists(f"sha256:{sha(content)}")


def test_audio_of_a_request_that_is_refused_or_was_deleted_does_not_stay(
    ward: Collection, phone: Phone
) -> None:
    content, key = audio(), str(uuid4())
    taken = phone.ask(content, key).json()
    refused = phone.ask(other := audio(), key)
    assert refused.status_code == 409
    assert not ward.blobs.exists(f"sha256:{sha(other)}")
    assert phone.ask(content, key, task="VOWEL").status_code == 409
    assert ward.blobs.exists(f"sha256:{sha(content)}")  # the first request names it
    phone.client.delete(f"/v1/inferences/{taken['inference_id']}", headers=phone.headers)
    assert phone.ask(content, key).json() == {**taken, "state": "deleted"}
    assert not ward.blobs.exists(f"sha256:{sha(content)}")


def test_audio_that_a_session_holds_stays_when_its_inference_is_deleted(
    ward: Collection, phone: Phone
) -> None:
    sent = session(7)
    content = sent.takes["SENTENCE"]
    assert phone.send(sent).status_code == 201
    inference_id = asked(phone, content)
    phone.client.delete(f"/v1/inferences/{inference_id}", headers=phone.headers)
    assert ward.blobs.exists(f"sha256:{sha(content)}")


def test_what_a_person_did_on_an_answer_is_noted_once(ward: Collection, phone: Phone) -> None:
    inference_id = asked(phone)
    place = f"/v1/inferences/{inference_id}/actions"
    for _ in range(2):
        sent = phone.client.post(place, json={"action": "agreed"}, headers=phone.headers)
        assert sent.status_code == 204
    other = phone.client.post(place, json={"action": "smiled"}, headers=phone.headers)
    assert other.status_code == 422
    assert count(ward, ACTIONS, ACTIONS.c.inference_id == inference_id) == 1


def test_a_phone_that_was_enrolled_anew_takes_back_what_it_sent_and_no_other_does(
    ward: Collection, phone: Phone
) -> None:
    content, sent = audio(), session(1)
    inference_id = asked(phone, content)
    assert phone.send(sent).status_code == 201
    with ward.engine.begin() as connection:
        person = phone.get("me").json()["collector"]
        code = devices.new_code(connection, "hc", person, "cli:test")
        devices.end(connection, phone.get("me").json()["device_id"], "cli:test")
        enrolled = devices.enrol(connection, code, "Moto G", "Android 14")
    assert enrolled is not None
    again, other = Phone(phone.client, enrolled[1]), ward.device()
    places = {
        "DELETE": f"/v1/inferences/{inference_id}",
        "POST": f"/collection/v1/sessions/{sent.session_id}/withdraw",
    }
    for method, place in places.items():
        assert phone.client.request(method, place, headers=other.headers).status_code == 404
        assert phone.client.request(method, place, headers=again.headers).is_success
    assert again.get(f"inferences/{inference_id}").status_code == 404  # answers are its own alone
    assert not ward.blobs.exists(f"sha256:{sha(content)}")


def test_a_device_that_has_sent_as_much_as_it_may_in_a_day_is_told_when_to_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for interface in ("collection", "serving"):  # which count together
        monkeypatch.setattr(f"spira_services.{interface}.api.most_a_day", lambda: 7000)
    with Collection.at(tmp_path) as ward:
        phone, kept, begun, more = ward.device(), *(audio() for _ in range(3))  # of 3204 bytes
        asked(phone, kept)
        phone.put(begun, n_bytes=1000)
        assert phone.put(kept).json()["complete"] is True  # it is there already
        for refused in (phone.ask(more), phone.put(more)):
            assert (refused.status_code, refused.json()["error"]) == (429, "too_much_today")
            assert refused.headers["Retry-After"] == "3600"
        assert not ward.blobs.exists(f"sha256:{sha(more)}")
        assert phone.put(begun, offset=1000).json()["complete"] is True
        asked(ward.device())  # each has its own


def test_the_setting_of_how_much_a_device_may_send_is_a_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SPIRA_DEVICE_GIB_A_DAY", "2")
    assert uploads.most_a_day() == 2 << 30
    for wrong in ("0", "-1", "ten", "0.5"):
        monkeypatch.setenv("SPIRA_DEVICE_GIB_A_DAY", wrong)
        with pytest.raises(ConfigError, match="SPIRA_DEVICE_GIB_A_DAY"):
            uploads.most_a_day()


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
def test_the_commands_of_the_guide_work_in_their_order(
    ward: Collection, phone: Phone, tmp_path: Path
) -> None:
    content = audio()
    (tmp_path / "take.wav").write_bytes(content)
    (tmp_path / "key").write_text(f"Authorization: Bearer {phone.key}")
    guide = (ROOT / "docs" / "serving.md").read_text()
    (shown,) = re.findall(r"^(\{.*\})$", guide.partition("## Asking")[2].partition("##")[0], re.M)
    request = json.loads(shown) | {"sha256": sha(content)}
    (tmp_path / "request.json").write_text(json.dumps(request))
    known = {"SPIRA": str(phone.client.base_url).rstrip("/"), "PATH": os.environ["PATH"]}
    said = []
    for command in re.findall(r"^curl .*", guide, re.MULTILINE):
        asking: Any = {"env": known, "cwd": tmp_path, "capture_output": True, "text": True}
        said.append(subprocess.run([*SHELL, command], check=True, **asking).stdout)
        assert '"error"' not in said[-1], said[-1]
        if "Idempotency-Key" in command:
            known["ID"] = json.loads(said[-1])["inference_id"]
            answer(ward.engine, known["ID"])
    assert json.loads(said[0])["hospital_id"] == "hc"
    assert json.loads(said[2])["meaning"][0] == "positive"
    assert said[3].startswith("event: answered")
    assert phone.get(f"inferences/{known['ID']}").json()["state"] == "deleted"


def test_who_asks_and_where_is_known_and_a_version_only_once_it_answered(
    ward: Collection, tmp_path: Path
) -> None:
    with Collection.at(tmp_path) as fresh:
        phone = fresh.device()
        me = phone.get("me").json()
        assert (me["hospital_id"], me["model"]) == ("hc", "Moto G")
        site = {"hospital_id": "hc", "name": "Hospital"}
        assert phone.get("hospitals").json() == {"hospitals": [site]}
        assert phone.get("models").json() == {"models": []}
        answer(fresh.engine, asked(phone), version="4")
        (model,) = phone.get("models").json()["models"]
        assert (model["version"], model["arm"]) == ("4", "champion")
