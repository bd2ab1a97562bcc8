"""A trace as a picture: one row of boxes a run, left to right as the data flowed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spira_tasks.governance.trace import NodeId, Trace

TEMPLATE = Path(__file__).with_name("picture.svg.jinja")
BOX_WIDTH, BOX_HEIGHT, GAP_X, GAP_Y, MARGIN, HEAD, LINE = 150, 58, 34, 26, 24, 30, 16
UNDER = 60  # room below the boxes for arrows that skip some of them
MIN_WIDTH = 640
MAX_RUNS, MAX_DECISIONS, MAX_CHARACTERS = 12, 12, 110  # more cannot be read; the JSON has all


def draw(trace: Trace) -> str:
    """An SVG document that shows and says what was done; no value of a patient is in it."""
    from jinja2 import StrictUndefined, Template

    runs = list(dict.fromkeys(node.run for node in trace.nodes))
    shown = runs[-MAX_RUNS:]
    lines: list[tuple[float, str, str]] = []
    places: dict[NodeId, tuple[float, float]] = {}
    top = MARGIN + HEAD * 2
    for run in shown:
        lines.append((top + 14, "run", f"run {run}"))
        filled: Counter[int] = Counter()
        for id_, column in _columns(trace, run).items():
            y = top + HEAD + filled[column] * (BOX_HEIGHT + GAP_Y)
            places[id_] = (MARGIN + column * (BOX_WIDTH + GAP_X), y)
            filled[column] += 1
        top += HEAD + max(filled.values()) * (BOX_HEIGHT + GAP_Y) + UNDER + GAP_Y
    if trace.by_persons:
        lines.append((top + 14, "run", "decisions of people"))
        for number, text in enumerate(_decisions(trace)):
            lines.append((top + HEAD + number * LINE, "small", text))
        top = int(lines[-1][0]) + LINE
    hidden = f"; {len(runs) - len(shown)} earlier runs are not drawn" if runs != shown else ""
    template = Template(
        TEMPLATE.read_text("utf-8"), autoescape=True, trim_blocks=True, undefined=StrictUndefined
    )
    picture: str = template.render(
        title=f"{trace.kind} {trace.name}",
        about=f"{len(trace.nodes)} steps of {len(runs)} runs, {len(trace.recordings)} recordings, "
        f"{len(trace.models)} model versions, {len(trace.by_persons)} decisions of people{hidden}",
        lines=lines,
        arrows=[
            (_arrow(places[maker], places[reader]), what)
            for maker, reader, what in trace.edges
            if maker in places and reader in places
        ],
        boxes=[(*places[node.id], node) for node in trace.nodes if node.id in places],
        width=max([MIN_WIDTH, *(x + BOX_WIDTH + MARGIN for x, _ in places.values())]),
        height=top + MARGIN,
        margin=MARGIN,
        box_width=BOX_WIDTH,
        box_height=BOX_HEIGHT,
    )
    return picture


def _decisions(trace: Trace) -> list[str]:
    """One line each, the newest; the reason is cut where it is long."""
    lines = []
    for one in trace.by_persons[-MAX_DECISIONS:]:
        withdrawn = "; withdrawn since" if one.withdrawn else ""
        text = f"{one.action}, {one.what}, by {one.by} on {one.at[:10]}{withdrawn}: {one.why}"
        lines.append(shorten(text, MAX_CHARACTERS, placeholder=" …"))
    n_earlier = len(trace.by_persons) - len(lines)
    return lines + ([f"and {n_earlier} earlier ones"] if n_earlier else [])


def _columns(trace: Trace, run: str) -> dict[NodeId, int]:
    """How far to the right each node of a run stands: one further than all that it reads."""
    columns: dict[NodeId, int] = {}
    for node in trace.nodes:  # in the order of the pipeline, so makers come first
        if node.run == run:
            makers = [maker for maker, reader, _ in trace.edges if reader == node.id]
            before = [columns.get(maker, -1) for maker in makers if maker[0] == run]
            columns[node.id] = max(before, default=-1) + 1
    return columns


def _arrow(maker: tuple[float, float], reader: tuple[float, float]) -> str:
    n_columns = round((reader[0] - maker[0]) / (BOX_WIDTH + GAP_X))
    if n_columns > 1:  # under the boxes between, from edge to edge
        x1, y1 = maker[0] + BOX_WIDTH * 0.75, maker[1] + BOX_HEIGHT
        x2, y2 = reader[0] + BOX_WIDTH * 0.25, reader[1] + BOX_HEIGHT
        low = max(y1, y2) + min(10 * n_columns, UNDER) * 4 / 3  # a curve reaches 3/4 of it
        curve = f"M{x1},{y1} C{x1 + 30},{low} {x2 - 30},{low} {x2},{y2}"
        return f"{curve} M{x2 - 5},{y2 + 5} L{x2},{y2} L{x2 + 3},{y2 + 7}"
    x1, y1 = maker[0] + BOX_WIDTH, maker[1] + BOX_HEIGHT / 2
    x2, y2 = reader[0], reader[1] + BOX_HEIGHT / 2
    curve = f"M{x1},{y1} C{x1 + GAP_X},{y1} {x2 - GAP_X},{y2} {x2},{y2}"
    return f"{curve} M{x2 - 6},{y2 - 4} L{x2},{y2} L{x2 - 6},{y2 + 4}"
