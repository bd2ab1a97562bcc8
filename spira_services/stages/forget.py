"""Erase a subject from collection, labels and snapshots."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from spira_services.stages.snapshot import snapshots
from spira_tasks.config import Nothing, StageConfig, StageSpec
from spira_tasks.contract.record import Outcome

if TYPE_CHECKING:
    from spira_tasks.work import PlatformWork

SPEC = StageSpec(outside=True)  # it deletes

Inputs = Nothing


@dataclass(frozen=True)
class Outputs:
    forgotten: Path  # forgotten.json: the tag, and counts of what went


class Config(StageConfig):
    """``subject``: the tombstone's tag, never the pseudonym: Airflow keeps what it is given."""

    subject: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    snapshots: str = Field(default_factory=snapshots)


def run(inputs: Inputs, config: Config, outputs: Outputs, work: PlatformWork) -> Outcome:
    from spira_services import server
    from spira_services.database import is_there, opened
    from spira_services.forgetting import forget

    counts: dict[str, int] = {}
    if is_there():
        with opened() as engine:
            actor = os.environ.get("SPIRA_ACTOR") or f"run:{work.run_id}"
            counts = forget(engine, server.audio(), config.snapshots, config.subject, actor)
    content = json.dumps({"tag": config.subject, **counts}, sort_keys=True)
    (outputs.forgotten / "forgotten.json").write_text(content)
    metrics = {name: float(n) for name, n in counts.items()}
    return Outcome(metrics, changed=any(counts.values()))
