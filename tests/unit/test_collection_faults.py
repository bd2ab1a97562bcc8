"""A disk that is full and a store that is away: the device tries again, and nothing is lost."""

from __future__ import annotations

import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from collecting import Collection, Phone, Session, served, session, sha
from databases import HAS_POSTGRES, postgres
from sqlalchemy import create_engine, select, text
from sqlalchemy.exc import OperationalError

from benchmarks.uploads import Server, device
from spira_services import database
from spira_services.collection.documents import RECORDINGS, REVISIONS
from spira_services.database import migrate, open_engine
from spira_services.serving.queue import SqlQueue
from spira_services.web import create_app
from spira_tasks.errors import ServiceUnavailable


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server in a process of its own, so that limits are its own too."""
    started = Server(tmp_path_factory.mktemp("server"))
    engine = open_engine(started.database)
    migrate(engine)
    engine.dispose()
    started.start()
    yield started
    started.kill()


@pytest.fixture
def phone(server: Server) -> Iterator[Phone]:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield Phone(client, device(server))


@contextmanager
def no_room(server: Server, n_bytes: int) -> Iterator[None]:
    """The server can write no file beyond so many bytes."""
    assert server.process is not None
    _, most = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (n_bytes, most))
    try:
        yield
    finally:
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (most, most))


def stored_once(server: Server, sent: Session) -> bool:
    """Whether a session is there, whole and once."""
    engine = open_engine(server.database)
    with engine.connect() as connection:
        mine = RECORDINGS.c.session_id == str(sent.session_id)
        takes = {row.task: row.sha256 for row in connection.execute(select(RECORDINGS).where(mine))}
        there = select(REVISIONS.c.status).where(REVISIONS.c.session_id == str(sent.session_id))
        statuses = [*connection.execute(there).scalars()]
    engine.dispose()
    wanted = {task: sha(content) for task, content in sent.takes.items()}
    return (statuses, takes) == (["accepted"], wanted)


def test_on_a_full_disk_what_has_come_stays_and_the_file_goes_on_there(
    server: Server, phone: Phone
) -> None:
    sent = session(40)
    content = sent.takes["VOWEL"]
    assert phone.put(content, n_bytes=50_000).json()["offset"] == 50_000
    with no_room(server, 60_000):
        refused = phone.put(content, offset=50_000)
        assert (refused.status_code, refused.json()["error"]) == (507, "disk_full")
    offset, complete = phone.head(sha(content))
    assert (50_000 <= offset <= 60_000, complete) == (True, "?0")
    assert phone.put(content, offset=offset).json()["complete"] is True
    assert phone.send(sent).status_code == 201
    assert stored_once(server, sent)


def test_a_server_of_a_database_that_is_silent_is_waited_for_so_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(database, "CONNECT_SECONDS", 2)  # the least that there is
    with socket.create_server(("127.0.0.1", 0)) as silent:
        closing = threading.Timer(60, silent.close)  # else the test would not end
        closing.start()
        engine = open_engine(f"postgresql+psycopg2://x@127.0.0.1:{silent.getsockname()[1]}/x")
        with pytest.raises(OperationalError, match="timeout expired"):
            engine.connect()
        closing.cancel()


@pytest.mark.skipif(not HAS_POSTGRES, reason="Postgres is not installed")
def test_a_statement_of_postgres_that_does_not_end_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(database, "STATEMENT_SECONDS", 1)
    with postgres() as address:
        engine = open_engine(address)
        migrate(engine)
        with pytest.raises(OperationalError, match="statement timeout"), engine.begin() as one:
            one.execute(text("SELECT pg_sleep(60)"))
        engine.dispose()


def test_a_database_whose_connections_all_wait_is_one_that_is_away(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path}/services.db"
    migrate(first := open_engine(address))
    first.dispose()
    engine = create_engine(address, pool_size=1, max_overflow=0, pool_timeout=0.01)
    app = create_app("SPIRA", engine)
    with served(app) as url, engine.connect():
        refused = httpx.get(f"{url}/health")
        assert (refused.status_code, refused.json()["error"]) == (503, "try_again")
        with pytest.raises(ServiceUnavailable):
            SqlQueue(engine).depth()
    engine.dispose()


def test_a_store_without_room_takes_the_file_later(server: Server, phone: Phone) -> None:
    sent = session(41)
    content = sent.takes["VOWEL"]
    whole = server.folder / "unfinished" / phone.key.partition(".")[0] / sha(content)
    whole.parent.mkdir(parents=True, exist_ok=True)
    whole.write_bytes(content)  # as a kill leaves it, before the store has it
    with no_room(server, 60_000):
        assert phone.put(content, offset=len(content)).status_code == 503
    assert whole.exists()
    assert phone.put(content, offset=len(content)).json()["complete"] is True
    assert phone.send(sent).status_code == 201
    assert stored_once(server, sent)


def test_a_database_without_room_commits_a_session_later_and_once(
    server: Server, phone: Phone
) -> None:
    sent = session(42)
    for content in sent.takes.values():
        phone.put(content)
    with no_room(server, 4096):
        refused = phone.commit(sent)
        assert (refused.status_code, refused.json()["error"]) == (503, "try_again")
    assert not stored_once(server, sent)
    assert [phone.commit(sent).status_code for _ in "12"] == [201, 200]
    assert stored_once(server, sent)


def test_a_store_that_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    with Collection.at(tmp_path) as running:
        phone, sent = running.device(), session(43)
        place = tmp_path / "audio" / "tmp"
        place.parent.mkdir()
        place.write_bytes(b"")  # the folder is none
        assert phone.put(sent.takes["VOWEL"]).status_code == 503
        place.unlink()
        content = sent.takes["VOWEL"]
        assert phone.head(sha(content)) == (len(content), "?0")
        assert phone.put(content, offset=len(content)).json()["complete"] is True
        assert phone.send(sent).status_code == 201


def test_a_store_whose_disk_is_taken_away_is_tried_again(tmp_path: Path) -> None:
    with Collection.at(tmp_path) as running:
        phone, first, second = running.device(), session(46), session(47)
        assert phone.put(first.takes["VOWEL"]).status_code == 200
        kept = (tmp_path / "audio").rename(tmp_path / "unplugged")
        refused = phone.put(second.takes["VOWEL"])
        assert (refused.status_code, refused.json()["error"]) == (503, "try_again")
        assert not (tmp_path / "audio").exists()  # what is written there, the disk would hide
        kept.rename(tmp_path / "audio")
        content = second.takes["VOWEL"]
        assert phone.put(content, offset=len(content)).json()["complete"] is True


def test_a_manifest_whose_audio_the_store_has_lost_asks_for_it_again(tmp_path: Path) -> None:
    with Collection.at(tmp_path) as running:
        phone, sent = running.device(), session(44)
        for content in sent.takes.values():
            phone.put(content)
        lost, damaged = sha(sent.takes["VOWEL"]), sha(sent.takes["SENTENCE"])
        (tmp_path / "audio/blobs" / lost[:2] / lost).unlink()
        file = tmp_path / "audio/blobs" / damaged[:2] / damaged
        file.chmod(0o600)
        file.write_bytes(sent.takes["SENTENCE"][:-1] + b"?")
        for sha256 in (lost, damaged):
            answer = phone.commit(sent)
            assert (answer.status_code, answer.json()["missing"]) == (409, [sha256])
            assert phone.head(sha256) == (0, "?0")
            phone.put(next(one for one in sent.takes.values() if sha(one) == sha256))
        assert phone.commit(sent).status_code == 201


def test_what_is_asked_on_a_full_disk_is_stored_once_when_there_is_room(
    server: Server, phone: Phone
) -> None:
    content, key = session(45).takes["SENTENCE"], str(uuid4())
    with no_room(server, 60_000):
        refused = phone.ask(content, key)
        assert (refused.status_code, refused.json()["error"]) == (507, "disk_full")
        assert phone.get("inferences").json()["inferences"] == []
    taken = phone.ask(content, key)
    assert taken.status_code == 202, taken.text
    (listed,) = phone.get("inferences").json()["inferences"]
    assert listed["inference_id"] == taken.json()["inference_id"]
