"""Is a sound challenger better than the champion, on the same people?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from expectations.gates.bounds import number_of
from expectations.policy import BetterThanChampion
from spira_tasks.contract.verdict import Number, Verdict


def compare(comparison: Mapping[str, Any], rule: BetterThanChampion) -> Verdict:
    """Is a sound challenger better than the champion, on the same people?

    ``comparison`` holds ``champion`` (version), ``n`` (people of the smaller class), ``gain``
    (difference of the AUCs with its interval), ``confidence`` (share of resamples with a gain) and
    ``sensitivity_loss``.
    Never blocks: a challenger that is no better is kept as challenger.
    """
    loss, confidence = comparison["sensitivity_loss"], comparison["confidence"]
    misses = {"sensitivity_loss": Number(loss, "rate")} if loss > rule.max_sensitivity_loss else {}
    better = confidence >= rule.min_confidence
    return Verdict(
        "better_than_champion",
        "pass" if better and not misses else "warn",
        observed=number_of(comparison["gain"]),
        threshold=rule.min_confidence,
        n=comparison["n"],
        n_unit="people",
        numbers={"confidence": Number(confidence, "rate")} | misses,
        names={"champion": (str(comparison["champion"]),)},
    )
