"""Whether every planted confound trips its gate, and clean cohorts trip none.

python -m benchmarks.gates [--seeds 20] [--trained 5] [--zero-signal 50] [--switch NAME ...]
python -m benchmarks.gates --voices espeak   # the cohorts of another synthesiser
python -m benchmarks.gates --small           # a draw of few people each: shows that it works
python -m benchmarks.gates --document        # only writes docs/gates.md, from what is there

The switches and their gates are in ``benchmarks/switches.py``.  Each draw is a cohort of its own,
of the seeds 1, 2, ..., in a temporary store, through the real steps of the training pipeline.  The
steps read what comes before each gate, so that a gate that ends the run hides no later one; the
clean cohorts and those without a signal that are trained go through the pipeline as it is.

A finished draw is a line of ``benchmarks/gates.jsonl`` and is not made again.  Draws without a
model come first, seed by seed.  ``benchmarks/power.py`` follows, and the tables of docs/gates.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, fields, replace
from pathlib import Path
from typing import Any

from benchmarks import espeak, power
from benchmarks.switches import (
    CONFOUNDS,
    CONTROLS,
    DATA,
    DRIFT,
    PROMOTE,
    SWITCHES,
    Switch,
    Trip,
    publish,
)
from expectations.words.verdicts import sentence
from spira_tasks.artifacts import Store
from spira_tasks.cohort import recorder, write_cohort
from spira_tasks.contract.pipelines import HANDED_ON, TRAINING
from spira_tasks.contract.step import Step
from spira_tasks.contract.verdict import Verdict
from spira_tasks.errors import GateRejected
from spira_tasks.provenance import ROOT
from spira_tasks.runner import run_step
from spira_tasks.speech.metrics import wilson_interval
from spira_tasks.tracking import Tracker

RESULTS = Path(__file__).with_suffix(".jsonl")
DOCUMENT = ROOT / "docs" / "gates.md"
PLOT = ROOT / "docs" / "images" / "gates.svg"
ALL = {**CONTROLS, **SWITCHES}
RUN = "study"
# Which number of seeds a control takes, without a model and with one.
CONTROL_DRAWS = {
    "clean": ("seeds", ""),
    "clean_large": ("", "trained"),
    "clean_published": ("seeds", ""),
    "zero_signal": ("", "zero_signal"),
}
# By another synthesiser.
HELD_OUT = ("clean", "clean_large", "ward_noise", "channel", "sex", "zero_signal")
REFERENCE_SEED = 1000  # of the clean cohort that the champion learned from
TASKS = ("AMBIENT", "SENTENCE")
WITHOUT_MODEL = ("check_recordings", DATA, CONFOUNDS)
# Test people enough for the gates of a model to be asked, and no more epochs than that.  Such a
# division is outside the plan, which refuses every such model: so that refusal does not count.
SETTINGS = {
    "split.test_fraction": 0.4,
    "train.n_threads": 1,
    "train.epochs": 8,
    "evaluate.n_threads": 1,
}
PLAN = "promote/within_plan"


@dataclass(frozen=True)
class Draw:
    switch: str
    seed: int
    is_trained: bool
    people: int
    voices: str


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20, help="of draws without a model")
    parser.add_argument("--trained", type=int, default=5, help="seeds of draws with a model")
    parser.add_argument("--zero-signal", type=int, default=50, help="seeds without a signal")
    parser.add_argument(
        "--people", type=int, default=100, help="of a cohort, half of them patients"
    )
    parser.add_argument("--switch", nargs="+", choices=ALL, default=[*ALL])
    parser.add_argument("--voices", choices=("own", "espeak"), default="own")
    parser.add_argument("--small", action="store_true", help="few people, kept nowhere")
    parser.add_argument("--document", action="store_true", help="only write docs/gates.md")
    given = parser.parse_args()
    if given.voices == "espeak" and given.switch == [*ALL]:
        given.switch = [*HELD_OUT]
    if given.small:
        given.seeds, given.trained, given.zero_signal, given.people = 1, 0, 0, 24
    logging.getLogger("spira_tasks").setLevel(logging.ERROR)  # that the key is for demonstrations
    done = [] if given.small else kept()
    if not given.document:
        for row in run(given, done):
            print(line(row), flush=True)
            done.append(row)
            if not given.small:
                with RESULTS.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
    if given.small:
        return int(any(missed(row) for row in done))
    powers = power.kept() if given.document else power.fill()
    write(done, powers)
    return 0


def kept() -> list[dict[str, Any]]:
    """The finished draws, each once, also where two processes made the same."""
    if not RESULTS.exists():
        return []
    rows = [json.loads(text) for text in RESULTS.read_text(encoding="utf-8").splitlines()]
    return [*{identity(row): row for row in reversed(rows)}.values()][::-1]


def identity(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[one.name] for one in fields(Draw))


def planned(given: argparse.Namespace) -> Iterator[Draw]:
    for is_trained in (False, True):
        for seed in range(1, max(given.seeds, given.trained, given.zero_signal) + 1):
            for name in given.switch:
                if seed <= n_draws(name, is_trained, given):
                    yield Draw(name, seed, is_trained, given.people, given.voices)


def n_draws(name: str, is_trained: bool, given: argparse.Namespace) -> int:
    """How many seeds a switch takes, with a model or without."""
    if name in CONTROLS:
        alone, with_model = CONTROL_DRAWS[name]
        n: str = with_model if is_trained else alone
        return int(getattr(given, n)) if n else 0
    wanted = any(trip.is_trained == is_trained for trip in SWITCHES[name].trips)
    return int(wanted and (given.trained if is_trained else given.seeds))


def run(given: argparse.Namespace, done: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Make every planned draw that is not there yet."""
    known = {*map(identity, done)}
    missing = [draw for draw in planned(given) if astuple(draw) not in known]
    if given.voices == "espeak":
        recorder.render = espeak.render
    with tempfile.TemporaryDirectory() as folder:
        champion = Path(folder) / "champion"
        if any(ALL[draw.switch].is_compared and not draw.is_trained for draw in missing):
            make_champion(champion, given)
        for number, draw in enumerate(missing):
            place = Path(folder) / str(number)  # MLflow keeps the database of a path open
            yield drawn(draw, place, champion)
            shutil.rmtree(place)


