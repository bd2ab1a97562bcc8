"""Remove what is no longer needed, by the adopted policy; without one, count what would go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spira_tasks.config import Nothing, StageConfig, StageSpec
from spira_tasks.contract.record import Outcome

if TYPE_CHECKING:
    from spira_tasks.work import PlatformWork

SPEC = StageSpec(outside=True)  # it deletes

Inputs = Nothing
Outputs = Nothing
Config = StageConfig


def run(inputs: Inputs, config: Config, outputs: Outputs, work: PlatformWork) -> Outcome:
    from spira_tasks.governance import retention

    policy = retention.read_policy(work.store)
    plan = retention.plan(work.store, policy)
    if policy.adopted:
        retention.apply(work.store, plan, policy)
    # Not the number of recordings whose time is over: it may be that of one person.
    metrics = {
        "adopted": float(policy.adopted),
        "n_items": float(len(plan.items)),
        "n_bytes": float(sum(item.size for item in plan.items)),
    }
    return Outcome(metrics, changed=policy.adopted and bool(plan.items or plan.expired))
