"""Sessions from a device: stored whole and once, or refused with what to mend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import pytest
from collecting import ANSWERS, NUMBER, Collection, Phone, Session, noise, session, sha
from databases import BACKENDS, server
from sqlalchemy import select

from spira_services import events, people
from spira_services.collection import overview
from spira_services.collection.documents import CONSENTS, RECORDINGS, REVISIONS, SESSIONS
from spira_services.collection.sessions import LINKAGE_KEY, linkage_key
from spira_services.database import metadata
from spira_tasks.intake import pseudonyms

# Of those whose SQL could differ.
ON_BOTH = pytest.mark.parametrize("collection", BACKENDS, indirect=True)


@pytest.fixture(scope="module")
def collection(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Collection]:
    folder = tmp_path_factory.mktemp("collection")
    with (
        server(getattr(request, "param", "sqlite")) as address,
        Collection.at(folder, address) as running,
    ):
        yield running


@pytest.fixture
def phone(collection: Collection) -> Phone:
    return collection.device()


def rules(answer: httpx.Response) -> set[tuple[str, str]]:
    return {(one["field"], one["rule"]) for one in answer.json()["problems"]}


def rows(collection: Collection, table: Any, sent: Session) -> list[Any]:
    with collection.engine.connect() as connection:
        there = select(table).where(table.c.session_id == str(sent.session_id))
        return [*connection.execute(there)]


@ON_BOTH
def test_a_session_is_accepted_with_a_receipt_that_lists_its_hashes(
    collection: Collection, phone: Phone
) -> None:
    sent = session(1)
    answer = phone.send(sent)
    assert answer.status_code == 201, answer.text
    receipt = answer.json()
    assert (receipt["status"], receipt["problems"]) == ("accepted", [])
    hashes = {task: sha(content) for task, content in sent.takes.items()}
    assert {one["task"]: one["sha256"] for one in receipt["files"]} == hashes
    assert {row.task: row.sha256 for row in rows(collection, RECORDINGS, sent)} == hashes
    assert phone.receipts() == [receipt]


@ON_BOTH
def test_the_same_manifest_again_gives_the_same_receipt_and_changes_nothing(
    collection: Collection, phone: Phone
) -> None:
    sent = session(2)
    first = phone.send(sent)
    again = phone.commit(sent)
    assert (again.status_code, again.json()) == (200, first.json())
    assert len(rows(collection, REVISIONS, sent)) == 1
    assert len(rows(collection, CONSENTS, sent)) == 1


def test_an_accepted_session_takes_no_other_content(phone: Phone) -> None:
    sent = session(3)
    phone.send(sent)
    other = replace(sent, form=ANSWERS | {"age": 62})
    assert phone.commit(other).json()["error"] == "conflict"
    assert phone.commit(replace(other, revision=2)).json()["error"] == "conflict"


def test_nothing_is_committed_while_a_file_is_missing(collection: Collection, phone: Phone) -> None:
    sent = session(4)
    last = sent.takes["SENTENCE"]
    for task in ("AMBIENT", "VOWEL"):
        phone.put(sent.takes[task])
    answer = phone.commit(sent)
    assert (answer.status_code, answer.json()["missing"]) == (409, [sha(last)])
    assert rows(collection, REVISIONS, sent) == []
    phone.put(last)
    assert phone.commit(sent).json()["status"] == "accepted"


def test_a_file_goes_on_where_it_was_cut(phone: Phone) -> None:
    content = noise(np.random.default_rng(5), 2)
    assert phone.head(sha(content)) == (0, "?0")
    assert phone.put(content, n_bytes=10_000).json()["offset"] == 10_000
    assert phone.head(sha(content)) == (10_000, "?0")
    refused = phone.put(content, offset=9_000)
    assert (refused.status_code, refused.json()["offset"]) == (409, 10_000)
    assert phone.put(content, offset=10_000).json()["complete"] is True
    assert phone.head(sha(content)) == (len(content), "?1")
    assert phone.put(content).json()["complete"] is True  # nothing is sent twice


def test_bytes_with_another_digest_are_dropped_and_sent_again(phone: Phone) -> None:
    content = noise(np.random.default_rng(6), 2)
    damaged = content[:-1] + bytes([content[-1] ^ 1])
    refused = phone.put(damaged, sha256=sha(content))
    assert (refused.status_code, refused.json()["error"]) == (422, "digest_mismatch")
    assert phone.head(sha(content)) == (0, "?0")
    assert phone.put(content).json()["complete"] is True


@pytest.mark.parametrize("length", [0, 65 << 20])
def test_a_file_that_is_empty_or_too_large_is_refused_before_it_is_read(
    phone: Phone, length: int
) -> None:
    headers = {**phone.headers, "Upload-Offset": "0", "Upload-Length": str(length)}
    answer = phone.client.put(f"/collection/v1/blobs/{'0' * 64}", content=b"x", headers=headers)
    assert answer.status_code in (413, 422)
    headers["Upload-Length"] = "3"
    more = phone.client.put(f"/collection/v1/blobs/{'0' * 64}", content=b"four", headers=headers)
    assert (more.status_code, more.json()["error"]) == (413, "too_large")


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("age", 17, "range"),
        ("age", None, "required"),
        ("age", "61,5", "format"),
        ("sex", "female", "values"),
        ("spo2", 0.91, "format"),
        ("temp", 99.1, "range"),
        ("patient_rgh", "S/N", "format"),
        ("patient_rgh", None, "required"),
        ("spo2_at", "2026-11-02T10:00:00", "format"),
        ("cid10", "asthma", "format"),
        ("cid10", "ana@example.org", "personal_data"),
        ("cid10", f"J96 {NUMBER}", "personal_data"),
    ],
)
def test_a_wrong_answer_is_named_by_its_field_and_rule_and_can_be_mended(
    phone: Phone, name: str, value: Any, rule: str
) -> None:
    sent = session(seconds=3.1, seed=abs(hash((name, str(value)))) % 2**31)
    wrong = replace(sent, form=ANSWERS | {name: value})
    answer = phone.send(wrong)
    assert (answer.json()["status"], rules(answer)) == ("refused", {(name, rule)})
    mended = phone.commit(replace(sent, revision=2))
    assert mended.json()["status"] == "accepted", mended.text


def test_an_unknown_field_is_refused_without_its_name(phone: Phone) -> None:
    sent = session(8)
    answer = phone.send(replace(sent, form=ANSWERS | {"maria_silva": "x"}))
    assert rules(answer) == {("form", "unknown_field")}
    assert "maria" not in answer.text
    manifest = sent.manifest() | {"maria_silva": 1}
    place = f"/collection/v1/sessions/{sent.session_id}"
    malformed = phone.client.put(place, json=manifest, headers=phone.headers)
    assert malformed.status_code == 422
    assert "maria" not in malformed.text


def test_a_take_that_cannot_be_used_is_to_be_recorded_again(
    collection: Collection, phone: Phone
) -> None:
    sent = session(9)
    loud = np.random.default_rng(9)
    takes = {**sent.takes, "VOWEL": b"no audio", "SENTENCE": noise(loud, 0.5)}
    answer = phone.send(replace(sent, takes=takes))
    reasons = {one["task"]: one["reason"] for one in answer.json()["files"]}
    assert reasons == {"AMBIENT": None, "VOWEL": "unknown_container", "SENTENCE": "too_short"}
    assert rules(answer) == {("VOWEL", "record_again"), ("SENTENCE", "record_again")}
    kept = rows(collection, RECORDINGS, sent)
    assert {row.task: row.status for row in kept}["AMBIENT"] == "accepted"
    assert phone.send(replace(sent, revision=2)).json()["status"] == "accepted"


@ON_BOTH
def test_audio_of_another_session_is_no_audio_of_this_one(
    collection: Collection, phone: Phone
) -> None:
    first, second = session(10), session(11)
    phone.send(first)
    mixed = replace(second, takes={**second.takes, "VOWEL": first.takes["VOWEL"]})
    answer = phone.send(mixed)
    assert {one["task"]: one["reason"] for one in answer.json()["files"]} == {
        "AMBIENT": None,
        "VOWEL": "duplicate_audio",
        "SENTENCE": None,
    }


def test_a_required_take_that_is_absent_is_named(phone: Phone) -> None:
    sent = session(12)
    answer = phone.send(replace(sent, takes={"VOWEL": sent.takes["VOWEL"]}))
    assert rules(answer) == {("AMBIENT", "required"), ("SENTENCE", "required")}


def test_a_clock_that_is_ahead_is_named(phone: Phone) -> None:
    later = datetime.now(UTC) + timedelta(days=30)
    answer = phone.send(session(13, recorded_at=later))
    assert ("recorded_at", "future") in rules(answer)


@ON_BOTH
def test_a_withdrawn_consent_is_on_the_receipt(collection: Collection, phone: Phone) -> None:
    sent = session(14)
    phone.send(sent)
    place = f"/collection/v1/sessions/{sent.session_id}/withdraw"
    for _ in range(2):
        answer = phone.client.post(place, headers=phone.headers)
        assert answer.json()["status"] == "withdrawn"
    assert [row.status for row in rows(collection, CONSENTS, sent)] == ["granted", "withdrawn"]


def test_who_may_not_see_and_what_is_not_there_get_one_answer(
    collection: Collection, phone: Phone
) -> None:
    theirs = session(15)
    phone.send(theirs)
    other = collection.device()
    assert other.head(sha(theirs.takes["VOWEL"])) == (0, "?0")
    nowhere = "/collection/v1/sessions/4b0c0f1e-2222-4333-8444-555555555555/withdraw"
    mine = f"/collection/v1/sessions/{theirs.session_id}/withdraw"
    answers = [other.client.post(place, headers=other.headers) for place in (nowhere, mine)]
    assert answers[0].json() == answers[1].json() == other.commit(theirs).json()
    assert answers[0].status_code == 404


@pytest.mark.parametrize("key", ["", "x", "x.y", "é.é"])
def test_without_a_key_of_a_device_nothing_is_answered(collection: Collection, key: str) -> None:
    headers = {b"Authorization": f"Bearer {key}".encode()} if key else {}
    for method, path in (
        ("GET", "form"),
        ("GET", "sessions"),
        ("HEAD", f"blobs/{'0' * 64}"),
        ("PUT", f"blobs/{'0' * 64}"),
    ):
        answer = collection.client.request(method, f"/collection/v1/{path}", headers=headers)
        assert answer.status_code in (401, 422), (method, path)


def test_another_method_is_told_which_ones_there_are(phone: Phone) -> None:
    answer = phone.client.request("TRACE", "/collection/v1/form", headers=phone.headers)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")


def test_a_body_that_is_no_text_is_malformed(phone: Phone) -> None:
    place = "/collection/v1/sessions/4b0c0f1e-2222-4333-8444-555555555555"
    headers = {**phone.headers, "Content-Type": "application/json"}
    answer = phone.client.put(place, content=b"\xff\xfeq", headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (422, "malformed")


@pytest.mark.parametrize("time", [0, 1.5, "0", "1767225600", "2026-01-01T00:00:00"])
def test_a_time_is_written_with_its_offset_and_is_no_number(phone: Phone, time: Any) -> None:
    sent = session(45)
    manifest = sent.manifest()
    manifest["consent"]["at"] = time
    place = f"/collection/v1/sessions/{sent.session_id}"
    answer = phone.client.put(place, json=manifest, headers=phone.headers)
    assert (answer.status_code, answer.json()["problems"][0]["field"]) == (422, "consent.at")


def test_answers_without_a_body_are_described_so(collection: Collection) -> None:
    paths = collection.client.get("/openapi.json").json()["paths"]
    assert "content" not in paths["/collection/v1/blobs/{sha256}"]["head"]["responses"]["200"]


@ON_BOTH
def test_a_code_enrols_one_device(collection: Collection) -> None:
    code = collection.code().lower().replace("-", " ")
    answers = [collection.client.post("/collection/v1/devices", json={"code": code}) for _ in "12"]
    assert [answer.status_code for answer in answers] == [201, 403]


@contextmanager
def signed_in(collection: Collection, role: str) -> Iterator[httpx.Client]:
    who = {"name": uuid4().hex, "password": "a long password"}
    with collection.engine.begin() as connection:
        people.add(connection, who["name"], [role], who["password"], "cli:test")
    with httpx.Client(base_url=collection.client.base_url) as client:
        wrong = who | {"password": "another password"}
        assert client.post("/sign-in", json=wrong).status_code == 401
        assert client.post("/sign-in", json=who).status_code == 204
        yield client


@ON_BOTH
def test_the_overview_is_for_data_managers_and_names_what_is_wrong(collection: Collection) -> None:
    place = "/collection/v1/overview"
    assert collection.client.get(place).status_code == 401
    with signed_in(collection, "clinician") as client:
        assert client.get(place).status_code == 404
    with signed_in(collection, "data_manager") as client:
        before = client.get(place).json()
        phone = collection.device()
        assert phone.send(session(16)).json()["status"] == "accepted"
        phone.send(session(20, form=ANSWERS | {"age": 7, "sex": None}))
        after = client.get(place).json()
        again = client.get(place, params={"as_of": before["as_of"]}).json()
        page = client.get("/overview/")
    assert again == before
    old, new = before["days"][0], after["days"][0]
    assert new["hospital_id"] == "hc"
    added = {name: new[name] - old[name] for name in ("n_came", "n_accepted", "n_refused")}
    assert added == {"n_came": 2, "n_accepted": 1, "n_refused": 1}
    wrong = {(one["field"], one["rule"]) for one in new["wrong"]}
    assert {("age", "range"), ("sex", "required")} <= wrong
    assert "/overview/overview.js" in page.text


@ON_BOTH
def test_every_day_since_the_first_session_has_a_row(collection: Collection) -> None:
    sent = session(21)
    collection.device().send(sent)
    now = datetime.now(UTC)
    with collection.engine.begin() as connection:
        theirs = SESSIONS.c.session_id == str(sent.session_id)
        connection.execute(
            SESSIONS.update().where(theirs).values(received_at=now - timedelta(days=3))
        )
        days = overview.overview(connection, now).days
    n_came = {one.day: one.n_came for one in days}
    assert [*n_came] == [now.date() - timedelta(days=n) for n in range(4)]
    assert [*n_came.values()][1:] == [0, 0, 1]


@ON_BOTH
def test_a_consent_that_was_pending_is_given_once_by_whoever_has_it(
    collection: Collection, phone: Phone
) -> None:
    by_phone, by_manager = session(22, consent="pending"), session(23, consent="pending")
    given = {"version": "1", "scope": "research", "at": datetime.now(UTC).isoformat()}
    for sent in (by_phone, by_manager):
        assert phone.send(sent).json()["consent"] == "pending"
    with signed_in(collection, "data_manager") as client:
        listed = client.get("/collection/v1/overview").json()["pending"]
        assert {one["session_id"] for one in listed} == {
            str(by_phone.session_id),
            str(by_manager.session_id),
        }
        place = f"/collection/v1/consents/{by_manager.session_id}"
        assert [client.post(place, json=given).status_code for _ in "12"] == [204, 204]
    place = f"/collection/v1/sessions/{by_phone.session_id}"
    future = given | {"at": (datetime.now(UTC) + timedelta(days=9)).isoformat()}
    for sent_consent, status in ((future, 422), (given, 200), (given, 200)):
        answer = phone.client.post(f"{place}/consent", json=sent_consent, headers=phone.headers)
        assert answer.status_code == status, answer.text
    assert answer.json()["consent"] == "granted"
    for sent in (by_phone, by_manager):
        assert [row.status for row in rows(collection, CONSENTS, sent)] == ["pending", "granted"]
    phone.client.post(f"{place}/withdraw", headers=phone.headers)
    late = phone.client.post(f"{place}/consent", json=given, headers=phone.headers)
    assert (late.status_code, late.json()["error"]) == (409, "conflict")
    with collection.engine.connect() as connection:
        actions = select(events.EVENTS.c.action, events.EVENTS.c.actor)
        actors = [
            row.actor.partition(":")[0]
            for row in connection.execute(actions)
            if row.action == "consent_granted"
        ]
    assert sorted(actors) == ["device", "person"]


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_that_no_clock_shows_is_refused(
    collection: Collection, phone: Phone, moment: str
) -> None:
    place = f"/collection/v1/sessions/{uuid4()}/consent"
    given = {"version": "1", "scope": "research", "at": moment}
    assert phone.client.post(place, json=given, headers=phone.headers).status_code == 422
    manifest = session(25).manifest() | {"recorded_at": moment}
    place = f"/collection/v1/sessions/{uuid4()}"
    assert phone.client.put(place, json=manifest, headers=phone.headers).status_code == 422
    with signed_in(collection, "data_manager") as client:
        asked = client.get("/collection/v1/overview", params={"as_of": moment})
    assert asked.status_code == 422


@ON_BOTH
def test_a_mended_session_keeps_the_consent_that_came_meanwhile(
    collection: Collection, phone: Phone
) -> None:
    sent = session(24, consent="pending", form=ANSWERS | {"age": 7})
    assert phone.send(sent).json()["status"] == "refused"
    place = f"/collection/v1/sessions/{sent.session_id}"
    given = {"version": "1", "scope": "research", "at": datetime.now(UTC).isoformat()}
    phone.client.post(f"{place}/consent", json=given, headers=phone.headers)
    mended = replace(sent, form=ANSWERS, revision=2)
    assert phone.commit(mended).json()["consent"] == "granted"
    withdrawn = phone.client.post(f"{place}/withdraw", headers=phone.headers).json()
    assert (withdrawn["status"], withdrawn["consent"]) == ("withdrawn", "withdrawn")


def test_no_row_answer_or_log_holds_a_hospital_number(
    collection: Collection, phone: Phone, caplog: pytest.LogCaptureFixture
) -> None:
    marker = "77123499K"
    sent = session(17, form=ANSWERS | {"patient_rgh": marker, "cid10": f"rgh {marker}"})
    with caplog.at_level("DEBUG"):
        answer = phone.send(sent)
    assert answer.json()["status"] == "refused"
    kept = [answer.text, caplog.text, phone.client.get("/openapi.json").text]
    with collection.engine.connect() as connection:
        for table in metadata.sorted_tables:
            kept += [str(row) for row in connection.execute(select(table))]
    assert not [text for text in kept if marker in text or marker[:-1] in text]
    (row,) = rows(collection, REVISIONS, sent)
    assert row.subject_id == pseudonyms.known_as(pseudonyms.key(), "hc", marker)
    assert row.number is None


def test_a_site_that_keeps_numbers_has_them_encrypted(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LINKAGE_KEY, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
    with Collection.at(tmp_path_factory.mktemp("keeps"), keeps_numbers=True) as running:
        sent = session(18)
        running.device().send(sent)
        (row,) = rows(running, REVISIONS, sent)
    assert NUMBER.encode() not in row.number
    assert linkage_key().decrypt(row.number).decode() == NUMBER


@ON_BOTH
def test_each_submission_is_one_event(collection: Collection, phone: Phone) -> None:
    sent = session(19)
    phone.send(sent)
    phone.commit(sent)
    with collection.engine.connect() as connection:
        about = [row.details for row in connection.execute(select(events.EVENTS))]
    mine = [one for one in about if one.get("session_id") == str(sent.session_id)]
    assert len(mine) == 1
