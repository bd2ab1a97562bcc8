"""Is a sound challenger better than the champion, on the same people?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from expectations.gates.bounds import at_least, number_of
from expectations.policy import BetterThanChampion
from spira_tasks.contract.verdict import Number, Status, Verdict, is_small

Comparison = Mapping[str, Any]


def compare(
    comparison: Comparison,
    rule: BetterThanChampion,
    first: Comparison | None = None,
    n_since: float = 0,
) -> Verdict:
    """Is a sound challenger better than the champion, on the same people?

    The challenger has to gain, and to lose neither sensitivity nor specificity by more than a
    margin, nor in a slice.  Never blocks: a challenger that is no better stays challenger.  Where
    the test is too small for the margins, also that of a slice, a person decides.

    Parameters
    ----------
    comparison : mapping
        What ``evaluation.comparison.compare`` returns, and ``champion``, the version.
    first : mapping, optional
        The same against the first version that served, where that is another one.  The margins
        hold against it too, so that small losses do not add up from one champion to the next.
    n_since : float
        Other models that were measured on these people since the champion was.  They share the
        probability that an equal model gains by luck (Bonferroni), which is 1 - ``min_confidence``.
    """
    names = {"champion": (str(comparison["champion"]),)}
    if "gain" not in comparison:  # the two answer together about nobody of a class
        return Verdict("better_than_champion", "insufficient", names=names, severity="warning")
    margins = {"sensitivity": rule.max_sensitivity_loss, "specificity": rule.max_specificity_loss}
    changes = _changes(comparison)
    kept = {name: at_least(change, -margins[name]) for name, change in changes.items()}
    states = {*kept.values()}
    needed = 1 - (1 - rule.min_confidence) / (1 + n_since)
    gains = {
        (way, group): one["gain"]
        for way, groups in comparison["slices"].items()
        for group, one in groups.items()
    }
    margin = -rule.max_slice_loss
    lost = [one for one, gain in gains.items() if gain["value"] < margin and gain["high"] < 0]
    unclear = [one for one, gain in gains.items() if gain["low"] < margin and one not in lost]
    numbers = {
        "confidence": Number(comparison["confidence"], "rate"),
        "n_since": Number(round(n_since, 1), "items"),
        "min_confidence": Number(rule.min_confidence, "rate"),
    }
    if first and "gain" in first:
        names["first"] = (str(first["champion"]),)
        for name, change in _changes(first).items():
            states.add(at_least(change, -margins[name]))
            numbers[f"first_{name}_lost"] = _lost(change)
    elif first:
        names["first_unknown"] = (str(first["champion"]),)
        states.add("insufficient")
    if lost:
        way, group = min(lost, key=lambda one: gains[one]["value"])
        names |= {"by": (way,), "group": (group,)}
    if unclear:
        way, group = min(unclear, key=lambda one: gains[one]["low"])
        names |= {"unclear_by": (way,), "unclear": (group,)}
        numbers["n_unclear"] = Number(len(unclear), "items")
        numbers["slice_lost"] = Number(-gains[way, group]["low"])
        numbers["slice_margin"] = Number(rule.max_slice_loss)
    for name, change in changes.items():
        numbers[f"{name}_change"] = change
        numbers[f"{name}_lost"] = _lost(change)
        numbers[f"{name}_margin"] = Number(margins[name])
        if kept[name] == "block":
            numbers[f"less_{name}"] = Number(-(change.value or 0.0), "rate")
    n_only = (comparison["n_only_champion_right"], comparison["n_only_challenger_right"])
    if not any(map(is_small, n_only)):  # an exact p-value gives a hidden count back
        numbers["p"] = Number(comparison["p"])
    status: Status = "pass"
    if comparison["confidence"] < needed or lost or "block" in states:
        status = "warn"
    elif unclear or "insufficient" in states:
        status = "insufficient"
    return Verdict(
        "better_than_champion",
        status,
        observed=number_of(comparison["gain"]),
        threshold=needed,
        n=min(comparison["n_patients"], comparison["n_controls"]),
        n_unit="people",
        numbers=numbers,
        names=names,
        severity="warning",
    )


def _changes(comparison: Comparison) -> dict[str, Number]:
    return {
        name: number_of(comparison[f"{name}_change"], "rate")
        for name in ("sensitivity", "specificity")
    }


def _lost(change: Number) -> Number:
    """The most that may be lost."""
    return Number(max(0.0, -(change.low or 0.0)))
