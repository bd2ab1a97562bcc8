"""Decisions of people as a stage applies them: the part of their code that is in a step's key."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from spira_tasks.contract.decision import decision_id
from spira_tasks.contract.verdict import Verdict, Waiver

if TYPE_CHECKING:
    from spira_tasks.artifacts import Directory

Kind = Literal[
    "releases", "waivers", "erasures", "approvals", "refusals", "rollbacks", "signatures"
]
# Names of the verdicts on a version that a person refused, or took out of use.
REFUSED, ROLLED_BACK = "refused_by_a_person", "rolled_back_by_a_person"
PROMOTION = "promotion"  # what a waiver calls the gates of promotion, which have no suite


@dataclass(frozen=True)
class Decision:
    """One decision of a person.

    ``about`` is what it concerns and identifies it among its kind.  ``until`` in it, where present,
    is the last day (UTC) on which the decision counts.
    """

    kind: Kind
    about: Mapping[str, str]
    why: str  # the written reason
    by: str
    at: str  # UTC, ISO 8601

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Decision:
        return cls(*(content[name] for name in ("kind", "about", "why", "by", "at")))

    @property
    def id(self) -> str:
        return decision_id(self.kind, self.about)


def read(directory: Directory) -> list[Decision]:
    """The decisions that a stage was given, the oldest first."""
    found = [Decision.from_json(json.loads(directory.read(name))) for name in directory.names]
    return sorted(found, key=lambda decision: (decision.at, decision.id))


def in_production(url: str) -> bool:
    """Whether a store is one that hospitals rely on: one in a bucket.  A folder is a laptop's."""
    return url.startswith("s3://")


def on_classifier(classifier: str, decisions: Iterable[Decision]) -> Decision | None:
    """The decision about the classifier with this digest."""
    return next((one for one in decisions if one.about["classifier"] == classifier), None)


def waiver_of(verdict: Verdict, until: str, limit: float | None = None) -> dict[str, str] | None:
    """What a waiver of a verdict is about: the check, the worst value it excuses, and its end.

    Parameters
    ----------
    verdict : Verdict
    until : str
        The last day, ISO 8601.
    limit : float, optional
        The worst number that is excused, by default the one of the verdict.

    Returns
    -------
    dict or None
        None where the verdict has no number, or the limit is better than its number: such a waiver
        would excuse everything, or nothing.
    """
    observed = _observed(verdict)
    if observed is None or not math.isfinite(observed if limit is None else limit):
        return None
    about = {
        "suite": verdict.suite,
        "expectation": verdict.id,
        "side": _side(verdict, observed),
        "limit": repr(float(observed if limit is None else limit)),
        "until": until,
    }
    return about if _within(about, verdict, observed) else None


def excuses(about: Mapping[str, str], verdict: Verdict) -> bool:
    """Whether a waiver is about this check, and the check is no worse than its limit."""
    observed = _observed(verdict)
    return (
        (about["suite"], about["expectation"]) == (verdict.suite, verdict.id)
        and observed is not None
        and _within(about, verdict, observed)
    )


def waive(verdict: Verdict, waivers: Iterable[Decision]) -> Verdict:
    """The verdict, or a warning in its place where a person took responsibility."""
    decision = next((d for d in waivers if excuses(d.about, verdict)), None)
    if not verdict.stops or decision is None or verdict.firm:
        return verdict
    waiver = Waiver(decision.by, decision.at, decision.why, decision.about["until"])
    return replace(verdict, status="warn", waiver=waiver)


def _observed(verdict: Verdict) -> float | None:
    return verdict.observed.value if verdict.observed else None


def _side(verdict: Verdict, observed: float) -> str:
    """On which side of its threshold a number fails; farther on that side is worse.

    A number whose interval holds the threshold may be on either side, so there is no worse one.
    """
    threshold, number = verdict.threshold, verdict.observed
    if threshold is None or observed == threshold or verdict.status == "insufficient":
        return "at"
    low, high = (number.low, number.high) if number else (None, None)
    if low is not None and high is not None and low < threshold < high:
        return "at"
    return "above" if observed > threshold else "below"


def _within(about: Mapping[str, str], verdict: Verdict, observed: float) -> bool:
    """Without a side only the same number is excused; the last digit depends on the machine."""
    limit, side = float(about["limit"]), about["side"]
    if side != _side(verdict, observed):
        return False
    is_better = observed < limit if side == "above" else side == "below" and observed > limit
    return is_better or math.isclose(observed, limit, rel_tol=1e-9)
