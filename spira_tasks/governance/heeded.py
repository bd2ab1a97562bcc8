"""Decisions of people, as a stage reads them: the part of their code that is in a step's key."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from spira_tasks.artifacts import Directory
    from spira_tasks.contract.verdict import Verdict

Kind = Literal["releases", "waivers", "erasures", "approvals", "refusals"]
REFUSED = "refused_by_a_person"  # name of the verdict on a version that somebody refused


@dataclass(frozen=True)
class Decision:
    """One decision of a person.

    Attributes
    ----------
    kind : {"releases", "waivers", "erasures", "approvals", "refusals"}
    about : mapping of str to str
        What it concerns; identifies it among its kind.  ``until``, where it is there, is the last
        day (UTC) on which the decision counts.
    why, by, at : str
        The written reason, who decided, and when (UTC, ISO 8601).
    """

    kind: Kind
    about: Mapping[str, str]
    why: str
    by: str
    at: str

    @property
    def id(self) -> str:
        content = json.dumps([self.kind, dict(self.about)], sort_keys=True, separators=(",", ":"))
        return sha256(content.encode()).hexdigest()[:32]


def read(directory: Directory) -> list[Decision]:
    """The decisions that a stage was given, the oldest first."""
    found = [decision_from(json.loads(directory.read(name))) for name in directory.names]
    return sorted(found, key=lambda decision: (decision.at, decision.id))


def decision_from(content: Mapping[str, Any]) -> Decision:
    fields = ("kind", "about", "why", "by", "at")
    return Decision(**{name: content[name] for name in fields})


def tombstone_tag(subject_id: str) -> str:
    """What stands for an erased subject: 32 hex digits, made from the pseudonym one way.

    It tells whether a subject that comes again was erased, and nothing to whoever reads it.
    """
    return sha256(b"spira.erased/1\0" + subject_id.encode()).hexdigest()[:32]


def waiver_of(verdict: Verdict, until: str, limit: float | None = None) -> dict[str, str] | None:
    """What a waiver of a verdict is about: the check, how bad it may get, and until when.

    Parameters
    ----------
    verdict : Verdict
    until : str
        The last day, ISO 8601.
    limit : float, optional
        The worst statistic that is excused, by default the one of the verdict.

    Returns
    -------
    dict or None
        None where the verdict has no number, or the limit is better than what was seen: such a
        waiver would excuse everything, or nothing.
    """
    seen = verdict.observed.value if verdict.observed else None
    threshold = verdict.threshold
    if seen is None or not math.isfinite(seen if limit is None else limit):
        return None
    about = {
        "suite": verdict.suite,
        "expectation": verdict.id,
        "side": _side(seen, threshold),
        "limit": repr(float(seen if limit is None else limit)),
        "until": until,
    }
    return about if _within(about, seen, threshold) else None


def excuses(about: Mapping[str, str], verdict: Verdict) -> bool:
    """Whether a waiver is about this check, and the check is no worse than what was signed for."""
    return (
        (about["suite"], about["expectation"]) == (verdict.suite, verdict.id)
        and {"side", "limit", "until"} <= set(about)  # older ones excused everything, for ever
        and verdict.observed is not None
        and verdict.observed.value is not None
        and _within(about, verdict.observed.value, verdict.threshold)
    )


def _side(statistic: float, threshold: float | None) -> str:
    """Where a statistic that fails lies; what is farther on that side is worse."""
    if threshold is None or statistic == threshold:
        return "at"
    return "above" if statistic > threshold else "below"


def _within(about: Mapping[str, str], statistic: float, threshold: float | None) -> bool:
    """Without a side nothing but the same number is excused; the last digit is the machine's."""
    limit, side = float(about["limit"]), about["side"]
    if side != _side(statistic, threshold):
        return False
    is_better = statistic < limit if side == "above" else side == "below" and statistic > limit
    return is_better or math.isclose(statistic, limit, rel_tol=1e-9)


def said_of(classifier: str, said: Iterable[Decision]) -> Decision | None:
    """The decision about the classifier with this digest."""
    return next((one for one in said if one.about["classifier"] == classifier), None)
