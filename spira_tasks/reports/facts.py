"""What the governance site shows of a run: counts, names and digests, never a value of a patient.

A count of people is 0, at least ``MIN_CELL``, or None: suppressed, because it is smaller or because
a smaller one follows from it.  A category is one that the platform knows: a value of the record
contract, a configured site, a fixed band.  Any other name (a site that is not configured, a device)
is replaced by a number, ``"#1"``, ``"#2"``, … in the order of the names; what is too rare for a
number of its own is ``"other"``; what was not given is ``"missing"``.

Every part may be absent: a run that was stopped has no evaluation, and of an old one the tables may
be erased.  ``RunFacts.missing`` names what could not be read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from spira_tasks.contract.run import Anchor, RunOutcome
from spira_tasks.contract.verdict import Verdict

Count = int | None  # None: suppressed


@dataclass(frozen=True)
class Counts:
    """A table of counts without small cells, nor cells from which a small one follows.

    Attributes
    ----------
    by : tuple of str
        Dimension of the rows and, of a table with two ways, of the columns: ``("sex",)``,
        ``("site", "label")``.
    unit : {"subjects", "recordings"}
    rows, columns : tuple of str
        Categories.  ``columns`` is empty in a table with one way.
    cells : tuple of tuple of Count
        ``(row, column)``; one column in a table with one way.
    row_totals, column_totals : tuple of Count
        Empty in a table with one way.
    total : Count
    """

    by: tuple[str, ...]
    unit: Literal["subjects", "recordings"]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[Count, ...], ...]
    row_totals: tuple[Count, ...]
    column_totals: tuple[Count, ...]
    total: Count


@dataclass(frozen=True)
class StepFacts:
    """One step; ``waiting``: it never ran.  ``error`` and ``message`` are of a failed step."""

    name: str
    stage: str
    state: Literal["done", "blocked", "failed", "waiting"]
    seconds: float = 0.0
    found: bool = False
    key: str = ""
    finished_at: str = ""
    error: str = ""
    message: str = ""
    outputs: Mapping[str, str] = field(default_factory=dict)  # output name to artifact digest


@dataclass(frozen=True)
class Intake:
    """What came in.  Sums over the whole cohort; ``by_task`` counts recordings."""

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
    """What was refused, by ingest and by the gates together.

    Attributes
    ----------
    n_by_step : mapping of str to Count
        Step name to how many recordings it refused.
    by_reason, by_site : Counts or None
        One way each; None where nothing was refused.
    by_site_and_reason : Counts or None
    """

    n_by_step: Mapping[str, Count]
    by_reason: Counts | None = None
    by_site: Counts | None = None
    by_site_and_reason: Counts | None = None


@dataclass(frozen=True)
class SignalQuality:
    """Quartiles of one measure over the recordings of one device, rounded to whole units.

    All numbers are None where fewer than ``MIN_CELL`` people are heard.
    """

    measure: str  # column of the table: "snr_db", "loudness_lufs", …
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
    """Rates of the model on one group of test subjects.

    A rate is None where the number of people that it rests on, patients for sensitivity and
    controls for specificity, is suppressed or smaller than ``tables.MIN_SLICE``.
    """

    by: str  # sex, age, site, device
    group: str
    n_patients: Count
    n_controls: Count
    sensitivity: Interval | None
    specificity: Interval | None


@dataclass(frozen=True)
class Evaluation:
    """The results on the test subjects.

    Attributes
    ----------
    operating_point, expected_calibration_error, brier_score : float or None
        None, like ``confusion``, and ``conditions`` and ``drops`` are empty, where a class has
        fewer than ``MIN_CELL`` people: any of these measures would reveal the answers they got.
    confusion : Counts, optional
        Rows ``patients``, ``controls``; columns ``positive``, ``negative``; of recordings.
    conditions : mapping of str to mapping of str to Interval
        ``clean``, ``noise_all``, ``noise_controls``, ``noise_patients``; in each ``auc``,
        ``accuracy``, ``balanced_accuracy``, ``sensitivity``, ``specificity``, ``f1``.
    drops : mapping of str to Interval
        Noise condition to the fall in balanced accuracy against ``clean``.
    slices : tuple of Slice
        As recorded; empty where the table of recordings or of predictions is gone.
    """

    n_recordings: Count
    n_subjects: Count
    n_patients: Count
    n_controls: Count
    operating_point: float | None = None
    expected_calibration_error: float | None = None
    brier_score: float | None = None
    confusion: Counts | None = None
    conditions: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    drops: Mapping[str, Interval] = field(default_factory=dict)
    slices: tuple[Slice, ...] = ()

    @property
    def is_published(self) -> bool:
        """Whether measures of all test subjects are shown."""
        return bool(self.conditions)


@dataclass(frozen=True)
class ModelFacts:
    """The registered version of a run.

    ``aliases`` are those of now, not of the end of the run; None where MLflow did not answer.
    ``tags`` are those of the registry whose names begin with ``spira.``.
    """

    name: str
    version: str
    classifier: str  # digest
    aliases: tuple[str, ...] | None
    tags: Mapping[str, str]
    mlflow_run: str
    training: Mapping[str, Any]  # the step's configuration: model, epochs, …
    feature: Mapping[str, Any]


@dataclass(frozen=True)
class Dataset:
    """The table that the model is trained on: behind all gates, with its splits."""

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
class Provenance:
    """What made the run; each is empty where the run does not say."""

    git: str
    lock: str
    python: str
    image: str
    code: Mapping[str, str]  # step name to the digest of the code that ran


@dataclass(frozen=True)
class Change:
    """A property of this run and of the run before; counts where ``what`` begins with ``n_``.

    ``name`` is the step of a ``code``, ``"<step>.<key>"`` of a ``setting``, else empty.
    """

    what: str
    name: str
    before: str | Count
    now: str | Count


@dataclass(frozen=True)
class Since:
    """A run compared with the one that ended before it."""

    run_id: str  # of the run before
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class RunFacts:
    """Everything that the pages show of one run.

    Attributes
    ----------
    started_at, finished_at : str
        UTC, ISO 8601; empty where not known.
    synthetic : bool or None
        Whether the recordings are of invented people; None where no table tells.
    verdicts : mapping of str to tuple of Verdict
        Step name to what its checks found, small counts suppressed.
    composition : tuple of Counts
        ``by``: ``("label",)``, ``("sex",)``, ``("age",)``, ``("site",)``, ``("device",)``,
        ``("sex", "label")``, ``("age", "label")``, ``("site", "label")``; of subjects.  Labels are
        ``patients``, ``controls``, ``missing``.
    releases : tuple of Release
        Those in force when the facts were gathered; waivers are in the verdicts that they changed.
    n_erasures : Count
        People erased from this store until now.
    triggered_by : str
        ``airflow:<user>`` or ``cli:<user>``; empty where the log does not say.
    missing : tuple of str
        ``"<step>.<output>"`` that the run made and that is not there any more, and names of parts
        that could not be made for another reason (``"registry"``).
    """

    run_id: str
    outcome: RunOutcome
    started_at: str
    finished_at: str
    synthetic: bool | None
    triggered_by: str
    steps: tuple[StepFacts, ...]
    verdicts: Mapping[str, tuple[Verdict, ...]]
    provenance: Provenance
    anchor: Anchor
    releases: tuple[Release, ...] = ()
    n_erasures: Count = 0
    intake: Intake | None = None
    quarantine: Quarantine | None = None
    dataset: Dataset | None = None
    composition: tuple[Counts, ...] = ()
    signal_quality: tuple[SignalQuality, ...] = ()
    evaluation: Evaluation | None = None
    decision_outcome: str = ""  # promoted, kept, blocked; empty before the promotion's gate
    thresholds_owner: str = ""
    model: ModelFacts | None = None
    since: Since | None = None
    missing: tuple[str, ...] = ()

    @property
    def checks(self) -> list[Verdict]:
        """The verdicts of all steps."""
        return [verdict for verdicts in self.verdicts.values() for verdict in verdicts]


@dataclass(frozen=True)
class Tally:
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

    @property
    def tally(self) -> Tally:
        parts = [(one.passed, one.warned, one.blocked) for one in self.by_suite.values()]
        return Tally(*(sum(numbers) for numbers in zip((0, 0, 0), *parts, strict=True)))

    @property
    def pass_rate(self) -> float | None:
        one = self.tally
        n = one.passed + one.warned + one.blocked
        return one.passed / n if n else None


@dataclass(frozen=True)
class History:
    """All runs that the store knows, the oldest first."""

    runs: tuple[RunSummary, ...] = ()


def tone(verdict: Verdict) -> Literal["pass", "warn", "block"]:
    """How a verdict is shown: by what it leads to."""
    return "block" if verdict.stops else "pass" if verdict.status == "pass" else "warn"


def setting(value: Any) -> str:
    """A value of a configuration as a person writes it."""
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
