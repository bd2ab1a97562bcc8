"""How long the gates take on many recordings: ``python -m benchmarks.expectations``.

Goal: thirty checks on ten thousand recordings in under 10 s on 2 cores, import included.  Every
trial is a process of its own on two cores.  The kinds take turns, and the output is the median and
its ratio to ``thirty`` of the same turn, so that a busy machine slows all kinds alike.

* import: Great Expectations and the suites are loaded, nothing is checked;
* thirty: import, and thirty expectations of metadata and audio;
* gate: import, and all expectations of metadata and audio.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

KINDS = ("import", "thirty", "gate")
GOAL_SECONDS = 10.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000, help="recordings, a multiple of 4")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--trial", choices=KINDS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.trial:
        print(json.dumps(trial(args.trial, args.rows)))
        return
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])  # the trials inherit it
    turns = [{kind: measured(kind, args.rows) for kind in KINDS} for _ in range(args.turns)]

    print(f"{args.rows} recordings, {args.turns} turns; seconds of the process")
    for kind in KINDS:
        seconds = [turn[kind]["seconds"] for turn in turns]
        ratio = median(turn[kind]["seconds"] / turn["thirty"]["seconds"] for turn in turns)
        print(
            f"{kind:8s} {turns[0][kind]['n_checks']:4d} checks  median {median(seconds):6.2f} s  "
            f"({min(seconds):.2f} to {max(seconds):.2f})  {ratio:.2f} of thirty"
        )
    print("parts of gate, median over turns:")
    for part in turns[0]["gate"]["parts"]:
        share = median(turn["gate"]["parts"][part] / turn["gate"]["seconds"] for turn in turns)
        print(f"  {part:28s} {share:5.1%}")
    seconds = median(turn["thirty"]["seconds"] for turn in turns)
    result = "reached" if seconds < GOAL_SECONDS else "NOT reached"
    print(f"goal: thirty checks in under {GOAL_SECONDS:g} s: {result} ({seconds:.2f} s)")


def measured(kind: str, n_rows: int) -> dict[str, Any]:
    """A trial in a new process, and the seconds that it took without making the table."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.expectations"]
    started = time.perf_counter()
    done = subprocess.run(
        [*command, "--trial", kind, "--rows", str(n_rows)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    seconds = time.perf_counter() - started
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found | {"seconds": seconds - found["parts"].pop("table")}


def trial(kind: str, n_rows: int) -> dict[str, Any]:
    """Do what a kind does, in this process; how many checks ran, and the seconds of its parts."""
    parts: dict[str, float] = {}

    @contextmanager
    def part(name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        parts[name] = time.perf_counter() - started

    with part("import"):
        from expectations.suites import audio, metadata
        from spira_tasks import quality
        from spira_tasks.suites import template
    with part("table"):
        table = imperfect(template(n_rows))
    with part("suites made"):
        makers = [] if kind == "import" else [metadata.suite, audio.suite]
        suites = [make(table) for make in makers]
        if kind == "thirty":
            suites = [cut(suite, 15) for suite in suites]
    with part("checks"):
        reports = [quality.check(table, suite) for suite in suites]
    return {"n_checks": sum(len(report.verdicts) for report in reports), "parts": parts}


def imperfect(table: Any) -> Any:
    """The template with sounds as telephones record them, and two faults in every 100th row."""
    import numpy as np

    rng, n = np.random.default_rng(0), len(table)
    table = table.assign(
        native_sample_rate_hz=48_000,
        duration_seconds=rng.uniform(6, 14, n),
        level_dbfs=rng.normal(-22, 2, n),
        clipping_fraction=0.0,
        dc_offset=rng.normal(0, 0.001, n),
        snr_db=rng.uniform(12, 40, n),
        bandwidth_hz=rng.uniform(7_200, 7_900, n),
        speech_fraction=rng.uniform(0.4, 0.9, n),
        longest_digital_silence_seconds=0.001,
        dropouts_per_second=0.0,
        spo2=rng.integers(88, 100, n),
        age=rng.integers(18, 90, n),
    )
    table.loc[table.index[::100], ["clipping_fraction", "age"]] = [0.5, 150]
    return table


def cut(suite: Any, n: int) -> Any:
    """The suite with ``n`` of its expectations, evenly spread, so that every kind is among them."""
    import great_expectations as gx

    every = suite.expectations
    chosen = [every[i * len(every) // n] for i in range(n)]
    return gx.ExpectationSuite(name=suite.name, expectations=chosen, meta=suite.meta)


if __name__ == "__main__":
    main()
