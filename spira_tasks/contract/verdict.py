"""A verdict: what one expectation or one statistical gate says, as data.

A verdict holds names of the platform and numbers with units, never a value of a patient and never
a sentence.  ``expectations.words`` turns it into words, in two languages; ``suppress`` hides small
counts.  Both happen once, where a verdict leaves the store for a reader.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from spira_tasks.contract.typed import typed

Status = Literal["pass", "warn", "block", "insufficient"]
Severity = Literal["critical", "warning", "info", ""]
Unit = Literal["people", "recordings", "rows", "sites", "items", "share", "rate", "statistic"]

MIN_CELL = 5
"""Counts of 1 to 4 people are suppressed: who knows the ward may know the person."""

COUNTS = ("people", "recordings", "rows")


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

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Verdict:
        """Read a stored verdict; one from before 0.3 has flat numbers and a sentence.

        Raises ValueError where it is none.
        """
        fields = typed(fields, Mapping[str, Any], "the verdict")
        if "verdict" in fields:
            observed = {"value": fields.get("statistic")} | {
                name: fields[name] for name in ("low", "high") if name in fields
            }
            fields = {
                **fields,
                "id": fields.get("name"),
                "status": fields["verdict"],
                "observed": None if observed["value"] is None else observed,
            }
        verdict: Verdict = typed(fields, cls, "the verdict")
        return verdict

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def is_small(count: float | None) -> bool:
    """Whether a count of people, or of what belongs to them, may not be shown."""
    return count is not None and 0 < count < MIN_CELL


def suppress(verdict: Verdict) -> Verdict:
    """The verdict without any number that reveals a count of 1 to 4 people.

    Where the measurement rests on so few, none of its numbers is kept.  A suppressed number keeps
    its unit and loses its value, so that the words can say that there is one.
    """
    few = verdict.n_unit in COUNTS and is_small(verdict.n)

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
        numbers={name: kept(number) for name, number in verdict.numbers.items()},
    )