def drawn(draw: Draw, folder: Path, champion: Path) -> dict[str, Any]:
    """Make one cohort, run the steps on it, and say what the gates made of it."""
    began, switch = time.process_time(), ALL[draw.switch]
    data = made(switch, draw, folder)
    if switch.is_compared and not draw.is_trained:
        shutil.copytree(champion / "store", folder / "store")
    store = Store(str(folder / "store"))
    settings = {**SETTINGS, **switch.settings} if draw.is_trained else {}
    is_whole = draw.is_trained and not switch.trips
    verdicts: list[tuple[str, Verdict]] = []
    for step in TRAINING.configure(data=str(data), settings=settings):
        if step.name not in needed(switch, draw):
            continue
        try:
            result = run_step(step if is_whole else ungated(step), RUN, store)
            verdicts += [(step.name, one) for one in result.verdicts]
        except GateRejected:
            record = store.runs.step(RUN, step.name)
            assert record is not None
            verdicts += [(step.name, one) for one in record.verdicts]
            if is_whole:
                break
    promote = store.runs.step(RUN, PROMOTE)
    return asdict(draw) | {
        "stops": [f"{step}/{one.id}" for step, one in verdicts if one.stops],
        "raised": {
            f"{step}/{one.id}": one.status for step, one in verdicts if one.status != "pass"
        },
        "trips": [
            tripped(trip, verdicts) for trip in switch.trips if trip.is_trained == draw.is_trained
        ],
        "promoted": bool(promote and promote.metrics.get("promoted")),
        "cpu_seconds": round(time.process_time() - began, 1),
    }


