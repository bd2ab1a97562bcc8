"""Write a snapshot of what was accepted and labelled, and decide whether it wakes a training."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from spira_services.retraining import Rule, rule
from spira_tasks.config import Nothing, StageConfig, StageSpec
from spira_tasks.contract.record import Outcome

if TYPE_CHECKING:
    from spira_tasks.work import PlatformWork

SPEC = StageSpec(outside=True)  # it reads the database of the services
VARIABLE = "SPIRA_SNAPSHOTS"

log = logging.getLogger(__name__)

Inputs = Nothing


@dataclass(frozen=True)
class Outputs:
    snapshot: Path  # snapshot.json, datasheet.md; decision.json: whether it wakes a training


def snapshots() -> str:
    """Folder, or s3://bucket/prefix, of the snapshots."""
    return os.environ.get(VARIABLE) or ".spira/snapshots"


class Config(StageConfig):
    """``under``: where the snapshots are.  ``rule``: what has to be new."""

    under: str = Field(default_factory=snapshots)
    rule: Rule = Field(default_factory=rule)


def run(inputs: Inputs, config: Config, outputs: Outputs, work: PlatformWork) -> Outcome:
    from spira_services import retraining, server, snapshot
    from spira_services.database import now, opened
    from spira_services.labels.policy import POLICY
    from spira_tasks.intake.record_contract import SHEET

    with opened() as engine:
        moment = now()
        made = snapshot.write(engine, server.audio(), config.under, moment)
        with engine.begin() as connection:
            before = retraining.last(connection, but=retraining.key_of(made.name))
            known: retraining.People = {}
            if before is not None:
                then = datetime.fromisoformat(before.details["as_of"])
                known = retraining.people_of(snapshot.rows_as_of(connection, then, POLICY))
            people = retraining.people_of(made.rows)
            decision = retraining.decide(
                connection,
                {"name": made.name, "place": made.place, "as_of": moment.isoformat()},
                {who: label for who, label in people.items() if known.get(who) != label},
                config.rule,
                run_id=work.run_id,
                moment=moment,
            )
    if decision.wakes:
        log.info("snapshot: enough is new for a training (%s)", decision.key)
    else:
        log.info("snapshot: no training is woken; not reached: %s", ", ".join(decision.missing))
    about = {"place": made.place, **asdict(decision)}
    (outputs.snapshot / "decision.json").write_text(json.dumps(about, indent=1, sort_keys=True))
    (outputs.snapshot / SHEET).write_text(json.dumps(made.about, indent=1, sort_keys=True))
    sheet = snapshot.datasheet(made.about, made.changes, made.labels)
    (outputs.snapshot / snapshot.DATASHEET).write_text(sheet)
    metrics = {
        "n_recordings": float(made.about["n_recordings"]),
        "n_subjects": float(made.about["n_subjects"]),
        "n_subjects_new": float(sum(sum(counts.values()) for counts in decision.new.values())),
        "wakes_training": float(decision.wakes),
    }
    return Outcome(metrics, changed=made.is_new)
