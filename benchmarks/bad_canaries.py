"""Bad canaries and a good one, each tried by real workers beside the champion it should equal.

python benchmarks/bad_canaries.py [--workers 2] [--good 200]

Every version passes its golden clips and misbehaves with all other recordings: its process exits,
it takes five times as long, answers the same always, or multiplies the odds of its scores by e to
the 4.  A route gives it half of the people, at four requests under way.  Printed are which measure
stopped it, after how many of its own requests, and whether each request has one answer.  The last
is as good as the champion, and gets ``--good`` requests.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import serving  # noqa: E402
from answering import Stand  # noqa: E402
from serving import BAD, GOOD, Asker, misbehaving, publish, spread, tried, until, voices  # noqa: E402

from spira_services.database import migrate  # noqa: E402
from spira_services.serving.queue import SqlQueue  # noqa: E402
from spira_services.serving.relay import Relay  # noqa: E402
from spira_tasks.artifacts.blobs import Blobs  # noqa: E402
from spira_tasks.artifacts.sources import open_backend  # noqa: E402
from spira_tasks.tracking import Tracker  # noqa: E402

WITHIN = 50
serving.SECONDS = 900.0  # that a busy machine may take


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--good", type=int, default=200, help="requests of the good canary")
    arguments = parser.parse_args()
    recordings, kinds, is_fine = voices(40, 6.0), {**BAD, "good": GOOD}, True
    with contextlib.ExitStack() as stack:
        stand = Stand(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        publish(stand.store, stand.folder, 1, n_hidden=None, tune=spread(recordings, 1))
        Tracker(stand.store.tracking_uri).assign("1", None)
        for number, how in enumerate(kinds.values(), 2):
            edit, tune = misbehaving(how), spread(recordings, number)
            publish(stand.store, stand.folder, number, edit, n_hidden=None, tune=tune)
        engine = stand.engine()
        migrate(engine)
        asker = Asker.at(engine, Blobs(open_backend(str(stand.folder / "audio"))))
        stack.enter_context(Relay(engine, SqlQueue(engine)))
        for number in range(arguments.workers):
            stand.start(f"worker-{number}")
            stack.callback(stand.end, f"worker-{number}")
        before = [asker.ask(one) for one in recordings]
        until(lambda: all(asker.answer(one).state == "answered" for one in before))
        for number, kind in enumerate(kinds, 2):
            line = f'spira_model_ready{{use="route",version="{number}"}} 1.0'

            def is_ready(line: str = line) -> bool:
                texts = [httpx.get(f"{address}/metrics", timeout=60) for address in stand.watched]
                return all(line in one.text for one in texts)

            most, begun = arguments.good if kind == "good" else 4 * WITHIN, time.monotonic()
            found = tried(engine, asker, recordings, str(number), is_ready, most)
            print(
                f"{kind:9} stopped by {found.measure}, {found.n_own} of {found.n_asked} requests "
                f"were its own, {found.n_twice} answered twice, by {dict(found.arms)}, "
                f"{time.monotonic() - begun:.0f} s",
                flush=True,
            )
            is_good = found.measure is None if kind == "good" else found.n_own <= WITHIN
            is_fine &= is_good and not found.n_twice
    return int(not is_fine)


if __name__ == "__main__":
    sys.exit(main())
