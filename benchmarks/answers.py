"""How long an answer takes, alone and with a shadow, and what a burst does to the server.

python benchmarks/answers.py [--workers 2] [--seconds 60] [--load 0.7] [--queue sql]

Recordings come at random times (Poisson) at a share of what the workers can do, which is measured
first.  The time of an answer is from stored to answered, by the rows of the database.  Then the
same load with every request answered by a shadow too, and last 2,000 requests from 20 clients, with
the largest resident memory of server and workers.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
from sqlalchemy import func, select

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from answering import Stand, ask, standing  # noqa: E402
from nats_servers import nats_server  # noqa: E402

from spira_services.serving import router  # noqa: E402
from spira_services.serving.tables import INFERENCES, OUTBOX, PREDICTIONS  # noqa: E402
from spira_tasks.speech import golden  # noqa: E402

AUDIO = golden.clips()[0].content


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--load", type=float, default=0.7, help="share of what the workers can do")
    parser.add_argument("--burst", type=int, default=2000)
    parser.add_argument("--queue", choices=("sql", "nats"), default="sql")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        variables = {}
        if arguments.queue == "nats":
            (folder / "nats").mkdir()
            broker = stack.enter_context(nats_server(folder / "nats"))
            variables = broker.variables
        stand, key = stack.enter_context(standing(folder, arguments.workers, variables))
        can = capacity(stand, key)
        print(f"{arguments.workers} workers, queue {arguments.queue}: {can:.1f} answers/s at most")
        rate = arguments.load * can
        alone = load(stand, key, rate, arguments.seconds)
        report(f"at {arguments.load:.0%} load ({rate:.1f}/s)", alone)
        with stand.engine().begin() as connection:
            router.start(connection, "shadow", "2", 1.0, by="cli:benchmark", why="to be measured")
        time.sleep(10)  # until the shadow is ready
        shadowed = load(stand, key, rate, arguments.seconds)
        report("the same with a shadow", shadowed)
        ratio = np.percentile(shadowed, 99) / np.percentile(alone, 99)
        print(f"p99 with a shadow / without: {ratio:.2f}; shadows {count(stand, 'shadow')}")
        with stand.engine().begin() as connection:
            router.stop(connection, by="cli:benchmark", why="it was measured")
        burst(stand, key, arguments.burst)


def capacity(stand: Stand, key: str, n: int = 60) -> float:
    """Answers a second where the queue is never empty."""
    with stand.client(key) as client:
        ask(client, AUDIO).raise_for_status()
        wait(stand)  # the models are loaded
        before = count(stand)
        for _ in range(n):
            ask(client, AUDIO).raise_for_status()
    wait(stand)
    with stand.engine().connect() as connection:
        asked = select(func.min(PREDICTIONS.c.at), func.max(PREDICTIONS.c.at)).where(
            PREDICTIONS.c.number > before
        )
        first, last = connection.execute(asked).one()
    return float((n - 1) / (last - first).total_seconds())


def load(stand: Stand, key: str, rate: float, seconds: float) -> np.ndarray:
    """Seconds from stored to answered, of recordings that come at random times."""
    generator, begun = np.random.default_rng(1), time.time()
    gaps = generator.exponential(1 / rate, int(rate * seconds))
    with stand.client(key) as client, ThreadPoolExecutor(8) as pool:
        due, sent = time.monotonic(), []
        for gap in gaps:
            due += gap
            time.sleep(max(0.0, due - time.monotonic()))
            sent.append(pool.submit(lambda: ask(client, AUDIO).raise_for_status()))
    for one in sent:
        one.result()
    wait(stand)
    with stand.engine().connect() as connection:
        rows = connection.execute(
            select(OUTBOX.c.stored_at, PREDICTIONS.c.at)
            .join(PREDICTIONS, PREDICTIONS.c.inference_id == OUTBOX.c.inference_id)
            .where(PREDICTIONS.c.shown)
        ).all()
    took = [(at - stored).total_seconds() for stored, at in rows if stored.timestamp() >= begun]
    assert len(took) == len(gaps), "an answer is missing"
    return np.array(took)


def report(name: str, took: np.ndarray) -> None:
    p50, p95, p99 = (1000 * np.percentile(took, q) for q in (50, 95, 99))
    print(f"{name}: n {took.size}, p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99 {p99:.0f} ms")


def burst(stand: Stand, key: str, n: int) -> None:
    """Many requests at once; who is refused comes again, as a telephone does."""
    statuses: Counter[int] = Counter()
    before, begun = count(stand), time.monotonic()

    def send(_: int) -> None:
        with stand.client(key) as client:
            for _ in range(n // 20):
                while (answer := ask(client, AUDIO)).status_code != 202:
                    statuses[answer.status_code] += 1
                    time.sleep(float(answer.headers.get("Retry-After", 1)) / 10)
                statuses[202] += 1

    with watched(stand) as peaks, ThreadPoolExecutor(20) as pool:
        list(pool.map(send, range(20)))
        took = time.monotonic() - begun
        wait(stand)
    print(
        f"burst of {n} from 20 clients: {dict(statuses)} in {took:.0f} s, "
        f"{count(stand) - before} answered; MiB at the begin and at most: "
        + ", ".join(f"{name} {low:.0f} {high:.0f}" for name, (low, high) in sorted(peaks.items()))
    )


@contextlib.contextmanager
def watched(stand: Stand) -> Iterator[dict[str, tuple[float, float]]]:
    """Resident memory of each process with its children, at the begin and at most."""
    over = threading.Event()
    peaks: dict[str, tuple[float, float]] = {}

    def look() -> None:
        while not over.wait(0.5):
            for name, process in stand.processes.items():
                mine = psutil.Process(process.pid)
                found = [mine, *mine.children(recursive=True)]
                n_mib = sum(one.memory_info().rss for one in found) / 2**20
                low, high = peaks.get(name, (n_mib, n_mib))
                peaks[name] = (low, max(high, n_mib))

    thread = threading.Thread(target=look)
    thread.start()
    yield peaks
    over.set()
    thread.join()


def count(stand: Stand, arm: str = "champion") -> int:
    with stand.engine().connect() as connection:
        asked = select(func.count()).select_from(PREDICTIONS).where(PREDICTIONS.c.arm == arm)
        return connection.execute(asked).scalar_one()


def wait(stand: Stand) -> None:
    """Wait until everything is answered."""
    answered = select(PREDICTIONS.c.inference_id).where(PREDICTIONS.c.shown)
    waiting = select(func.count()).where(INFERENCES.c.inference_id.not_in(answered))
    while True:
        with stand.engine().connect() as connection:
            if not connection.execute(waiting).scalar():
                return
        time.sleep(0.2)


if __name__ == "__main__":
    main()
