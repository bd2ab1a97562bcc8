"""From facts to figures: a chart, and the table that says the same in numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from expectations.words import Words
from expectations.words import verdicts as in_words
from spira_tasks.contract.verdict import Verdict
from spira_tasks.reports import charts
from spira_tasks.reports.charts import Heading, Mark
from spira_tasks.reports.facts import Count, Counts, Evaluation, Interval, RunSummary, SignalQuality
from spira_tasks.reports.sentences import group_name, name_of

CONDITIONS = ("clean", "noise_all", "noise_controls", "noise_patients", "noise_swapped", "averaged")
METRICS = ("balanced_accuracy", "sensitivity", "specificity")
ALL_METRICS = ("auc", "balanced_accuracy", "accuracy", "sensitivity", "specificity", "f1")
PARTS_OF_SOUND = ("speech", "pauses", "edges")
SHOWN_THRESHOLDS = (0.02, 0.1, 0.2, 0.3, 0.5)
HIDDEN = Interval(None, None, None)
NO_CHART = Markup("")  # of a figure in which every number is hidden
N_RUNS = 30  # as many as a chart over runs can show apart


@dataclass(frozen=True)
class Figure:
    """``rows`` begin with their header; cells are words already.  Hidden whole: ``NO_CHART``."""

    name: str
    title: str
    note: str
    chart: Markup
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def of_counts(t: Words, counts: Counts, name: str, title: str = "") -> Figure:
    """Bars for a table with one way, bars divided by column for one with two."""
    title = title or t.first(f"counts.{'_'.join(counts.by)}", "counts.other")
    unit = t(f"unit.{counts.unit}")
    hides = any(cell is None for row in counts.cells for cell in row)
    note = t("figure.hidden") if hides else ""
    heading = Heading(name, title, t("figure.counts", unit=unit))
    if all(cell is None for row in counts.cells for cell in row):
        return Figure(name, title, "", NO_CHART, (), ())
    rows = [category(t, counts.by[0], row) for row in counts.rows]
    dimension = t.first(f"by.{counts.by[0]}", "by.other")
    if not counts.columns:
        values = [value for (value,) in counts.cells]
        bars = [
            charts.Row(row, value, _with_share(t, value, counts.total))
            for row, value in zip(rows, values, strict=True)
        ]
        table = zip([*rows, t("total")], map(t.cell, [*values, counts.total]), strict=True)
        return Figure(name, title, note, charts.bars(heading, bars), (dimension, unit), (*table,))
    columns = [category(t, counts.by[1], column) for column in counts.columns]
    categories, folded = _folded(t, columns, counts.cells)
    stacks = [
        charts.Stack(row, values, [t.cell(value) for value in values], t.cell(total))
        for row, values, total in zip(rows, folded, counts.row_totals, strict=True)
    ]
    lines = [
        (row, *map(t.cell, values), t.cell(total))
        for row, values, total in zip(rows, counts.cells, counts.row_totals, strict=True)
    ]
    lines.append((t("total"), *map(t.cell, (*counts.column_totals, counts.total))))
    header = (dimension, *columns, t("total"))
    chart = charts.stacked(heading, categories, stacks)
    return Figure(name, title, note, chart, header, tuple(lines))


def category(t: Words, dimension: str, value: str) -> str:
    """Name a category; the reason of a gate names an expectation and its columns."""
    return in_words.reason(value, t.language) if dimension == "reason" else t.name(dimension, value)


def of_evaluation(t: Words, evaluation: Evaluation) -> list[Figure]:
    """One figure a metric: as recorded, and with ward noise on some people."""
    figures = []
    for metric in METRICS if evaluation.conditions else ():
        rows = [
            charts.Row(
                t(f"condition.{name}"), one.value, _interval(t, one), one.low, one.high,
                "c1" if name == "clean" else "c2",
            )
            for name in _conditions(evaluation)
            for one in (evaluation.conditions[name].get(metric, HIDDEN),)
        ]  # fmt: skip
        chance = [Mark(0.5, t("figure.chance"))] if metric == "balanced_accuracy" else []
        name, title = f"evaluation-{metric}", t(f"metric.{metric}")
        heading = Heading(name, title, t("figure.intervals"))
        chart = charts.intervals(heading, rows, _ticks(t, 0, 1, 4, 2), chance)
        figures.append(Figure(name, title, t(f"metric.{metric}.note"), chart, (), ()))
    return figures


def of_experiment(t: Words, found: Mapping[str, Any]) -> list[Figure]:
    """What the arms of an experiment come to, as recorded and in ward noise."""
    measured = [arm for arm in found["arms"] if "conditions" in arm]
    figures, names = [], (found["metric"], *(one for one in METRICS if one != found["metric"]))
    for metric in names if measured else ():
        rows = [
            charts.Row(label, one.value, _interval(t, one), one.low, one.high, tone)
            for arm in measured
            for name, label, tone in (
                ("clean", t.name("arm", arm["name"]), "c1"),
                ("noise", t("condition.noise_all"), "c2"),
                ("noise_controls", t("condition.noise_controls"), "c2"),
            )
            if name in arm["conditions"]
            for one in (Interval(**arm["conditions"][name][metric]),)
        ]  # fmt: skip
        name, title = f"experiment-{found['name']}-{metric}", t(f"metric.{metric}")
        heading = Heading(name, title, t("experiments.figure"))
        chart = charts.intervals(heading, rows, _ticks(t, 0, 1, 4, 2))
        columns = (t("experiments.column.arm"), title)
        lines = tuple((row.label, row.text) for row in rows)
        figures.append(Figure(name, title, t.first(f"metric.{metric}.note"), chart, columns, lines))
    return figures


def evaluation_table(t: Words, evaluation: Evaluation) -> Figure:
    """Every metric in every condition, as words; it has no chart of its own."""
    conditions = _conditions(evaluation)
    rows = tuple(
        (
            t(f"metric.{metric}"),
            *(_interval(t, evaluation.conditions[name].get(metric)) for name in conditions),
        )
        for metric in ALL_METRICS
    )
    columns = (t("column.metric"), *(t(f"condition.{name}") for name in conditions))
    return Figure("evaluation", t("verdict.numbers"), "", Markup(""), columns, rows)


def of_measured(t: Words, evaluation: Evaluation) -> list[Figure]:
    """Groups of people, calibration, and how often answers change with noise and with the sound."""
    measured = evaluation.measured
    rows: dict[str, list[charts.Row]] = {
        "slices": [
            _row(t, f"{t(f'by.{by}').capitalize()}: {group_name(t, by, group)}", found["auc"])
            for by, groups in measured.get("slices", {}).items()
            for group, found in groups.items()
            if "auc" in found
        ],
        "reliability": [
            _row(t, t("reliability.said", said=t.percent(one["predicted"])), one["observed"])
            for one in measured.get("calibration", {}).get("reliability", ())
        ],
        **{
            f"flips_{label}": [
                _row(t, t(f"condition.{cell}"), by_label[label])
                for cell, by_label in measured.get("flips", {}).items()
                if label in by_label
            ]
            for label in ("patients", "controls")
        },
        **{
            f"behaviour_{label}": [
                _row(t, t.name("change", change), found["flips"][label])
                for change, found in measured.get("behaviour", {}).items()
                if label in found["flips"]
            ]
            for label in ("patients", "controls")
        },
    }
    figures = []
    for name, some in rows.items():
        if some:
            heading = Heading(name, t(f"measured.{name}"), t(f"measured.{name}.note"))
            chance = [Mark(0.5, t("figure.chance"))] if name == "slices" else []
            chart = charts.intervals(heading, some, _ticks(t, 0, 1, 4, 2), chance)
            lines = tuple((row.label, row.text) for row in some)
            columns = (t("column.what"), t("column.value"))
            figures.append(Figure(name, heading.title, heading.description, chart, columns, lines))
    return figures


def _row(t: Words, label: str, one: Mapping[str, float]) -> charts.Row:
    return charts.Row(label, one["value"], _interval(t, Interval(**one)), one["low"], one["high"])


def explained(t: Words, evaluation: Evaluation) -> list[tuple[str, ...]]:
    """By how many points of probability each part of a recording pushes its answer."""
    return [
        (
            f"{number}. " + t(f"explained.person.{one['label']}"),
            t("explained.called" if one["is_called"] else "explained.not_called"),
            t.percent(one["probability"]),
            *(t.number(one["parts"].get(part), 1) for part in PARTS_OF_SOUND),
        )
        for number, one in enumerate(
            evaluation.measured.get("explanations", {}).get("recordings", ()), start=1
        )
    ]


def explained_check(t: Words, evaluation: Evaluation) -> str:
    """Whether the maps show what the network learned, or the sound alone."""
    random = evaluation.measured.get("explanations", {}).get("randomised")
    if not random:
        return ""
    return t("explained.check", correlation=t.number(random["all_layers"]["signed"], 2))


def benefits(t: Words, evaluation: Evaluation) -> list[tuple[str, ...]]:
    """Net benefit by prevalence and by the probability from which one would act."""
    return [
        (
            t.percent(float(prevalence)),
            t.percent(one["threshold"]),
            _interval(t, Interval(**{end: 100 * x for end, x in one["model"].items()})),
            t.number(100 * one["everybody"], 1),
        )
        for prevalence, rows in evaluation.measured.get("net_benefit", {}).items()
        for one in rows
        if one["threshold"] in SHOWN_THRESHOLDS
    ]


def _conditions(evaluation: Evaluation) -> list[str]:
    return [name for name in CONDITIONS if name in evaluation.conditions]


def of_signal(t: Words, quality: Sequence[SignalQuality]) -> list[Figure]:
    """One figure a measure: the median and the middle half of every device."""
    figures = []
    for measure in dict.fromkeys(one.measure for one in quality):
        found = [one for one in quality if one.measure == measure]
        ends = [end for one in found for end in (one.low, one.median, one.high) if end is not None]
        ticks = _ticks(t, min(ends, default=0), max(ends, default=1))
        unit = t.name("measure_unit", measure)
        decimals = 0 if all(end == int(end) for end in ends) else 2
        rows = [
            charts.Row(
                t.name("device", one.device), one.median,
                t("hidden") if one.median is None else f"{t.number(one.median, decimals)} {unit}",
                one.low, one.high,
            )
            for one in found
        ]  # fmt: skip
        name, title = f"signal-{measure}", t.name("measure", measure)
        heading = Heading(name, title, t("figure.quartiles"))
        chart = charts.intervals(heading, rows, ticks) if ends else NO_CHART
        table = tuple(
            (
                t.name("device", one.device),
                t.cell(one.n_subjects),
                t.cell(one.n_recordings),
                *(t.number(end, decimals) for end in (one.low, one.median, one.high)),
            )
            for one in found
        )
        columns = tuple(
            t(f"column.{column}")
            for column in ("device", "n_subjects", "n_recordings", "low", "median", "high")
        )
        figures.append(Figure(name, title, unit, chart, columns, table))
    return figures


def of_drift(t: Words, drift: Sequence[Verdict]) -> Figure | None:
    """Distance from the champion's training set, in units of what is tolerated at this n.

    The chart holds what has a limit above zero, the table everything.  None where nothing could
    be compared.
    """
    bars = []
    for one in drift:
        if one.id == "drift_reference":  # a count of people, no distance
            continue
        if one.observed is not None and one.observed.value is not None and one.threshold:
            ratio = one.observed.value / one.threshold
            text = f"{in_words.observed(one, t.language)} / {in_words.limit(one, t.language)}"
            bar_tone = "c1" if one.status == "pass" else "c2"
            label = in_words.title(one, t.language)
            bars.append(charts.Row(label, ratio, text, 0.0, ratio, bar_tone))
    if not bars:
        return None
    largest = max(1.0, *(row.value for row in bars if row.value is not None))
    heading = Heading("drift", t("data.drift_figure"), t("figure.drift"))
    ticks = _ticks(t, 0, min(largest, 4.0))
    chart = charts.intervals(heading, bars, ticks, [Mark(1, t("figure.limit"))])
    shown = (in_words.title, in_words.mark, in_words.observed, in_words.limit, in_words.n)
    table = tuple(tuple(part(one, t.language) for part in shown) for one in drift)
    columns = ("property", "verdict", "observed", "limit", "n")
    header = tuple(t(f"column.{column}") for column in columns)
    return Figure("drift", heading.title, heading.description, chart, header, table)


def of_runs(t: Words, runs: Sequence[RunSummary]) -> list[Figure]:
    """Pass rate, quarantine and AUC over the newest runs that came to their end, oldest first."""
    shown = [run for run in runs if run.has_ended][-N_RUNS:]
    if not shown:
        return []
    rates = [run.pass_rate for run in shown]
    quarantined = [run.n_quarantined for run in shown]
    floor = math.floor(10 * min((r for r in rates if r is not None), default=0.9) - 1e-9) / 10
    percents = _ticks(t, 100 * max(floor, 0), 100)  # the axis says where it begins
    names = [name_of(t, run) for run in shown]
    days = [run.finished_at[: len("2026-11-21")] for run in shown]
    figures = []
    for what, values, texts, ticks in (
        (
            "pass_rate",
            rates,
            [t.percent(rate, 1) for rate in rates],
            [Mark(tick.value / 100, f"{tick.label}\u00a0%") for tick in percents],
        ),
        (
            "n_quarantined",
            quarantined,
            [t.count(count) for count in quarantined],
            _ticks(t, 0, max([5, *(count for count in quarantined if count is not None)])),
        ),
        (
            "auc",
            [run.auc.value if run.auc else None for run in shown],
            [_interval(t, run.auc) for run in shown],
            _ticks(t, 0, 1, 2, 1),
        ),
    ):
        name, title = f"runs-{what}", t(f"runs.{what}")
        heading = Heading(name, title, t("figure.runs", n=len(shown)))
        chart = NO_CHART
        if any(value is not None for value in values):
            chart = charts.lines(heading, list(zip(names, days, strict=True)), values, texts, ticks)
        rows = tuple(zip(reversed(names), reversed(texts), strict=True))
        note = t(f"runs.{what}.note")
        figures.append(Figure(name, title, note, chart, (t("column.run"), title), rows))
    return figures


def _ticks(
    t: Words, low: float, high: float, n: int = 4, decimals: int | None = None
) -> list[Mark]:
    """Round places that enclose ``low`` and ``high``, about ``n`` steps apart."""
    span = (high - low) or 1.0
    rough = span / n
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * k for k in (1, 2, 2.5, 5, 10) if power * k >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if decimals is None:
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        decimals += step * 10**decimals % 1 > 1e-6  # a step of 2.5 or 0.25
    return [Mark(k * step, t.number(k * step, decimals)) for k in range(first, last + 1)]


def _interval(t: Words, one: Interval | None) -> str:
    return t.interval(one.value, one.low, one.high) if one else t("unknown")


def _with_share(t: Words, value: Count, total: Count) -> str:
    if value is None or not total:
        return t.cell(value)
    return f"{t.cell(value)} ({t.percent(value / total)})"


def _folded(
    t: Words, columns: Sequence[str], cells: Sequence[Sequence[Count]]
) -> tuple[list[str], list[list[Count]]]:
    """Columns beyond the last colour as one, which is hidden where one of its parts is."""
    if len(columns) <= charts.N_COLOURS:
        return list(columns), [list(row) for row in cells]
    keep = charts.N_COLOURS - 1
    folded = []
    for row in cells:
        rest = [value for value in row[keep:] if value is not None]
        whole = len(rest) == len(row) - keep
        folded.append([*row[:keep], sum(rest) if whole else None])
    return [*columns[:keep], t("category.other")], folded
