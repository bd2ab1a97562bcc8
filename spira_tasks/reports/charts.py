"""Charts as inline SVG elements, by the macros of ``templates/charts.html``.

Horizontal places are percentages and everything else is in pixels, so a chart is as wide as its
column while its letters keep their size.  Colours are classes of ``style.css``, for light, dark and
print.  Each chart has a title and a description for screen readers; the caller puts the same
numbers in a table beside it.  For a value of None only its text is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

N_COLOURS = 6  # classes c1 to c6; categories beyond them share the last, so callers fold small ones
LINE_LENGTH = 38  # letters that fit a phone side by side
ROW = 40  # pixels of a row: a line of text and what is drawn under it
FIRST, LAST = 18.0, 98.0  # per cent of the width between which runs are drawn
SIZES = {
    "n_colours": N_COLOURS, "line_length": LINE_LENGTH, "row": ROW, "first": FIRST, "last": LAST,
    "min_label": 12,  # letters that a label keeps, however long its value is
    "legend": 22,  # pixels of a row of the legend
    "plot": 160,  # pixels from the lowest tick to the highest
}  # fmt: skip


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


@cache
def environment() -> Environment:
    """What the pages and the charts are written with."""
    here = Path(__file__).parent
    made = Environment(
        loader=FileSystemLoader(here / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"place": _place, "pct": _percent, "g": "{:g}".format}
    style = (here / "style.css").read_text("utf-8")
    made.globals["style"] = Markup(style)  # noqa: S704  (a file of the project)
    return made


def _drawn(macro: str, *parts: Any) -> Markup:
    macros = environment().get_template("charts.html", globals=SIZES).module
    return Markup(getattr(macros, macro)(*parts))  # noqa: S704  (the macros escape)


bars = partial(_drawn, "bars")  # (heading, rows): horizontal bars
stacked = partial(_drawn, "stacked")  # (heading, categories, stacks): of one length, divided
intervals = partial(_drawn, "intervals")  # (heading, rows, ticks, limits): dots on one axis
lines = partial(_drawn, "lines")  # (heading, runs, values, texts, ticks): one value a run


def _place(value: float, low: float, high: float) -> float:
    """Where a value lies between two others, in per cent."""
    return 100 * min(max((value - low) / ((high - low) or 1.0), 0.0), 1.0)


def _percent(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") + "%"
