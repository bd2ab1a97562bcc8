"""Read the records of hospitals about participants, keep what is new, and label by it."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spira_tasks.config import StageConfig, StageSpec
from spira_tasks.contract.record import Outcome

if TYPE_CHECKING:
    from spira_tasks.artifacts import Directory
    from spira_tasks.work import PlatformWork

SPEC = StageSpec(outside=True)  # it reads and writes the database of the services
FILE = "hospitals.toml"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inputs:
    hospitals: Directory  # hospitals.toml, and the secrets and deliveries that it names


@dataclass(frozen=True)
class Outputs:
    report: Path  # sync.json: counts and alerts by hospital


class Config(StageConfig):
    """``sites``: hospitals of the file to read; all without any."""

    sites: tuple[str, ...] = ()


def run(inputs: Inputs, config: Config, outputs: Outputs, work: PlatformWork) -> Outcome:
    from spira_services.database import opened
    from spira_services.hospital_sync import sync_hospitals
    from spira_services.hospitals.sources import connectors
    from spira_services.hospitals.watch import ALERTS
    from spira_tasks.contract.exits import EXIT_REJECTED, EXIT_UNAVAILABLE
    from spira_tasks.errors import GateRejected, ServiceUnavailable

    sources = connectors(str(inputs.hospitals.path(FILE)), config.sites)
    with opened() as engine:
        actor = os.environ.get("SPIRA_ACTOR") or f"run:{work.run_id}"
        reports = sync_hospitals(engine, sources, actor)
    content = json.dumps([asdict(one) for one in reports], indent=1, sort_keys=True, default=str)
    (outputs.report / "sync.json").write_text(content)
    for one in reports:
        for alert in one.alerts:
            about = " ".join(filter(None, (alert.code, alert.quantity, alert.name)))
            log.warning("%s: %s: %s; next: %s", one.source, about, *ALERTS[alert.code])
    status = max((one.exit_status for one in reports), default=0)
    nobody = ", ".join(one.source for one in reports if one.exit_status)
    if status == EXIT_UNAVAILABLE:
        raise ServiceUnavailable(f"nobody was found in {nobody}; the alerts above say why")
    if status == EXIT_REJECTED:
        raise GateRejected(f"nobody was found in {nobody}; the alerts above say what to look at")
    totals = {
        "n_facts": sum(one.n_facts for one in reports),
        "n_label_events": sum(one.n_label_events for one in reports),
        "n_entries_held": sum(one.n_held for one in reports),
        "n_alerts": sum(len(one.alerts) for one in reports),
    }
    return Outcome(
        {name: float(n) for name, n in totals.items()},
        changed=bool(totals["n_facts"] or totals["n_label_events"]),
    )
