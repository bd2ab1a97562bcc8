"""Gate: check a table against its suites and hand it on without the rows that are refused.

Refused rows go into quarantine, and nothing more happens while they are few.  Verdicts that block
end the run, and later steps read this stage's output and never its input, so whatever they work
with has passed.  A table without a refused row is handed on byte by byte.

Two kinds of decisions are applied: a release keeps a row in spite of one reason, a waiver turns a
verdict that blocks, and is no worse than what was signed, into a warning.  Neither counts against
a firm expectation.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PositiveInt

from spira_tasks.config import Fraction, StageConfig, StageSpec
from spira_tasks.contract.record import Outcome
from spira_tasks.errors import ConfigError
from spira_tasks.gating import quarantine, rules
from spira_tasks.gating.kinds import KINDS, Gate, Given, suites
from spira_tasks.gating.quarantine import Refusal
from spira_tasks.governance import applied

if TYPE_CHECKING:
    import pandas as pd

    from spira_tasks.artifacts import Directory
    from spira_tasks.quality import Report
    from spira_tasks.work import Work


SPEC = StageSpec(decisions=("releases", "waivers", "erasures"), audit="gate")

PERSONAL = "expect_column_values_to_hold_no_personal_data"


@dataclass(frozen=True)
class Inputs:
    table: Directory  # one parquet file, and whatever goes with it
    source: Directory  # what the table was made from: its records are counted, nothing else
    releases: Directory
    waivers: Directory
    erasures: Directory


@dataclass(frozen=True)
class Outputs:
    table: Path  # the input without the rows in quarantine; the input itself when there are none
    quarantine: Path  # quarantine.parquet, also when it has no row
    report: Path  # validation.json, gx.json


class Config(StageConfig):
    """Which kind of gate this is, and how many rows may be refused.

    ``gate``: ``recordings`` (suites S1 and S2), ``training_set`` (S3 and S7), ``features`` (S4) or
    ``ward_noise`` (S8).  ``tasks``: what the model is trained on; the people of a training set
    are counted by their labelled recordings of it.  ``n_parity_recordings``: how many have their
    features computed again.
    """

    gate: Gate
    tasks: tuple[Literal["VOWEL", "RHYME", "SENTENCE"], ...] = ("SENTENCE",)
    max_quarantine_fraction: Fraction = 0.05
    max_site_quarantine_fraction: Fraction = 0.20
    n_parity_recordings: PositiveInt = 5


def run(inputs: Inputs, config: Config, outputs: Outputs, work: Work) -> Outcome:
    import pandas as pd

    from spira_tasks import quality

    files = [name for name in inputs.table.names if name.endswith(".parquet")]
    if len(files) != 1:
        raise ConfigError(
            f"{len(files)} parquet files came to the gate {config.gate}: a gate takes the one "
            "table of a stage; check the step's input"
        )
    (file,) = files
    frame = pd.read_parquet(inputs.table.path(file))
    kind = KINDS[config.gate]
    given = Given(
        inputs.table,
        inputs.source,
        frozenset(one.about["tag"] for one in applied.read(inputs.erasures)),
        work.blobs,
        config.n_parity_recordings,
        config.tasks,
    )
    measured = frame.assign(**kind.measure(frame, given))
    reports = [quality.check(measured, suite(measured)) for suite in suites(config.gate)]

    released = {(d.about["record"], d.about["reason"]) for d in applied.read(inputs.releases)}
    refusals, n_released = refuse(frame, reports, released)
    refused = quarantine.table(frame.iloc[list(refusals)], {k + 1: v for k, v in refusals.items()})
    kept = frame.drop(index=frame.index[list(refusals)])
    suite = f"{config.gate}_gate"
    n_lost, n_new = kind.lost_and_new(frame, given)
    own = (
        *rules.shares(
            kept,
            refused.assign(hospital_id=frame["hospital_id"].iloc[list(refusals)].to_numpy())
            if "hospital_id" in frame
            else refused,
            max_fraction=config.max_quarantine_fraction,
            max_site_fraction=config.max_site_quarantine_fraction,
            emptied=kept.empty and not frame.empty,
            suite=suite,
        ),
        rules.standard_limits(
            config,
            ("max_quarantine_fraction", "max_site_quarantine_fraction"),
            ("n_parity_recordings",),
            suite=suite,
        ),
        rules.conserved(
            n_lost=n_lost,
            n_new=n_new,
            n_leaked=abs(len(frame) - len(kept) - len(refused)),
            n=len(frame),
            suite=suite,
        ),
    )
    waivers = applied.read(inputs.waivers)
    parts: list[dict[str, Any]] = [
        {
            "suite": report.suite,
            "version": report.version,
            "digest": report.digest,
            "n_rows": report.n_rows,
            "verdicts": [applied.waive(verdict, waivers) for verdict in report.verdicts],
        }
        for report in [*reports, quality.Report(suite, "", "", len(frame), own)]
    ]
    verdicts = tuple(verdict for part in parts for verdict in part["verdicts"])

    inputs.table.copy_to(outputs.table)
    if refusals:
        kept.to_parquet(outputs.table / file, index=False)
    refused.to_parquet(outputs.quarantine / quarantine.FILE, index=False)
    content = [part | {"verdicts": [v.to_dict() for v in part["verdicts"]]} for part in parts]
    (outputs.report / "validation.json").write_text(json.dumps(content, indent=1))
    pages = {report.suite: report.validation for report in reports}
    (outputs.report / "gx.json").write_text(json.dumps(pages, indent=1, sort_keys=True))
    n_by_status = Counter(verdict.status for verdict in verdicts)
    return Outcome(
        {
            "n_rows": len(frame),
            "n_quarantined": len(refused),
            "n_released": n_released,
            "n_expectations": len(verdicts) - len(own),
            "n_warnings": n_by_status["warn"],
            "n_blocked": sum(verdict.stops for verdict in verdicts),
        },
        verdicts,
    )


def refuse(
    frame: pd.DataFrame, reports: Iterable[Report], released: set[tuple[str, str]]
) -> tuple[dict[int, Refusal], int]:
    """The rows that are refused, by their numbers from 0, and how many stay only by a release.

    The reason of each is the first that no release lifts.
    """
    refusals: dict[int, Refusal] = {}
    freed: set[int] = set()
    key = "record_id" if "record_id" in frame else "noise_id"
    for report in reports:
        for row, codes in report.faults.items():
            record = frame[key].iloc[row]
            holds = [c for c in codes if c in report.firm or (record, c) not in released]
            if holds:
                why, unnamed = report.reasons[holds[0]], holds[0].startswith(PERSONAL)
                refusal = Refusal(holds[0], why, report.suite, report.digest, unnamed)
                refusals.setdefault(row, refusal)
            else:
                freed.add(row)
    return {row: refusals[row] for row in sorted(refusals)}, len(freed - set(refusals))
