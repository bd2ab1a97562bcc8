"""Promotions and rollbacks while a model is asked: every request answered, each by a named version.

python benchmarks/promotions.py [--promotions 100] [--rollbacks 20] [--workers 2]

Each promotion is of a version that no worker has loaded, while a telephone asks without a pause.
The time is taken until every worker has it as the champion that answers.  After the last promotions
the version before is put back, by the function behind ``model rollback``, whose own time counts.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import numpy as np
from sqlalchemy import func, select

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from answering import Stand, ask, standing  # noqa: E402
from serving import publish  # noqa: E402

from spira_services.serving.inferences import is_waiting  # noqa: E402
from spira_services.serving.tables import INFERENCES, PREDICTIONS  # noqa: E402
from spira_tasks.governance import moves  # noqa: E402
from spira_tasks.governance.approval import roll_back  # noqa: E402
from spira_tasks.speech import golden  # noqa: E402
from spira_tasks.tracking import CHAMPION, Tracker  # noqa: E402

AUDIO = golden.clips()[0].content
SERVED = {"spira.was_champion": "true"}  # as the step promote tags it


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--promotions", type=int, default=100)
    parser.add_argument("--rollbacks", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rate", type=float, default=4.0, help="requests a second")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stand, key = stack.enter_context(standing(folder, arguments.workers, {}))
        tracker, over = Tracker(stand.store.tracking_uri), threading.Event()
        with stand.client(key) as client:
            ask(client, AUDIO).raise_for_status()
        while waiting(stand):
            time.sleep(0.2)
        telephone = threading.Thread(target=asks, args=(stand, key, arguments.rate, over))
        telephone.start()
        tracker.tag("1", SERVED)
        took: dict[str, list[float]] = {"promotions": [], "rollbacks": []}
        for n in range(arguments.promotions):
            before = tracker.aliases()[CHAMPION]
            version = publish(stand.store, folder, 100 + n, n_hidden=None).version
            tracker.tag(version, SERVED)
            begun = time.monotonic()
            after = moves.settle(stand.store, tracker)
            replaced = tracker.replaced_by(version)
            moves.move(stand.store, tracker, "promotion", version, replaced, after=after)
            took["promotions"].append(followed(stand, version) - begun)
            if n >= arguments.promotions - arguments.rollbacks:
                begun = time.monotonic()
                roll_back(stand.store, before, f"drill number {n}, of no patient")
                took["rollbacks"].append(followed(stand, before) - begun)
        over.set()
        telephone.join()
        while waiting(stand):
            time.sleep(0.2)
        return judged(stand, took)


def asks(stand: Stand, key: str, rate: float, over: threading.Event) -> None:
    generator = np.random.default_rng(1)
    with stand.client(key) as client:
        while not over.wait(generator.exponential(1 / rate)):
            ask(client, AUDIO).raise_for_status()


def followed(stand: Stand, wanted: str) -> float:
    """The time at which every worker had the wanted version as the champion that answers."""
    line = f'spira_model_ready{{use="champion",version="{wanted}"}} 1.0'
    while True:
        texts = [httpx.get(f"{address}/metrics").text for address in stand.watched]
        if all(line in text for text in texts):
            return time.monotonic()
        time.sleep(0.05)


def waiting(stand: Stand) -> int:
    with stand.engine().connect() as connection:
        return connection.execute(select(func.count()).where(is_waiting())).scalar_one()


def judged(stand: Stand, took: dict[str, list[float]]) -> int:
    with stand.engine().connect() as connection:
        n = connection.execute(select(func.count()).select_from(INFERENCES)).scalar_one()
        shown = select(PREDICTIONS.c.version, PREDICTIONS.c.arm).where(PREDICTIONS.c.shown)
        answers = Counter(row.version for row in connection.execute(shown))
    for name, seconds in took.items():
        print(
            f"{len(seconds)} {name}: every worker has it after {np.median(seconds):.1f} s "
            f"(median), {max(seconds):.1f} s (longest)"
        )
    print(
        f"asked {n}, answered {answers.total()}, dropped {n - answers.total()}; "
        f"by {len(answers)} versions"
    )
    return int(n != answers.total())


if __name__ == "__main__":
    sys.exit(main())
