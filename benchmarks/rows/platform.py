"""The platform: what a found step costs, and a cohort that is the same or nearly so."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd

from benchmarks.rows import recordings
from benchmarks.rows.pairs import Cost, Line, Size, Spread, cost
from spira_tasks.artifacts import Store
from spira_tasks.cohort import write_cohort
from spira_tasks.contract.step import Step
from spira_tasks.provenance import ROOT
from spira_tasks.runner import run_step

# What a process of a step does after its imports, and what that costs.
ALONE = """
import json, sys
from benchmarks.rows.pairs import cost
from spira_tasks.artifacts import Store
from spira_tasks.contract.step import Step
from spira_tasks.runner import load, run_step
step, store = Step.from_json(sys.argv[1]), Store(sys.argv[2])
load(step.stage)
found = cost(lambda: run_step(step, sys.argv[3], store))
print(json.dumps([found.wall, found.cpu]))
"""
IMAGE = "spira-tasks:0.2.0"
IMPORTS = "import spira_tasks.commands.runs, spira_tasks.runner, spira_tasks.stages.materialize"


def step(folder: Path, size: Size) -> list[Line]:
    """A step whose result is found: without imports, with them, and in a container."""
    known = recordings.make(folder, 2, 4.5)
    store = Store(known["store"])
    recordings.materialize(store, known["recordings"], {})
    found = Step("materialize", "materialize", inputs={"recordings": known["recordings"]}).to_json()
    run = ["run", "--run-id", recordings.RUN, "--store", store.url, found]
    alone, whole = [], []
    for _ in range(size.n_turns):
        command = [sys.executable, "-c", ALONE, found, store.url, recordings.RUN]
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        alone.append(Cost(*json.loads(done.stdout)))
        whole.append(cost(lambda: _quiet([sys.executable, "-m", "spira_tasks", *run])))
    lines = [
        _seconds("found step, without imports", alone, 0.3),
        _seconds("found step as a process", whole, None),
    ]
    return lines if size.small else [*lines, *_in_containers(folder, run, size)]


def _in_containers(folder: Path, run: list[str], size: Size) -> list[Line]:
    """Where the time of a found step in a container goes; nothing where there is no image."""
    if not shutil.which("docker") or not _has_image():
        return []
    container = ["docker", "run", "--rm", "--network=none", f"--user={os.getuid()}"]
    for name in ("spira_tasks", "expectations", "spira_services", "docker/tasks.txt"):
        container.append(f"--volume={ROOT / name}:/opt/spira/{name}:ro")
    container += [f"--volume={folder}:{folder}", IMAGE, "python"]
    parts = {
        "container that does nothing": ["-c", ""],
        "container that imports what a step imports": ["-c", IMPORTS],
        "found step in a container": ["-m", "spira_tasks", *run],
    }
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(size.n_turns):
        for name, what in parts.items():
            seconds[name].append(cost(lambda: _quiet([*container, *what])).wall)  # noqa: B023
    return [
        Line(name, "s", Spread.of(values), None, None, at_least=False)
        for name, values in seconds.items()
    ]


def _has_image() -> bool:
    command = ["docker", "image", "inspect", IMAGE]
    return not subprocess.run(command, capture_output=True, check=False).returncode


def _quiet(command: list[str], **variables: str) -> None:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **variables},
        check=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def _seconds(measure: str, costs: list[Cost], goal: float | None) -> Line:
    wall, cpu = Spread.of([one.wall for one in costs]), Spread.of([one.cpu for one in costs])
    return Line(measure, "s", wall, cpu, goal, at_least=False)


def again(folder: Path, size: Size) -> list[Line]:
    """`make demo` a second time, as a share of the first; the small form asks for help twice."""
    command = [str(ROOT / "scripts" / "demo.sh")]
    if size.small:
        command = [sys.executable, "-m", "spira_tasks", "--help"]
    place = {"SPIRA_STORE": str(folder / "store"), "AIRFLOW_HOME": str(folder / "airflow")}
    place |= {"SPIRA_SERVICES_FOLDER": str(folder / "services")}
    first, second = (cost(lambda: _quiet(command, **place)) for _ in range(2))
    return [_share("second `make demo` of an unchanged cohort, of the first", first, second, 5.0)]


def new(folder: Path, size: Size) -> list[Line]:
    """Ingest and materialize of a cohort to which 1 % came, as a share of the first time."""
    n = 2 if size.small else 100
    whole, before = folder / "whole", folder / "before"
    write_cohort(whole, subjects=n, seed=1)
    shutil.copytree(whole, before, copy_function=os.link)
    table = pd.read_csv(whole / "recordings.csv", dtype=str)
    last = table["patient_rgh"].unique()[-max(1, n // 100) :]
    (before / "recordings.csv").unlink()
    table[~table["patient_rgh"].isin(last)].to_csv(before / "recordings.csv", index=False)
    store = Store(str(folder / "store"))
    first, second = (cost(lambda: _taken_in(store, one)) for one in (before, whole))  # noqa: B023
    return [_share("1 % new recordings taken in, of the first time", first, second, 3.0)]


def _taken_in(store: Store, cohort: Path) -> None:
    step = Step("ingest", "ingest", inputs={"data": f"folder:{cohort}"})
    recordings.materialize(store, run_step(step, recordings.RUN, store).outputs["recordings"], {})


def _share(measure: str, first: Cost, second: Cost, goal: float) -> Line:
    wall = Spread.of([100 * second.wall / first.wall])
    cpu = Spread.of([100 * second.cpu / first.cpu])
    detail = f"{first.cpu:.0f} s of CPU, then {second.cpu:.1f} s"
    return Line(measure, "%", wall, cpu, goal, at_least=False, detail=detail)
