"""The suites as data: those of the code, for a template table, and those that a gate applied."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

from expectations import suites
from expectations.limits import IMPOSSIBLE
from expectations.words.catalogue import N_ROWS, Entry, Suite
from spira_tasks.intake.audio_reader import AUDIO_COLUMNS
from spira_tasks.intake.record_contract import COLUMNS, RAW_IDENTIFIERS, typed
from spira_tasks.quality import action_of, columns_of, digest_of, verdict_name

EXTRA = "x_extra"  # stands for any column of a hospital's own
# Parameters by the table that a suite is made for: elsewhere only the share that must be good.
FOLLOW_TABLE = {
    "expect_column_mean_to_be_between": ("min_value", "max_value"),
    "expect_column_days_not_to_be_before": ("first",),
    "expect_sessions_to_be_complete": ("tasks",),
}
NO_PARAMETERS = {"column", "column_A", "column_B", "column_list", "batch_id"}
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


@dataclass(frozen=True)
class Change:
    """``what`` is ``added``, ``removed``, ``severity``, ``min_value``, …; texts of both sides."""

    suite: str
    name: str
    what: str
    before: str
    after: str


def current() -> list[Suite]:
    """Every suite of the code for the template table, sorted by name.

    A suite is a module of ``expectations.suites`` with a function ``suite(frame)``.  Where the
    template table does not fit it, its function ``template(recordings)`` makes one that does.
    """
    found = []
    for module_info in pkgutil.iter_modules(suites.__path__):
        module = importlib.import_module(f"expectations.suites.{module_info.name}")
        if hasattr(module, "suite"):
            table = template()
            made = module.suite(module.template(table) if hasattr(module, "template") else table)
            version = str((made.meta or {}).get("version", ""))
            entries = _entries(one.configuration for one in made.expectations)
            found.append(Suite(str(made.name), version, digest_of(made), entries))
    return sorted(found, key=lambda suite: suite.name)


def of_gate(
    reports: Iterable[Mapping[str, Any]], validations: Mapping[str, Mapping[str, Any]]
) -> list[Suite]:
    """The suites as a gate applied them: from its ``validation.json`` and its ``gx.json``."""
    found = []
    for report in reports:
        if report["suite"] in validations:  # the gate's own rules are no suite
            results = validations[report["suite"]]["results"]
            configs = (ExpectationConfiguration(**one["expectation_config"]) for one in results)
            about = (report["suite"], report["version"], report["digest"])
            found.append(Suite(*about, _entries(configs)))
    return found


def _entries(configs: Iterable[ExpectationConfiguration]) -> tuple[Entry, ...]:
    return tuple(sorted((_entry(config) for config in configs), key=lambda entry: entry.name))


def _entry(config: ExpectationConfiguration) -> Entry:
    meta, kwargs = config.meta or {}, config.to_json_dict()["kwargs"]
    return Entry(
        name=verdict_name(config),
        type=config.type,
        columns=tuple(columns_of(kwargs)),
        parameters={key: kwargs[key] for key in sorted(kwargs) if key not in NO_PARAMETERS},
        severity=str(config.severity.value),
        action=action_of(config),
        rationale=str(meta.get("rationale", "")),
        owner=str(meta.get("owner", "")),
        aspect=str(meta.get("aspect") or ""),
        firm=bool(meta.get("firm")),
    )


def diff(before: list[Suite], after: list[Suite], of_one_table: bool = True) -> list[Change]:
    """What was added, removed and changed, by suite and name.

    Unless the suites are ``of_one_table``, parameters that follow the table (``FOLLOW_TABLE``) are
    not compared: their differences are none of the suites.
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
            sides = ("added", "", "yes") if b else ("removed", "yes", "")
            changes.append(Change(suite, name, *sides))
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
    facts = {name: getattr(entry, name) for name in names} | {"firm": "yes" if entry.firm else ""}
    left_out = () if of_one_table else FOLLOW_TABLE.get(entry.type, ("mostly",))
    return facts | {
        key: json.dumps(value, sort_keys=True)
        for key, value in entry.parameters.items()
        if key not in left_out
    }


def template(n_rows: int = N_ROWS) -> pd.DataFrame:
    """A split recordings table as ingest leaves it, without one empty cell; nobody's data.

    ``n_rows`` is a multiple of 4: every person has one recording of each task.
    """
    row = np.arange(n_rows)
    person = row // 4
    examples = {
        name: column.values[0] if column.values else EXAMPLES[column.kind]
        for name, column in COLUMNS.items()
    }
    examples |= {name: str(limit.low or 0) for name, limit in IMPOSSIBLE.items()}
    text = pd.DataFrame(examples, index=row, dtype="str")
    table, _ = typed(text.assign(task=np.array(COLUMNS["task"].values)[row % 4]), required=())
    measured = {name: pd.Series(1, index=row).astype(kind) for name, kind in AUDIO_COLUMNS.items()}
    return table.drop(columns=[*RAW_IDENTIFIERS, "audio_uri"]).assign(
        **measured
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
