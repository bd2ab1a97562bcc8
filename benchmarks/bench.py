"""`make bench`: what the platform is to reach, measured; a table and a plot in RESULTS.md.

python -m benchmarks.bench [ROW...] [--small]

Without a row all of them; a row that is run replaces its lines of the table and leaves the others.
The small form shows that a row works, and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform as machine
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.rows import features, platform, scale, training
from benchmarks.rows.pairs import Line, Size, Spread
from spira_tasks.provenance import git_revision

FOLDER = Path(__file__).resolve().parent
RESULTS, NUMBERS, PLOT = FOLDER / "RESULTS.md", FOLDER / "results.json", FOLDER / "results.svg"
ROWS: dict[str, Callable[..., list[Line]]] = {
    "materialize": features.materialize,
    "epoch": training.epoch,
    "data": training.data,
    "default": training.default,
    "busy": training.busy,
    "again": platform.again,
    "new": platform.new,
    "step": platform.step,
    "memory": scale.memory,
    "flat": scale.flat,
    "s3": scale.s3,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--small", action="store_true", help="a few recordings, one turn")
    parser.add_argument("--turns", type=int, default=5, help="turns of a pair")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.rows) - set(ROWS)):
        parser.error(f"no row is called {', '.join(unknown)}; there are {', '.join(ROWS)}")
    size = Size(1, small=True) if arguments.small else Size(arguments.turns)
    for name in arguments.rows or ROWS:
        with tempfile.TemporaryDirectory() as folder:
            lines = ROWS[name](Path(folder), size)
        for line in lines:
            print(" | ".join(cells(line)), flush=True)
        if not arguments.small:
            keep(name, lines)


def keep(name: str, lines: list[Line]) -> None:
    """Replace the lines of a row in the numbers, and write table and plot anew."""
    stored: dict[str, Any] = json.loads(NUMBERS.read_text()) if NUMBERS.exists() else {}
    stored[name] = {"from": circumstances(), "lines": [asdict(line) for line in lines]}
    NUMBERS.write_text(json.dumps(stored, indent=1) + "\n")
    RESULTS.write_text(table(stored))
    plot(stored)


def circumstances() -> str:
    """Machine and versions."""
    names = ("torch", "torchaudio", "librosa", "apache-airflow", "mlflow")
    load = os.getloadavg()[0]
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, commit {git_revision()}, {os.cpu_count()} cores of "
        f"{_processor()}, load {load:.1f}; Python {machine.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in names)
    )


def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else machine.machine()


def cells(line: Line) -> list[str]:
    goal = (
        "–" if line.goal is None else f"{'≥' if line.at_least else '≤'} {line.goal:g} {line.unit}"
    )
    reached = "" if line.goal is None else "yes" if line.is_reached else "**no**"
    return [
        line.measure,
        goal,
        _shown(line.cpu, line),
        _shown(line.wall, line),
        reached,
        line.detail,
    ]


def _shown(spread: Spread | None, line: Line) -> str:
    if spread is None:
        return "–"
    if spread.low == spread.high:
        return f"{spread.median:.2f} {line.unit}"
    return f"{spread.median:.2f} {line.unit} ({spread.low:.2f}–{spread.high:.2f})"


def table(stored: dict[str, Any]) -> str:
    heads = ["row", "measure", "goal", "by CPU-seconds", "by the clock", "reached", ""]
    rows = [heads, ["---"] * len(heads)]
    notes: dict[str, list[str]] = {}
    for name in (name for name in ROWS if name in stored):
        notes.setdefault(stored[name]["from"], []).append(name)
        rows += [[name, *cells(line)] for line in lines_of(stored[name])]
    body = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    machines = "\n".join(f"- {', '.join(names)}: {where}" for where, names in notes.items())
    return f"""# What was measured

Written by `make bench`; [docs/benchmarks.md](../docs/benchmarks.md) describes the rows. A number is
a median over turns, quartiles in brackets; × is how many times as fast, or how many times as much.

{body}

![ratios and goals](results.svg)

{machines}
"""


def lines_of(stored: dict[str, Any]) -> list[Line]:
    """The lines of a row as they were kept."""
    found = []
    for line in stored["lines"]:
        spreads = {name: Spread(**line[name]) if line[name] else None for name in ("wall", "cpu")}
        found.append(Line(**{**line, **spreads}))
    return found


def plot(stored: dict[str, Any]) -> None:
    """Every line with a goal as a share of the goal, on a logarithmic axis; 1 is reached."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    lines = [
        line for name in ROWS if name in stored for line in lines_of(stored[name]) if line.goal
    ]
    figure = Figure(figsize=(9, 0.6 + 0.4 * len(lines)), layout="constrained")
    axes = figure.subplots()
    for place, line in enumerate(reversed(lines)):
        assert line.goal is not None
        spread = line.cpu or line.wall
        shares = [
            value / line.goal if line.at_least else line.goal / value
            for value in (spread.low, spread.median, spread.high)
        ]
        colour = "tab:green" if line.is_reached else "tab:red"
        axes.plot([min(shares), max(shares)], [place, place], color=colour, linewidth=3)
        axes.plot(shares[1], place, "o", color=colour)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    ticks = [2.0**n for n in range(-8, 9) if low <= 2.0**n <= high]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("times as good as the goal")
    axes.set_yticks(range(len(lines)), [line.measure for line in reversed(lines)])
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "spira"}):  # text as text
        figure.savefig(PLOT, metadata={"Date": None})


if __name__ == "__main__":
    main()
