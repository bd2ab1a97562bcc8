"""The committed catalogue: every expectation of every suite, as plain data.

``catalogue.json`` is the last catalogue that a person looked at and committed.  Pages read it where
Great Expectations is not installed, and a change of a threshold shows in review as a change of it.
``spira_tasks.suites`` makes a new one.  Thresholds depend on the size of a table, so the suites are
made for ``N_ROWS`` recordings with every column filled in: four of each person, half of the people
patients.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

N_ROWS = 1000
COMMITTED = Path(__file__).with_name("catalogue.json")


@dataclass(frozen=True)
class Entry:
    """One expectation; ``rationale`` to ``firm`` are as in ``expectations.notes.note``."""

    name: str  # as verdicts have it; unique in its suite
    type: str  # as Great Expectations names it: ``expect_column_values_to_not_be_null``
    columns: tuple[str, ...]
    parameters: dict[str, Any]  # bounds, values, conditions: all but its columns; JSON
    severity: str  # critical, warning or info
    action: str  # block, quarantine or annotate: what a failure leads to
    rationale: str
    owner: str
    aspect: str
    firm: bool = False


@dataclass(frozen=True)
class Suite:
    """A suite as it is for one table; ``digest`` changes with anything that it demands."""

    name: str
    version: str
    digest: str
    expectations: tuple[Entry, ...]


def to_json(found: list[Suite]) -> str:
    return json.dumps([asdict(suite) for suite in found], indent=1, ensure_ascii=False) + "\n"


def from_json(text: str) -> list[Suite]:
    """Read what ``to_json`` wrote.

    Raises
    ------
    ValueError
        When the text is something else.
    """
    content = json.loads(text)
    if not isinstance(content, list) or not content:
        raise ValueError("not a list of suites")
    try:
        return [
            Suite(
                part["name"],
                part["version"],
                part["digest"],
                tuple(
                    Entry(**{**entry, "columns": tuple(entry["columns"])})
                    for entry in part["expectations"]
                ),
            )
            for part in content
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a catalogue of suites: {error}") from error


@cache
def committed() -> dict[tuple[str, str], Entry]:
    """The committed catalogue by suite and name of the expectation; the standard library alone."""
    found = from_json(COMMITTED.read_text(encoding="utf-8"))
    return {(suite.name, entry.name): entry for suite in found for entry in suite.expectations}


def is_firm(kind: str, columns: tuple[str, ...]) -> bool:
    """Whether no release and no waiver counts against an expectation of the committed catalogue.

    On columns that it does not have (a hospital's own) an expectation is as firm as its kind is.
    """
    of_kind = [entry for entry in committed().values() if entry.type == kind]
    same = [entry for entry in of_kind if entry.columns == columns]
    if same:
        return any(entry.firm for entry in same)
    return bool(of_kind) and all(entry.firm for entry in of_kind)
