"""``experiment`` and ``compare``: many trainings that were declared, and any two that there are."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from spira_tasks import scratch
from spira_tasks.commands import AsJson, Commands, OpenStore, find_run, print_json, print_table
from spira_tasks.contract.exits import EXIT_BUG, EXIT_REJECTED
from spira_tasks.contract.pipelines import EXPERIMENT
from spira_tasks.contract.place import COMMAND
from spira_tasks.errors import ConfigError, ServiceUnavailable

EXAMPLES = """\
examples:
  python -m spira_tasks experiment experiments/networks.toml --data .spira/cohort
  python -m spira_tasks experiment experiments/networks.toml --trials 4   # goes on where it was
  python -m spira_tasks experiment experiments/networks.toml --jobs 4     # four at a time
"""

if TYPE_CHECKING:
    from spira_tasks.experiments.trials import Runs, Trial

MOST_FAILURES = 10  # that are printed
POLL_SECONDS = 0.1
MOST_IDLE = 3  # rounds in which every trial is killed

app = Commands()


@app.command("experiment", examples=EXAMPLES)
def experiment(
    store: OpenStore,
    file: Annotated[Path, Argument(help="TOML file that declares the experiment")],
    data: Annotated[
        str, Option(help="folder or s3://bucket/prefix, for a file that names none")
    ] = "",
    n_trials: Annotated[
        int | None,
        Option("--trials", min=0, help="stop after so many; 0: only say what is missing"),
    ] = None,
    n_jobs: Annotated[
        int, Option("--jobs", min=1, help="trials at a time; more than one are processes")
    ] = 1,
    again: Annotated[bool, Option("--retry", help="try trials again that failed before")] = False,
    expired: Annotated[bool, Option("--expired", help="also where its end has passed")] = False,
    as_json: AsJson = False,
) -> int:
    """Run what is missing of an experiment, then compare its arms."""
    from spira_tasks.experiments import comparison, declaration
    from spira_tasks.experiments.trials import Runs

    text = declaration.content(file)
    one = declaration.parse(text, str(file))
    declaration.refuse_ended(one, may_be_over=expired)
    since = datetime.now(UTC).isoformat(timespec="seconds") if again else ""
    runs = Runs(one, data, store, since)
    one_by_one, side_by_side = partial(_in_turn, runs), partial(_side_by_side, runs, text, n_jobs)
    bring = side_by_side if n_jobs > 1 else one_by_one
    with scratch.alone(f"experiment {one.name}", store.url):
        found = comparison.publish(runs) if _run(runs, n_trials, bring) else None
    if found is None:
        return EXIT_BUG if runs.has_bugs else 0
    if as_json:
        print_json(found)
    else:
        _print(found)
    if runs.has_bugs:
        return EXIT_BUG
    return EXIT_REJECTED if any(arm["n_failed"] for arm in found["arms"]) else 0


@app.command("compare")
def compare(
    store: OpenStore,
    names: Annotated[list[str], Argument(metavar="RUN RUN…", help="ids of runs, or latest")],
    as_json: AsJson = False,
) -> None:
    """Compare runs on the same test recordings: the first with each of the others."""
    from spira_tasks.experiments import comparison

    if len(set(names)) < 2:
        raise ConfigError("name two runs at least, of which the first is compared with the others")
    found = comparison.of_runs(store, [find_run(name, store) for name in names])
    if as_json:
        print_json(found)
    else:
        _print(found)


def _print(found: dict[str, Any]) -> None:
    """Print a comparison as tables."""
    from expectations.words import words_of
    from spira_tasks.experiments.comparison import CONDITIONS, MEASURES

    words = words_of("en")
    if question := found.get("question"):
        print(f"{found['name']}: {question}")
    if found.get("synthetic"):
        print("synthetic cohort: it shows that the platform works, and says nothing of medicine")
    if found.get("optimistic"):
        print(
            "the search chose its settings on the people it is measured on: its numbers flatter it"
        )
    counts = [words.count(found[name]) for name in ("n_subjects", "n_patients", "n_controls")]
    print("measured on {} people, {} patients and {} controls".format(*counts))
    if settings := found.get("settings"):
        arms = [arm["name"] for arm in found["arms"]]
        rows = [[name, *map(json.dumps, values)] for name, values in settings.items()]
        print_table("\nsettings that differ", ["setting", *arms], rows)
    metric = found["metric"]
    for condition, title in CONDITIONS.items():
        rows = [
            [words.name("arm", arm["name"]), *(_interval(measured[name]) for name in MEASURES)]
            for arm in found["arms"]
            if (measured := arm.get("conditions", {}).get(condition))
        ]
        if rows:
            print_table(f"\n{title}", ["", *MEASURES], rows)
    if not any("conditions" in arm for arm in found["arms"]):
        print("too few people of a class to show measures of them, or no arm has all of its folds")
    rows = [
        [
            words.name("arm", arm["name"]),
            " ".join(f"{seed}: {value:.3f}" for seed, value in arm.get("seeds", {}).items()),
            "" if arm.get("spread") is None else f"{arm['spread']:.3f}",
            str(arm.get("median_seed", "")),
            f"{arm['costs']['cpu_seconds']:.0f} s",
            f"{arm['costs']['gpu_seconds']:.0f} s",
            str(arm["n_failed"] or ""),
            ", ".join(f"{name} {value:.3f}" for name, value in arm.get("published", {}).items()),
        ]
        for arm in found["arms"]
    ]
    columns = [
        "",
        f"{metric} by seed",
        "spread",
        "seed to ship",
        "CPU",
        "GPU",
        "failed",
        "published",
    ]
    print_table("\nseeds and cost", columns, rows)
    if failures := found.get("failures"):
        rows = [
            [one["trial"], one["run"], f"{one['step']}: {one['message'] or one['error']}"]
            for one in failures[:MOST_FAILURES]
        ]
        if n_more := len(failures) - len(rows):
            rows.append([f"and {n_more} more: --json lists all", "", ""])
        columns = ["", f"run ({COMMAND} show RUN)", "why"]
        print_table("\nfailed trials (--retry tries them again)", columns, rows)
    rows = [
        [
            f"{words.name('arm', pair['second'])} − {words.name('arm', pair['first'])}",
            *(_interval(pair["differences"][name], sign="+") for name in MEASURES[:2]),
            words.digits(pair["n_only_second_right"]),
            words.digits(pair["n_only_first_right"]),
            words.digits(pair["p"]),
            words.digits(pair["p_holm"]),
        ]
        for pair in found["pairs"]
    ]
    if rows:
        only = ["only the former right", "only the latter right"]
        columns = ["", *MEASURES[:2], *only, "McNemar p", "Holm"]
        print_table("\ndifferences on the same people", columns, rows)
    for arm in found["arms"]:
        if command := arm.get("command"):
            name = words.name("arm", arm["name"])
            print(f"\ntrain {name}, with the seed in the middle:\n  {command}")


def _interval(one: dict[str, float], sign: str = "") -> str:
    return f"{one['value']:{sign}.3f} ({one['low']:{sign}.3f} to {one['high']:{sign}.3f})"


def _run(
    runs: Runs,
    n_trials: int | None,
    bring: Callable[[Sequence[Trial]], Iterator[tuple[Trial, float]]],
) -> bool:
    """Run missing trials, at most so many; say whether none is missing."""
    log = logging.getLogger("spira_tasks")
    started, n_run, n_idle = time.monotonic(), 0, 0
    while (waiting := runs.next_round()).trials:  # the first makes what all trials share
        if log.level == logging.INFO:  # the default: a line a trial is enough
            log.setLevel(logging.WARNING)
        runs.write_study()
        trials = waiting.trials[: None if n_trials is None else n_trials - n_run]
        for n, (trial, seconds) in enumerate(bring(trials), start=1):
            n_run += 1
            n_left = len(waiting.trials) - n + waiting.n_later
            shown, metric = runs.shown(trial), runs.experiment.metric
            came_to = "failed" if runs.value(trial) is None else "done"
            came_to = came_to if runs.record(trial) else "killed, to be started again"
            came_to = came_to if shown is None else f"{metric} {shown:.3f}"
            left = (time.monotonic() - started) / n_run * n_left
            print(
                f"{trial.where}: {came_to}, {seconds:.1f} s; {n_left} to go, "
                f"about {_duration(left)}",
                file=sys.stderr,
            )
        n_idle = 0 if any(map(runs.record, trials)) else n_idle + 1
        if n_idle > MOST_IDLE:
            raise ServiceUnavailable(
                "every process of the missing trials is killed: see what does so, such as a lack "
                "of memory, set fewer --jobs, and start it again"
            )
        if len(trials) < len(waiting.trials):
            n_left = len(waiting.trials) - len(trials) + waiting.n_later
            print(
                f"{n_left} trials are missing, or fewer. Start it again to go on: what is "
                "finished is found",
                file=sys.stderr,
            )
            return False
    runs.write_study()
    return True


def _in_turn(runs: Runs, trials: Sequence[Trial]) -> Iterator[tuple[Trial, float]]:
    for trial in trials:
        begun = time.monotonic()
        runs.run(trial)
        yield trial, time.monotonic() - begun


def _side_by_side(
    runs: Runs, text: str, n_jobs: int, trials: Sequence[Trial]
) -> Iterator[tuple[Trial, float]]:
    """Run trials as Airflow does, each as a process, so many at a time.

    Yields each that has ended, and its seconds.

    Raises
    ------
    ServiceUnavailable
        When a process ended with an error.  One that is killed is run again in the next round.
    """
    with scratch.folder() as folder:
        place = folder / "plan"
        place.mkdir()
        (place / "plan.json").write_text(json.dumps(runs.plan(text, trials)))
        plan = runs.store.put_directory(place)
    running: dict[subprocess.Popen[bytes], tuple[Trial, float]] = {}
    waiting = deque(enumerate(trials))
    try:
        while waiting or running:
            while waiting and len(running) < n_jobs:
                number, trial = waiting.popleft()
                step = replace(
                    EXPERIMENT.step("trial"),
                    name=f"trial-{number}",
                    inputs={"plan": plan},
                    config={"number": number},
                )
                command = [sys.executable, "-m", "spira_tasks", "run", "--log-level", "WARNING"]
                command += ["--store", runs.store.url, "--run-id", runs.run_id, step.to_json()]
                # in a session of its own: Ctrl-C reaches it through this process alone
                process = subprocess.Popen(
                    command, stdout=subprocess.DEVNULL, start_new_session=True
                )
                running[process] = trial, time.monotonic()
            for process in [one for one in running if one.poll() is not None]:
                trial, begun = running.pop(process)
                if process.returncode not in (0, -signal.SIGKILL):
                    raise ServiceUnavailable(
                        f"the process of {trial.where} ended with status {process.returncode}; its "
                        "lines are above. Start it again to go on: what is finished is found"
                    )
                yield trial, time.monotonic() - begun
            time.sleep(POLL_SECONDS)
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
