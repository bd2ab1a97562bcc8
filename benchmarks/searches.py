"""A search that is killed again and again: nothing finished is computed twice, the end is the same.

python benchmarks/searches.py [--points 50] [--kills 100] [--seconds 8]

A search of cheap but real trials (one epoch on a small synthetic cohort) runs once undisturbed and
once in processes that are killed by SIGKILL at random times and started again.  Both must end in
the same points, bit for bit.  Printed are the trials that were computed again, the processes that
were left over, and what the coordinator costs a trial beside the trial itself.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from spira_tasks.artifacts import Store  # noqa: E402
from spira_tasks.cohort import write_cohort  # noqa: E402
from spira_tasks.contract.run import TRIAL  # noqa: E402
from spira_tasks.experiments.declaration import read  # noqa: E402
from spira_tasks.experiments.search import best  # noqa: E402
from spira_tasks.experiments.trials import Runs  # noqa: E402

DECLARED = """
name = "searches"
owner = "benchmark"
ends = 9999-12-31
question = "Does a killed search end as one that was not?"
data = "{data}"
n_folds = 3
[settings]
"train.epochs" = 1
"train.n_threads" = 1
"evaluate.n_resamples" = 200
"evaluate.n_threads" = 1
[search]
budget = {points}
parallel = 4
nested = false
[search.space]
"train.learning_rate" = {{ low = 1e-4, high = 1e-2, log = true }}
"train.dropout" = {{ low = 0.0, high = 0.6 }}
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--points", type=int, default=50)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=8.0, help="mean time between two kills")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_cohort(folder / "cohort", subjects=36, seed=3)
        file = folder / "searches.toml"
        file.write_text(DECLARED.format(data=folder / "cohort", points=arguments.points))
        prepared = Store(str(folder / "prepared"))
        Runs(read(file), "", prepared).shared  # noqa: B018  (it makes them)
        shutil.copytree(prepared.url, folder / "killed")
        wanted = undisturbed(Runs(read(file), "", prepared))
        return killed(file, Store(str(folder / "killed")), wanted, arguments)


def undisturbed(runs: Runs) -> Runs:
    """Run the search, and print what the coordinator costs."""
    wall, cpu, n = 0.0, 0.0, 0
    while True:
        begun, cpu_begun = time.perf_counter(), time.process_time()
        waiting = runs.next_round()
        runs.write_study()
        wall += time.perf_counter() - begun
        cpu += time.process_time() - cpu_begun
        if not waiting.trials or waiting.trials[0].point is None:
            break
        for trial in waiting.trials:
            runs.run(trial)
            n += 1
    print(f"undisturbed: {n} trials of {len(runs.study[0])} points")
    print(f"coordinator: {1000 * cpu / n:.1f} ms of CPU a trial, {1000 * wall / n:.1f} ms in all")
    return runs


def killed(file: Path, store: Store, wanted: Runs, arguments: argparse.Namespace) -> int:
    """Run the same search in processes that are killed; 1 where anything differs."""
    generator, n_kills = np.random.default_rng(arguments.seed), 0
    logs: list[Path] = []
    command = [sys.executable, "-m", "spira_tasks", "experiment", str(file), "--store", store.url]
    is_over = False
    while not is_over:
        log = file.with_name(f"{len(logs)}.log")
        with log.open("w") as output:
            # with as many trials as there are: what comes after the search is not of interest
            n_missing = len(wanted.searched()) - n_done(store)
            process = subprocess.Popen(
                [*command, "--trials", str(n_missing), "--log-level", "DEBUG"],
                cwd=ROOT,
                stderr=output,
            )
            try:
                is_last = n_kills >= arguments.kills
                process.wait(None if is_last else 4 + generator.exponential(arguments.seconds))
                is_over = True
            except subprocess.TimeoutExpired:
                n_kills += 1
                process.send_signal(signal.SIGKILL)
                process.wait()
        logs.append(log)
    runs = Runs(read(file), "", store)
    lost = [trial for trial in runs.next_round().trials if trial.point is not None]
    left = [one for one in psutil.process_iter(["cmdline"]) if str(file) in one.info["cmdline"]]
    again = twice(logs)
    same = runs.study == wanted.study and best(runs.study[0]) == best(wanted.study[0])
    print(f"killed {n_kills} times: {n_done(store)} trials done, {len(lost)} missing")
    print(f"processes left over {len(left)}, finished steps computed again {len(again)}")
    print(f"points and best point bit-equal: {same}; best {best(runs.study[0])}")
    return int(bool(left or lost or again) or not same)


def n_done(store: Store) -> int:
    """How many trials have come to their last step."""
    names = [entry.name for entry in store.entries("runs")]
    return sum(
        name.startswith(f"runs/{TRIAL}") and name.endswith("/evaluate.json") for name in names
    )


def twice(logs: list[Path]) -> list[str]:
    """Keys that a process computed although one before it had said that they were done."""
    finished: set[str] = set()
    again = []
    for log in logs:
        key = ""
        for line in log.read_text().splitlines():
            if computing := re.search(r": computing ([0-9a-f]{12})$", line):
                key = computing[1]
                again += [key] if key in finished else []
            elif re.search(r": done in [0-9.]+ s$", line):
                finished.add(key)
    return again


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(main())
