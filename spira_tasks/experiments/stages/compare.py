"""Compare the arms of an experiment, once no trial of it is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from spira_tasks.config import Nothing, StageConfig, StageSpec
from spira_tasks.contract.record import Outcome

if TYPE_CHECKING:
    from spira_tasks.artifacts import Directory
    from spira_tasks.work import PlatformWork

SPEC = StageSpec(outside=True)  # it reads the runs of the trials, and writes to MLflow


@dataclass(frozen=True)
class Inputs:
    plan: Directory  # plan.json


Outputs = Nothing
Config = StageConfig


def run(inputs: Inputs, config: Config, outputs: Outputs, work: PlatformWork) -> Outcome:
    from spira_tasks.experiments import comparison
    from spira_tasks.experiments.trials import Runs

    runs = Runs.of_plan(inputs.plan.read("plan.json"), work.store)
    waiting = runs.next_round()
    n_missing = len(waiting.trials) + waiting.n_later
    runs.write_study()
    if n_missing:
        return Outcome({"n_missing": float(n_missing)}, changed=False)
    found = comparison.publish(runs)
    n_failed = sum(arm["n_failed"] for arm in found["arms"])
    return Outcome({"n_missing": 0.0, "n_failed": float(n_failed)})