def needed(switch: Switch, draw: Draw) -> set[str]:
    """The steps that a draw takes: with a model all, else the gates that it is about."""
    if draw.is_trained:
        return {step.name for step in TRAINING}
    gates = {trip.step for trip in switch.trips if not trip.is_trained} or {*WITHOUT_MODEL}
    if switch.is_compared:
        gates |= {DRIFT}
    if gates & {DRIFT, CONFOUNDS}:
        gates |= {"materialize"} if switch.trips else {"materialize", "check_features"}
    return {"ingest", "split", *gates}


def made(switch: Switch, draw: Draw, folder: Path) -> Path:
    """The folder with the cohort, in the layout of the switch."""
    plan: dict[str, Any] = {"subjects": draw.people, "seed": draw.seed, "tasks": TASKS}
    if not draw.is_trained:
        plan["ward_noises"] = 0
    write_cohort(folder / "cohort", workers=1, **{**plan, **switch.cohort})
    if not switch.published:
        return folder / "cohort"
    publish(folder / "cohort", folder / "published", switch.published)
    return folder / "published"


def make_champion(folder: Path, given: argparse.Namespace) -> None:
    """A champion of which only its training set is known: that of a clean cohort."""
    data = made(
        CONTROLS["clean"], Draw("clean", REFERENCE_SEED, False, given.people, given.voices), folder
    )
    store = Store(str(folder / "store"))
    pipeline = TRAINING.configure(data=str(data))
    for name in ("ingest", "split"):
        outputs = run_step(ungated(pipeline.step(name)), "champion", store).outputs
    tracker = Tracker(store.tracking_uri)
    run_id = tracker.run_of("sha256:" + "1" * 64, "model")
    tags = {"spira.recordings": outputs["recordings"]}
    tracker.describe(run_id, params={}, metrics={}, tags=tags, history=[], files=[])
    tracker.client.create_registered_model("spira")
    version = tracker.client.create_model_version("spira", folder.as_uri(), run_id, {})
    tracker.assign(version.version, None)


def ungated(step: Step) -> Step:
    """The step, reading what came to the gates before it and not what they handed on."""

    def before(reference: str) -> str:
        name, _, output = reference.partition(".")
        gate = next((one for one in TRAINING.gates if one.name == name), None)
        if gate is None or output != HANDED_ON[gate.stage]:
            return reference
        return before(gate.inputs[output])

    return replace(step, inputs={name: before(one) for name, one in step.inputs.items()})


def tripped(trip: Trip, verdicts: Sequence[tuple[str, Verdict]]) -> dict[str, Any]:
    """What became of a verdict that has to be raised."""
    found = [one for step, one in verdicts if step == trip.step and one.id == trip.verdict]
    said = sentence(found[0], "en") if found else ""
    return {
        "gate": trip.step,
        "verdict": trip.verdict,
        "wanted": trip.status,
        "status": found[0].status if found else "absent",
        "is_named": any(word in said.lower() for word in trip.says),
        "observed": asdict(found[0].observed) if found and found[0].observed else None,
    }


def is_tripped(trip: dict[str, Any]) -> bool:
    return bool(trip["status"] == trip["wanted"] and trip["is_named"])


def missed(row: dict[str, Any]) -> bool:
    """Whether a draw is not what it has to be."""
    if row["switch"] in CONTROLS:
        is_refused = bool({*row["stops"]} - {PLAN})
        return bool(is_refused != (row["switch"] == "zero_signal"))
    return not all(map(is_tripped, row["trips"]))


def line(row: dict[str, Any]) -> str:
    trips = ", ".join(f"{one['verdict']}: {one['status']}" for one in row["trips"])
    kind = "model" if row["is_trained"] else "data"
    state = "MISSED" if missed(row) else "ok"
    found = trips or ", ".join(row["stops"]) or "nothing stops"
    return f"{row['switch']} {row['seed']} {kind} {state} ({row['cpu_seconds']} s): {found}"


