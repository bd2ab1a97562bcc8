"""Uploads through cuts and kills, and a burst: nothing lost, nothing twice, little sent again.

python benchmarks/uploads.py [--sessions 250] [--burst 200]

A server of its own is killed by SIGKILL again and again while sessions of four files are sent, each
file cut at a random byte.  What is stored in the end is compared with what was sent.  Then a burst
of whole sessions, with the server's largest resident memory.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import psutil
from sqlalchemy import select

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from collecting import Phone, Session, noise, sha  # noqa: E402

from spira_services import devices, people  # noqa: E402
from spira_services.collection.documents import RECORDINGS, REVISIONS  # noqa: E402
from spira_services.database import migrate, open_engine  # noqa: E402

TASKS = ("AMBIENT", "VOWEL", "RHYME", "SENTENCE")
PIECE_BYTES = 1 << 16  # that a phone sends at once
SEND_SECONDS = 600.0


@dataclass
class Server:
    """A server in a process of its own, on a folder, at one address."""

    folder: Path
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    n_kills: int = 0
    n_cuts: int = 0
    n_bytes_sent: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def database(self) -> str:
        return f"sqlite:///{self.folder}/services.db"

    def start(self) -> None:
        environment = os.environ | {
            "SPIRA_SERVICES_FOLDER": str(self.folder),
            "SPIRA_SERVICES_DATABASE": self.database,
            "SPIRA_COLLECTION_AUDIO": str(self.folder / "audio"),
        }
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "spira_services", "serve", "--port", str(self.port)],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=log,
            )
        while True:
            try:
                httpx.get(f"{self.url}/openapi.json")
                return
            except httpx.TransportError:
                time.sleep(0.05)

    def kill(self, signum: int = signal.SIGKILL) -> None:
        assert self.process is not None
        self.process.send_signal(signum)
        self.process.wait()


@contextmanager
def killed_now_and_then(server: Server, seed: int) -> Iterator[None]:
    """Kill the server and start it again, each time after a random number of cuts."""
    over, generator = threading.Event(), np.random.default_rng(seed)

    def kill() -> None:
        after = generator.integers(4, 40)
        while not over.wait(0.005):
            if server.n_cuts >= after:
                server.kill()
                server.n_kills += 1
                server.start()
                after = server.n_cuts + generator.integers(4, 40)

    thread = threading.Thread(target=kill)
    thread.start()
    yield
    over.set()
    thread.join()


def device(server: Server) -> str:
    engine = open_engine(server.database)
    with engine.begin() as connection:
        devices.add_site(connection, "hc", "Hospital", "cli:benchmark")
        person = people.add(connection, os.urandom(8).hex(), ["collector"], None, "cli:benchmark")
        code = devices.new_code(connection, "hc", person, "cli:benchmark")
        found = devices.enrol(connection, code, "benchmark", "")
    engine.dispose()
    assert found is not None
    return found[1]


def sessions(n: int, seed: int) -> list[Session]:
    generator = np.random.default_rng(seed)
    return [Session({task: noise(generator, 3.2) for task in TASKS}) for _ in range(n)]


def send(server: Server, key: str, session: Session, seed: int, *, cuts: bool) -> None:
    """Send a session as a phone does: ask for the offset, go on there, commit; try again."""
    generator = np.random.default_rng(seed)
    until = time.monotonic() + SEND_SECONDS
    cut = {task: cuts for task in session.takes}
    while time.monotonic() < until:
        try:
            with httpx.Client(base_url=server.url, timeout=30) as client:
                phone = Phone(client, key)
                for task, content in session.takes.items():
                    offset, complete = phone.head(sha(content))
                    while complete == "?0":
                        n_bytes = min(PIECE_BYTES, len(content) - offset)
                        if cut[task]:  # once a file, at a random byte
                            cut[task] = False
                            n_bytes = int(generator.integers(0, n_bytes + 1))
                            with server.lock:
                                server.n_cuts += 1
                            half_sent(server, key, content, offset, n_bytes)
                        else:
                            phone.put(content, offset, n_bytes)
                        with server.lock:
                            server.n_bytes_sent += n_bytes
                        offset, complete = phone.head(sha(content))
                answer = phone.commit(session)
                if answer.status_code in (200, 201):
                    assert answer.json()["status"] == "accepted", answer.text
                    return
        except (httpx.TransportError, AssertionError, OSError):
            time.sleep(float(generator.uniform(0.05, 0.5)))
    raise TimeoutError("a session was not sent")


def half_sent(server: Server, key: str, content: bytes, offset: int, n_bytes: int) -> None:
    """Promise the rest of a file, send some bytes of it, and hang up."""
    head = (
        f"PUT /collection/v1/blobs/{sha(content)} HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {key}\r\nUpload-Offset: {offset}\r\n"
        f"Upload-Length: {len(content)}\r\nContent-Length: {len(content) - offset}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(head.encode() + content[offset : offset + n_bytes])


def compare(server: Server, sent: list[Session]) -> str:
    """What is stored against what was sent; raises AssertionError where they differ."""
    engine = open_engine(server.database)
    with engine.connect() as connection:
        accepted = [*connection.execute(select(REVISIONS.c.session_id, REVISIONS.c.status))]
        stored = {
            (row.session_id, row.task): row.sha256 for row in connection.execute(select(RECORDINGS))
        }
        n_rows = len([*connection.execute(select(RECORDINGS.c.record_id))])
    engine.dispose()
    wanted = {
        (str(one.session_id), task): sha(content)
        for one in sent
        for task, content in one.takes.items()
    }
    n_lost = len(wanted.keys() - stored.keys())
    n_other = sum(stored.get(key) != digest for key, digest in wanted.items())
    n_twice = len(accepted) - len({row.session_id for row in accepted})
    assert (n_lost, n_other, n_twice, n_rows) == (0, 0, 0, len(wanted))
    return f"{n_lost} lost, {n_twice} twice, {n_other} files of another session"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, default=250, help="through kills; each four files")
    parser.add_argument("--burst", type=int, default=200, help="sessions at once, without kills")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder))
        migrate(open_engine(server.database))
        key = device(server)
        server.start()
        sent = sessions(arguments.sessions, arguments.seed)
        n_bytes = sum(len(content) for one in sent for content in one.takes.values())
        with killed_now_and_then(server, arguments.seed), ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda n: send(server, key, sent[n], n, cuts=True), range(len(sent))))
        print(f"{server.n_cuts} cuts, {server.n_kills} kills: {compare(server, sent)}")
        # A cut or a kill may cost the piece that was on its way, of each of the four senders.
        n_on_the_way = (server.n_cuts + 4 * server.n_kills) * PIECE_BYTES
        again = max(0, server.n_bytes_sent - n_bytes - n_on_the_way)
        print(f"{100 * again / n_bytes:.2f} % of the bytes were sent again, besides one piece each")

        burst = sessions(arguments.burst, arguments.seed + 1)
        begun = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda one: send(server, key, one, 0, cuts=False), burst))
        took = time.monotonic() - begun
        assert server.process is not None
        memory = psutil.Process(server.process.pid).memory_full_info()
        with Path(f"/proc/{server.process.pid}/status").open() as status:
            peak = next(line.split()[1] for line in status if line.startswith("VmHWM"))
        print(f"burst of {len(burst)} sessions: {took:.1f} s, {compare(server, sent + burst)}")
        print(f"server: {memory.rss >> 20} MiB resident, {int(peak) >> 10} MiB at most")
        server.kill(signal.SIGTERM)


if __name__ == "__main__":
    main()
