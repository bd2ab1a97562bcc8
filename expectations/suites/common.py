"""Parts that suites share: expectations of one column with their note, and bounds that depend on n.

``not_null(column, why, …)`` and its like take the arguments of ``expectations.notes.note`` and of
the expectation.
"""

from __future__ import annotations

from typing import Any

import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.expectations.expectation import Expectation

from expectations.limits import DATA, PRIVACY, tolerated
from expectations.notes import QUARANTINE, Action, note


class _Of:
    """Makes expectations of one kind on one column."""

    def __init__(self, kind: type[Expectation]) -> None:
        self.kind = kind

    def __call__(
        self,
        column: str,
        why: str,
        owner: str = DATA,
        aspect: str = "",
        *,
        action: Action = "",
        firm: bool = False,
        **given: Any,
    ) -> Expectation:
        return self.kind(column=column, meta=note(why, owner, aspect, action, firm), **given)


not_null = _Of(gxe.ExpectColumnValuesToNotBeNull)
unique = _Of(gxe.ExpectColumnValuesToBeUnique)
between = _Of(gxe.ExpectColumnValuesToBeBetween)
in_set = _Of(gxe.ExpectColumnValuesToBeInSet)
not_in_set = _Of(gxe.ExpectColumnValuesToNotBeInSet)
matches = _Of(gxe.ExpectColumnValuesToMatchRegex)
n_values = _Of(gxe.ExpectColumnUniqueValueCountToBeBetween)


def is_digest(column: str, why: str) -> Expectation:
    return matches(column, why, action=QUARANTINE, regex=r"^sha256:[0-9a-f]{64}$")


def not_empty(why: str = "an empty table passes every other test", **given: Any) -> Expectation:
    return gxe.ExpectTableRowCountToBeBetween(min_value=1, meta=note(why), **given)


def no_trials() -> Expectation:
    return not_in_set("sample_type", "trials of the app", action=QUARANTINE, value_set=["TEST"])


def consent_granted(aspect: str = "") -> Expectation:
    about = ("consent_status", "no consent, no use", PRIVACY, aspect)
    return in_set(*about, action=QUARANTINE, firm=True, value_set=["granted"])


def filled(frame: pd.DataFrame) -> set[str]:
    """Columns that hold at least one value: the published layout leaves the clinical ones empty."""
    return {str(column) for column in frame if frame[column].notna().any()}


def optional(present: set[str], *expectations: Expectation) -> list[Expectation]:
    """Those expectations of which all columns are in ``present``."""
    names = ("column", "column_A", "column_B")
    return [
        expectation
        for expectation in expectations
        if {getattr(expectation, name) for name in names if hasattr(expectation, name)} <= present
        and {*getattr(expectation, "column_list", ())} <= present
    ]


def mostly(n: int, fraction: float) -> float:
    """The share that must be good among ``n`` where ``fraction`` may be bad in the long run."""
    return (n - tolerated(n, fraction)) / n if n else 1.0
