"""What is known of a run: as JSON for programs, as tables for people."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expectations.words import words_of
from expectations.words.verdicts import sentence
from spira_tasks.artifacts import Store
from spira_tasks.contract.run import Run, StepRecord
from spira_tasks.contract.verdict import Number, Verdict, few_or, shown_metrics, suppress
from spira_tasks.errors import ConfigError, ServiceUnavailable
from spira_tasks.governance import audit

if TYPE_CHECKING:
    from rich.table import Table

CONDITIONS = {
    "": "as recorded",
    "_noise_all": "ward noise: all",
    "_noise_controls": "  controls only",
    "_noise_patients": "  patients only",
    "_noise_swapped": "  other class's rooms",
    "_averaged": "averaged copies",
}
METRICS = ("auc", "accuracy", "sensitivity", "specificity")
COLOURS = {"promoted": "green", "kept": "cyan", "blocked": "red", "failed": "red"}
MARKS = {
    "pass": "[green]pass[/]",
    "warn": "[yellow]warn[/]",
    "insufficient": "[yellow]insufficient[/]",
    "block": "[red]block[/]",
}


def describe(run_id: str, store: Store) -> dict[str, Any]:
    """Return the stable description of a run; ``docs/run.md`` documents its fields."""
    run = _run(run_id, store)
    return {
        "run_id": run_id,
        "data": _data(run),
        "outcome": None if run.outcome == "running" else run.outcome,
        "steps": [
            {
                "name": record.step,
                "stage": record.stage,
                "key": record.key or None,
                "found": record.found,
                "n_shards": len(run.shards.get(record.step, ())),
                "seconds": record.seconds,
                "outputs": dict(record.outputs),
                "metrics": shown_metrics(record.metrics),
                "verdicts": [_verdict(verdict) for verdict in record.verdicts],
            }
            for record in run.steps.values()
        ],
        "model": _model(run, store),
    }


def export_reports(run_id: str, store: Store, folder: Path) -> list[Path]:
    """Copy every report of a run to ``folder/<run>/<step>/``; return the files.

    ``folder/<run>/run.json`` is the description of the run.  Tables stay: they have a row for every
    recording, and no erasure would reach the copy.
    """
    files = []
    for record in _run(run_id, store).steps.values():
        for output in {"report", "decision"} & record.outputs.keys():
            directory = store.directory(record.outputs[output])
            target = folder / run_id / record.step
            target.mkdir(parents=True, exist_ok=True)
            for name in directory.names:
                if not name.endswith(".parquet"):
                    shutil.copyfile(directory.path(name), target / name)
                    files.append(target / name)
    (folder / run_id).mkdir(parents=True, exist_ok=True)
    files.append(folder / run_id / "run.json")
    files[-1].write_text(json.dumps(describe(run_id, store), indent=1))
    audit.record(store, "report", {"run": run_id, "files": [file.name for file in files]})
    return files


def render(run_id: str, store: Store, reports: list[Path]) -> None:
    """Print a run for a person; ``reports`` are the files that were copied."""
    from rich.console import Console
    from rich.markup import escape

    run = _run(run_id, store)
    console = Console(highlight=False)
    console.print()
    console.rule(f"[bold]run {run_id}[/]", align="left")
    outcome = "not finished" if run.outcome == "running" else run.outcome
    colour = COLOURS.get(outcome, "yellow")
    console.print(f"outcome  [bold {colour}]{outcome}[/]     data  {_data(run)}")
    if "ingest" in run.steps and run.steps["ingest"].outputs:
        for line in _ingest_lines(run.steps["ingest"], store):
            console.print(line)
    console.print("\n", _steps_table(run), sep="")
    if metrics := shown_metrics(run.metrics("evaluate")):
        few = metrics["auc"] is None
        measured = words_of("en")("verdict.few_people") if few else _metrics_table(metrics)
        console.print("\n", measured, sep="")
    for record in run.steps.values():
        shown = [v for v in record.verdicts if record.step == "promote" or v.status != "pass"]
        if shown:
            table = _table()
            for verdict in shown:
                text = f"{verdict.id}: {sentence(verdict, 'en')}"
                table.add_row(MARKS[verdict.status], escape(text))
            console.print(f"\n[bold]{record.step}[/]\n", table, sep="")
    for record in run.failed:
        text = escape(f"{record.error} {record.message}")
        console.print(f"\n[red]{record.step} failed[/]: {text}")
    if model := _model(run, store):
        aliases = ", ".join(model["aliases"]) or "no alias"
        console.print(f"\n[bold]model[/]  {model['name']} version {model['version']} ({aliases})")
    if reports:
        console.print("\n[bold]reports[/]")
        for path in reports:
            console.print(f"  {path}", soft_wrap=True)


def _run(run_id: str, store: Store) -> Run:
    """Read a run, without the step that writes its report."""
    run = store.runs.read(run_id)
    steps = {name: record for name, record in run.steps.items() if record.stage != "report"}
    return Run(run_id, steps, run.shards)


def _data(run: Run) -> str | None:
    places = [record.inputs["data"] for record in run.steps.values() if "data" in record.inputs]
    return places[0].removeprefix("folder:") if places else None


def _verdict(stored: Verdict) -> dict[str, Any]:
    """Return the fields that ``docs/run.md`` promises, without small counts."""
    verdict = suppress(stored)
    observed = verdict.observed or Number(None)
    return {
        "name": verdict.id,
        "verdict": verdict.status,
        "statistic": observed.value,
        "low": observed.low,
        "high": observed.high,
        "threshold": verdict.threshold,
        "n": verdict.n,
        "reason": sentence(verdict, "en"),
        "severity": verdict.severity,
        "suite": verdict.suite,
        "waiver": verdict.waiver and asdict(verdict.waiver),
    }


def _model(run: Run, store: Store) -> dict[str, Any] | None:
    digest = run.digest("register.registration")
    if not digest:
        return None
    known = json.loads(store.directory(digest).path("registration.json").read_text())
    from spira_tasks.tracking import Tracker

    try:
        version = Tracker(store.tracking_uri).find_version(known["classifier"])
    except (ConfigError, ServiceUnavailable):
        version = None
    aliases = list(version.aliases) if version else []
    return {"name": known["name"], "version": known["version"], "aliases": aliases}


def _ingest_lines(record: StepRecord, store: Store) -> list[str]:
    numbers = record.metrics
    report = store.directory(record.outputs["report"])
    reasons = json.loads(report.path("ingest.json").read_text())["n_by_reason"]
    return [
        f"ingested {few_or(numbers['n_recordings'])} recordings of "
        f"{few_or(numbers['n_subjects'])} subjects, quarantined {few_or(numbers['n_quarantined'])}",
        *(
            f"  {few_or(count):>12}  {reason.replace('_', ' ')}"
            for reason, count in sorted(reasons.items(), key=lambda item: -item[1])
        ),
    ]


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim", show_header=bool(columns))
    for column in columns:
        table.add_column(column, justify="right" if column == "seconds" else "left")
    return table


def _steps_table(run: Run) -> Table:
    table = _table("step", "key", "", "seconds", "verdicts")
    for record in run.steps.values():
        statuses = [verdict.status for verdict in record.verdicts]
        counts = [f"{statuses.count(s)} {mark}" for s, mark in MARKS.items() if s in statuses]
        found = "found" if record.found else "computed"
        if shards := run.shards.get(record.step):
            found += f" in {len(shards)} shards"
        table.add_row(
            record.step, record.key[:12], found, f"{record.seconds:.1f}", ", ".join(counts)
        )
    return table


def _metrics_table(metrics: Mapping[str, float | None]) -> Table:
    table = _table(f"{metrics['n_subjects']:.0f} test subjects", "AUC", *METRICS[1:])
    table.padding = (0, 2, 0, 0)
    for column in table.columns:
        column.no_wrap = True
    for suffix, title in CONDITIONS.items():
        if f"auc{suffix}" in metrics:
            table.add_row(title, *(_interval(metrics, f"{name}{suffix}") for name in METRICS))
    return table


def _interval(metrics: Mapping[str, float | None], name: str) -> str:
    """Value and 95 % interval, short: ``0.84 .71–.94``."""
    low, high = (f"{metrics[f'{name}_{end}']:.2f}".removeprefix("0") for end in ("low", "high"))
    return f"{metrics[name]:.2f} [dim]{low}–{high}[/]"
