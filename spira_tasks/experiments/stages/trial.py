"""Bring one trial of a plan to its result: its steps run in this process.

A trial that fails is an outcome of the experiment, and no failure of this step: the others go on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import NonNegativeInt

from spira_tasks.config import Nothing, StageConfig, StageSpec
from spira_tasks.contract.record import Outcome

if TYPE_CHECKING:
    from spira_tasks.artifacts import Directory
    from spira_tasks.work import PlatformWork

SPEC = StageSpec(outside=True)  # it runs other steps


@dataclass(frozen=True)
class Inputs:
    plan: Directory  # plan.json


Outputs = Nothing


class Config(StageConfig):
    number: NonNegativeInt = 0  # of the trial in the plan


def run(inputs: Inputs, config: Config, outputs: Outputs, work: PlatformWork) -> Outcome:
    from spira_tasks.experiments.trials import Runs, trials_of

    plan = inputs.plan.read("plan.json")
    runs, trial = Runs.of_plan(plan, work.store), trials_of(plan)[config.number]
    found = runs.record(trial) is not None
    if not found:
        runs.run(trial)
    metrics = {"failed": float(runs.value(trial) is None)}
    if (shown := runs.shown(trial)) is not None:
        metrics[runs.experiment.metric] = shown
    return Outcome(metrics, changed=not found)
