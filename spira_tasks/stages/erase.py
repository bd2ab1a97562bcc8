"""Erase a subject from the store, and leave the certificate."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from spira_tasks.config import StageConfig, StageSpec
from spira_tasks.contract.record import Outcome

if TYPE_CHECKING:
    from spira_tasks.work import PlatformWork

SPEC = StageSpec(outside=True)  # it deletes


@dataclass(frozen=True)
class Inputs:
    pass


@dataclass(frozen=True)
class Outputs:
    certificate: Path  # certificate.json, signed; certificate.md, to print


class Config(StageConfig):
    """``subject``: the tombstone's tag, never the pseudonym: Airflow keeps what it is given."""

    subject: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    reason: Annotated[str, Field(min_length=10, max_length=500)]


def run(inputs: Inputs, config: Config, outputs: Outputs, work: PlatformWork) -> Outcome:
    from spira_tasks.governance import erasure
    from spira_tasks.governance.inventory import Holding

    certificate, changed = erasure.erase(work.store, Holding(), config.subject, config.reason)
    text = json.dumps(certificate, indent=1, sort_keys=True)
    (outputs.certificate / "certificate.json").write_text(text)
    (outputs.certificate / "certificate.md").write_text(erasure.as_markdown(certificate))
    counts = {name: float(n) for name, n in certificate["removed"].items()}
    models = {"n_model_versions": float(len(certificate["model_versions"]))}
    return Outcome(counts | models, changed=changed)
