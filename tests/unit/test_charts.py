"""Charts: places that follow from the values, names for who does not see them, no collisions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import pytest
from reading_pages import Page

from expectations.words import Words
from spira_tasks.reports import charts, figures
from spira_tasks.reports.charts import Heading, Mark, Row, Stack
from spira_tasks.reports.facts import Counts

HEADING = Heading("sites", "By site", "How many people")
TICKS = [Mark(0, "0"), Mark(0.5, "0.5"), Mark(1, "1")]


def drawn(chart: str, tag: str, kind: str) -> list[Mapping[str, str]]:
    """Elements of a class, outside the legend."""
    page = Page(chart)
    assert page.problems == []
    return [
        one
        for one in page.all(tag)
        if kind in one.get("class", "").split() and one.get("height") != "13"
    ]


def widths(chart: str, kind: str) -> list[str]:
    return [one["width"] for one in drawn(chart, "rect", kind)]


def test_a_bar_is_as_long_as_its_share_of_the_largest() -> None:
    chart = charts.bars(HEADING, [Row("a", 40, "40"), Row("b", 10, "10"), Row("c", 0, "0")])
    assert widths(chart, "c1") == ["100%", "25%"]
    assert widths(chart, "track") == ["100%"] * 3


def test_a_chart_has_a_title_and_a_description_for_who_does_not_see_it() -> None:
    page = Page(charts.bars(HEADING, [Row("a", 1, "1")]))
    (svg,) = page.all("svg")
    assert (svg["role"], svg["aria-labelledby"]) == ("img", "sites-t sites-d")
    assert {"By site", "How many people", "a", "1"} <= {word for _, word in page.words}


def test_what_is_hidden_or_unknown_is_written_and_not_drawn() -> None:
    chart = charts.bars(HEADING, [Row("a", None, "hidden"), Row("b", 8, "8")])
    assert widths(chart, "c1") == ["100%"]
    assert "hidden" in Page(chart).text
    chart = charts.intervals(HEADING, [Row("a", None, "hidden")], TICKS)
    assert drawn(chart, "circle", "c1") == []
    chart = charts.stacked(HEADING, ["x", "y"], [Stack("a", [None, 6], ["hidden", "6"], "hidden")])
    assert widths(chart, "part") == ["100%"]


@pytest.mark.parametrize("value", [None, 0])
def test_nothing_at_all_still_makes_a_chart(value: float | None) -> None:
    for chart in (
        charts.bars(HEADING, []),
        charts.bars(HEADING, [Row("a", value, "none")]),
        charts.stacked(HEADING, [], []),
        charts.stacked(HEADING, ["x"], [Stack("a", [value], ["none"], "0")]),
        charts.intervals(HEADING, [], TICKS),
        charts.lines(HEADING, [], [], [], TICKS),
        charts.lines(HEADING, [("r", "d")], [value], ["none"], TICKS),
    ):
        page = Page(chart)
        assert page.problems == []
        assert float(page.all("svg")[0]["height"]) >= 0
        assert "nan" not in chart


def test_parts_of_a_stack_lie_side_by_side_and_fill_it() -> None:
    row = Stack("a", [10, 30, 0, 40], ["10", "30", "0", "40"], "80")
    parts = drawn(charts.stacked(HEADING, list("wxyz"), [row]), "rect", "part")
    assert [(part["x"], part["width"]) for part in parts] == [
        ("0%", "12.5%"), ("12.5%", "37.5%"), ("50%", "50%")
    ]  # fmt: skip


def test_categories_beyond_the_colours_are_one() -> None:
    names = tuple(f"device {number}" for number in range(9))
    cells = tuple(range(10, 19))
    counts = Counts(("site", "device"), "subjects", ("#1",), names, (cells,), (126,), cells, 126)
    figure = figures.of_counts(Words("en"), counts, "many")
    assert len(drawn(figure.chart, "rect", "part")) == charts.N_COLOURS
    assert len(figure.columns) == 1 + 9 + 1  # the table keeps them apart


def test_an_interval_keeps_within_its_axis() -> None:
    rows = [Row("a", 0.5, "0.5", -1.0, 2.0), Row("b", 0.25, "0.25", 0.0, 0.5)]
    chart = charts.intervals(HEADING, rows, TICKS, [Mark(0.75, "limit")])
    whiskers = [(one["x1"], one["x2"]) for one in drawn(chart, "line", "whisker")]
    assert whiskers == [("0%", "100%"), ("0%", "50%")]
    assert [dot["cx"] for dot in drawn(chart, "circle", "c1")] == ["50%", "25%"]
    assert [one["x1"] for one in drawn(chart, "line", "limit")] == ["75%"]


def test_one_run_is_one_point_in_the_middle() -> None:
    chart = charts.lines(HEADING, [("only", "today")], [0.5], ["50 %"], TICKS)
    (point,) = drawn(chart, "circle", "c1")
    assert float(point["cx"].rstrip("%")) == pytest.approx((charts.FIRST + charts.LAST) / 2)
    assert drawn(chart, "line", "series") == []


def test_a_run_without_a_value_leaves_a_gap() -> None:
    runs = [("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]
    chart = charts.lines(HEADING, runs, [0.5, None, 0.6, 0.7], [""] * 4, TICKS)
    assert len(drawn(chart, "line", "series")) == 1
    assert len(drawn(chart, "circle", "c1")) == 3


def test_thirty_categories_with_long_names_stay_apart_and_keep_their_names() -> None:
    names = [
        f"a device of a name that is longer than any phone is wide, number {n}" for n in range(30)
    ]
    chart = charts.bars(HEADING, [Row(name, n, str(n)) for n, name in enumerate(names)])
    page = Page(chart)
    lines = [float(text["y"]) for text in page.all("text") if text["class"] == "label"]
    assert all(below - above >= charts.ROW for above, below in pairwise(lines))
    shown = [word for tag, word in page.words if tag == "text" and word.startswith("a device")]
    assert max(map(len, shown)) <= charts.LINE_LENGTH
    assert set(names) <= {word for tag, word in page.words if tag == "title"}


def test_the_first_and_the_last_day_stand_under_the_axis() -> None:
    days = [f"2026-11-{day:02d}" for day in range(1, 31)]
    runs = [(day, day) for day in days]
    page = Page(charts.lines(HEADING, runs, [0.9] * 30, ["90 %"] * 30, TICKS))
    shown = [words for tag, words in page.words if tag == "text"]
    ticks = list(zip([text["text-anchor"] for text in page.all("text")], shown, strict=True))
    assert ticks[len(TICKS) :] == [("start", days[0]), ("end", days[-1])]


def test_devices_of_one_value_are_drawn_on_an_axis_of_one_tick() -> None:
    ticks = figures._ticks(Words("en"), 3, 3)
    chart = charts.intervals(HEADING, [Row("a", 3, "3", 3, 3), Row("b", None, "-")], ticks)
    assert [dot["cx"] for dot in drawn(chart, "circle", "c1")] == ["0%"]


def test_names_are_escaped() -> None:
    evil = "<script>alert('x')</script>\" onload=\"x"
    for chart in (
        charts.bars(Heading("n", evil, evil), [Row(evil, 1, evil)]),
        charts.stacked(HEADING, [evil], [Stack(evil, [1], [evil], evil)]),
        charts.intervals(HEADING, [Row(evil, 0.5, evil, 0.1, 0.9)], TICKS, [Mark(0.5, evil)]),
        charts.lines(HEADING, [(evil, evil)], [0.5], [evil], TICKS),
    ):
        page = Page(chart)
        assert page.problems == []
        assert not page.all("script")
        assert not any("onload" in attributes for _, attributes in page.tags)


@pytest.mark.parametrize(
    ("low", "high"),
    [(0, 1), (0, 8), (0, 5), (90, 100), (-24, -20), (7000, 7800), (0.6, 0.95), (3, 3)],
)
def test_ticks_are_round_and_enclose_the_values(low: float, high: float) -> None:
    ticks = figures._ticks(Words("en"), low, high)
    values = [tick.value for tick in ticks]
    assert values[0] <= low + 1e-9
    assert values[-1] >= high - 1e-9
    assert 1 <= len(ticks) <= 8
    assert len({tick.label for tick in ticks}) == len(ticks)
    for tick in ticks:
        shown = float(tick.label.replace(",", "").replace("−", "-"))
        assert math.isclose(shown, tick.value, abs_tol=1e-9)
