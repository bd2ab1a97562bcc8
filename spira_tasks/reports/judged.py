"""What the gates said of a run, and where a person let something pass that would have blocked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from spira_tasks.contract.verdict import Number, Verdict, explain, suppress
from spira_tasks.reports import rates
from spira_tasks.reports.facts import Drift, Evaluation, Interval

HIDDEN_RATE = "its numbers would tell of fewer than 5 people"
Record = Mapping[str, Any]


def verdicts(record: Record) -> list[dict[str, Any]]:
    """The verdicts of a step, without small counts."""
    found = []
    for stored in record.get("verdicts", ()):
        verdict = suppress(Verdict.from_dict(stored))
        observed = verdict.observed or Number(None)
        status = verdict.status
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


def without_rates(verdict: dict[str, Any], evaluation: Evaluation | None) -> dict[str, Any]:
    """A verdict on a rate, without the numbers where the rate is told coarsely or not at all."""
    clean = evaluation.conditions.get("clean", {}) if evaluation else {}
    rests_on: dict[str, list[Interval | None]] = {
        "sensitivity_floor": [clean.get("sensitivity")],
        "specificity_floor": [clean.get("specificity")],
        "not_degenerate": [clean.get("sensitivity"), clean.get("specificity")],
        "ward_noise_counterfactual": list(evaluation.drops.values()) if evaluation else [],
    }
    if any(rates.is_coarse(one) for one in rests_on.get(verdict["name"], ())):
        without = dict.fromkeys(("statistic", "low", "high"))
        return verdict | without | {"hidden": True, "reason": HIDDEN_RATE}
    return verdict


def drift(verdicts: tuple[Record, ...]) -> tuple[Drift, ...]:
    """The comparisons with the champion's training set."""
    fields = ("name", "verdict", "statistic", "threshold", "n", "reason")
    return tuple(
        Drift(**{name: verdict[name] for name in fields})
        for verdict in verdicts
        if "drift" in verdict["suite"]
    )
