"""Is the model one that the plan for changes allows?"""

from __future__ import annotations

from collections.abc import Sequence

from spira_tasks.contract.verdict import Number, Verdict


def within_plan(outside: Sequence[str]) -> Verdict:
    """Are all settings that the model was made by within the plan for changes?

    ``outside`` are those that are not, as ``plan.Plan.outside`` gives them.
    """
    return Verdict(
        "within_plan",
        "block" if outside else "pass",
        observed=Number(len(outside), "items"),
        threshold=0.0,
        names={"settings": tuple(outside)},
        severity="critical",
    )
