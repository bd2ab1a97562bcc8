"""What is known of a run: as JSON for programs, as tables for people."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from expectations.words.verdicts import sentence
from spira_tasks.artifacts import Store
from spira_tasks.contract.pipelines import TRAINING
from spira_tasks.contract.record import verdicts_of
from spira_tasks.contract.verdict import Number, Verdict, suppress
from spira_tasks.errors import ServiceUnavailable
from spira_tasks.governance import audit
from spira_tasks.runner import tracking_uri

ORDER = {step.name: number for number, step in enumerate(TRAINING)}
STEP_FIELDS = ("stage", "key", "found", "seconds", "outputs", "metrics", "verdicts")
CONDITIONS = {
    "": "as recorded",
    "_noise_all": "ward noise: all",
    "_noise_controls": "  controls only",
    "_noise_patients": "  patients only",
}
COLOURS = {"promoted": "green", "kept": "cyan", "blocked": "red", "failed": "red"}
MARKS = {
    "pass": "[green]pass[/]",
    "warn": "[yellow]warn[/]",
    "insufficient": "[yellow]insufficient[/]",
    "block": "[red]block[/]",
}


def describe(run_id: str, store: Store) -> dict[str, Any]:
    """The stable description of a run; ``docs/run.md`` documents its fields."""
    records = _records(run_id, store)
    empty = {"found": False, "outputs": {}, "metrics": {}, "verdicts": [], "key": None}
    return {
        "run_id": run_id,
        "data": _data(records),
        "outcome": _outcome(records),
        "steps": [
            {"name": r["step"]}
            | {name: ({**empty, **r})[name] for name in STEP_FIELDS}
            | {"verdicts": [_verdict(one) for one in verdicts_of(r)]}
            for r in records
        ],
        "model": _model(records, store),
    }


def export_reports(run_id: str, store: Store, folder: Path) -> list[Path]:
    """Copy every report of a run to ``folder/<run>/<step>/``; return the files.

    Tables stay: they have a row for every recording, and no erasure would reach the copy.
    """
    files = []
    for record in _records(run_id, store):
        for output in ("report", "decision"):
            if output in record.get("outputs", {}):
                directory = store.directory(record["outputs"][output])
                target = folder / run_id / record["step"]
                target.mkdir(parents=True, exist_ok=True)
                for name in directory.names:
                    if name.endswith(".parquet"):
                        continue
                    shutil.copyfile(directory.path(name), target / name)
                    files.append(target / name)
    audit.record(store, "report", {"run": run_id, "files": [file.name for file in files]})
    return files


def render(description: dict[str, Any], run_id: str, store: Store, reports: list[Path]) -> None:
    """Print the run for a person."""
    from rich.console import Console

    console = Console(highlight=False)
    outcome = description["outcome"] or "not finished"
    console.print()
    console.rule(f"[bold]run {run_id}[/]", align="left")
    colour = COLOURS.get(outcome, "yellow")
    console.print(f"outcome  [bold {colour}]{outcome}[/]     data  {description['data']}")
    _render_ingest(console, run_id, store)
    _render_steps(console, description)
    _render_metrics(console, description)
    _render_verdicts(console, description)
    _render_failure(console, run_id, store)
    model = description["model"]
    if model:
        aliases = ", ".join(model["aliases"]) or "no alias"
        console.print(f"\n[bold]model[/]  {model['name']} version {model['version']} ({aliases})")
    if reports:
        console.print("\n[bold]reports[/]")
        for path in reports:
            console.print(f"  {path}", soft_wrap=True)


def _verdict(stored: Verdict) -> dict[str, Any]:
    """The fields that ``docs/run.md`` promises, without small counts."""
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


def _records(run_id: str, store: Store) -> list[dict[str, Any]]:
    records = [store.read_record(run_id, name) for name in store.record_names(run_id)]
    known = [record for record in records if record is not None and record["stage"] != "report"]
    return sorted(known, key=lambda record: (ORDER.get(record["step"], 99), record["finished_at"]))


def _data(records: list[dict[str, Any]]) -> str | None:
    for record in records:
        if "data" in record["inputs"]:
            return str(record["inputs"]["data"]).removeprefix("folder:")
    return None


def _outcome(records: list[dict[str, Any]]) -> str | None:
    states = {record["step"]: record["state"] for record in records}
    for state in ("blocked", "failed"):
        if state in states.values():
            return state
    promote = next((r for r in records if r["step"] == "promote"), None)
    if promote is None:
        return None
    return "promoted" if promote["metrics"]["promoted"] else "kept"


def _model(records: list[dict[str, Any]], store: Store) -> dict[str, Any] | None:
    register = next((r for r in records if r["step"] == "register"), None)
    if register is None or "registration" not in register.get("outputs", {}):
        return None
    registration = store.directory(register["outputs"]["registration"])
    known = json.loads(registration.path("registration.json").read_text())
    from spira_tasks.tracking import Tracker

    try:
        version = Tracker(tracking_uri(store)).find_version(known["classifier"])
    except ServiceUnavailable:
        version = None
    aliases = list(version.aliases) if version else []
    return {"name": known["name"], "version": known["version"], "aliases": aliases}


def _render_ingest(console: Any, run_id: str, store: Store) -> None:
    record = store.read_record(run_id, "ingest")
    if record is None or not record.get("outputs"):
        return
    metrics = record["metrics"]
    console.print(
        f"ingested {metrics['n_recordings']:.0f} recordings of {metrics['n_subjects']:.0f} subjects"
        f", quarantined {metrics['n_quarantined']:.0f}"
    )
    report = store.directory(record["outputs"]["report"])
    reasons = json.loads(report.path("ingest.json").read_text())["n_by_reason"]
    for reason, count in sorted(reasons.items(), key=lambda item: -item[1]):
        console.print(f"  {count:4d}  {reason.replace('_', ' ')}")


def _render_steps(console: Any, description: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("step")
    table.add_column("key")
    table.add_column("")
    table.add_column("seconds", justify="right")
    table.add_column("verdicts")
    for step in description["steps"]:
        verdicts = [verdict["verdict"] for verdict in step["verdicts"]]
        counts = [f"{verdicts.count(v)} {MARKS[v]}" for v in MARKS if v in verdicts]
        table.add_row(
            step["name"],
            (step["key"] or "")[:12],
            "found" if step["found"] else "computed",
            f"{step['seconds']:.1f}",
            ", ".join(counts),
        )
    console.print()
    console.print(table)


def _render_metrics(console: Any, description: dict[str, Any]) -> None:
    from rich.table import Table

    evaluate = next((s for s in description["steps"] if s["name"] == "evaluate"), None)
    if evaluate is None or not evaluate["metrics"]:
        return
    metrics = evaluate["metrics"]
    names = ("auc", "accuracy", "sensitivity", "specificity")
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column(f"{metrics['n_subjects']:.0f} test subjects", no_wrap=True)
    for name in names:
        table.add_column(name if name != "auc" else "AUC", no_wrap=True)
    for suffix, title in CONDITIONS.items():
        if f"auc{suffix}" in metrics:
            cells = [_interval(metrics, f"{name}{suffix}") for name in names]
            table.add_row(title, *cells)
    console.print()
    console.print(table)


def _interval(metrics: dict[str, float], name: str) -> str:
    """Value and 95 % interval, short: ``0.84 .71–.94``."""
    low, high = (f"{metrics[f'{name}_{end}']:.2f}".removeprefix("0") for end in ("low", "high"))
    return f"{metrics[name]:.2f} [dim]{low}–{high}[/]"


def _render_verdicts(console: Any, description: dict[str, Any]) -> None:
    from rich.table import Table

    for step in description["steps"]:
        notable = [v for v in step["verdicts"] if v["verdict"] != "pass"]
        if step["name"] == "promote":
            notable = step["verdicts"]
        if not notable:
            continue
        table = Table(box=None, pad_edge=False, show_header=False)
        for verdict in notable:
            table.add_row(MARKS[verdict["verdict"]], verdict["reason"])
        console.print(f"\n[bold]{step['name']}[/]")
        console.print(table)


def _render_failure(console: Any, run_id: str, store: Store) -> None:
    for record in _records(run_id, store):
        if record["state"] == "failed":
            console.print(
                f"\n[red]{record['step']} failed[/]: {record['error']} {record['message']}"
            )
