"""Rates from which no small count can be had back.

A rate of 0.95 beside the number of people, 40, tells that two were missed; so does its interval.
Where one of the two counts behind a rate is from 1 to 4, the rate is told by a step of a scale that
depends on the number of people alone, wide enough to hold counts of 5 too: "0.80 to 1.00".  What
follows from such a rate, such as balanced accuracy, is told as widely, or hidden.

This does not hide on which side of its limit a rate is: a gate says that, and must.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import floor
from typing import Any

from spira_tasks.contract.verdict import MIN_CELL
from spira_tasks.reports.facts import Interval

N_STEPS = (20, 10, 5, 4, 2)  # scales from 0 to 1: steps of 0.05, 0.1, …
HIDDEN = Interval(None, None, None)
RATES = {
    "sensitivity": ("true_positives", "false_negatives"),
    "specificity": ("true_negatives", "false_positives"),
}
FOLLOWING = ("balanced_accuracy", "accuracy", "f1")  # computed from the counts behind both rates
Estimates = Mapping[str, Interval]


def is_small(n_right: int, n: int) -> bool:
    """Whether one of the counts behind a rate is not to be told."""
    return any(0 < part < MIN_CELL for part in (n_right, n - n_right))


def is_coarse(one: Interval | None) -> bool:
    """Whether a rate is told by a step of a scale, or hidden altogether."""
    return one is not None and one.value is None


def coarse(n_right: int, n: int, n_steps: int = N_STEPS[0]) -> Interval:
    """The step that a rate is on, of the finest scale that will do; hidden where none will.

    Each step holds more than ``MIN_CELL`` counts, so that the first holds counts of 1 to 4 right
    and of 5, and the last the same of wrong ones.

    Parameters
    ----------
    n_steps : int
        No finer scale than of so many steps.
    """
    scale = next((m for m in N_STEPS if m <= n_steps and n > MIN_CELL * m), 1)
    if scale == 1:
        return HIDDEN
    step = min(scale * n_right // n, scale - 1)
    return Interval(None, step / scale, (step + 1) / scale)


def conditions(report: Mapping[str, Any]) -> dict[str, Estimates]:
    """The estimates of every condition, as they may be told.

    Parameters
    ----------
    report : mapping
        The content of ``evaluation.json``.
    """
    totals = {rate: sum(report["confusion"][name] for name in RATES[rate]) for rate in RATES}
    told: dict[str, Estimates] = {}
    for condition, estimates in report["conditions"].items():
        found = {name: Interval(**one) for name, one in estimates.items()}
        for rate, n in totals.items():
            if rate in found and is_small(n_right := round((found[rate].value or 0) * n), n):
                found[rate] = coarse(n_right, n)
        if any(is_coarse(found.get(rate)) for rate in RATES):
            found |= dict.fromkeys(set(FOLLOWING) & set(found), HIDDEN)
            if "balanced_accuracy" in found:
                found["balanced_accuracy"] = _half_the_sum(*(found[rate] for rate in RATES))
        told[condition] = found
    return told


def drops(report: Mapping[str, Any], told: Mapping[str, Estimates]) -> dict[str, Interval]:
    """How far balanced accuracy falls in each condition; hidden where one of the two is coarse."""
    found = {}
    for condition, one in report["drop_in_balanced_accuracy"].items():
        before, after = (told[name].get("balanced_accuracy") for name in ("clean", condition))
        found[condition] = Interval(**one)
        if is_coarse(before) or is_coarse(after):
            found[condition] = HIDDEN
    return found


def of_parts(parts: Sequence[tuple[int, int]], told: Sequence[Interval | None]) -> list[Any]:
    """The rates of groups that are parts of one whole, as they may be told.

    Whoever knows the whole can subtract: where one group has a small count, none is told exactly,
    and all by so wide a scale that what the others leave for it may be small or not.

    Parameters
    ----------
    parts : sequence of (int, int)
        Of each group how many answers are right, and how many there are.
    told : sequence of Interval or None
        The rates themselves; None where too few people have one.
    """
    if not any(is_small(*part) for part in parts):
        return list(told)
    for n_steps in N_STEPS:
        found = [
            None if rate is None else coarse(*part, n_steps)
            for part, rate in zip(parts, told, strict=True)
        ]
        if _protects(parts, found):
            return found
    return [None if rate is None else HIDDEN for rate in told]


def _protects(parts: Sequence[tuple[int, int]], told: Sequence[Interval | None]) -> bool:
    """Whether the whole and the other groups leave every small count to be 5 or more too."""
    ranges = [wrong_counts(one, n) for one, (_, n) in zip(told, parts, strict=True)]
    n_right, n_all = (sum(numbers) for numbers in zip(*parts, strict=True))
    whole = (n_all - n_right, n_all - n_right)
    if is_small(n_right, n_all):
        whole = wrong_counts(coarse(n_right, n_all), n_all)
    low, high = (sum(ends) for ends in zip(*ranges, strict=True))
    for (right, n), (least, most) in zip(parts, ranges, strict=True):
        possible = (
            max(least, whole[0] - (high - most)),
            min(most, whole[1] - (low - least)),
        )
        if 0 < n - right < MIN_CELL and possible[1] < min(MIN_CELL, n):
            return False
        if 0 < right < MIN_CELL and n - possible[0] < min(MIN_CELL, n):
            return False
    return True


def wrong_counts(one: Interval | None, n: int) -> tuple[int, int]:
    """How many of ``n`` answers may be wrong, at least and at most, by what is told of the rate."""
    if one is None or one.low is None or one.high is None:
        return 0, n
    most = n - (-floor(-one.low * n + 1e-9))
    least = 0 if one.high == 1 else n - (-floor(-one.high * n + 1e-9) - 1)
    return least, most


def _ends(one: Interval) -> tuple[float, float] | None:
    if one.value is not None:
        return one.value, one.value
    return None if one.low is None or one.high is None else (one.low, one.high)


def _half_the_sum(one: Interval, other: Interval) -> Interval:
    ends = _ends(one), _ends(other)
    if ends[0] is None or ends[1] is None:
        return HIDDEN
    return Interval(None, (ends[0][0] + ends[1][0]) / 2, (ends[0][1] + ends[1][1]) / 2)
