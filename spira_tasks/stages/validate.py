"""Gate: hand a table on with what its expectations say of it, without the rows that are at fault.

Rows at fault go into quarantine, and nothing more happens while they are few.  Verdicts that block
end the run, and later steps read this stage's output and never its input; so whatever they work
with has passed.  A table without a fault is handed on byte by byte.

Two kinds of decisions of people are heeded: a release keeps a row in spite of one reason, a waiver
turns one verdict that blocks, no worse than was signed for, into a warning.  Neither counts against
an expectation that is firm.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PositiveInt

from spira_tasks.config import Fraction, StageConfig, standard_limits
from spira_tasks.contract.record import Outcome
from spira_tasks.contract.verdict import Verdict
from spira_tasks.errors import ConfigError
from spira_tasks.governance import heeded

if TYPE_CHECKING:
    import pandas as pd

    from spira_tasks.artifacts import Directory
    from spira_tasks.quality import Report, SuiteFor
    from spira_tasks.work import Work


AUDIT = "gate"
HEEDS = ("releases", "waivers", "erasures")

CONSERVED = "rows_conserved"  # nobody waives it: rows that vanish are a bug, not a fault of data
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
    """What is checked, and how many rows may be at fault.

    ``suite``: S1 and S2 (``recordings``), S3 (``training_set``), S4 (``features``) or S8
    (``ward_noise``).  ``n_parity_recordings``: features that are computed again.
    """

    suite: Literal["recordings", "training_set", "features", "ward_noise"]
    max_quarantine_fraction: Fraction = 0.05
    max_site_quarantine_fraction: Fraction = 0.20
    n_parity_recordings: PositiveInt = 5


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
    measured = frame.assign(**measurements(frame, inputs, config, work))
    reports = [quality.check(measured, suite(measured)) for suite in suites(config.suite)]

    released = {
        (decision.about["record"], decision.about["reason"])
        for decision in heeded.read(inputs.releases)
    }
    faults, n_released = at_fault(frame, reports, released)
    refused = quarantine(frame, reports, faults)
    kept = frame.drop(index=frame.index[list(faults)])
    own = (
        *shares(frame, kept, config),
        standard_limits(
            config,
            ("max_quarantine_fraction", "max_site_quarantine_fraction"),
            ("n_parity_recordings",),
            suite=f"{config.suite}_gate",
        ),
        conserved(frame, kept, refused, inputs.source, config.suite),
    )
    firm = frozenset({CONSERVED}).union(*(report.firm for report in reports))
    waivers = heeded.read(inputs.waivers)
    parts: list[dict[str, Any]] = [
        {
            "suite": report.suite,
            "version": report.version,
            "digest": report.digest,
            "n_rows": report.n_rows,
            "verdicts": [waived(verdict, waivers, firm) for verdict in report.verdicts],
        }
        for report in [*reports, quality.Report(f"{config.suite}_gate", "", "", len(frame), own)]
    ]

    for name in inputs.table.names:
        (outputs.table / name).parent.mkdir(parents=True, exist_ok=True)
        if name == tables[0] and faults:
            kept.to_parquet(outputs.table / name, index=False)
        else:
            shutil.copyfile(inputs.table.path(name), outputs.table / name)
    refused.to_parquet(outputs.quarantine / "quarantine.parquet", index=False)
    verdicts = tuple(verdict for part in parts for verdict in part["verdicts"])
    content = [part | {"verdicts": [asdict(v) for v in part["verdicts"]]} for part in parts]
    (outputs.report / "validation.json").write_text(json.dumps(content, indent=1))
    pages = {report.suite: report.validation for report in reports}
    (outputs.report / "gx.json").write_text(json.dumps(pages, indent=1, sort_keys=True))
    n_by_verdict = Counter(verdict.verdict for verdict in verdicts)
    return Outcome(
        {
            "n_rows": len(frame),
            "n_quarantined": len(refused),
            "n_released": n_released,
            "n_expectations": len(verdicts) - len(own),
            "n_warnings": n_by_verdict["warn"],
            "n_blocked": n_by_verdict["block"],
        },
        verdicts,
    )


def suites(name: str) -> list[SuiteFor]:
    """The functions that make the suites for a table; importing them takes seconds."""
    from expectations.suites import audio, features, metadata, training_set, ward_noise

    by_name: dict[str, list[SuiteFor]] = {
        "recordings": [metadata.suite, audio.suite],
        "training_set": [training_set.suite],
        "features": [features.suite],
        "ward_noise": [ward_noise.suite],
    }
    return by_name[name]


def measurements(
    frame: pd.DataFrame, inputs: Inputs, config: Config, work: Work
) -> dict[str, pd.Series]:
    """Columns that an expectation needs and the table does not have; they are not handed on."""
    import pandas as pd

    if config.suite == "training_set":
        tags = {decision.about["tag"] for decision in heeded.read(inputs.erasures)}
        return {"erased": frame["subject_id"].map(heeded.tombstone_tag).isin(tags)}
    if config.suite == "ward_noise":
        recordings = pd.read_parquet(inputs.source.path("recordings.parquet"))
        longest = recordings["duration_seconds"].max()
        return {"longest_recording_seconds": pd.Series(longest, index=frame.index, dtype="float64")}
    if config.suite == "features":
        return recomputed(frame, inputs, config, work)
    return {}


def recomputed(
    frame: pd.DataFrame, inputs: Inputs, config: Config, work: Work
) -> dict[str, pd.Series]:
    """What the code that runs makes of the stored waveforms, beside what is in the table."""
    import hashlib

    import pandas as pd

    from spira_tasks.corpus import parity
    from spira_tasks.speech.features import FeatureSpec

    spec = FeatureSpec.from_json(inputs.table.path("features.json").read_text())
    recordings = pd.read_parquet(inputs.source.path("recordings.parquet"))
    waveforms = frame["record_id"].map(recordings.set_index("record_id")["waveform"])
    same = {
        "schema_of_code": hashlib.sha256(spec.to_json().encode()).hexdigest()[:16],
        "n_frames_of_code": spec.n_frames,
        "n_bins_of_code": spec.n_bins,
    }
    columns = {name: pd.Series([value] * len(frame), frame.index) for name, value in same.items()}
    differences = parity(frame["features"], waveforms, spec, work.blobs, config.n_parity_recordings)
    return columns | {"parity_difference": differences}


def at_fault(
    frame: pd.DataFrame, reports: Iterable[Report], released: set[tuple[str, str]]
) -> tuple[dict[int, tuple[Report, str]], int]:
    """The rows that go, each with the first reason that nobody released it from.

    Returns
    -------
    faults : dict
        Number of a row, from 0, to the report and the code of the reason.
    n_released : int
        How many rows stay only because a person released them.
    """
    faults: dict[int, tuple[Report, str]] = {}
    freed: set[int] = set()
    for report in reports:
        for row, codes in report.faults.items():
            record = frame[key_of(frame)].iloc[row]
            holds = [c for c in codes if c in report.firm or (record, c) not in released]
            if holds:
                faults.setdefault(row, (report, holds[0]))
            else:
                freed.add(row)
    return {row: faults[row] for row in sorted(faults)}, len(freed - set(faults))


def key_of(frame: pd.DataFrame) -> str:
    return "record_id" if "record_id" in frame else "noise_id"


def quarantine(
    frame: pd.DataFrame, reports: list[Report], faults: dict[int, tuple[Report, str]]
) -> pd.DataFrame:
    """One row a refused recording: its number in the table that came, from 1, and why.

    Names of records, sites and tasks are kept only where they surely hold nothing else.
    """
    import pandas as pd

    from spira_tasks.intake.record_contract import COLUMNS, HEX64, NAME

    rows = frame.iloc[list(faults)]
    refused = pd.DataFrame(
        {
            "row": [row + 1 for row in faults],
            "record_id": rows[key_of(frame)].to_numpy(),
            "reason": [code for _, code in faults.values()],
            "detail": [report.reasons[code] for report, code in faults.values()],
            "hospital_id": rows.get("hospital_id", pd.Series(None, rows.index)).to_numpy(),
            "task": rows.get("task", pd.Series(None, rows.index)).to_numpy(),
            "subject_id": rows.get("subject_id", pd.Series(None, rows.index)).to_numpy(),
            "suite": [report.suite for report, _ in faults.values()],
            "suite_digest": [report.digest for report, _ in faults.values()],
        }
    ).astype({name: "str" for name in QUARANTINE} | {"row": "int64"})
    telling = refused["reason"].str.startswith(PERSONAL)
    well_named = refused["record_id"].str.fullmatch(NAME.pattern).fillna(False).astype(bool)
    refused["record_id"] = refused["record_id"].where(well_named & ~telling)
    refused["hospital_id"] = refused["hospital_id"].where(~telling)
    known = refused["subject_id"].str.fullmatch(HEX64.pattern).fillna(False).astype(bool)
    refused["subject_id"] = refused["subject_id"].where(known)
    refused["task"] = refused["task"].where(refused["task"].isin(COLUMNS["task"].values))
    return refused[[*QUARANTINE]]


QUARANTINE = (
    *("row", "record_id", "reason", "detail", "hospital_id", "task"),
    *("subject_id", "suite", "suite_digest"),
)


def shares(frame: pd.DataFrame, kept: pd.DataFrame, config: Config) -> tuple[Verdict, ...]:
    """Whether what is left may be used: the share of rows at fault, in all and by site."""
    from expectations.limits import tolerated

    told: dict[str, Any] = {"severity": "critical", "suite": f"{config.suite}_gate"}
    n, n_faulty = len(frame), len(frame) - len(kept)
    n_tolerated = tolerated(n, config.max_quarantine_fraction)
    emptied = n > 0 and kept.empty
    in_all = Verdict(
        "quarantine_share",
        "block" if n_faulty > n_tolerated or emptied else "pass",
        statistic=n_faulty / n if n else None,
        threshold=config.max_quarantine_fraction,
        n=n,
        reason=f"{n_faulty} of {n} rows are at fault, {n_tolerated} would be tolerated"
        + ("; see quarantine.parquet" if n_faulty else "")
        + ("; nothing is left to work with" if emptied else ""),
        **told,
    )
    if "hospital_id" not in frame:
        return (in_all,)
    of_site, left = frame["hospital_id"].value_counts(), kept["hospital_id"].value_counts()
    gone = of_site - left.reindex(of_site.index, fill_value=0)
    bad = [
        s
        for s in gone.index
        if gone[s] > tolerated(of_site[s], config.max_site_quarantine_fraction)
    ]
    by_site = Verdict(
        "quarantine_share_by_site",
        "block" if bad else "pass",
        statistic=float(len(bad)),
        threshold=config.max_site_quarantine_fraction,
        n=len(of_site),
        reason=f"{len(bad)} of {len(of_site)} sites have too many rows at fault",
        **told,
    )
    return in_all, by_site


def conserved(
    frame: pd.DataFrame, kept: pd.DataFrame, refused: pd.DataFrame, source: Directory, suite: str
) -> Verdict:
    """Whether every record of the source is here, once, and ends handed on or in quarantine."""
    import pandas as pd

    if "ingest.json" in source.names:
        counts = json.loads(source.read("ingest.json"))
        n_before = counts["n_rows"] - counts["n_quarantined"] - counts["n_excluded"]
        n_lost, n_new = max(n_before - len(frame), 0), max(len(frame) - n_before, 0)
    elif suite == "ward_noise":  # its source is there for the lengths
        n_lost = n_new = 0
    else:
        before = pd.read_parquet(source.path("recordings.parquet"))
        if suite == "features":  # of some tasks only
            tasks = before["task"][before["record_id"].isin(frame["record_id"])].unique()
            before = before[before["task"].isin(tasks)]
        n_lost = int((~before["record_id"].isin(frame["record_id"])).sum())
        n_new = len(frame) - (len(before) - n_lost)
    n_leaked = abs(len(frame) - len(kept) - len(refused))
    holds = n_lost == n_new == n_leaked == 0
    return Verdict(
        CONSERVED,
        "pass" if holds else "block",
        statistic=float(n_lost + n_new + n_leaked),
        threshold=0.0,
        n=len(frame),
        reason=f"{n_lost} records were lost on the way here, {n_new} appeared or came twice, and "
        f"{n_leaked} were neither handed on nor put into quarantine",
        severity="critical",
        suite=f"{suite}_gate",
    )


def waived(verdict: Verdict, waivers: Iterable[heeded.Decision], firm: frozenset[str]) -> Verdict:
    """The verdict, or a warning in its place where a person took responsibility."""
    decision = next((d for d in waivers if heeded.excuses(d.about, verdict)), None)
    if verdict.verdict != "block" or decision is None or verdict.name in firm:
        return verdict
    reason = f"{verdict.reason}; waived by {decision.by} on {decision.at[:10]}: {decision.why}"
    told = {"by": decision.by, "at": decision.at, "until": decision.about["until"]}
    return replace(verdict, verdict="warn", reason=reason, waiver=told | {"why": decision.why})
