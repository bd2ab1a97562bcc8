"""Many recordings: memory, seconds a recording, and a store that is far away."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from benchmarks.rows import recordings, training
from benchmarks.rows.pairs import Cost, Line, Size, Spread, cost, paired
from spira_tasks.artifacts import Store
from spira_tasks.contract.step import Step
from spira_tasks.provenance import ROOT
from spira_tasks.runner import run_step


def memory(folder: Path, size: Size) -> list[Line]:
    """Peak memory of three stages at ten times the recordings."""
    sizes = (2, 4) if size.small else (60, 600)
    peaks: dict[str, list[float]] = {"materialize": [], "train": [], "evaluate": []}
    for n in sizes:
        recordings.make(folder / str(n), n, 6.0, n_tested=n)
        for stage, found in peaks.items():
            if size.small:
                found.append(peak(folder / str(n), stage))
                continue
            with ProcessPoolExecutor(1, get_context("spawn")) as process:
                found.append(process.submit(peak, folder / str(n), stage).result())
    return [
        Line(
            f"peak memory of {stage}, {3 * sizes[1]} recordings against {3 * sizes[0]}",
            "×",
            Spread.of([many / few]),
            None,
            1.2,
            at_least=False,
            detail=f"{many:.0f} MiB against {few:.0f}",
        )
        for stage, (few, many) in peaks.items()
    ]


def peak(folder: Path, stage: str) -> float:
    """MiB that this process has had at most, once the stage has run."""
    known = recordings.known(folder)
    store = Store(known["store"])
    if stage == "materialize":
        features = recordings.materialize(store, known["recordings"], {})
        (folder / "features").write_text(features)
    elif stage == "train":
        training.epochs(folder, {"n_threads": 1}, 1)
    else:
        inputs = {
            "recordings": known["recordings"],
            "features": (folder / "features").read_text(),
            "ward_noise": known["ward_noise"],
            "model": store.put_directory(folder / "model"),
        }
        config = {"n_resamples": 200}
        run_step(Step(stage, stage, inputs=inputs, config=config), recordings.RUN, store)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def flat(folder: Path, size: Size) -> list[Line]:
    """Seconds a recording of `materialize`, from a hundred recordings to ten thousand."""
    sizes = (2, 4) if size.small else (100, 1000, 10_000)
    seconds = {}
    for n in sizes:
        known = recordings.make(folder / str(n), n, 4.5)
        store = Store(known["store"])
        if n == sizes[0]:  # what a process does once
            recordings.materialize(store, known["recordings"], {"tasks": ["SENTENCE", "VOWEL"]})
            store = Store(recordings.make(folder / "first", n, 4.5)["store"])
        spent = cost(lambda: recordings.materialize(store, known["recordings"], {}))  # noqa: B023
        seconds[n] = spent.cpu / (n + 2)
    ratio = max(seconds.values()) / min(seconds.values())
    detail = ", ".join(f"{n}: {1000 * one:.1f} ms" for n, one in seconds.items())
    measure = "CPU-seconds a recording of materialize, the most against the least"
    return [Line(measure, "×", Spread.of([ratio]), None, 1.15, at_least=False, detail=detail)]


def s3(folder: Path, size: Size) -> list[Line]:
    """A training set that is read from S3, against a folder, after the first epoch."""
    sys.path.append(str(ROOT / "tests"))
    from s3_servers import client_of, seaweedfs

    (folder / "server").mkdir()
    with seaweedfs(folder / "server") as server:
        client_of(server).make_bucket("benchmark")
        os.environ |= {
            "SPIRA_S3_ENDPOINT": server.endpoint,
            "SPIRA_S3_ACCESS_KEY": server.access_key,
            "SPIRA_S3_SECRET_KEY": server.secret_key,
        }
        n = 5 if size.small else 20
        for name, url in (("near", ""), ("far", "s3://benchmark/training")):
            known = recordings.make(folder / name, n, 8.0, store=url)
            made = recordings.materialize(Store(known["store"]), known["recordings"], {})
            (folder / name / "features").write_text(made)
        turns = paired(far, near, size, folder)
    wall = Spread.of([ours.wall / other.wall for ours, other in turns])
    cpu = Spread.of([ours.cpu / other.cpu for ours, other in turns])
    measure = "epoch after the first, training set in S3 against a folder"
    return [Line(measure, "×", wall, cpu, 1.5, at_least=False)]


def far(folder: Path) -> Callable[[], Cost]:
    return lambda: training.epochs(folder / "far", {}, 2)[1]


def near(folder: Path) -> Callable[[], Cost]:
    return lambda: training.epochs(folder / "near", {}, 2)[1]
