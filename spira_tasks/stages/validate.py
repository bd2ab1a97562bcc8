"""Gate: hand a table on, unchanged, with what its expectations say of it.

Verdicts that block end the run, and later steps read this stage's output and never its input; so
whatever they work with has passed.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from spira_tasks.config import StageConfig
from spira_tasks.contract import Outcome
from spira_tasks.errors import ConfigError

if TYPE_CHECKING:
    from spira_tasks.artifacts import Directory
    from spira_tasks.quality import SuiteFor
    from spira_tasks.work import Work


AUDIT = "gate"


@dataclass(frozen=True)
class Inputs:
    table: Directory  # one parquet file, and whatever goes with it


@dataclass(frozen=True)
class Outputs:
    table: Path  # the input itself
    report: Path  # validation.json


class Config(StageConfig):
    """``suite``: S1 and S2 (``recordings``), S3 (``training_set``) or S4 (``features``)."""

    suite: Literal["recordings", "training_set", "features"]


def run(inputs: Inputs, config: Config, outputs: Outputs, work: Work) -> Outcome:
    import pandas as pd

    from spira_tasks import quality

    tables = [name for name in inputs.table.names if name.endswith(".parquet")]
    if len(tables) != 1:
        raise ConfigError(
            f"{len(tables)} parquet files came to be validated as {config.suite}: the gate takes "
            "the one table of a stage; check the step's input"
        )
    frame = pd.read_parquet(inputs.table.path(tables[0]))
    reports = [quality.check(frame, suite(frame)) for suite in suites(config.suite)]

    for name in inputs.table.names:
        (outputs.table / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(inputs.table.path(name), outputs.table / name)
    content = [asdict(report) for report in reports]
    (outputs.report / "validation.json").write_text(json.dumps(content, indent=1))
    verdicts = tuple(verdict for report in reports for verdict in report.verdicts)
    n_by_verdict = Counter(verdict.verdict for verdict in verdicts)
    return Outcome(
        {
            "n_rows": len(frame),
            "n_expectations": len(verdicts),
            "n_warnings": n_by_verdict["warn"],
            "n_blocked": n_by_verdict["block"],
        },
        verdicts,
    )


def suites(name: str) -> list[SuiteFor]:
    """The functions that make the suites for a table; importing them takes seconds."""
    from expectations import audio, features, metadata, training_set

    by_name: dict[str, list[SuiteFor]] = {
        "recordings": [metadata.suite, audio.suite],
        "training_set": [training_set.suite],
        "features": [features.suite],
    }
    return by_name[name]
