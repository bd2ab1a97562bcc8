"""All suites as plain data: what a person reads, compares and translates.  Standard library only.

Thresholds depend on the size of a table, so the suites are made for a table of a stated size, with
every column filled in: ``N_ROWS`` recordings, four of each person, half of the people patients
(``spira_tasks.suites``).

``catalogue.json`` beside this file is the last catalogue that was looked at and committed.  It is
read where Great Expectations is not at hand (reports), and a change of a threshold shows in review
as a change of it; a test fails while it is behind the suites.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

N_ROWS = 1000
# Parameters by the table that a suite is made for: elsewhere only the share that must be good.
FOLLOW_TABLE = {
    "expect_column_mean_to_be_between": ("min_value", "max_value"),
    "expect_column_days_not_to_be_before": ("first",),
    "expect_sessions_to_be_complete": ("tasks",),
}
COMMITTED = Path(__file__).with_name("catalogue.json")


@dataclass(frozen=True)
class Entry:
    """One expectation.

    Attributes
    ----------
    name : str
        As verdicts have it; unique in its suite.
    type : str
        As Great Expectations names it: ``expect_column_values_to_not_be_null``.
    columns : tuple of str
    parameters : dict
        Bounds, values, conditions: all that the expectation was given besides its columns; JSON.
    severity : {"critical", "warning", "info"}
    action : {"block", "quarantine", "annotate"}
        What its failing leads to: the run ends, the rows at fault are put aside, or it is noted.
    rationale, owner, aspect, firm
        As in ``expectations.notes.note``.
    """

    name: str
    type: str
    columns: tuple[str, ...]
    parameters: dict[str, Any]
    severity: str
    action: str
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


@dataclass(frozen=True)
class Change:
    """``what`` is ``added``, ``removed``, ``severity``, ``min_value``, …; texts of both sides."""

    suite: str
    name: str
    what: str
    before: str
    after: str


def diff(before: list[Suite], after: list[Suite], of_one_table: bool = True) -> list[Change]:
    """What was added, removed and changed, by suite and name.

    Parameters
    ----------
    before, after : list of Suite
    of_one_table : bool
        Whether the suites were made for the same table.  Otherwise parameters that follow the
        table (``FOLLOW_TABLE``) are not compared: their differences are none of the suites.
    """
    both = {suite.name for suite in before} & {suite.name for suite in after}
    changes = [
        Change(suite.name, "all of it", what, was, now)
        for suites, what, was, now in ((before, "removed", "yes", ""), (after, "added", "", "yes"))
        for suite in suites
        if suite.name not in both
    ]
    old, new = (
        {(suite.name, entry.name): entry for suite in side for entry in suite.expectations}
        for side in (before, after)
    )
    for suite, name in sorted(key for key in {*old, *new} if key[0] in both):
        a, b = old.get((suite, name)), new.get((suite, name))
        if a is None or b is None:
            change = Change(suite, name, "added", "", "yes") if b else None
            changes.append(change or Change(suite, name, "removed", "yes", ""))
            continue
        facts_a, facts_b = _comparable(a, of_one_table), _comparable(b, of_one_table)
        changes += [
            Change(suite, name, what, facts_a.get(what, ""), facts_b.get(what, ""))
            for what in [*dict.fromkeys([*facts_a, *facts_b])]
            if facts_a.get(what) != facts_b.get(what)
        ]
    return changes


def _comparable(entry: Entry, of_one_table: bool) -> dict[str, str]:
    names = ("severity", "action", "rationale", "owner")
    told = {name: getattr(entry, name) for name in names} | {"firm": "yes" if entry.firm else ""}
    left_out = () if of_one_table else FOLLOW_TABLE.get(entry.type, ("mostly",))
    return told | {
        key: json.dumps(value, sort_keys=True)
        for key, value in entry.parameters.items()
        if key not in left_out
    }


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
