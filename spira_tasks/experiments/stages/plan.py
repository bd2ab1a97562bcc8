"""Say which trials of an experiment can run now and have no result.

The steps that all trials share run here, so that a trial needs no key to the recordings.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AwareDatetime, Field

from spira_tasks.config import Nothing, StageConfig, StageSpec
from spira_tasks.contract.record import Outcome
from spira_tasks.errors import ConfigError

if TYPE_CHECKING:
    from spira_tasks.work import PlatformWork

SPEC = StageSpec(outside=True)  # it runs other steps
MAX_TRIALS = 500  # of a round; Airflow maps a task over 1024 at most

Inputs = Nothing


@dataclass(frozen=True)
class Outputs:
    plan: Path  # plan.json


class Config(StageConfig):
    """``experiment``: the text of the file that declares it, or its path where this runs.

    ``data``: folder or s3://bucket/prefix, for a file that names none.  ``expired``: whether to run
    it after its end.  ``retry``: trials that failed before this time, which has passed, are tried
    again.
    """

    experiment: Annotated[str, Field(min_length=1)]
    data: str = ""
    expired: bool = False
    retry: AwareDatetime | Literal[""] = ""


def run(inputs: Inputs, config: Config, outputs: Outputs, work: PlatformWork) -> Outcome:
    from spira_tasks.experiments import declaration
    from spira_tasks.experiments.trials import Runs

    if config.retry and config.retry > datetime.now(UTC):
        raise ConfigError(
            f"retry is {config.retry.isoformat()}, a time to come: a trial that fails would be "
            "tried again until then. Give the present time or an earlier one, in UTC"
        )
    text = config.experiment
    if "\n" not in text:
        text = declaration.content(Path(text))
    one = declaration.parse(text, "the experiment")
    declaration.refuse_ended(one, may_be_over=config.expired)
    since = config.retry.astimezone(UTC).isoformat(timespec="seconds") if config.retry else ""
    runs = Runs(one, config.data, work.store, since)
    waiting = runs.next_round()
    runs.write_study()
    trials = waiting.trials[:MAX_TRIALS]
    plan = json.dumps(runs.plan(text, trials), indent=1, sort_keys=True)
    (outputs.plan / "plan.json").write_text(plan)
    n, n_later = len(trials), len(waiting.trials) - len(trials) + waiting.n_later
    return Outcome({"n_trials": float(n), "n_later": float(n_later)}, changed=n > 0)
