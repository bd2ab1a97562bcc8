"""What the gates said of a run, and where a person let something pass that would have blocked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from spira_tasks.contract.verdict import Number, Verdict, explain, suppress
from spira_tasks.reports.facts import Drift

Record = Mapping[str, Any]


def verdicts(record: Record) -> list[dict[str, Any]]:
    """The verdicts of a step, without small counts."""
    found = []
    for stored in record.get("verdicts", ()):
        verdict = suppress(Verdict.from_dict(stored))
        observed = verdict.observed or Number(None)
        status: str = verdict.status
        if status == "insufficient":
            status = "block" if verdict.stops else "warn"
        found.append(
            {
                "name": verdict.id,
                "verdict": status,
                "statistic": observed.value,
                "low": observed.low,
                "high": observed.high,
                "threshold": verdict.threshold,
                "n": verdict.n,
                "reason": explain(verdict),
                "severity": verdict.severity,
                "suite": verdict.suite or record.get("config", {}).get("gate", ""),
                "waiver": verdict.waiver and asdict(verdict.waiver),
                "firm": verdict.firm,
                "step": record["step"],
            }
        )
    return found


def drift(verdicts: tuple[Record, ...]) -> tuple[Drift, ...]:
    """The comparisons with the champion's training set."""
    fields = ("name", "verdict", "statistic", "threshold", "n", "reason")
    return tuple(
        Drift(**{name: verdict[name] for name in fields})
        for verdict in verdicts
        if "drift" in verdict["suite"]
    )
