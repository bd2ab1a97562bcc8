"""All suites as plain data: what a person reads, compares and translates.

Thresholds depend on the size of a table, so the suites are made for a table of a stated size, with
every column filled in: ``N_ROWS`` recordings, four of each person, half of the people patients.

``catalogue.json`` beside this file is the last catalogue that was looked at and committed.  It is
read where Great Expectations is not at hand (reports), and a change of a threshold shows in review
as a change of it; a test fails while it is behind the suites.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import pkgutil
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import great_expectations as gx
    import pandas as pd

N_ROWS = 1000
EXTRA = "x_extra"  # stands for any column of a hospital's own
COMMITTED = Path(__file__).with_name("catalogue.json")

# What an expectation that fails leads to, where its ``meta`` does not say.
ACTION = {"critical": "block", "warning": "annotate", "info": "annotate"}


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
    rationale, owner, aspect : str
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


@dataclass(frozen=True)
class Suite:
    """A suite for the template table; ``digest`` changes with anything that an entry says."""

    name: str
    version: str
    digest: str
    expectations: tuple[Entry, ...]


def suites() -> list[Suite]:
    """Every suite of the package, sorted by name; loads Great Expectations (seconds).

    A suite is a module of this package with a function ``suite(frame)``.  Where the template table
    does not fit it, the module has a function ``template()`` that returns one that does.
    """
    import expectations

    found = []
    for module_info in pkgutil.iter_modules(expectations.__path__):
        module = importlib.import_module(f"expectations.{module_info.name}")
        if hasattr(module, "suite"):
            made = module.suite(getattr(module, "template", template)())
            found.append(plain_data(made, str(getattr(module, "VERSION", ""))))
    return sorted(found, key=lambda suite: suite.name)


def plain_data(suite: gx.ExpectationSuite, version: str = "") -> Suite:
    """A suite without Great Expectations in it; entries sorted by name."""
    entries = tuple(sorted((_entry(one) for one in suite.expectations), key=lambda e: e.name))
    content = json.dumps([asdict(entry) for entry in entries], sort_keys=True)
    digest = hashlib.sha256(b"spira.suite/1\0" + content.encode()).hexdigest()
    return Suite(str(suite.name), version, f"sha256:{digest}", entries)


def _entry(expectation: Any) -> Entry:
    from spira_tasks.quality import columns_of, verdict_name

    config = expectation.configuration
    meta = config.meta or {}
    severity = str(config.severity.value)
    of_columns = {"column", "column_A", "column_B", "column_list"}
    parameters = {key: value for key, value in config.kwargs.items() if key not in of_columns}
    return Entry(
        name=verdict_name(config),
        type=config.type,
        columns=tuple(columns_of(config.kwargs)),
        parameters=json.loads(json.dumps(parameters, sort_keys=True)),
        severity=severity,
        action=str(meta.get("action") or ACTION[severity]),
        rationale=str(meta.get("rationale", "")),
        owner=str(meta.get("owner", "")),
        aspect=str(meta.get("aspect", "")),
    )


def template(n_rows: int = N_ROWS) -> pd.DataFrame:
    """A split recordings table as ingest leaves it, without one empty cell; nobody's data.

    Parameters
    ----------
    n_rows : int
        A multiple of 4: every person has one recording of each task.
    """
    import numpy as np
    import pandas as pd

    from expectations.limits import IMPOSSIBLE
    from spira_tasks.intake.listener import HEARD
    from spira_tasks.intake.record_contract import COLUMNS, RAW_IDENTIFIERS, typed

    row = np.arange(n_rows)
    person = row // 4
    examples = {
        name: column.values[0] if column.values else EXAMPLES[column.kind]
        for name, column in COLUMNS.items()
    }
    examples |= {name: str(limit.low or 0) for name, limit in IMPOSSIBLE.items()}
    text = pd.DataFrame(examples, index=row, dtype="str")
    table, _ = typed(text.assign(task=np.array(COLUMNS["task"].values)[row % 4]), required=())
    heard = {name: pd.Series(1, index=row).astype(kind) for name, kind in HEARD.items()}
    return table.drop(columns=[*RAW_IDENTIFIERS, "audio_uri"]).assign(
        **heard
        | {
            "record_id": [f"r{number:06d}" for number in row],
            "session_id": [f"s{number:06d}" for number in person],
            "subject_id": [f"{number:064x}" for number in person],
            "audio_sha256": [f"{number:064x}" for number in row],
            "waveform": [f"sha256:{number:064x}" for number in row],
            "label": pd.Series(person % 2, dtype="Int8"),
            "split": np.array(["train", "train", "validation", "test"])[person // 2 % 4],
            EXTRA: "text",
        }
    )


EXAMPLES = {  # one for each kind of column, as text
    "text": "text",
    "name": "name",
    "hex64": "0" * 64,
    "whole": "1",
    "number": "1",
    "flag": "true",
    "instant": "2026-01-01T00:00:00Z",
    "date": "2026-01-01",
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
            for part in json.loads(text)
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a catalogue of suites: {error}") from error


@cache
def committed() -> dict[tuple[str, str], Entry]:
    """The committed catalogue by suite and name of the expectation; the standard library alone."""
    found = from_json(COMMITTED.read_text(encoding="utf-8"))
    return {(suite.name, entry.name): entry for suite in found for entry in suite.expectations}
