"""Both queues: acknowledged puts a second, and what is lost or done twice through kills.

python benchmarks/queues.py [--kills 12] [--pairs 4] [--seconds 1]

The speeds come in pairs, one adapter right after the other, and so do their ratios.  Then the
putter, the worker and, where there is one, the server are killed by SIGKILL in turn, and started
again.  Each notes in a file what was acknowledged, or done, as the API and the worker do.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from nats_servers import NatsServer  # noqa: E402
from s3_servers import ENDS_WITH_US  # noqa: E402

from spira_services.database import migrate, open_engine  # noqa: E402
from spira_services.serving.jetstream import JetStreamQueue  # noqa: E402
from spira_services.serving.queue import Queue, SqlQueue  # noqa: E402
from spira_tasks.errors import ServiceUnavailable  # noqa: E402

LEASE_SECONDS = 1.0
BATCHES = (1, 32)  # ids that are put at once
N_AHEAD = 500  # the putter waits while so many do
Answer = TypeVar("Answer")


@dataclass
class Place:
    """Where a queue is, and the processes that put and work."""

    folder: Path
    server: NatsServer | None = None  # none: SQLite
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def open(self, address: str = "") -> Queue:
        address = self.server.address if self.server else address
        if address:
            return JetStreamQueue(address, self.folder / "credentials", LEASE_SECONDS)
        return SqlQueue(open_engine(f"sqlite:///{self.folder}/services.db"), LEASE_SECONDS)

    def start(self, role: str) -> None:
        if role == "server" and self.server:
            self.server.start()
            return
        address = self.server.address if self.server else ""
        command = [sys.executable, __file__, "--role", role, str(self.folder), address]
        self.processes[role] = subprocess.Popen([*ENDS_WITH_US, *command])

    def kill(self, role: str) -> None:
        if role == "server" and self.server:
            self.server.kill()
            return
        self.processes[role].kill()
        self.processes[role].wait()

    def noted(self, role: str) -> Counter[str]:
        file = self.folder / role
        return Counter(file.read_text().splitlines()) if file.exists() else Counter()


@contextmanager
def places() -> Iterator[dict[str, Place]]:
    """A new queue of each kind."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        sqlite = Place(Path(one))
        migrate(open_engine(f"sqlite:///{one}/services.db"))
        jetstream = Place(Path(other), NatsServer(Path(other)))
        jetstream.start("server")
        try:
            yield {"SQLite": sqlite, "JetStream": jetstream}
        finally:
            jetstream.kill("server")


def speed(queue: Queue, batch: int, seconds: float, name: str) -> float:
    """Acknowledged ids a second."""
    begun, n = time.perf_counter(), 0
    while (took := time.perf_counter() - begun) < seconds:
        queue.put([f"{name}-{number}" for number in range(n, n + batch)])
        n += batch
    return n / took


def act(role: str, queue: Queue, file: Path) -> None:
    """Put or work for ever, and note each id when it is acknowledged or done."""
    notes = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for number in itertools.count():
        if role == "worker":
            for message in until_it_answers(partial(queue.take, 4, 1)):
                os.write(notes, f"{message.id}\n".encode())  # the result is stored, then
                until_it_answers(partial(queue.done, message))
            continue
        one = f"{os.getpid()}-{number}"
        until_it_answers(partial(queue.put, [one]))
        os.write(notes, f"{one}\n".encode())
        while number % 50 == 0 and until_it_answers(queue.depth).n_waiting > N_AHEAD:
            time.sleep(0.05)


def until_it_answers(call: Callable[[], Answer]) -> Answer:
    while True:
        try:
            return call()
        except ServiceUnavailable:
            time.sleep(0.02)


def through_kills(place: Place, n_kills: int, generator: np.random.Generator) -> str:
    """Kill, start again, and count in the end what was acknowledged and is not done."""
    for role in ("putter", "worker"):
        place.start(role)
    roles = ("putter", "worker", *(("server",) if place.server else ()))
    for role in itertools.islice(itertools.cycle(roles), n_kills):
        n = sum(place.noted(role if role != "server" else "worker").values())
        while sum(place.noted(role if role != "server" else "worker").values()) == n:
            time.sleep(0.01)  # until it works
        time.sleep(float(generator.uniform(0, 0.3)))
        place.kill(role)
        place.start(role)
    place.kill("putter")
    acknowledged = place.noted("putter")
    queue = place.open()
    while (depth := until_it_answers(queue.depth)).n_waiting + depth.n_leased:
        time.sleep(0.1)
    place.kill("worker")
    queue.close()
    done = place.noted("worker")
    n_lost = len(acknowledged.keys() - done.keys())
    n_twice = sum(n > 1 for n in done.values())
    return f"{n_kills:6d} {len(acknowledged):12,d} {n_lost:6d} {n_twice:10d}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=12, help="of each queue")
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=1, help="of each measurement")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--role", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role:
        role, folder, address = arguments.role
        act(role, Place(Path(folder)).open(address), Path(folder) / role)
        return
    with places() as both:
        queues = {kind: place.open() for kind, place in both.items()}
        print("ids at once   SQLite puts/s   JetStream puts/s   ratio (median, least, most)")
        for batch in BATCHES:
            found = [
                [
                    speed(queue, batch, arguments.seconds, f"{batch}-{pair}")
                    for queue in queues.values()
                ]
                for pair in range(arguments.pairs)
            ]
            sql, stream = np.median(found, axis=0)
            ratios = [one[1] / one[0] for one in found]
            print(
                f"{batch:11d} {sql:15,.0f} {stream:18,.0f}   {np.median(ratios):.2f} "
                f"({min(ratios):.2f}, {max(ratios):.2f})"
            )
        for queue in queues.values():
            queue.close()
    generator = np.random.default_rng(arguments.seed)
    with places() as both:
        print("queue       kills acknowledged   lost done twice")
        for kind, place in both.items():
            print(f"{kind:10s} {through_kills(place, arguments.kills, generator)}", flush=True)


if __name__ == "__main__":
    main()
