"""Does memory grow with the cohort, and time by more?  ``python -m benchmarks.memory``.

Cohorts of noise are put into a store; materialize, train (one epoch) and evaluate run on each in a
process of its own.  The output is the peak of resident memory and its ratio (goal: 1.2 at ten times
the recordings), and for materialize the seconds a recording from ``--fewest`` to ``--most`` (goal:
flat within 15 %).

``--s3`` compares reading the training set from S3 (SPIRA_S3_ENDPOINT and keys, a bucket that is
there) with reading it from a folder, epoch by epoch (goal: 1.5 times after the first).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

GOAL_MEMORY, GOAL_FLAT, GOAL_S3 = 1.2, 1.15, 1.5
RATE_HZ = 16_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fewest", type=int, default=100, help="recordings, of materialize")
    parser.add_argument("--few", type=int, default=300, help="recordings, of the memory")
    parser.add_argument("--most", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=5.0, help="of a recording")
    parser.add_argument("--s3", metavar="s3://BUCKET", help="compare reading, nothing else")
    parser.add_argument("--json", action="store_true", help="numbers alone, for programs")
    parser.add_argument("--trial", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.trial:
        print(json.dumps(trial(*args.trial)))
        return
    found = s3(args) if args.s3 else memory(args)
    if args.json:
        print(json.dumps(found))


def memory(args: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        peaks: dict[int, dict[str, float]] = {}
        for n in (args.few, 10 * args.few):
            store = f"{place}/{n}"
            cohort(store, n, args.seconds)
            peaks[n] = {}
            for stage in ("materialize", "train", "evaluate"):
                peaks[n][stage] = measured(store, stage)["peak_mib"]
        for stage, small in peaks[args.few].items():
            large = peaks[10 * args.few][stage]
            found[stage] = {"few_mib": small, "many_mib": large, "ratio": large / small}
            result = "reached" if large / small <= GOAL_MEMORY else "NOT reached"
            print(
                f"{stage:12s} {args.few} recordings {small:6.0f} MiB, {10 * args.few} recordings "
                f"{large:6.0f} MiB: {large / small:.2f}x  (goal {GOAL_MEMORY}x: {result})",
                file=sys.stderr,
            )
        ms = {}
        for n in (args.fewest, args.most):
            store = f"{place}/flat-{n}"
            cohort(store, n, args.seconds)
            ms[n] = measured(store, "materialize")["seconds"] / n * 1000
        ratio = ms[args.most] / ms[args.fewest]
        found["flat"] = {"n": [args.fewest, args.most], "ms": list(ms.values()), "ratio": ratio}
        result = "reached" if ratio <= GOAL_FLAT else "NOT reached"
        print(
            f"materialize  {ms[args.fewest]:.1f} ms a recording of {args.fewest}, "
            f"{ms[args.most]:.1f} ms of {args.most}: {ratio:.2f}x  (goal {GOAL_FLAT}x: {result})",
            file=sys.stderr,
        )
    return found


def s3(args: argparse.Namespace) -> dict[str, Any]:
    epochs: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        for kind, store in (("folder", f"{place}/s"), ("s3", f"{args.s3}/{uuid4().hex}")):
            cohort(store, args.few, args.seconds)
            epochs[kind] = measured(store, "read")["epochs"]
    ratio = median(epochs["s3"][1:]) / median(epochs["folder"][1:])
    result = "reached" if ratio <= GOAL_S3 else "NOT reached"
    for kind, seconds in epochs.items():
        listed = ", ".join(f"{one:.3f}" for one in seconds)
        print(f"{kind:7s} {args.few} recordings, seconds an epoch: {listed}", file=sys.stderr)
    print(f"after the first: {ratio:.2f}x  (goal {GOAL_S3}x: {result})", file=sys.stderr)
    return {"epochs": epochs, "ratio": ratio}


def measured(store: str, stage: str) -> dict[str, Any]:
    """What a trial in a process of its own says."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.memory", "--trial", store, stage]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def trial(place: str, stage: str) -> dict[str, Any]:
    """Run a step on the cohort of a store, or read its training set four times."""
    from spira_tasks.artifacts import Store

    store = Store(place)
    made = store.documents.read("benchmark.json") or {}
    if stage == "read":
        return {"epochs": epochs_of_reading(store, made["recordings"])}
    from spira_tasks.contract.step import Step
    from spira_tasks.runner import run_step

    names = {
        "materialize": ("recordings",),
        "train": ("recordings", "features", "ward_noise"),
        "evaluate": ("recordings", "features", "ward_noise", "model"),
    }
    configs: dict[str, dict[str, Any]] = {"train": {"epochs": 1}, "evaluate": {"n_resamples": 200}}
    step = Step(stage, stage, {name: made[name] for name in names[stage]}, configs.get(stage, {}))
    if stage == "materialize":  # what it imports takes seconds
        from spira_tasks.speech import features  # noqa: F401
    result = run_step(step, "benchmark", store)
    store.documents.write("benchmark.json", made | dict(result.outputs))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"peak_mib": peak, "seconds": result.seconds}


def epochs_of_reading(store: Any, recordings: str) -> list[float]:
    import numpy as np
    import pandas as pd

    from spira_tasks.corpus import examples

    table = pd.read_parquet(store.directory(recordings).path("recordings.parquet"))
    read = examples(table, store.blobs, "cpu", most_bytes=0)  # as beyond what memory holds
    seconds = []
    for epoch in range(4):
        begun = time.perf_counter()
        for place in np.random.default_rng(epoch).permutation(len(read)):
            read[int(place)]
        seconds.append(time.perf_counter() - begun)
    return seconds


def cohort(place: str, n: int, n_seconds: float) -> None:
    """Put ``n`` recordings of noise into a new store, and a bank of four ward noises."""
    import numpy as np
    import pandas as pd

    from benchmarks.rows.recordings import as_taken_in
    from spira_tasks.artifacts import Store
    from spira_tasks.speech.audio import encode_wav

    store, rng = Store(place), np.random.default_rng(n)

    def waveform() -> str:
        samples = rng.integers(-3000, 3000, round(n_seconds * RATE_HZ), dtype=np.int16)
        return store.blobs.add(encode_wav(samples))

    rows = []
    for number in range(n):
        rows.append(
            {
                "record_id": f"r{number:06d}",
                "subject_id": f"{number:064x}",
                "task": "SENTENCE",
                "split": ("train", "train", "train", "validation", "test")[number // 2 % 5],
                "label": number % 2,
                "waveform": waveform(),
                "duration_seconds": n_seconds,
            }
        )
        store.blobs.memorize(f"{number:064x}", rows[-1])  # so that packs are stored as they fill
    noises = [
        {"noise_id": f"n{number}", "pool": pool, "waveform": waveform()}
        for number, pool in enumerate(("train", "train", "evaluation", "evaluation"))
    ]
    store.blobs.flush()
    made = {}
    for name, table in (("recordings", rows), ("ward_noise", noises)):
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            content = as_taken_in(pd.DataFrame(table))
            content.to_parquet(Path(folder) / f"{name}.parquet", index=False)
            made[name] = store.put_directory(Path(folder))
    store.documents.write("benchmark.json", made)


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()
