"""Whether a program may decide, or a person has to."""

from __future__ import annotations

from collections.abc import Sequence

from expectations.policy import Rules
from spira_tasks.contract.verdict import Verdict


def needs_approval(verdicts: Sequence[Verdict], rules: Rules) -> bool:
    """Whether a person has to approve a model that no verdict stops."""
    return rules.approval == "always" or any(one.status == "insufficient" for one in verdicts)
