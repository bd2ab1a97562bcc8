"""What a registered model costs where it is served, measured on its golden clips.

It is measured in a process of its own, ``python -m spira_tasks.costs FOLDER``, on one thread: what
this process has loaded and what else the machine does change nothing.  Seconds are of the CPU and
not of the clock, because a busy machine must not refuse a model.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path

from spira_tasks import model_process, package
from spira_tasks.provenance import ROOT

# Of every clip that the model answers.  There are two: of 20 answers the 95th percentile is the
# second slowest, so that one that something disturbed blocks no model.
N_RUNS = 10
MOST_SECONDS = 300.0  # on the clock; it takes some five


@dataclass(frozen=True)
class Costs:
    """``cpu_seconds`` is the 95th percentile over ``n`` answers; None where there is no answer."""

    cpu_seconds: float | None  # per second of audio
    n: int
    resident_mib: float  # at most, with Python and the libraries
    package_mib: float


def measure(folder: Path) -> Costs:
    """Load the package in a folder, and let it answer its golden clips.

    Raises
    ------
    RuntimeError
        When the model does not load, or does not answer, in a process of its own and in
        ``MOST_SECONDS``.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", "spira_tasks.costs", str(folder)],
            env=os.environ | package.ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
            timeout=MOST_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(
            f"the model in {folder} has not answered its golden clips in {MOST_SECONDS:g} s: it "
            "hangs, or the machine has no time; run the step again, and look at the model's code"
        ) from None
    if done.returncode != 0:
        raise RuntimeError(f"the model in {folder} does not run by itself:\n{done.stderr}")
    return Costs(**json.loads(done.stdout.splitlines()[-1]))


def measured(folder: Path) -> Costs:
    """As ``measure``, in this process."""
    import pandas as pd

    model, seconds = model_process.load(folder), []
    for clip in package.golden(folder).clips:
        row = pd.DataFrame({"audio": [clip.content]})
        if model.predict(row)["probability"].iloc[0] is None:  # the first is slower, and not timed
            continue
        for _ in range(N_RUNS):
            begun = time.process_time()
            model.predict(row)
            seconds.append((time.process_time() - begun) / clip.audio_seconds)
    n_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return Costs(percentile_95(seconds), len(seconds), peak_resident_mib(), n_bytes / 2**20)


def percentile_95(seconds: list[float]) -> float | None:
    """The smallest value that at least 95 % are not above; None of none."""
    return sorted(seconds)[ceil(0.95 * len(seconds)) - 1] if seconds else None


def peak_resident_mib() -> float:
    """Most memory that this process has had.

    Not ``ru_maxrss``: that of a new process begins at what its parent had.
    """
    status = Path("/proc/self/status").read_text()
    (peak_kib,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return int(peak_kib) / 1024


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(measured(Path(sys.argv[1])))) + "\n")
