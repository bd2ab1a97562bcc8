"""Kills and outages while a model is asked: nothing is lost, and nothing has two answers.

python benchmarks/kills.py [--kills 1000] [--every 3] [--away 60] [--queue nats]

Server, workers and broker are killed by SIGKILL at random times, each while it is at work, and
started again.  Telephones ask, and ask again under the same key until they have a receipt.  Some
recordings are such that the model raises an error on them.  Meanwhile the broker and the store of
the audio are each away for a while, and the disk on which all of them write is full for as long.
In the end every inference with a receipt has one answer, or is a dead letter with a reason.

The disk is a tmpfs of its own, for which the program runs in a namespace of mounts (unshare).
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import httpx
import numpy as np
import soundfile
from sqlalchemy import func, select

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from answering import Stand, ask, standing  # noqa: E402
from nats_servers import nats_server  # noqa: E402
from serving import poisonous  # noqa: E402

from spira_services.serving.inferences import is_waiting  # noqa: E402
from spira_services.serving.tables import FAILURES, INFERENCES, PREDICTIONS  # noqa: E402
from spira_tasks.speech import golden  # noqa: E402

VOICE, POISON = golden.clips()[0].content, b"error"
ONE_IN = 20  # recordings that the model fails on
SETTLE_SECONDS = 900.0
DISK = "2g"  # of memory, as it is used
OUTAGES = ("broker", "store", "room")
statuses: Counter[int] = Counter()  # of requests that have to come again


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--every", type=float, default=3.0, help="mean seconds between two kills")
    parser.add_argument("--away", type=float, default=60.0, help="seconds of each outage")
    parser.add_argument("--queue", choices=("sql", "nats"), default="nats")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--logs", type=Path, help="a folder for the logs of all processes")
    arguments = parser.parse_args()
    if "SPIRA_KILLS_DISK" not in os.environ:
        return with_a_disk()
    with contextlib.ExitStack() as stack:
        folder = Path(os.environ["SPIRA_KILLS_DISK"])
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)], check=True
        )
        starts: dict[str, Callable[[], None]] = {}
        ends: dict[str, Callable[[], None]] = {}
        variables = {}
        if arguments.queue == "nats":
            (folder / "nats").mkdir()
            broker = stack.enter_context(nats_server(folder / "nats"))
            variables = broker.variables
            starts["broker"], ends["broker"] = broker.start, broker.kill
        stand, key = stack.enter_context(standing(folder, 2, variables, poisonous))
        for name in list(stand.processes):
            starts[name] = lambda name=name: stand.start(name)  # type: ignore[misc]
            ends[name] = lambda name=name: stand.end(name, signal.SIGKILL)  # type: ignore[misc]
        over = threading.Event()
        telephones = [
            threading.Thread(target=telephone, args=(stand, key, n, over)) for n in (1, 2)
        ]
        for one in telephones:
            one.start()
        generator, kills = np.random.default_rng(arguments.seed), Counter[str]()
        outages = dict(zip(np.arange(1, 4) * arguments.kills // 4, OUTAGES, strict=True))
        for n in range(arguments.kills):
            time.sleep(generator.exponential(arguments.every))
            name = str(generator.choice(sorted(starts)))
            while not is_up(stand, name):  # on a busy machine most kills would be of a start
                time.sleep(0.2)
            ends[name]()
            kills[name] += 1
            starts[name]()
            if outages.get(n) == "broker" and "broker" in starts:
                ends["broker"]()
                time.sleep(arguments.away)
                starts["broker"]()
            elif outages.get(n) == "store":
                shutil.move(folder / "audio", folder / "unplugged")
                time.sleep(arguments.away)
                merge(folder / "unplugged", folder / "audio")
            elif outages.get(n) == "room":
                fill(folder / "filler", arguments.away)
        over.set()
        for one in telephones:
            one.join()
        found = judged(stand, kills)
        for log in stand.folder.glob("**/*.log") if arguments.logs else ():
            arguments.logs.mkdir(exist_ok=True)
            shutil.copy(log, arguments.logs)
        return found


def with_a_disk() -> int:
    """Run this again where a folder can be a disk of its own, that ends with the program."""
    with tempfile.TemporaryDirectory() as disk:
        own = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
        variables = os.environ | {"SPIRA_KILLS_DISK": disk}
        return subprocess.run(
            [*own, sys.executable, *sys.argv], env=variables, check=False
        ).returncode


def is_up(stand: Stand, name: str) -> bool:
    """Whether a process is at work; the broker is once it was started."""
    port = stand.port if name == "server" else stand.ports.get(name)
    try:
        return port is None or httpx.get(f"http://127.0.0.1:{port}/health").is_success
    except httpx.TransportError:
        return False


def telephone(stand: Stand, key: str, seed: int, over: threading.Event) -> None:
    """Ask until it is over; every recording again and again until there is a receipt."""
    generator, n = np.random.default_rng(seed), 0
    with stand.client(key) as client, (stand.folder / f"receipts-{seed}").open("w") as receipts:
        while not over.is_set():
            n += 1
            audio, name = POISON if n % ONE_IN == 0 else recording(), str(uuid4())
            while True:
                try:
                    answer = ask(client, audio, name)
                    if answer.status_code == 202:
                        break
                    # 409: the other telephone, which has the same key, sends the same poison
                    statuses[answer.status_code] += 1
                except httpx.TransportError:
                    pass  # cut off: whether it was stored is not known
                time.sleep(0.2)
            receipts.write(f"{answer.json()['inference_id']}\n")
            time.sleep(generator.exponential(0.5))


def recording() -> bytes:
    """Four seconds of a voice, each a file of its own, so that the disk has to take it."""
    samples, rate_hz = soundfile.read(io.BytesIO(VOICE), dtype="int16")
    samples[:8] = np.frombuffer(uuid4().bytes, "int16") // 256  # which nobody hears
    file = io.BytesIO()
    soundfile.write(file, samples[: 4 * rate_hz], rate_hz, format="WAV")
    return file.getvalue()


def fill(file: Path, seconds: float) -> None:
    """Leave no room on the disk for a while, also where something is deleted meanwhile."""
    until = time.monotonic() + seconds
    with file.open("wb", buffering=0) as filler:
        while time.monotonic() < until:
            try:
                filler.write(bytes(2**16))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                time.sleep(0.05)
    file.unlink()


def merge(unplugged: Path, mounted: Path) -> None:
    """Put a disk back whose folder was used meanwhile."""
    shutil.copytree(unplugged, mounted, dirs_exist_ok=True)
    shutil.rmtree(unplugged)


def judged(stand: Stand, kills: Counter[str]) -> int:
    """Wait until all have an end, compare with the receipts, print; 1 where something is wrong."""
    receipts = [one for file in stand.folder.glob("receipts-*") for one in file.read_text().split()]
    until = time.monotonic() + SETTLE_SECONDS
    engine = stand.engine()
    while True:
        with engine.connect() as connection:
            n_waiting = connection.execute(select(func.count()).where(is_waiting())).scalar_one()
        if not n_waiting or time.monotonic() > until:
            break
        time.sleep(1)
    with engine.connect() as connection:
        stored = set(connection.execute(select(INFERENCES.c.inference_id)).scalars())
        shown = select(PREDICTIONS.c.inference_id).where(PREDICTIONS.c.shown)
        answers = Counter(connection.execute(shown).scalars())
        failed = {row.inference_id: row.reason for row in connection.execute(select(FAILURES))}
    lost = [one for one in receipts if answers[one] == 0 and one not in failed]
    doubled = [one for one, n in answers.items() if n > 1]
    print(f"kills: {dict(kills)}, {kills.total()} together")
    print(f"to be sent again {dict(statuses)}")
    print(f"receipts {len(receipts)}, twice {len(receipts) - len(set(receipts))}")
    why = dict(Counter(failed.values()))
    print(f"stored {len(stored)}, answered {len(answers)}, without an answer {why}")
    print(f"lost {len(lost)}, doubled {len(doubled)}, still waiting {n_waiting}")
    unexpected = statuses.keys() - {409, 429, 503, 507}
    return int(bool(lost or doubled or n_waiting or set(receipts) - stored or unexpected))


if __name__ == "__main__":
    sys.exit(main())
