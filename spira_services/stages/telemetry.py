"""Export the days of serving that are over, sample them for labels, end what is past its time."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from spira_services.serving.telemetry import Rule, rule
from spira_tasks.config import Nothing, StageConfig, StageSpec
from spira_tasks.contract.record import Outcome

if TYPE_CHECKING:
    from spira_tasks.work import PlatformWork

SPEC = StageSpec(outside=True)  # it reads the database of the services, and deletes

Inputs = Nothing


@dataclass(frozen=True)
class Outputs:
    closed: Path  # closed.json: the days, and counts


class Config(StageConfig):
    """``under``: where the days are.  ``rule``: what is kept and sampled."""

    under: str = Field(
        default_factory=lambda: os.environ.get("SPIRA_TELEMETRY") or ".spira/telemetry"
    )
    rule: Rule = Field(default_factory=rule)


def run(inputs: Inputs, config: Config, outputs: Outputs, work: PlatformWork) -> Outcome:
    from spira_services import feedback, server
    from spira_services.database import now, opened
    from spira_services.serving.telemetry import retain

    with opened() as engine:
        days, n_sampled = feedback.close_days(engine, config.under, now(), config.rule)
        counts = retain(engine, server.audio(), config.rule, now())
    counts |= {"n_days": len(days), "n_sampled": n_sampled}
    about = {"days": {str(one.day): one.n_rows for one in days}, **counts}
    (outputs.closed / "closed.json").write_text(json.dumps(about, indent=1, sort_keys=True))
    metrics = {name: float(n) for name, n in counts.items()}
    return Outcome(metrics, changed=any(counts.values()))
