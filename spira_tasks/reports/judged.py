"""What the gates said of a run, and where a person let something pass that would have blocked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from spira_tasks.contract.small_cells import MIN_CELL, reason_of, without_few
from spira_tasks.reports.facts import Drift
from spira_tasks.reports.suppression import count

# The end of the reason of a waived verdict: all that records from before the field ``waiver`` have.
WAIVED = re.compile(r"; waived by (?P<by>.+?) on (?P<at>\d{4}-\d\d-\d\d): (?P<why>.*)\Z", re.DOTALL)
Record = Mapping[str, Any]


def verdicts(record: Record) -> list[dict[str, Any]]:
    """The verdicts of a step, small counts in words; records of old runs lack some fields."""
    found = []
    for stored in record.get("verdicts", ()):
        unknown = dict.fromkeys(("statistic", "low", "high", "threshold", "n"))
        verdict = unknown | {"severity": "", "suite": "", **stored, "step": record["step"]}
        verdict["suite"] = verdict["suite"] or record.get("config", {}).get("suite", "")
        reason, verdict["waiver"] = _without_waiver(stored)
        verdict["reason"] = reason_of(stored, reason)
        n = verdict["n"]
        if n is not None and count(n) is None:
            verdict["n"] = None
        if _tells_few(verdict) and verdict["reason"] != reason:
            verdict["statistic"] = None
        found.append(verdict)
    return found


def drift(verdicts: tuple[Record, ...]) -> tuple[Drift, ...]:
    """The comparisons with the champion's training set."""
    fields = ("name", "verdict", "statistic", "threshold", "n", "reason")
    return tuple(
        Drift(**{name: verdict[name] for name in fields})
        for verdict in verdicts
        if "drift" in verdict["suite"]
    )


def _without_waiver(stored: Record) -> tuple[str, dict[str, str] | None]:
    """The check's own reason, and who waived it, when and why; None where nobody did."""
    reason = str(stored["reason"])
    told = WAIVED.search(reason) if stored["verdict"] == "warn" else None
    waiver = stored.get("waiver") or (told and told.groupdict())
    if not waiver:
        return reason, None
    return reason[: told.start()] if told else reason, {
        **waiver,
        "why": without_few(waiver["why"]),
    }


def _tells_few(verdict: Record) -> bool:
    """Whether the statistic is a small count, or the share that is one of n rows."""
    n, statistic = verdict["n"] or 0, verdict["statistic"] or 0.0
    return statistic in range(1, MIN_CELL) or 0 < round(statistic * n) < MIN_CELL