def write(rows: Sequence[dict[str, Any]], powers: Sequence[dict[str, Any]]) -> None:
    """Put the tables of what was measured into docs/gates.md, and the plot beside it."""
    text = DOCUMENT.read_text(encoding="utf-8")
    for name, made_anew in tables(rows, powers).items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, _, rest = text.partition(begin)
        text = before + begin + made_anew + "\n" + end + rest.partition(end)[2]
    DOCUMENT.write_text(text, encoding="utf-8")
    plot(rates([row for row in rows if row["voices"] == "own"]))


def tables(rows: Sequence[dict[str, Any]], powers: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The tables of docs/gates.md by their names there."""
    own, other = ([row for row in rows if row["voices"] == one] for one in ("own", "espeak"))
    return {"draws": table(own), "held out": table(other), "power": power.table(powers)}


@dataclass(frozen=True)
class Rate:
    """How often something came of a switch."""

    switch: str
    what: str
    wanted: str  # "tripped" or "not stopped" or "refused"
    n: int
    draws: int
    same_in_control: int = 0  # how often the verdict has that status without a confound
    controls: int = 0


def rates(rows: Sequence[dict[str, Any]]) -> list[Rate]:
    found = []
    for name, switch in SWITCHES.items():
        for trip in switch.trips:
            control = "clean_large" if trip.is_trained else "clean"
            control = "clean_published" if switch.published else control
            states = [
                is_tripped(one)
                for row in rows
                for one in row["trips"]
                if row["switch"] == name and one["verdict"] == trip.verdict
            ]
            same = [
                row["raised"].get(f"{trip.step}/{trip.verdict}") == trip.status
                for row in rows
                if (row["switch"], row["is_trained"]) == (control, trip.is_trained)
            ]
            what, wanted = f"`{trip.step}`: `{trip.verdict}`", f"tripped ({trip.status})"
            found.append(Rate(name, what, wanted, sum(states), len(states), sum(same), len(same)))
    for name in CONTROLS:
        for is_trained, kind in ((False, "data"), (True, "model")):
            of = [row for row in rows if (row["switch"], row["is_trained"]) == (name, is_trained)]
            wanted = "refused" if name == "zero_signal" else "not stopped"
            if of:
                found.append(Rate(name, kind, wanted, len(of) - sum(map(missed, of)), len(of)))
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    heads = ("switch", "gate", "wanted", "came", "draws", "the same in clean cohorts")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for one in rates(rows):
        same = f"{one.same_in_control} of {one.controls}" if one.controls else "–"
        if one.draws:
            cells = (f"`{one.switch}`", one.what, one.wanted, one.n, one.draws, same)
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def plot(found: Sequence[Rate]) -> None:
    """The rates with their 95 % intervals (Wilson)."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    drawn = [one for one in found if one.draws]
    figure = Figure(figsize=(9, 0.8 + 0.28 * len(drawn)), layout="constrained")
    axes = figure.subplots()
    for place, one in enumerate(reversed(drawn)):
        colour = "tab:green" if one.n == one.draws else "tab:red"
        axes.plot(wilson_interval(one.n / one.draws, one.draws), [place, place], color=colour)
        axes.plot(one.n / one.draws, place, "o", color=colour)
    axes.axvline(0.95, color="black", linewidth=0.8)
    axes.set_xlim(0, 1.02)
    axes.set_xlabel("share of the draws as wanted; line: 95 %")
    names = [f"{one.switch}: {one.what.replace('`', '')}" for one in reversed(drawn)]
    axes.set_yticks(range(len(drawn)), names, fontsize=7)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "spira"}):  # text as text
        figure.savefig(PLOT, metadata={"Date": None})


if __name__ == "__main__":
    sys.exit(main())
