"""Charts as inline SVG elements.

Horizontal places are percentages and everything else is in pixels, so a chart is as wide as its
column while its letters keep their size.  Colours are classes of ``style.css``, for light, dark and
print.  Each chart has a title and a description for screen readers; the caller puts the same
numbers in a table beside it.  For a value of None only its text is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape

N_COLOURS = 6  # classes c1 to c6
LINE_LENGTH = 38  # letters that fit a phone side by side
MIN_LABEL = 12  # letters that a label keeps, however long its value is
ROW = 40  # pixels of a row: a line of text and what is drawn under it
LEGEND_ROW = 22
PLOT = 160  # pixels from the lowest tick to the highest
FIRST, LAST = 18.0, 98.0  # per cent of the width between which runs are drawn


@dataclass(frozen=True)
class Heading:
    """The id of a chart on its page, and its words for a screen reader."""

    name: str
    title: str
    description: str


@dataclass(frozen=True)
class Row:
    """One bar, or one dot with its interval."""

    label: str
    value: float | None
    text: str
    low: float | None = None
    high: float | None = None
    tone: str = "c1"


@dataclass(frozen=True)
class Stack:
    """One stacked bar; ``values`` and ``texts`` are by category."""

    label: str
    values: Sequence[float | None]
    texts: Sequence[str]
    total: str


@dataclass(frozen=True)
class Mark:
    """A place on the axis with its words: a tick, or a limit that is drawn through the chart."""

    value: float
    label: str


def bars(heading: Heading, rows: Sequence[Row]) -> Markup:
    """Horizontal bars."""
    largest = max((row.value for row in rows if row.value is not None), default=0.0)
    drawn = []
    for number, row in enumerate(rows):
        top = number * ROW
        width = 100 * row.value / largest if row.value is not None and largest > 0 else 0.0
        drawn.append(_row_text(row.label, row.text, top))
        drawn.append(_rect("track", 0, top + 20, 100, 10))
        if width > 0:
            drawn.append(_rect(row.tone, 0, top + 20, width, 10, words=f"{row.label}: {row.text}"))
    return _svg(heading, drawn, len(rows) * ROW)


def stacked(heading: Heading, categories: Sequence[str], rows: Sequence[Stack]) -> Markup:
    """Bars of the same length, divided by category, with a legend above.

    Categories beyond the last colour share it, so callers fold small ones into one.
    """
    drawn = []
    for number, label in enumerate(categories):
        y = number * LEGEND_ROW + 10
        square = Markup('<rect class="{}" x="1" y="{}" width="13" height="13"/>')
        drawn.append(square.format(_colour(number), y - 7))
        drawn.append(_text("legend", label, 0, y + 4, "start", shift=22))
    height = len(categories) * LEGEND_ROW + (8 if categories else 0)
    for number, row in enumerate(rows):
        top = height + number * ROW
        drawn.append(_row_text(row.label, row.total, top))
        drawn.append(_rect("track", 0, top + 20, 100, 14))
        total = sum(value or 0 for value in row.values)
        left = 0.0
        for place, (value, text) in enumerate(zip(row.values, row.texts, strict=True)):
            if not value:
                continue
            width = 100 * value / total
            words = f"{row.label}, {categories[place]}: {text}"
            drawn.append(_rect(f"part {_colour(place)}", left, top + 20, width, 14, words=words))
            left += width
    return _svg(heading, drawn, height + len(rows) * ROW)


def intervals(
    heading: Heading, rows: Sequence[Row], ticks: Sequence[Mark], limits: Sequence[Mark] = ()
) -> Markup:
    """Dots with their intervals on one axis, from the first tick to the last."""
    low, high = ticks[0].value, ticks[-1].value
    span = (high - low) or 1.0

    def place(value: float) -> float:
        return 100 * min(max((value - low) / span, 0.0), 1.0)

    top = LEGEND_ROW * len(limits)
    bottom = top + len(rows) * ROW
    drawn = [_line("grid", place(tick.value), top, place(tick.value), bottom) for tick in ticks]
    for number, limit in enumerate(limits):
        x = place(limit.value)
        drawn.append(_line("limit", x, number * LEGEND_ROW + 4, x, bottom))
        anchor, shift = ("end", -6) if x > 50 else ("start", 6)
        drawn.append(_text("tick", limit.label, x, number * LEGEND_ROW + 14, anchor, shift=shift))
    for number, row in enumerate(rows):
        y = top + number * ROW
        drawn.append(_row_text(row.label, row.text, y))
        if row.value is None:
            continue
        if row.low is not None and row.high is not None:
            left, right = place(row.low), place(row.high)
            drawn.append(_line(f"whisker {row.tone}", left, y + 27, right, y + 27))
        drawn.append(_dot(row.tone, place(row.value), y + 27, f"{row.label}: {row.text}"))
    for tick in ticks:
        x = place(tick.value)
        anchor = "start" if x < 1 else "end" if x > 99 else "middle"
        drawn.append(_text("tick", tick.label, x, bottom + 16, anchor))
    return _svg(heading, drawn, bottom + 24)


def lines(
    heading: Heading,
    runs: Sequence[tuple[str, str]],
    values: Sequence[float | None],
    texts: Sequence[str],
    ticks: Sequence[Mark],
) -> Markup:
    """One value a run, oldest first; a run without a value leaves a gap.

    ``runs`` are names and days; the first and the last day stand under the axis.
    """
    low, high = ticks[0].value, ticks[-1].value
    span = (high - low) or 1.0

    def across(number: int) -> float:
        return FIRST + (LAST - FIRST) * (number / (len(runs) - 1) if len(runs) > 1 else 0.5)

    def down(value: float) -> float:
        return round(14 + PLOT * (1 - min(max((value - low) / span, 0.0), 1.0)), 1)

    drawn = []
    for tick in ticks:
        drawn.append(_line("grid", 0, down(tick.value), 100, down(tick.value)))
        drawn.append(_text("tick", tick.label, 0, down(tick.value) - 4, "start"))
    points = [
        None if value is None else (across(number), down(value))
        for number, value in enumerate(values)
    ]
    for start, end in pairwise(points):
        if start is not None and end is not None:
            drawn.append(_line("series c1", *start, *end))
    for point, (name, _), text in zip(points, runs, texts, strict=True):
        if point is not None:
            drawn.append(_dot("c1", *point, f"{name}, {heading.title}: {text}", 4.5))
    bottom = down(low) + 18
    if len(runs) == 1:
        drawn.append(_text("tick", runs[0][1], across(0), bottom, "middle"))
    elif runs:
        drawn.append(_text("tick", runs[0][1], FIRST, bottom, "start"))
        drawn.append(_text("tick", runs[-1][1], LAST, bottom, "end"))
    return _svg(heading, drawn, bottom + 8)


def _svg(heading: Heading, drawn: Sequence[Markup], height: float) -> Markup:
    return Markup(
        '<svg class="chart" role="img" width="100%" height="{height:g}" '
        'aria-labelledby="{name}-t {name}-d"><title id="{name}-t">{title}</title>'
        '<desc id="{name}-d">{description}</desc>{drawn}</svg>'
    ).format(
        height=height,
        name=heading.name,
        title=heading.title,
        description=heading.description,
        drawn=Markup("").join(drawn),
    )


def _row_text(label: str, text: str, top: float) -> Markup:
    """The label of a row, cut where its value needs the room, and the value."""
    room = max(LINE_LENGTH - len(text), MIN_LABEL)
    about = _text("label", label, 0, top + 14, "start", length=room)
    return about + _text("value", text, 100, top + 14, "end")


def _text(
    kind: str,
    text: str,
    x: float,
    y: float,
    anchor: str,
    *,
    shift: int = 0,
    length: int = LINE_LENGTH,
) -> Markup:
    words = escape(text)
    if len(text) > length:
        words = _title(text) + f"{text[: length - 1].rstrip()}…"
    return Markup('<text class="{}" x="{}%" y="{:g}" dx="{}" text-anchor="{}">{}</text>').format(
        kind, _number(x), y, shift, anchor, words
    )


def _rect(kind: str, x: float, y: float, width: float, height: float, *, words: str = "") -> Markup:
    return Markup('<rect class="{}" x="{}%" y="{:g}" width="{}%" height="{:g}">{}</rect>').format(
        kind, _number(x), y, _number(width), height, _title(words)
    )


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return Markup('<line class="{}" x1="{}%" y1="{:g}" x2="{}%" y2="{:g}"/>').format(
        kind, _number(x1), y1, _number(x2), y2
    )


def _dot(kind: str, x: float, y: float, words: str, radius: float = 6) -> Markup:
    return Markup('<circle class="{}" cx="{}%" cy="{:g}" r="{:g}">{}</circle>').format(
        kind, _number(x), y, radius, _title(words)
    )


def _colour(number: int) -> str:
    return f"c{min(number, N_COLOURS - 1) + 1}"


def _title(words: str) -> Markup:
    return Markup("<title>{}</title>").format(words) if words else Markup("")


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
