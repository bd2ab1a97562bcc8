"""The queue between the API and the workers: the same sentences for each of its adapters."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from asking import Ward
from databases import BACKENDS, migrated, server
from nats_servers import NatsServer, nats_of_production, nats_server

from spira_services.__main__ import main
from spira_services.database import now, open_engine
from spira_services.serving import queue as queues
from spira_services.serving.jetstream import JetStreamQueue
from spira_services.serving.queue import (
    LEASE_SECONDS,
    DeadLetter,
    Depth,
    Message,
    Queue,
    SqlQueue,
    open_queue,
)
from spira_services.serving.relay import relay_once
from spira_tasks.errors import ConfigError, ServiceUnavailable

Says = Callable[[], object]
SOON = 30.0  # what has to come comes long before
LEASE = 0.4
# Another process: it takes, or it puts ids and names each when it is durable.
OTHER = """
import itertools, json, sys, time
from pathlib import Path
from spira_services.database import open_engine
from spira_services.serving.queue import SqlQueue
kind, act, lease, *where = sys.argv[1:]
if kind == "jetstream":
    from spira_services.serving.jetstream import JetStreamQueue
    queue = JetStreamQueue(where[0], Path(where[1]), float(lease), where[2])
else:
    queue = SqlQueue(open_engine(where[0]), float(lease))
if act == "take":
    print(json.dumps([one.id for one in queue.take(10, 30)]), flush=True)
    time.sleep(600)
for number in itertools.count():
    queue.put([f"id-{number}"])
    print(json.dumps(f"id-{number}"), flush=True)
