"""A synthetic cohort in the canonical layout of incoming recordings.

``write_cohort`` writes ``recordings.csv``, ``audio/``, ``ward_noise.csv`` and ``ward_noise/``, as a
hospital delivers them, and ``truth.csv`` with the latents, which no stage reads.  ``cohort.json``
is written last and holds the plan.  Equal plans give equal bytes, with any number of workers;
another subject adds rows and files and changes no other.
"""

from __future__ import annotations

import csv
import json
import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

from spira_tasks.cohort.people import CONFOUNDS, N_WARD_NOISES, PRESETS, TASKS, Plan
from spira_tasks.cohort.recorder import (
    FAULTS,
    Row,
    first_subject,
    record_subject,
    record_ward_noise,
)
from spira_tasks.errors import ConfigError
from spira_tasks.progress import progress

GENERATOR = 6  # raise it when the same command gives other files

TRUTH_COLUMNS = """
record_id subject ill labelled_ill severity cause effect n_pauses pause_seconds
phonation_seconds in_ward snr_db channel mask_type f0_hz tempo fault
""".split()  # noqa: SIM905

log = logging.getLogger(__name__)


def write_cohort(
    out: Path,
    *,
    subjects: int,
    seed: int,
    preset: str = "clean",
    signal: float = 1.0,
    confounds: Sequence[str] = (),
    faults: Sequence[str] = (),
    tasks: Sequence[str] = TASKS,
    ward_noises: int = N_WARD_NOISES,
    workers: int | None = None,
) -> dict[str, int]:
    """Write a cohort of ``subjects`` people, half of them patients.

    Parameters
    ----------
    out : Path
        An empty or new folder, or the folder of an earlier call with the same plan: a finished
        cohort is left alone, an interrupted one is completed.
    signal : float
        How audible the illness is, in [0, 1]; 0 makes it unlearnable from audio.
    confounds, faults : sequence of str
        Names from :data:`CONFOUNDS` and :data:`FAULTS`.
    tasks : sequence of str
        What everybody is recorded with.
    ward_noises : int
        Number of recordings of wards without a patient, which a training inserts.
    workers : int, optional
        Number of processes; by default that of the processors.

    Returns
    -------
    dict
        Counts: ``n_subjects``, ``n_patients``, ``n_sessions``, ``n_recordings`` (rows),
        ``n_clips`` (files), ``n_ward_noises``, ``n_faults`` (rows with one).

    Raises
    ------
    ConfigError
        For an unknown name, or when ``out`` holds something else.
    """
    for kind, chosen, known in (
        ("preset", [preset], PRESETS),
        ("confound", confounds, CONFOUNDS),
        ("fault", faults, FAULTS),
        ("task", tasks, TASKS),
    ):
        if unknown := sorted(set(chosen) - set(known)):
            raise ConfigError(
                f"no {kind} is called {', '.join(unknown)}; there are {', '.join(known)}"
            )
    if not 0 <= signal <= 1:
        raise ConfigError(f"signal is {signal:g}; it must lie between 0 and 1")
    n_needed = max((first_subject(fault) + 1 for fault in faults), default=2)
    if subjects < n_needed:
        raise ConfigError(f"{subjects} subjects are too few: this cohort needs {n_needed}")
    plan = Plan(
        GENERATOR,
        subjects,
        seed,
        preset,
        float(signal),
        tuple(sorted(set(confounds))),
        tuple(sorted(set(faults))),
        tuple(task for task in TASKS if task in tasks),
        ward_noises,
    )
    if counts := _finished_counts(out, plan):
        log.info("the cohort is already there: %d subjects in %s", subjects, out)
        return counts
    for folder in ("audio", "ward_noise"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    done = _read_journal(out, plan)
    jobs = [("ward_noise", number) for number in range(ward_noises)]
    jobs += [("subject", index) for index in range(subjects)]
    missing = [job for job in jobs if job not in done]
    made = _run_jobs(partial(_make, out, plan), missing, workers or len(os.sched_getaffinity(0)))
    with (out / "cohort.partial.jsonl").open("a", encoding="utf-8") as journal:
        shown = progress(made, "synthesising", len(missing))
        for job, rows in zip(missing, shown, strict=True):
            done[job] = rows
            journal.write(json.dumps([*job, rows]) + "\n")
            journal.flush()
    return _write_tables(out, plan, [done[job] for job in jobs])


def _finished_counts(out: Path, plan: Plan) -> dict[str, int] | None:
    """Return the counts of a finished cohort of this plan, None where it may be written."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if (out / "cohort.json").is_file():
        found = json.loads((out / "cohort.json").read_text(encoding="utf-8"))
        counts: dict[str, int] = found.pop("counts")
        if found == json.loads(json.dumps(asdict(plan))):
            return counts
        raise ConfigError(
            f"{out} holds another cohort, made with {json.dumps(found)}; "
            "choose another folder or remove that one"
        )
    if not (out / "cohort.partial.jsonl").is_file():
        raise ConfigError(f"{out} is not empty; a cohort is only written into an empty folder")
    return None


def _read_journal(out: Path, plan: Plan) -> dict[tuple[str, int], list[Row]]:
    """Read the finished jobs of an interrupted call; an incomplete last line is ignored."""
    path, first = out / "cohort.partial.jsonl", json.dumps(asdict(plan))
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    whole = [line for line in lines if line.endswith("\n")]
    if whole and whole[0].rstrip("\n") != first:
        raise ConfigError(
            f"{out} holds the beginning of another cohort, made with {whole[0].strip()}; "
            "finish it with the same command, or remove the folder"
        )
    path.write_text("".join(whole) or first + "\n", encoding="utf-8")
    done = {}
    for line in whole[1:]:
        kind, number, rows = json.loads(line)
        done[kind, number] = rows
    return done


def _run_jobs(
    make: Callable[[tuple[str, int]], list[Row]], jobs: Sequence[tuple[str, int]], workers: int
) -> Iterator[list[Row]]:
    """Run the jobs in processes; yield their results in the order of the jobs."""
    if workers == 1 or len(jobs) < 2:
        yield from map(make, jobs)
        return
    # Spawned, not forked: the caller may have threads.
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield from pool.map(make, jobs, chunksize=2)
    finally:
        pool.shutdown(cancel_futures=True)


def _write_tables(out: Path, plan: Plan, results: Sequence[list[Row]]) -> dict[str, int]:
    from spira_tasks.intake.record_contract import COLUMNS  # imports pandas: not for workers

    rows = [row for result in results for row in result]
    noises = [row for row in rows if "file_path" in row]
    recordings = [row for row in rows if "record_id" in row]
    _write_csv(out / "ward_noise.csv", ("file_path", "x_pool"), noises)
    columns = [column for column in COLUMNS if column != "patient_pid"]
    _write_csv(out / "recordings.csv", [*columns, "x_synthetic"], recordings)
    _write_csv(out / "truth.csv", TRUTH_COLUMNS, [row["truth"] for row in recordings])
    truth = [row["truth"] for row in recordings]
    counts = {
        "n_subjects": len({row["subject"] for row in truth}),
        "n_patients": len({row["subject"] for row in truth if row["ill"]}),
        "n_sessions": len({row["session_id"] for row in recordings}),
        "n_recordings": len(recordings),
        "n_clips": len(list((out / "audio").iterdir())),
        "n_ward_noises": len(noises),
        "n_faults": sum(row["fault"] != "" for row in truth),
    }
    (out / "cohort.json").write_text(
        json.dumps({**asdict(plan), "counts": counts}, indent=1) + "\n", encoding="utf-8"
    )
    (out / "cohort.partial.jsonl").unlink()
    return counts


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {key: str(value).lower() if isinstance(value, bool) else value
             for key, value in row.items()}
            for row in rows
        )  # fmt: skip


def _make(out: Path, plan: Plan, job: tuple[str, int]) -> list[Row]:
    kind, number = job
    return (record_subject if kind == "subject" else record_ward_noise)(out, plan, number)
