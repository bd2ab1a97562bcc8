"""How long the gates take on many recordings: ``python -m benchmarks.expectations``.

The demand: thirty checks on ten thousand recordings in under 10 s on 2 cores, import included.
Every trial is a process of its own, held to ``--cores`` cores; trials of the kinds are taken in
turns, and what is told is the median and, for the parts, the ratio to the whole of the same turn,
so that a machine that is busy for a while slows all of them alike.

* import: Great Expectations and the suites are loaded, nothing is checked;
* thirty: import, and thirty expectations of metadata and audio;
* gate: import, and all expectations of metadata and audio;
* docs: the same as gate, and Great Expectations' own pages of it.

CPU seconds are told beside the clock's: on a machine that does other work the clock waits for it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from statistics import median
from typing import Any

KINDS = ("import", "thirty", "gate", "docs")
DEMANDED_SECONDS = 10.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000, help="recordings, a multiple of 4")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--trial", choices=KINDS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.trial:
        print(json.dumps(trial(args.trial, args.rows)))
        return
    cores = sorted(os.sched_getaffinity(0))[: args.cores]
    os.sched_setaffinity(0, cores)  # the trials inherit it
    turns = [{kind: measured(kind, args.rows) for kind in KINDS} for _ in range(args.turns)]

    print(f"{args.rows} recordings, {len(cores)} cores, {args.turns} turns; seconds of the process")
    for kind in KINDS:
        seconds = [turn[kind]["seconds"] for turn in turns]
        cpu = median(turn[kind]["cpu_seconds"] for turn in turns)
        ratio = median(turn[kind]["seconds"] / turn["thirty"]["seconds"] for turn in turns)
        n = turns[0][kind]["n_checks"]
        print(
            f"{kind:8s} {n:4d} checks  median {median(seconds):6.2f} s  "
            f"({min(seconds):.2f} to {max(seconds):.2f})  "
            f"CPU {cpu:6.2f} s  {ratio:.2f} of thirty"
        )
    parts = turns[0]["docs"]["parts"]
    print("of the whole (docs), median over turns:")
    for part in parts:
        share = median(turn["docs"]["parts"][part] / turn["docs"]["seconds"] for turn in turns)
        print(f"  {part:28s} {share:5.1%}")
    seconds = median(turn["thirty"]["seconds"] for turn in turns)
    met = "met" if seconds < DEMANDED_SECONDS else "NOT met"
    busy = f"; {os.getloadavg()[0]:.1f} processes wanted the machine's cores meanwhile"
    print(f"demanded: thirty checks in under {DEMANDED_SECONDS:g} s: {met} ({seconds:.2f} s){busy}")


def measured(kind: str, n_rows: int) -> dict[str, Any]:
    """A trial in a new process, and the seconds that it took from its start to its end."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.expectations"]
    started, cpu_before = time.perf_counter(), cpu_seconds()
    done = subprocess.run(
        [*command, "--trial", kind, "--rows", str(n_rows)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    seconds = time.perf_counter() - started
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    # the table is made for the benchmark: no gate does so
    return found | {
        "seconds": seconds - found["parts"].pop("table"),
        "cpu_seconds": cpu_seconds() - cpu_before - found["table_cpu_seconds"],
    }


def cpu_seconds() -> float:
    """Of all trials so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def trial(kind: str, n_rows: int) -> dict[str, Any]:
    """Do what a kind does, in this process; how many checks ran, and the seconds of its parts."""
    from pathlib import Path
    from tempfile import TemporaryDirectory

    clock = Clock()
    from expectations.suites import audio, metadata
    from spira_tasks import data_docs, quality
    from spira_tasks.suites import template

    clock.lap("import")
    cpu_before = time.process_time()
    table = spoilt(template(n_rows))
    table_cpu_seconds = time.process_time() - cpu_before
    clock.lap("table")
    makers = [] if kind == "import" else [metadata.suite, audio.suite]
    suites = [make(table) for make in makers]
    clock.lap("suites made")
    if kind == "thirty":
        suites = [cut(suite, 15) for suite in suites]
    reports = [quality.check(table, suite) for suite in suites]
    clock.lap("checks")
    if kind == "docs":
        with TemporaryDirectory() as folder:
            data_docs.write({one.suite: one.validation for one in reports}, Path(folder))
        clock.lap("Great Expectations' pages")
    n_checks = sum(len(report.verdicts) for report in reports)
    return {"n_checks": n_checks, "parts": clock.parts, "table_cpu_seconds": table_cpu_seconds}


def spoilt(table: Any) -> Any:
    """The template with sounds as telephones record them, and one row in a hundred at fault."""
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


class Clock:
    """Seconds since the last lap, by name."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.parts[name] = now - self._last
        self._last = now


if __name__ == "__main__":
    main()
