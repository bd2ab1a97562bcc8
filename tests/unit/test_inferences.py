"""What is asked is stored once and whole, and its state follows from what was written of it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from asking import RECORDED_AT, Ward, request
from databases import BACKENDS, HAS_POSTGRES, server
from sqlalchemy import delete, select, text, update

from spira_services import forgetting
from spira_services.database import now
from spira_services.events import EVENTS
from spira_services.serving import inferences
from spira_services.serving import relay as relays
from spira_services.serving.inferences import Asked, Backlog, Inference, Inferences
from spira_services.serving.port import Message
from spira_services.serving.queue import QUEUE, SqlQueue
from spira_services.serving.relay import Relay, relay_once
from spira_services.serving.tables import ACTIONS, INFERENCES, OUTBOX, PREDICTIONS
from spira_services.subjects import subject_of
from spira_services.trace import trace
from spira_services.uploads import BLOBS
from spira_services.web import Refused
from spira_tasks.errors import ServiceUnavailable
from spira_tasks.intake.pseudonyms import tombstone_tag

NUMBER = "55321987B"
ON_BOTH = pytest.mark.parametrize("ward", BACKENDS, indirect=True)


@pytest.fixture(scope="module")
def ward(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ward]:
    with (
        server(getattr(request, "param", "sqlite")) as address,
        Ward.at(address, tmp_path_factory.mktemp("ward")) as ward,
    ):
        yield ward


def seen(ward: Ward, asked: Asked) -> Inference:
    with ward.engine.connect() as connection:
        found = inferences.state(connection, asked.inference_id)
    assert found is not None
    return found


def row(ward: Ward, asked: Asked) -> Any:
    of_it = INFERENCES.c.inference_id == asked.inference_id
    with ward.engine.connect() as connection:
        return connection.execute(select(INFERENCES).where(of_it)).one()


def code(refused: pytest.ExceptionInfo[Refused]) -> tuple[int, str]:
    return refused.value.status, refused.value.body["error"]


@ON_BOTH
def test_what_is_asked_is_stored_with_what_puts_it_on_the_queue_and_who_asked(ward: Ward) -> None:
    device = ward.device()
    asked = ward.ask(device, patient_rgh=NUMBER, agreed={"labels": True, "version": "1"})
    assert asked.is_new
    stored = row(ward, asked)
    assert (stored.device_id, stored.hospital_id) == (device.device_id, device.hospital_id)
    assert stored.agreed == {"labels": True, "ab": False, "version": "1"}
    assert len(stored.subject_id) == 64
    assert NUMBER not in str(stored)
    of_it = OUTBOX.c.inference_id == asked.inference_id
    assert ward.count(OUTBOX, of_it, OUTBOX.c.sent_at.is_(None)) == 1
    with ward.engine.connect() as connection:  # an event would stay when the inference goes
        said = connection.execute(select(EVENTS.c.details)).scalars().all()
    assert asked.inference_id not in str(said)
    assert seen(ward, asked).state == "queued"


@ON_BOTH
def test_the_same_request_again_is_the_same_inference_also_at_the_same_time(ward: Ward) -> None:
    device, key = ward.device(), uuid4()
    sent = request(sha256=ward.upload(device))
    with ThreadPoolExecutor(4) as pool:
        every = [*pool.map(lambda _: ward.inferences.ask(device, key, sent), range(8))]
    assert len({one.inference_id for one in every}) == 1
    assert sum(one.is_new for one in every) == 1
    assert ward.count(INFERENCES, INFERENCES.c.device_id == device.device_id) == 1


def test_another_content_under_the_same_key_is_refused(ward: Ward) -> None:
    device, key = ward.device(), uuid4()
    asked = ward.ask(device, key)
    with pytest.raises(Refused) as refused:
        ward.ask(device, key)
    assert code(refused) == (409, "conflict")
    other = ward.device()
    assert ward.ask(other, key).inference_id != asked.inference_id  # a key is of its device


def test_audio_that_the_device_has_not_sent_is_asked_for(ward: Ward) -> None:
    sha256 = ward.upload(ward.device())
    with pytest.raises(Refused) as refused:
        ward.ask(ward.device(), sha256=sha256)
    assert code(refused) == (409, "missing_blobs")
    assert refused.value.body["missing"] == [sha256]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"patient_rgh": "N/A"}, ("patient_rgh", "format")),
        ({"recorded_at": (now() + timedelta(days=2)).isoformat()}, ("recorded_at", "future")),
    ],
)
def test_what_cannot_be_is_named_by_its_field(
    ward: Ward, fields: dict[str, Any], problem: tuple[str, str]
) -> None:
    with pytest.raises(Refused) as refused:
        ward.ask(ward.device(), **fields)
    assert code(refused) == (422, "malformed")
    (named,) = refused.value.body["problems"]
    assert (named["field"], named["rule"]) == problem


@ON_BOTH
def test_the_state_is_deleted_before_answered_before_failed_before_queued(ward: Ward) -> None:
    device = ward.device()
    asked = ward.ask(device)
    assert seen(ward, asked).meaning == ["queued"]
    ward.fail(asked.inference_id, "poison")
    assert (seen(ward, asked).state, seen(ward, asked).reason) == ("failed", "poison")
    ward.answer(asked.inference_id, version="2", shown=False, arm="shadow")
    assert seen(ward, asked).state == "failed"  # the shadow's answer is nobody's
    ward.answer(asked.inference_id)
    answered = seen(ward, asked)
    other = ward.ask(device)
    ward.answer(other.inference_id, synthetic=True)
    synthetic = seen(ward, other)
    assert (answered.state, answered.probability, answered.version) == ("answered", 0.81, "3")
    assert answered.meaning == ["positive", "unusual", "not_a_diagnosis"]
    assert answered.reason is None
    assert "synthetic_cohort" in synthetic.meaning
    ward.delete(device, asked.inference_id)
    gone = seen(ward, asked)
    assert (gone.state, gone.probability, gone.version) == ("deleted", None, None)


def test_a_recording_that_the_model_refuses_has_no_decision_to_show(ward: Ward) -> None:
    asked = ward.ask(ward.device())
    refused = {"probability": None, "decision": None, "record_again": ["clipping_fraction_high"]}
    ward.answer(asked.inference_id, **refused, window_scores=[])
    answered = seen(ward, asked)
    assert (answered.meaning, answered.decision) == (["record_again"], None)


@ON_BOTH
def test_too_many_that_wait_are_refused_and_nothing_of_them_is_stored(ward: Ward) -> None:
    device, other = ward.device(), ward.device()
    backlog = Backlog(ward.engine, most_of_device=2, every_seconds=0)
    limited = Inferences(ward.engine, ward.blobs, backlog)
    sent = [(uuid4(), request(sha256=ward.upload(device))) for _ in range(3)]
    answers = limited.ask_each(device, sent)
    assert [isinstance(one, Asked) for one in answers] == [True, True, False]
    assert ward.count(INFERENCES, INFERENCES.c.device_id == device.device_id) == 2
    first = answers[0]
    assert isinstance(first, Asked)
    assert limited.ask(device, *sent[0]) == Asked(first.inference_id, is_new=False)
    limited.ask(other, uuid4(), request(sha256=ward.upload(other)))
    with pytest.raises(Refused) as refused:
        limited.ask(device, *sent[2])
    assert code(refused) == (429, "too_many_waiting")
    ward.answer(first.inference_id)
    assert limited.ask(device, *sent[2]).is_new


def test_what_a_process_takes_counts_before_it_counts_all(ward: Ward) -> None:
    device = ward.device()
    backlog = Backlog(ward.engine, most_of_device=2, every_seconds=3600)
    limited = Inferences(ward.engine, ward.blobs, backlog)
    for _ in range(2):
        limited.ask(device, uuid4(), request(sha256=ward.upload(device)))
    with pytest.raises(Refused):
        limited.ask(device, uuid4(), request(sha256=ward.upload(device)))
    with pytest.raises(Refused):
        limited.check_room(device, uuid4())


def test_an_old_one_that_waits_is_counted_when_newer_ones_are_answered(ward: Ward) -> None:
    device = ward.device()
    backlog = Backlog(ward.engine, most_of_device=1, every_seconds=0)
    asked = ward.ask(device)
    with ward.engine.begin() as connection:
        of_it = INFERENCES.c.inference_id == asked.inference_id
        connection.execute(update(INFERENCES).where(of_it).values(received_at=RECORDED_AT))
    for _ in range(2):
        ward.answer(ward.ask(device).inference_id)
        assert backlog.room(device.device_id) == 0


def test_what_waits_is_counted_also_after_the_clock_was_set_back(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = ward.device()
    backlog = Backlog(ward.engine, most_of_device=1, every_seconds=0)
    assert backlog.room(device.device_id) == 1
    monkeypatch.setattr(inferences, "now", lambda: now() - timedelta(hours=1))
    ward.ask(device)
    assert backlog.room(device.device_id) == 0


def test_deleting_takes_the_audio_away_unless_another_inference_needs_it(ward: Ward) -> None:
    device = ward.device()
    sha256 = ward.upload(device)
    first, second = (
        ward.ask(device, sha256=sha256, patient_rgh=NUMBER),
        ward.ask(device, sha256=sha256),
    )
    ward.answer(first.inference_id)
    ward.delete(device, first.inference_id)
    assert ward.blobs.exists(f"sha256:{sha256}")
    left = row(ward, first)
    assert (left.subject_id, left.sha256, left.digest) == (None, None, None)
    assert ward.count(PREDICTIONS, PREDICTIONS.c.inference_id == first.inference_id) == 1
    for _ in range(2):  # again changes nothing
        ward.delete(device, second.inference_id)
    assert not ward.blobs.exists(f"sha256:{sha256}")
    assert ward.count(BLOBS, BLOBS.c.sha256 == sha256) == 0


def test_another_device_may_neither_delete_nor_act(ward: Ward) -> None:
    asked, other = ward.ask(ward.device()), ward.device()
    with pytest.raises(Refused) as refused:
        ward.delete(other, asked.inference_id)
    assert code(refused) == (404, "not_there")
    with ward.engine.begin() as connection, pytest.raises(Refused):
        inferences.note_action(connection, other.device_id, asked.inference_id, "seen")


def test_an_action_is_noted_once(ward: Ward) -> None:
    device = ward.device()
    asked = ward.ask(device)
    with ward.engine.begin() as connection:
        for _ in range(2):
            inferences.note_action(connection, device.device_id, asked.inference_id, "seen")
    assert ward.count(ACTIONS, ACTIONS.c.inference_id == asked.inference_id) == 1


def test_the_list_of_a_device_is_paged_from_the_newest(ward: Ward) -> None:
    device, other = ward.device(), ward.device()
    every = [ward.ask(device).inference_id for _ in range(5)]
    with ward.engine.connect() as connection:
        page = inferences.of_device(connection, device.device_id, 3)
        rest = inferences.of_device(connection, device.device_id, 3, page[-1].inference_id)
        listed = [one.inference_id for one in page + rest]
        assert listed == every[::-1]
        with pytest.raises(Refused):
            inferences.of_device(connection, other.device_id, 3, every[0])


def test_the_versions_are_those_that_answered(ward: Ward) -> None:
    device = ward.device()
    for version, shown in (("7", True), ("8", True), ("9", False)):
        ward.answer(ward.ask(device).inference_id, version=version, shown=shown)
    with ward.engine.connect() as connection:
        versions = [one.version for one in inferences.answering(connection)]
    assert versions[:2] == ["8", "7"]
    assert "9" not in versions


def test_a_trace_leads_from_a_person_to_what_was_asked_and_which_version_answered(
    ward: Ward, tmp_path: Any
) -> None:
    asked = ward.ask(ward.device(), patient_rgh="77321987D")
    ward.answer(asked.inference_id)
    with ward.engine.connect() as connection:
        stored = connection.execute(
            select(INFERENCES).where(INFERENCES.c.inference_id == asked.inference_id)
        ).one()
        for name in (stored.subject_id, asked.inference_id):
            (found,) = trace(connection, name, str(tmp_path))
            assert found["sha256"] == stored.sha256
            assert [one["version"] for one in found["predictions"]] == ["3"]


@ON_BOTH
def test_an_erased_person_leaves_no_audio_and_no_pseudonym_and_is_taken_no_more(
    ward: Ward, tmp_path: Any
) -> None:
    device = ward.device()
    asked = ward.ask(device, patient_rgh="66321987C")
    stored = row(ward, asked)
    ward.answer(asked.inference_id)
    tag, snapshots = tombstone_tag(stored.subject_id), str(tmp_path)
    assert (
        forgetting.forget(ward.engine, ward.blobs, snapshots, tag, "cli:test")["n_inferences"] == 1
    )
    assert not ward.blobs.exists(f"sha256:{stored.sha256}")
    left = row(ward, asked)
    assert (left.subject_id, left.sha256, left.digest) == (None, None, None)
    again = forgetting.forget(ward.engine, ward.blobs, snapshots, tag, "cli:test")
    assert again["n_inferences"] == 0
    sha256 = ward.upload(device)
    with pytest.raises(Refused) as refused:
        ward.ask(device, sha256=sha256, patient_rgh="66321987C")
    assert code(refused) == (410, "erased")
    assert not ward.blobs.exists(f"sha256:{sha256}")


@pytest.mark.skipif(not HAS_POSTGRES, reason="SQLite has one writer")
@pytest.mark.parametrize("ward", ["postgresql"], indirect=True)
def test_who_is_erased_while_a_request_is_stored_leaves_nothing_of_it(
    ward: Ward, tmp_path: Any
) -> None:
    device, number = ward.device(), "88321987E"
    subject = subject_of(device.hospital_id, number)
    assert subject is not None
    sent = request(sha256=ward.upload(device), patient_rgh=number)
    waits = text("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    with ThreadPoolExecutor(1) as pool:
        with ward.engine.begin() as connection:
            asked = ward.inferences._stored(connection, device, "a", sent, True)
            tag = tombstone_tag(subject)
            erasing = pool.submit(
                forgetting.forget, ward.engine, ward.blobs, str(tmp_path), tag, "cli:test"
            )
            while not erasing.done() and connection.execute(waits).first() is None:
                pass
        assert erasing.result()["n_inferences"] == 1
    assert row(ward, asked).subject_id is None


def drained(queue: SqlQueue) -> list[Message]:
    found = queue.take(1000, 0)
    for message in found:
        queue.done(message)
    return found


@ON_BOTH
def test_what_is_stored_reaches_the_queue_once_also_after_a_kill_between_the_two(
    ward: Ward,
) -> None:
    queue, device = SqlQueue(ward.engine), ward.device()
    relay_once(ward.engine, queue)
    drained(queue)
    ids = [ward.ask(device).inference_id for _ in range(3)]
    assert relay_once(ward.engine, queue) == 3
    with ward.engine.begin() as connection:  # as if it were killed before it noted that
        connection.execute(
            update(OUTBOX).where(OUTBOX.c.inference_id == ids[0]).values(sent_at=None)
        )
    assert relay_once(ward.engine, queue) == 1
    assert sorted(one.id for one in drained(queue)) == sorted(ids)
    assert relay_once(ward.engine, queue) == 0


@ON_BOTH
def test_the_relay_puts_again_what_a_queue_has_lost_page_by_page(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relays, "AT_ONCE", 2)
    monkeypatch.setattr(relays, "REFILL_SECONDS", 0.1)
    monkeypatch.setattr(relays, "EVERY_SECONDS", 0.1)
    queue, device = SqlQueue(ward.engine), ward.device()
    ids = {ward.ask(device).inference_id for _ in range(5)}
    answered = ward.ask(device).inference_id
    while relay_once(ward.engine, queue):
        pass
    ward.answer(answered)

    def lose() -> None:
        with ward.engine.begin() as connection:
            connection.execute(delete(QUEUE))

    lose()
    with Relay(ward.engine, queue):
        for _ in range(2):  # at its start, and later
            back: set[str] = set()
            while not ids <= back:
                taken = queue.take(10, 30)
                assert taken, "it was not put again"
                back |= {message.id for message in taken}
            assert answered not in back
            lose()


class Away(SqlQueue):
    """A queue that does not answer at first."""

    n_tries = 0
    error: Exception

    def put(self, ids: Any) -> None:
        self.n_tries += 1
        if self.n_tries <= 2:
            raise self.error
        super().put(ids)


@pytest.mark.parametrize(
    ("error", "n_logged"), [(ServiceUnavailable("it does not answer"), 1), (ValueError("a bug"), 2)]
)
def test_a_queue_that_was_away_gets_what_was_stored_meanwhile(
    ward: Ward, caplog: pytest.LogCaptureFixture, error: Exception, n_logged: int
) -> None:
    relay_once(ward.engine, SqlQueue(ward.engine))
    drained(SqlQueue(ward.engine))
    queue = Away(ward.engine)
    queue.error = error
    asked = ward.ask(ward.device())
    with Relay(ward.engine, queue) as relay:
        while queue.n_tries < 3:
            relay.wake()
        (message,) = queue.take(1, 30)
    assert message.id == asked.inference_id
    assert caplog.text.count("what is stored") == n_logged
