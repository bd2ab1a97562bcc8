"""How many clips a second the synthetic cohort makes: ``python -m benchmarks.cohort``."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from spira_tasks.cohort import write_cohort


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", type=int, default=60)
    parser.add_argument("--workers", type=int)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        counts = write_cohort(
            Path(folder) / "cohort", subjects=args.subjects, seed=1, workers=args.workers
        )
        seconds = time.perf_counter() - started
    n_clips = counts["n_clips"] + counts["n_ward_noises"]
    print(f"{n_clips} clips in {seconds:.1f} s: {n_clips / seconds:.1f} clips per second")


if __name__ == "__main__":
    main()
