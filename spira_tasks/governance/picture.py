"""A trace as a picture: one row of boxes a run, left to right as the data flowed."""

from __future__ import annotations

from collections import Counter
from html import escape
from textwrap import shorten
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spira_tasks.governance.lineage import Node, Trace

BOX_WIDTH, BOX_HEIGHT, GAP_X, GAP_Y, MARGIN, HEAD = 150, 58, 34, 26, 24, 30
UNDER = 60  # room below the boxes for what skips some of them
COLOURS = {
    "done": ("#eef4fb", "#37618e"),
    "blocked": ("#fdecea", "#a3271b"),
    "failed": ("#fdf3e1", "#8a5a00"),
}
MAX_RUNS = 12  # beyond, a picture is read by nobody; the JSON has all
MAX_DECISIONS, LINE, LETTERS = 12, 16, 110


def draw(trace: Trace) -> str:
    """An SVG document that shows and says what was done; no value of a patient is in it."""
    runs = list(dict.fromkeys(node.run for node in trace.nodes))
    shown = runs[-MAX_RUNS:]
    parts: list[str] = []
    places: dict[tuple[str, str], tuple[float, float]] = {}
    top = MARGIN + HEAD * 2
    width = 0.0
    for run in shown:
        nodes = [node for node in trace.nodes if node.run == run]
        columns = _columns(trace, nodes)
        height = max(Counter(columns.values()).values()) * (BOX_HEIGHT + GAP_Y) + UNDER
        parts.append(_text(MARGIN, top + 14, f"run {run}", "run"))
        filled: Counter[int] = Counter()
        for node in nodes:
            column = columns[node.id]
            x = MARGIN + column * (BOX_WIDTH + GAP_X)
            y = top + HEAD + filled[column] * (BOX_HEIGHT + GAP_Y)
            filled[column] += 1
            places[node.id] = (x, y)
            width = max(width, x + BOX_WIDTH)
        top += HEAD + height + GAP_Y
    arrows = [
        _arrow(places[maker], places[reader], what)
        for maker, reader, what in trace.edges
        if maker in places and reader in places
    ]
    parts += arrows
    parts += [_box(node, *places[node.id]) for node in trace.nodes if node.id in places]
    if trace.by_persons:
        parts.append(_text(MARGIN, top + 14, "decisions of people", "run"))
        top += HEAD
        for line in _decisions(trace):
            parts.append(_text(MARGIN, top, line, "small"))
            top += LINE
    hidden = f"; {len(runs) - len(shown)} earlier runs are not drawn" if runs != shown else ""
    about = (
        f"{len(trace.nodes)} steps of {len(runs)} runs, {len(trace.recordings)} recordings, "
        f"{len(trace.models)} model versions, {len(trace.by_persons)} decisions of people{hidden}"
    )
    title = f"{trace.kind} {trace.name}"
    parts.insert(0, _text(MARGIN, MARGIN + 12, title, "title"))
    parts.insert(1, _text(MARGIN, MARGIN + 32, about, "small"))
    width, height = max(width + MARGIN, 640), top + MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-labelledby="t d">'
        f'<title id="t">{escape(title)}</title><desc id="d">{escape(about)}</desc>'
        "<style>text{font:12px sans-serif;fill:#1c2733}.title{font:bold 16px sans-serif}"
        ".run{font:bold 13px sans-serif}.small{font-size:11px;fill:#4a5866}"
        "path{fill:none;stroke:#8a97a5}</style>"
        f'<rect width="100%" height="100%" fill="#ffffff"/>{"".join(parts)}</svg>\n'
    )


def _decisions(trace: Trace) -> list[str]:
    """One line each, the newest; the reason is cut where it is long."""
    lines = []
    for one in trace.by_persons[-MAX_DECISIONS:]:
        withdrawn = "; withdrawn since" if one.withdrawn else ""
        said = f"{one.action}, {one.what}, by {one.by} on {one.at[:10]}{withdrawn}: {one.why}"
        lines.append(shorten(said, LETTERS, placeholder=" …"))
    n_earlier = len(trace.by_persons) - len(lines)
    return lines + ([f"and {n_earlier} earlier ones"] if n_earlier else [])


def _columns(trace: Trace, nodes: list[Node]) -> dict[tuple[str, str], int]:
    """How far to the right a node stands: one further than all that it reads."""
    columns: dict[tuple[str, str], int] = {}
    here = {node.id for node in nodes}
    for node in nodes:  # in the order of the pipeline, so makers come first
        before = [
            columns.get(maker, -1)
            for maker, reader, _ in trace.edges
            if reader == node.id and maker in here
        ]
        columns[node.id] = max(before, default=-1) + 1
    return columns


def _box(node: Node, x: float, y: float) -> str:
    fill, stroke = COLOURS.get(node.state, COLOURS["failed"])
    counts = Counter(verdict["verdict"] for verdict in node.verdicts)
    verdicts = ", ".join(f"{counts[v]} {v}" for v in ("pass", "warn", "block") if counts[v])
    lines = [
        _text(x + 8, y + 18, node.step, ""),
        _text(x + 8, y + 34, verdicts or node.state, "small"),
        _text(x + 8, y + 49, f"{node.key[:8]} · {node.provenance.get('git', '')[:7]}", "small"),
    ]
    return (
        f'<rect x="{x}" y="{y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6" fill="{fill}" '
        f'stroke="{stroke}" stroke-width="1.5"/>{"".join(lines)}'
    )


def _arrow(maker: tuple[float, float], reader: tuple[float, float], what: str) -> str:
    n_columns = round((reader[0] - maker[0]) / (BOX_WIDTH + GAP_X))
    if n_columns > 1:  # under the boxes between, from edge to edge
        x1, y1 = maker[0] + BOX_WIDTH * 0.75, maker[1] + BOX_HEIGHT
        x2, y2 = reader[0] + BOX_WIDTH * 0.25, reader[1] + BOX_HEIGHT
        low = max(y1, y2) + min(10 * n_columns, UNDER) * 4 / 3  # a curve reaches 3/4 of it
        curve = f"M{x1},{y1} C{x1 + 30},{low} {x2 - 30},{low} {x2},{y2}"
        tip = f"M{x2 - 5},{y2 + 5} L{x2},{y2} L{x2 + 3},{y2 + 7}"
    else:
        x1, y1 = maker[0] + BOX_WIDTH, maker[1] + BOX_HEIGHT / 2
        x2, y2 = reader[0], reader[1] + BOX_HEIGHT / 2
        curve = f"M{x1},{y1} C{x1 + GAP_X},{y1} {x2 - GAP_X},{y2} {x2},{y2}"
        tip = f"M{x2 - 6},{y2 - 4} L{x2},{y2} L{x2 - 6},{y2 + 4}"
    return f'<path d="{curve} {tip}"><title>{escape(what)}</title></path>'


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text x="{x}" y="{y}" class="{style}">{escape(text)}</text>'
