"""Erase a subject from the store after the services, and leave the certificate."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from spira_tasks.config import StageConfig, StageSpec
from spira_tasks.contract.record import Outcome

if TYPE_CHECKING:
    from spira_tasks.artifacts import Directory
    from spira_tasks.work import PlatformWork

SPEC = StageSpec(outside=True)  # it deletes


@dataclass(frozen=True)
class Inputs:
    forgotten: Directory  # forgotten.json: the tag, and what collection and labels erased


@dataclass(frozen=True)
class Outputs:
    certificate: Path  # certificate.json, signed; certificate.md, to print


class Config(StageConfig):
    reason: Annotated[str, Field(min_length=10, max_length=500)]


def run(inputs: Inputs, config: Config, outputs: Outputs, work: PlatformWork) -> Outcome:
    from spira_tasks.governance import erasure
    from spira_tasks.governance.inventory import Holding

    forgotten = json.loads(inputs.forgotten.read("forgotten.json"))
    tag = forgotten.pop("tag")
    certificate, changed = erasure.erase(
        work.store, Holding(), tag, config.reason, absent=any(forgotten.values()), also=forgotten
    )
    text = json.dumps(certificate, indent=1, sort_keys=True)
    (outputs.certificate / "certificate.json").write_text(text)
    (outputs.certificate / "certificate.md").write_text(erasure.as_markdown(certificate))
    counts = {name: float(n) for name, n in certificate["removed"].items()}
    models = {"n_model_versions": float(len(certificate["model_versions"]))}
    return Outcome(counts | models, changed=changed)
