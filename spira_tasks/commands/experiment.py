"""``experiment`` and ``compare``: many trainings that were declared, and any two that there are."""

from __future__ import annotations

import json
import logging
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from spira_tasks.commands import AsJson, Commands, OpenStore, find_run, print_json, print_table
from spira_tasks.contract.exits import EXIT_BUG, EXIT_REJECTED
from spira_tasks.contract.place import COMMAND
from spira_tasks.errors import ConfigError

EXAMPLES = """\
examples:
  python -m spira_tasks experiment experiments/networks.toml --data .spira/cohort
  python -m spira_tasks experiment experiments/networks.toml --trials 4   # goes on where it was
"""

if TYPE_CHECKING:
    from spira_tasks.experiments.trials import Runs

MOST_FAILURES = 10  # that are printed

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
    again: Annotated[bool, Option("--retry", help="try trials again that failed before")] = False,
    expired: Annotated[bool, Option("--expired", help="also where its end has passed")] = False,
    as_json: AsJson = False,
) -> int:
    """Run what is missing of an experiment, then compare its arms."""
    from spira_tasks.experiments import comparison, declaration
    from spira_tasks.experiments.trials import Runs

    one = declaration.read(file)
    declaration.refuse_ended(one, may_be_over=expired)
    since = datetime.now(UTC).isoformat(timespec="seconds") if again else ""
    runs = Runs(one, data, store, since)
    if not _run(runs, n_trials):
        return EXIT_BUG if runs.has_bugs else 0
    found = comparison.publish(runs)
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


def _run(runs: Runs, n_trials: int | None) -> bool:
    """Run missing trials, at most so many; say whether none is missing."""
    log = logging.getLogger("spira_tasks")
    if log.level == logging.INFO:  # the default: a line a trial is enough
        log.setLevel(logging.WARNING)
    started, n_run = time.monotonic(), 0
    while (waiting := runs.next_round()).trials:
        runs.write_study()
        for n, trial in enumerate(waiting.trials):
            n_left = len(waiting.trials) - n + waiting.n_later
            if n_run == n_trials:
                print(
                    f"{n_left} trials are missing, or fewer. Start it again to go on: what is "
                    "finished is found",
                    file=sys.stderr,
                )
                return False
            begun = time.monotonic()
            runs.run(trial)
            n_run += 1
            shown, metric = runs.shown(trial), runs.experiment.metric
            came_to = "failed" if runs.value(trial) is None else "done"
            came_to = came_to if shown is None else f"{metric} {shown:.3f}"
            seconds = (time.monotonic() - started) / n_run * (n_left - 1)
            print(
                f"{trial.where}: {came_to}, {time.monotonic() - begun:.1f} s; {n_left - 1} to go, "
                f"about {_duration(seconds)}",
                file=sys.stderr,
            )
    runs.write_study()
    return True


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
