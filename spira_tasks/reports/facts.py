"""What the governance site shows of a run: counts, names and digests, never a value of a patient.

A count of people is None (suppressed) where it is 1 to 4, or where a smaller count follows from it.
A category is a value of the record contract, a configured site or a fixed band.  Any other name is
replaced by a number, ``"#1"``, ``"#2"``, … in the order of the names, or by ``"other"`` where it is
rare; an empty field is ``"missing"``.

Every part may be absent: a stopped run has no evaluation, and old tables may be erased.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from spira_tasks.contract.run import Anchor, RunOutcome
from spira_tasks.contract.verdict import Verdict

Count = int | None  # None: suppressed
Unit = Literal["subjects", "recordings"]


@dataclass(frozen=True)
class Counts:
    """A table of counts, small ones suppressed, by one dimension or two.

    Columns and their totals, and those of the rows, are empty in a table of one dimension.
    """

    by: tuple[str, ...]  # of the rows and, where there are two, of the columns: ("site", "label")
    unit: Unit
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[Count, ...], ...]  # (row, column); one column in one dimension
    row_totals: tuple[Count, ...]
    column_totals: tuple[Count, ...]
    total: Count


@dataclass(frozen=True)
class StepFacts:
    """One step; ``waiting``: it never ran.  ``error`` and ``message`` are of a failed step."""

    name: str
    state: Literal["done", "blocked", "failed", "waiting"]
    seconds: float = 0.0
    found: bool = False
    key: str = ""
    finished_at: str = ""
    error: str = ""
    message: str = ""
    outputs: Mapping[str, str] = field(default_factory=dict)  # output name to artifact digest
    code: str = ""  # digest of the code that ran; empty where the record has none


@dataclass(frozen=True)
class Intake:
    """What came in, over all sites."""

    n_rows: Count
    n_recordings: Count
    n_subjects: Count
    n_sites: int
    n_quarantined: Count
    n_excluded: Count
    n_ward_noises: int
    hours_of_audio: float
    by_task: Counts


@dataclass(frozen=True)
class Quarantine:
    """The recordings that ingest and the gates refused; tables are None where there are none."""

    n_by_step: Mapping[str, Count]
    by_reason: Counts | None = None
    by_site: Counts | None = None
    by_site_and_reason: Counts | None = None


@dataclass(frozen=True)
class SignalQuality:
    """Rounded quartiles of one measure of one device; None where fewer than ``MIN_CELL`` people."""

    measure: str  # column of the table, such as "snr_db"
    device: str
    n_subjects: Count
    n_recordings: Count
    low: float | None
    median: float | None
    high: float | None


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Slice:
    """Rates on one group of test subjects; None of fewer than ``tables.MIN_SLICE`` people."""

    by: str  # sex, age, site, device
    group: str
    n_patients: Count
    n_controls: Count
    sensitivity: Interval | None
    specificity: Interval | None


@dataclass(frozen=True)
class Evaluation:
    """The results on the test subjects.

    Only numbers of people are there where a class has fewer than ``MIN_CELL`` people: a measure
    would reveal the answers they got, and the groups of the test subjects who they are.
    """

    n_recordings: Count
    n_subjects: Count
    n_patients: Count
    n_controls: Count
    operating_point: float | None = None
    expected_calibration_error: float | None = None
    brier_score: float | None = None
    confusion: Counts | None = None  # patients, controls by positive, negative; of recordings
    # condition (figures.CONDITIONS) to metric (figures.ALL_METRICS) to estimate
    conditions: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    # noise condition to the fall in balanced accuracy against "clean"
    drops: Mapping[str, Interval] = field(default_factory=dict)
    slices: tuple[Slice, ...] = ()  # without added noise; none where a table is gone
    measured: Mapping[str, Any] = field(default_factory=dict)  # the rest, by gather.MEASURED
    explained_png: bytes = b""  # the plot of what pushed some answers

    @property
    def is_published(self) -> bool:
        """Whether measures of all test subjects are shown."""
        return bool(self.conditions)


@dataclass(frozen=True)
class ModelFacts:
    """The registered version; its aliases of today, or None where MLflow did not answer."""

    name: str
    version: str
    classifier: str  # digest
    aliases: tuple[str, ...] | None
    mlflow_run: str
    training: Mapping[str, Any]  # the step's configuration: model, epochs, …
    feature: Mapping[str, Any]


@dataclass(frozen=True)
class Dataset:
    """The table that the model is trained on, behind all gates."""

    digest: str
    n_recordings: Count
    n_subjects: Count
    by_split: Counts | None  # splits × label, subjects


@dataclass(frozen=True)
class Release:
    """A release from quarantine, without the recording that it concerns."""

    reason: str
    why: str
    by: str
    at: str


@dataclass(frozen=True)
class Signature:
    """Who answers for a file of limits as it was for this run."""

    by: str
    at: str


@dataclass(frozen=True)
class Change:
    """A property of this run and of the run before."""

    what: str  # counts begin with "n_"
    name: str  # step of a "code", "<step>.<key>" of a "setting", else empty
    before: str | Count
    now: str | Count


@dataclass(frozen=True)
class Since:
    """A run compared with the one that ended before it."""

    run_id: str  # of the run before
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class RunFacts:
    """Everything that the pages show of one run."""

    run_id: str
    outcome: RunOutcome
    started_at: str  # UTC, ISO 8601, as finished_at; empty where not known
    finished_at: str
    synthetic: bool | None  # whether people are invented; None where no table tells
    triggered_by: str  # actor of the audit log; empty where it does not say
    steps: tuple[StepFacts, ...]
    verdicts: Mapping[str, tuple[Verdict, ...]]  # by step, small counts suppressed
    provenance: Mapping[str, str]  # gather.PROVENANCE of the newest step; empty if it has none
    anchor: Anchor
    releases: tuple[Release, ...] = ()  # in force now; waivers are in the verdicts
    n_erasures: Count = 0  # people erased from this store until now
    intake: Intake | None = None
    quarantine: Quarantine | None = None
    dataset: Dataset | None = None
    composition: tuple[Counts, ...] = ()  # of subjects, by tables.COMPOSITION
    signal_quality: tuple[SignalQuality, ...] = ()
    evaluation: Evaluation | None = None
    # File of limits (policy, plan, suites) to its signature; one that nobody signed is not there.
    signatures: Mapping[str, Signature] = field(default_factory=dict)
    model: ModelFacts | None = None
    champion: str | None = ""  # version in use when the facts were read; None: not known
    since: Since | None = None
    experiments: tuple[Mapping[str, Any], ...] = ()  # comparisons, as they were stored
    missing: tuple[str, ...] = ()  # "<step>.<output>" that is gone, or "registry"

    @property
    def checks(self) -> list[Verdict]:
        """The verdicts of all steps."""
        return [verdict for verdicts in self.verdicts.values() for verdict in verdicts]


class Tally(NamedTuple):
    """How many checks passed, warned or found too little to tell, and ended the run."""

    passed: int
    warned: int
    blocked: int

    @classmethod
    def of(cls, verdicts: Sequence[Verdict]) -> Tally:
        tones = [tone(verdict) for verdict in verdicts]
        return cls(tones.count("pass"), tones.count("warn"), tones.count("block"))


@dataclass(frozen=True)
class RunSummary:
    """One run among others, for the pages that look over runs."""

    run_id: str
    finished_at: str
    outcome: RunOutcome
    n_recordings: Count
    n_subjects: Count
    n_quarantined: Count
    auc: Interval | None
    version: str
    by_suite: Mapping[str, Tally]
    started_at: str = ""
    triggered_by: str = ""
    n_open: int = 0  # checks that had too little to tell

    @property
    def shown_as(self) -> str:
        """The outcome, or ``provisional`` where a check of a promoted model could not tell."""
        return "provisional" if self.outcome == "promoted" and self.n_open else self.outcome

    @property
    def has_ended(self) -> bool:
        """Whether every check that it came to is known; only such runs can be compared."""
        return self.outcome not in {"running", "failed"}

    @property
    def tally(self) -> Tally:
        return Tally(
            *(sum(numbers) for numbers in zip((0, 0, 0), *self.by_suite.values(), strict=True))
        )

    @property
    def pass_rate(self) -> float | None:
        return self.tally.passed / sum(self.tally) if sum(self.tally) else None


def tone(verdict: Verdict) -> Literal["pass", "warn", "block"]:
    """How a verdict is shown: by what it leads to."""
    return "block" if verdict.stops else "pass" if verdict.status == "pass" else "warn"


def by_suite(verdicts: Mapping[str, Sequence[Verdict]]) -> dict[str, list[Verdict]]:
    """Regroup the verdicts of steps by suite; those of gates without a suite stay by step."""
    found: dict[str, list[Verdict]] = {}
    for step, of_step in verdicts.items():
        for verdict in of_step:
            found.setdefault(verdict.suite or step, []).append(verdict)
    return found


def setting(value: Any) -> str:
    """A value of a configuration as a person writes it."""
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
