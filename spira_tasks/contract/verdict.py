"""A verdict: what one expectation or one statistical gate says, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Verdict:
    """What one expectation or one statistical gate said.

    Holds counts, statistics and column names, never a value of a patient: verdicts reach logs,
    Airflow's page and reports.

    Attributes
    ----------
    name : str
        Stable identifier, for example ``"ward_noise_counterfactual"``.
    verdict : {"pass", "warn", "block"}
        ``warn`` is carried to the reports, ``block`` ends the run.
    severity : {"critical", "warning", "info", ""}
        How much it matters when it does not hold, whatever was decided about it here: a critical
        expectation does not block where the rows at fault went into quarantine, or where a person
        waived it.  Empty for a statistical gate, which has rules of its own.
    suite : str
        Which suite it belongs to; empty outside suites.
    statistic, low, high : float or None
        The estimate and its 95 % interval, where there is one.
    threshold : float or None
        What the statistic was held against.
    n : int or None
        How many rows, recordings or subjects the statistic rests on.
    reason : str
        One sentence a person can act on.
    waiver : mapping of str to str, or None
        ``by``, ``at`` and ``why`` of the person who let it pass where it would have blocked, and
        ``until`` when.
    """

    name: str
    verdict: Literal["pass", "warn", "block"]
    statistic: float | None = None
    low: float | None = None
    high: float | None = None
    threshold: float | None = None
    n: int | None = None
    reason: str = ""
    severity: Literal["critical", "warning", "info", ""] = ""
    suite: str = ""
    waiver: Mapping[str, str] | None = None
