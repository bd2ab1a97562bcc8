"""Write a decision that a person made on a page: the same act as the command of that name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from spira_tasks.config import Nothing, StageConfig, StageSpec
from spira_tasks.contract.record import Outcome
from spira_tasks.errors import ConfigError

if TYPE_CHECKING:
    from spira_tasks.work import PlatformWork

SPEC = StageSpec(outside=True)  # each decision is an event of the audit log

Text = Annotated[str, Field(max_length=500)]
Act = Literal["approve", "refuse", "waive", "sign", "release", "hold"]

Inputs = Nothing
Outputs = Nothing


class Config(StageConfig):
    acts: tuple[Act, ...]  # of the DAG, whose roles say who may start it
    act: Act
    reason: Annotated[str, Field(min_length=10, max_length=500)]
    version: Text = ""  # to approve or refuse
    classifier: Text = (
        ""  # digest of the model that was read; empty for the one of that version now
    )
    asked: Text = ""  # what its promotion had left open when it was read
    suite: Text = ""  # of the check to waive; ``promotion`` for a gate of promotion
    check: Text = ""
    run: Text = ""  # that the check held back; empty for the newest that it did
    part: Literal["", "policy", "plan"] = ""  # file of limits to sign
    digest: Text = ""  # of that file, as it was read
    record: Text = ""  # to release from quarantine, or to hold there again
    code: Text = ""  # why it was refused, where there are several reasons


def run(inputs: Inputs, config: Config, outputs: Outputs, work: PlatformWork) -> Outcome:
    from spira_tasks.governance import approval, quarantine, signatures, waivers

    if config.act not in config.acts:
        raise ConfigError(
            f"this DAG takes {', '.join(config.acts)}, and not {config.act}, which is for others"
        )
    store, why = work.store, config.reason
    before = store.runs.step(work.run_id, "decide")
    now = config.model_dump(mode="json")
    if before and before.state == "done" and now == now | dict(before.config):  # which may be older
        # Anybody may run a task again, and what was decided meanwhile would be withdrawn.
        return Outcome(changed=False)
    new = True
    match config.act:
        case "approve":
            read = (config.classifier, config.asked) if config.classifier else None
            _, new = approval.approve(store, config.version, why, read)
        case "refuse":
            _, new, _ = approval.refuse(store, config.version, why, config.classifier)
        case "waive":
            _, new = waivers.sign(store, config.suite, config.check, why, run=config.run)
        case "sign":
            if not config.part:
                raise ConfigError("which file of limits is signed is missing: policy or plan")
            _, new = signatures.sign(store, config.part, why, config.digest)
        case "release":
            entry, _ = quarantine.release(store, config.record, config.code or None, why)
            new = not entry.released_by
        case "hold":
            quarantine.withdraw(store, config.record, config.code or None, why)
    return Outcome(changed=new)
