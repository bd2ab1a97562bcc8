"""A verdict: what one expectation or one statistical gate says, as data.

A verdict holds names of the platform and numbers with units, never a value of a patient and never
a sentence.  ``expectations.words`` turns it into words, in two languages.  ``suppress`` hides small
counts of a verdict, ``shown_metrics`` those of a step.  This happens where they leave the store for
a reader: a page, the command line, a log, Airflow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

Status = Literal["pass", "warn", "block", "insufficient"]
Severity = Literal["critical", "warning", "info", ""]
Unit = Literal["people", "recordings", "rows", "sites", "items", "share", "rate", "statistic"]

MIN_CELL = 5
"""Counts of 1 to 4 people are suppressed: who knows the ward may know the person."""

COUNTS = ("people", "recordings", "rows")
# Metrics of a step that count people or what belongs to them; ``n_patients_train`` is one too.
COUNTED = ("rows", "recordings", "subjects", "patients", "controls", "quarantined", "excluded",
           "released", "train", "validation", "new")  # fmt: skip


@dataclass(frozen=True)
class Number:
    """A number with its unit and, where there is one, its 95 % interval.

    A value is None where nothing was measured, or where ``suppress`` took it away.  ``people``,
    ``recordings`` and ``rows`` count what belongs to persons; ``sites`` and ``items`` count
    anything else.  A ``share`` is the part of ``n`` that does not hold, so it reveals a count.  A
    ``rate`` is how often a model is right or changes its answer.  ``statistic`` is everything else.
    """

    value: float | None
    unit: Unit = "statistic"
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Waiver:
    """Who lets a check pass that would block, when, why, and until which day (ISO 8601)."""

    by: str
    at: str
    why: str
    until: str = ""


@dataclass(frozen=True)
class Verdict:
    """What one check says."""

    # Stable and unique in its suite, such as ``"ward_noise_counterfactual"`` or
    # ``"expect_column_values_to_be_between(age)"``.  Nobody parses it.
    id: str
    status: Status  # ``insufficient``: there is too little to judge on
    observed: Number | None = None  # what was measured
    threshold: float | None = None  # what ``observed`` was compared with, in the same unit
    n: int | None = None  # how many of ``n_unit`` the measurement rests on
    n_unit: Unit = "rows"
    numbers: Mapping[str, Number] = field(default_factory=dict)  # whatever else the words name
    # Names of the platform that the words need: tasks, conditions, gates, settings.
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    suite: str = ""  # empty for a gate outside suites
    # How much it matters when it does not hold, whatever the status is: a critical expectation does
    # not block where its rows went into quarantine or a person waived it.
    severity: Severity = ""
    # Of an expectation: its type, its columns, and what separates it from another of the same type
    # on the same columns.
    kind: str = ""
    columns: tuple[str, ...] = ()
    aspect: str = ""
    firm: bool = False  # whether nobody may waive it
    waiver: Waiver | None = None  # the decision that turned a block into this warning

    @property
    def stops(self) -> bool:
        """Whether it ends the run: it blocks, or a critical question cannot be answered."""
        return self.status == "block" or (
            self.status == "insufficient" and self.severity == "critical"
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def is_small(count: float | None) -> bool:
    """Whether a count of people, or of what belongs to them, may not be shown."""
    return count is not None and 0 < count < MIN_CELL


def suppress(verdict: Verdict) -> Verdict:
    """The verdict without any number that reveals a count of 1 to 4 people.

    Where the measurement rests on so few, or a class has so few, no rate, share or statistic is
    kept, nor the larger counts, which would give the small one away.  A suppressed number keeps its
    unit and loses its value, so that the words can say that there is one.
    """
    people = [one.value for one in verdict.numbers.values() if one.unit == "people"]
    few = any(map(is_small, people)) or (verdict.n_unit in COUNTS and is_small(verdict.n))

    def kept(number: Number) -> Number:
        if number.unit in COUNTS:
            hidden = is_small(number.value)
        else:
            share_of = (number.value or 0) * (verdict.n or 0) if number.unit == "share" else 0
            hidden = few or is_small(round(share_of))
        return Number(None, number.unit) if hidden else number

    return replace(
        verdict,
        observed=verdict.observed and kept(verdict.observed),
        n=None if few else verdict.n,
        numbers={
            name: kept(number)
            for name, number in verdict.numbers.items()
            if not few or number.unit not in COUNTS or (number.value or 0) < MIN_CELL
        },
    )


def shown_metrics(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """The metrics of a step; None where one reveals a count of 1 to 4 people."""
    classes = [metrics[name] for name in ("n_patients", "n_controls") if name in metrics]
    if any(map(is_small, classes)):  # nothing of the answers that so few people got
        return {
            name: value if name in {"n_subjects", "n_recordings"} and not is_small(value) else None
            for name, value in metrics.items()
        }
    kinds = {name: name.split("_")[1] for name in metrics if name.startswith("n_")}
    counts = {name: kind for name, kind in kinds.items() if kind in COUNTED}
    small = {kind for name, kind in counts.items() if is_small(metrics[name])}
    for name in metrics:  # the controls of a split are its people less its patients
        of = metrics.get(name.replace("n_subjects_", "n_patients_"), 0)
        small |= {"patients"} if "n_subjects_" in name and is_small(metrics[name] - of) else set()
    small |= {"rows"} if small else set()  # their number is the sum of the others
    return {name: None if counts.get(name) in small else value for name, value in metrics.items()}


def few_or(n: float) -> str:
    """A count in a log or on the command line."""
    return f"fewer than {MIN_CELL}" if is_small(n) else f"{n:.0f}"
