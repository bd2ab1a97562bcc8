"""The burden of proof is the model's: what an interval says about a limit.

Between proof and disproof is ``insufficient``, which promotes nothing without a named person's
decision.
"""

from __future__ import annotations

from collections.abc import Mapping

from spira_tasks.contract.verdict import Number, Status, Unit


def at_most(number: Number, limit: float) -> Status:
    """Whether a loss is below a limit: by its upper bound; it blocks by its lower bound."""
    if number.low is None or number.high is None:
        raise ValueError("a number without an interval proves nothing")
    if number.high <= limit:
        return "pass"
    return "block" if number.low > limit else "insufficient"


def at_least(number: Number, limit: float) -> Status:
    """Whether a merit is above a limit: by its lower bound; it blocks by its upper bound."""
    if number.low is None or number.high is None:
        raise ValueError("a number without an interval proves nothing")
    if number.low >= limit:
        return "pass"
    return "block" if number.high < limit else "insufficient"


def number_of(estimate: Mapping[str, float], unit: Unit = "statistic") -> Number:
    """The number of an estimate with ``value``, ``low`` and ``high``."""
    return Number(estimate["value"], unit, estimate["low"], estimate["high"])