"""


class Place:
    """Where one queue is: several may open it at the same time."""

    def __init__(self, kind: str, *where: str) -> None:
        self.kind, self.where = kind, where
        self._opened = ExitStack()

    def open(self, lease_seconds: float = LEASE_SECONDS) -> Queue:
        if self.kind == "jetstream":
            address, credentials, name = self.where
            stream = JetStreamQueue(address, Path(credentials), lease_seconds, name)
            self._opened.callback(stream.close)
            return stream
        engine = open_engine(self.where[0])
        self._opened.callback(engine.dispose)
        return SqlQueue(engine, lease_seconds)

    @contextmanager
    def other(
        self, act: str, lease_seconds: float = LEASE_SECONDS
    ) -> Iterator[Callable[[], object]]:
        """Another process that is killed in the end; the next thing that it says."""
        command = [sys.executable, "-c", OTHER, self.kind, act, str(lease_seconds), *self.where]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                yield lambda: json.loads(process.stdout.readline())  # type: ignore[union-attr]
            finally:
                os.kill(process.pid, signal.SIGKILL)

    def close(self) -> None:
        self._opened.close()


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with nats_server(tmp_path_factory.mktemp("nats")) as running:
        yield running


@pytest.fixture(scope="module", params=[*BACKENDS, "jetstream"])
def backend(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    if request.param == "jetstream":
        yield "jetstream", ""
        return
    with server(request.param) as address:
        yield request.param, address


@pytest.fixture
def place(
    backend: tuple[str, str], request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Place]:
    kind, address = backend
    with ExitStack() as stack:
        if kind == "jetstream":
            running: NatsServer = request.getfixturevalue("nats")
            where = [running.address, str(running.credentials), f"test-{uuid4().hex}"]
        else:
            engine = stack.enter_context(migrated(address, tmp_path))
            where = [engine.url.render_as_string(hide_password=False)]
        place = Place(kind, *where)
        stack.callback(place.close)
        yield place


def ids_of(messages: list[Message]) -> list[str]:
    return sorted(one.id for one in messages)


def drained(queue: Queue) -> list[Message]:
    found: list[Message] = []
    while taken := queue.take(100, 0):
        found += taken
    return found


def test_an_id_that_is_put_twice_is_there_once(place: Place) -> None:
    queue = place.open()
    queue.put(["a", "b"])
    queue.put(["b", "c"])
    taken = drained(queue)
    assert ids_of(taken) == ["a", "b", "c"]
    queue.put(["a"])  # leased
    for message in taken:
        queue.done(message)
    queue.put(["a", "b", "c"])  # done lately
    assert drained(queue) == []
    assert queue.depth() == Depth(0, 0, 0, None)


def test_every_message_is_taken_by_one_of_several_workers(place: Place) -> None:
    place.open().put([f"id-{number}" for number in range(60)])
    workers = [place.open() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        taken = [one for found in pool.map(drained, workers) for one in found]
    assert ids_of(taken) == sorted(f"id-{number}" for number in range(60))
    assert {one.n_tries for one in taken} == {1}


def test_a_worker_that_waits_gets_what_comes(place: Place) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(place.open().take, 10, SOON)
        place.open().put(["a"])
        assert ids_of(waiting.result()) == ["a"]


def test_a_lease_that_ends_is_taken_again_and_counts_as_a_try(place: Place) -> None:
    queue, before = place.open(LEASE), time.monotonic()
    queue.put(["a"])
    (first,) = queue.take(1, SOON)
    (second,) = place.open(LEASE).take(1, SOON)
    assert time.monotonic() - before >= LEASE
    assert (first.n_tries, second.n_tries) == (1, 2)
    queue.done(first)  # its work is done, whoever has the lease now
    queue.done(second)
    assert queue.depth() == Depth(0, 0, 0, None)


def test_a_lease_that_is_extended_does_not_end(place: Place) -> None:
    queue, other = place.open(1.2), place.open(1.2)
    queue.put(["kept", "left"])
    kept = next(one for one in queue.take(2, SOON) if one.id == "kept")
    again: list[Message] = []
    while not again:
        queue.extend(kept)
        again = other.take(2, 0.1)
    assert ids_of(again) == ["left"]
    queue.done(kept)
    assert queue.depth().n_leased == 1


def test_a_clock_that_is_set_back_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with migrated("", tmp_path) as engine:
        queue = SqlQueue(engine)
        with monkeypatch.context() as before:
            before.setattr(queues, "now", lambda: now() + timedelta(hours=1))
            queue.put(["taken", "waits"])
            (message,) = queue.take(1, 0)
        assert queue.depth().oldest_seconds == 0
        assert ids_of(drained(queue)) == ["taken", "waits"]
        queue.extend(message)
        assert drained(queue) == []


def test_what_is_given_back_comes_later_and_stops_nobody(place: Place) -> None:
    queue = place.open()
    queue.put(["a"])
    (message,) = queue.take(1, SOON)
    before = time.monotonic()
    queue.later(message, LEASE)
    queue.put(["b"])
    taken: dict[str, tuple[int, float]] = {}
    while len(taken) < 2:
        for one in queue.take(2, SOON):
            taken[one.id] = one.n_tries, time.monotonic() - before
    assert taken["b"][0] == 1
    assert taken["a"][0] == 2
    assert taken["a"][1] >= LEASE


def test_a_buried_message_keeps_its_reason_and_stops_nobody(place: Place) -> None:
    queue = place.open()
    queue.put(["poison", "good"])
    for message in queue.take(2, SOON):
        if message.id == "poison":
            queue.bury(message, "unreadable_audio")
        else:
            queue.done(message)
    queue.put(["poison"])
    assert drained(queue) == []
    (letter,) = place.open().dead()
    assert letter == DeadLetter("poison", "unreadable_audio", 1, letter.at)
    assert queue.depth() == Depth(0, 0, 1, None)


def test_dead_letters_are_replayed_by_name_or_all(place: Place) -> None:
    queue = place.open()
    queue.put(["a", "b", "c"])
    for message in drained(queue):
        queue.bury(message, f"reason_{message.id}")
    assert {one.id: one.reason for one in queue.dead()} == {x: f"reason_{x}" for x in "abc"}
    assert queue.replay(["a", "unknown"]) == 1
    (message,) = queue.take(10, SOON)
    assert (message.id, message.n_tries) == ("a", 1)
    queue.bury(message, "again")
    assert {one.id: one.reason for one in queue.dead()}["a"] == "again"
    assert queue.replay(None) == 3
    assert ids_of(drained(queue)) == ["a", "b", "c"]
    assert queue.dead() == []
    assert queue.replay(None) == 0


def test_a_dead_letter_that_is_discarded_is_gone_and_the_others_are_not(place: Place) -> None:
    queue = place.open()
    queue.put(["a", "b", "c"])
    for message in drained(queue):
        queue.bury(message, "unreadable_audio")
    assert queue.discard(["a", "b", "unknown"]) == 2
    assert queue.discard(["a"]) == 0
    assert [one.id for one in queue.dead()] == ["c"]
    assert queue.replay(["a"]) == 0
    queue.put(["a"])  # done lately
    assert drained(queue) == []


def test_the_depth_says_what_waits_is_in_work_and_is_dead(place: Place) -> None:
    queue = place.open()
    assert queue.depth() == Depth(0, 0, 0, None)
    queue.put(["a", "b", "c", "d", "e"])
    for message in queue.take(2, SOON):
        queue.bury(message, "a_reason")
    queue.take(1, SOON)
    depth = queue.depth()
    assert (depth.n_waiting, depth.n_leased, depth.n_dead) == (2, 1, 2)
    assert depth.oldest_seconds is not None
    time.sleep(0.05)
    assert (queue.depth().oldest_seconds or 0) > depth.oldest_seconds


def test_a_killed_worker_loses_nothing(place: Place) -> None:
    queue = place.open(LEASE)
    queue.put(["a", "b"])
    with place.other("take", LEASE) as says:
        assert says()
    taken: dict[str, int] = {}
    while len(taken) < 2 or max(taken.values()) < 2:
        taken |= {one.id: one.n_tries for one in queue.take(2, SOON)}
    assert set(taken) == {"a", "b"}


def test_whoever_puts_may_be_killed_and_what_was_acknowledged_is_there(place: Place) -> None:
    with place.other("put") as says:
        acknowledged = {says() for _ in range(40)}
    queue = place.open()
    queue.put(["id-0", "id-1"])  # repeated, as the outbox does
    found = ids_of(drained(queue))
    assert acknowledged <= set(found)
    assert len(found) == len(set(found))


def test_a_killed_server_has_what_it_acknowledged_and_is_found_again(tmp_path: Path) -> None:
    acknowledged: list[str] = []
    with nats_server(tmp_path) as running, ThreadPoolExecutor(1) as pool:
        place = Place("jetstream", running.address, str(running.credentials), "kill")
        queue = place.open()

        def put() -> None:
            for number in range(1_000_000):
                queue.put([f"id-{number}"])
                acknowledged.append(f"id-{number}")

        for kill in range(1, 4):
            putting = pool.submit(put)
            while len(acknowledged) < 30 * kill:
                time.sleep(0.001)
            running.kill()
            with pytest.raises(ServiceUnavailable, match="does not answer"):
                putting.result()
            with pytest.raises(ServiceUnavailable, match=r"127\.0\.0\.1"):
                queue.depth()
            running.start()
        found = ids_of(drained(queue))
        place.close()
    assert set(acknowledged) <= set(found)
    assert len(found) == len(set(found))


def test_what_was_taken_before_a_kill_of_the_server_can_be_ended_after_it(tmp_path: Path) -> None:
    """Whether the server remembers that it delivered it or not."""
    with nats_server(tmp_path) as running:
        place = Place("jetstream", running.address, str(running.credentials), "kill")
        queue = place.open(LEASE)
        queue.put(["a", "b", "c", "d"])
        messages = sorted(queue.take(4, SOON), key=lambda one: one.id)
        running.kill()
        running.start()
        queue = place.open(LEASE)
        queue.done(messages[0])
        queue.extend(messages[1])
        queue.later(messages[2], 0)
        queue.bury(messages[3], "a_reason")
        assert [one.id for one in queue.dead()] == ["d"]
        taken: set[str] = set()
        while not taken >= {"b", "c"}:
            taken |= {one.id for one in queue.take(4, SOON)}
        place.close()


def test_a_queue_that_lost_its_disk_is_filled_again_from_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "nats").mkdir()
    with Ward.at("", tmp_path) as ward, nats_server(tmp_path / "nats") as server:
        variables = {"SPIRA_SERVICES_DATABASE": str(ward.engine.url), **server.variables}
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        device = ward.device()
        asked = [ward.ask(device).inference_id for _ in range(2)]
        with closing(open_queue(ward.engine)) as queue:
            assert relay_once(ward.engine, queue) == 2
            server.kill()
            shutil.rmtree(server.folder / "data")
            server.start()
            assert queue.depth().n_waiting == 0
            assert main(["queue", "refill"]) == 0
            assert {one.id for one in queue.take(2, SOON)} == set(asked)
    assert capsys.readouterr().out == "2 wait for an answer, and are on the queue\n"


def test_a_refused_user_is_a_matter_of_configuration_and_no_password_is_shown(
    nats: NatsServer, tmp_path: Path
) -> None:
    (tmp_path / "wrong").write_text("tests:not-the-password")
    with_password = nats.address.replace("//", "//tests:not-the-password@")
    for address, file in ((nats.address, tmp_path / "wrong"), (with_password, None)):
        place = JetStreamQueue(address, file)
        with pytest.raises(ConfigError, match="refuses this user") as error:
            place.depth()
        place.close()
        assert "not-the-password" not in str(error.value)


def test_a_queue_by_tls_is_encrypted_before_the_first_word(
    nats: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert),
        ],
        check=True,
        capture_output=True,
    )
    block = f"tls {{ cert_file: '{cert}', key_file: '{key}', handshake_first: true }}"
    with nats_server(tmp_path, block) as running:
        stranger = JetStreamQueue(running.address, running.credentials)
        with pytest.raises(ServiceUnavailable, match="SSL_CERT_FILE"):
            stranger.put(["a"])
        stranger.close()
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        queue = JetStreamQueue(running.address, running.credentials)
        queue.put(["a"])
        assert ids_of(queue.take(1, SOON)) == ["a"]
        queue.close()
    plain = JetStreamQueue(nats.address.replace("nats:", "tls:"), nats.credentials)
    with pytest.raises(ServiceUnavailable, match="handshake_first"):
        plain.depth()
    plain.close()


def test_in_production_the_api_may_put_and_only_a_worker_may_take(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with nats_of_production(tmp_path) as address:
        api, worker = (
            JetStreamQueue(address, tmp_path / f"run/queue_{user}/credentials")
            for user in ("api", "worker")
        )
        api.put(["a", "b"])
        api.put(["a"])
        assert api.depth().n_waiting == 2
        messages = worker.take(2, SOON)
        acts: list[Callable[[], object]] = [
            lambda: api.take(1, 0),
            lambda: api.bury(messages[0], "a_reason"),
        ]
        for act in acts:
            caplog.clear()
            with pytest.raises(ServiceUnavailable, match="may use the streams"):
                act()
            assert "permissions violation" in caplog.text.lower()
        worker.extend(messages[0])
        worker.bury(messages[0], "a_reason")
        worker.done(messages[1])
        assert [one.id for one in api.dead()] == [messages[0].id]
        assert api.replay(None) == 1
        worker.later(worker.take(1, SOON)[0], 0)
        assert (api.depth().n_leased, api.depth().n_dead) == (1, 0)
        api.close()
        worker.close()


def test_a_variable_says_which_queue_it_is(
    nats: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/services.db")
    monkeypatch.delenv("SPIRA_QUEUE", raising=False)
    assert isinstance(open_queue(engine), SqlQueue)
    monkeypatch.setenv("SPIRA_QUEUE", nats.address)
    monkeypatch.setenv("SPIRA_QUEUE_CREDENTIALS", str(nats.credentials))
    queue = open_queue(engine)
    assert queue.depth().n_dead == 0
    queue.close()
    for wrong in ("redis://host", "nats://", "nats://host:port", "tls://host:0"):
        monkeypatch.setenv("SPIRA_QUEUE", wrong)
        with pytest.raises(ConfigError, match="SPIRA_QUEUE"):
            open_queue(engine)
    monkeypatch.setenv("SPIRA_QUEUE", nats.address)
    monkeypatch.setenv("SPIRA_QUEUE_CREDENTIALS", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="cannot be read"):
        open_queue(engine)
    engine.dispose()
