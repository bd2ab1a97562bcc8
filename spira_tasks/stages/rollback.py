"""Take the champion out of use, and put an earlier version of the model in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from spira_tasks.config import Nothing, StageConfig, StageSpec
from spira_tasks.contract.record import Outcome

if TYPE_CHECKING:
    from spira_tasks.work import PlatformWork

SPEC = StageSpec(outside=True)  # it moves the champion; the decision is an event of the audit log

Inputs = Nothing
Outputs = Nothing


class Config(StageConfig):
    to: str = ""  # the version that is to serve; empty for the one before
    reason: Annotated[str, Field(min_length=10, max_length=500)]


def run(inputs: Inputs, config: Config, outputs: Outputs, work: PlatformWork) -> Outcome:
    from spira_tasks.governance.approval import roll_back

    done = roll_back(work.store, config.to, config.reason)
    moved = {"out_of_use": float(done.version), "champion": float(done.champion)}
    return Outcome(moved, changed=done.new)
