"""The ledger of quarantine: every refused recording, why, since when, and who released it.

It is read from the quarantine tables that runs left, and from the releases: decisions of people
that later runs apply.  A refusal stands until the recording itself comes again and is not refused
for the same reason.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain
from typing import Any, Literal

from spira_tasks.artifacts import Store
from spira_tasks.contract.place import COMMAND
from spira_tasks.contract.run import StepRecord
from spira_tasks.errors import ConfigError
from spira_tasks.governance import decisions, inventory
from spira_tasks.intake.releases import AS_IT_IS, RELEASABLE

TABLE = "quarantine.parquet"
HANDED_ON = ("recordings", "table")  # the outputs in which a step hands on what it did not refuse
OF_A_GATE = re.compile(r"expect_\w+:.+")  # the reasons that a suite gives

State = Literal["open", "released", "past"]


@dataclass(frozen=True)
class Entry:
    """One recording that was refused for one reason.

    Its state is ``past`` where a later run read it and did not refuse it for this reason.  For a
    row without a name, any later run on the same source counts.
    """

    record: str  # "row <n>" of its table where the row had no name that may be kept
    reason: str  # stable code
    detail: str  # what the code says of the column; never a value
    site: str  # empty, as the task, where it may not be kept
    task: str
    step: str  # which refused it
    suite: str  # empty for ingest
    suite_digest: str
    suite_version: str  # for ingest the first 12 digits of the digest of its code
    source: str  # where the data of the last run that refused it came from
    first_seen: str  # UTC time of the first run that refused it
    last_seen: str
    n_runs: int = 1
    state: State = "open"
    released_by: str = ""
    released_at: str = ""
    why: str = ""


def ledger(store: Store) -> list[Entry]:
    """Every entry, the ones seen last at the end."""
    entries: dict[tuple[str, ...], Entry] = {}
    last_given: dict[tuple[str, str], str] = {}  # by step, and recording or source
    rows, names = cache(partial(_rows, store)), cache(partial(_names, store))
    versions = cache(partial(_versions, store))
    given: list[tuple[StepRecord, str]] = []
    for run in store.runs:
        data = (one.inputs["data"] for one in run.steps.values() if "data" in one.inputs)
        source = next(data, "")
        given += [(one, source) for one in run.steps.values() if "quarantine" in one.outputs]
    sources = {source for _, source in given}
    for record, source in sorted(given, key=lambda pair: pair[0].finished_at):
        step, at = record.step, record.finished_at
        refused_before = {name for other, name in last_given if other == step} - sources
        if refused_before:  # long tables are read only where they may settle an entry
            handed_on = (record.outputs[name] for name in HANDED_ON if name in record.outputs)
            for name in refused_before & names(next(handed_on, "")):
                last_given[step, name] = at
        last_given[step, source] = at
        for row in rows(record.outputs["quarantine"]):
            entry = _entry(row, record, source, versions(record.outputs.get("report", "")))
            name = row["record_id"] or source  # the source stands for a row without a name
            last_given[step, name] = at
            key = (name, entry.record, entry.reason, step)
            if earlier := entries.get(key):
                n_runs, first_seen = earlier.n_runs + 1, earlier.first_seen
                entry = replace(entry, n_runs=n_runs, first_seen=first_seen)
            entries[key] = entry
    releases = {
        (one.about["record"], one.about["reason"]): one
        for one in decisions.known(store, "releases")
    }
    for place, entry in entries.items():
        if made := releases.get((entry.record, entry.reason)):
            entries[place] = replace(
                entry, state="released", released_by=made.by, released_at=made.at, why=made.why
            )
        elif entry.last_seen < last_given[entry.step, place[0]]:
            entries[place] = replace(entry, state="past")
    return sorted(entries.values(), key=lambda e: (e.last_seen, e.record, e.reason))


def release(store: Store, record: str, reason: str | None, why: str) -> tuple[Entry, str]:
    """Lift a refusal; return it, and what that means for the next run.

    ``reason`` may be None where the recording was refused for one reason only.  A refusal that was
    lifted before stays as it is.

    Raises
    ------
    ConfigError
        When there is no such entry, or a person may not lift it.
    """
    entry = _one(store, record, reason, ("open", "past"), ("released",))
    meaning = releasable(entry.reason)
    if meaning is None:
        raise ConfigError(
            f"{record} is refused for {entry.reason}, which nobody may lift: correct it where the "
            f"data come from. What may be lifted: {', '.join(sorted(RELEASABLE))}, and what a gate "
            "refused for anything but consent, personal data or pseudonyms"
        )
    if entry.state != "released":
        decisions.decide(store, "releases", {"record": entry.record, "reason": entry.reason}, why)
    return entry, meaning


def withdraw(store: Store, record: str, reason: str | None, why: str) -> Entry:
    """Take a release back; later runs refuse the recording again."""
    entry = _one(store, record, reason, ("released",))
    decisions.withdraw(store, "releases", {"record": entry.record, "reason": entry.reason}, why)
    return entry


def releasable(reason: str) -> str | None:
    """What releasing from this reason means, or None when nobody may."""
    if not OF_A_GATE.fullmatch(reason):
        return RELEASABLE.get(reason)
    from expectations.words import catalogue

    kind, _, columns = reason.partition(":")
    return None if catalogue.is_firm(kind, tuple(columns.split("+"))) else AS_IT_IS


def _one(store: Store, record: str, reason: str | None, *states: Sequence[State]) -> Entry:
    """The entry of a recording in the first of some groups of states that has one."""
    known = [one for one in ledger(store) if one.record == record and reason in (None, one.reason)]
    groups = ([one for one in known if one.state in group] for group in states)
    found = next(filter(None, groups), [])
    if not found:
        raise ConfigError(
            f"there is no recording {record!r}"
            + (f" with the reason {reason}" if reason else "")
            + f" that is {' or '.join(chain(*states))} in the ledger; see: "
            f"{COMMAND} quarantine list"
        )
    reasons = {entry.reason for entry in found}
    if len(reasons) > 1:
        raise ConfigError(
            f"{record} was refused for {len(reasons)} reasons; name one by --reason: "
            + ", ".join(sorted(reasons))
        )
    return found[-1]


def _rows(store: Store, digest: str) -> list[dict[str, Any]]:
    import pandas as pd

    content = inventory.find_file(store, digest, TABLE)
    if content is None:
        return []
    frame = pd.read_parquet(io.BytesIO(content)).astype(object)
    rows: list[dict[str, Any]] = frame.where(frame.notna(), None).to_dict("records")
    return rows


def _names(store: Store, digest: str) -> set[str]:
    """The recordings, or ward noises, of a table that was handed on."""
    content = inventory.find_file(store, digest, ".parquet")
    if content is None:
        return set()
    names = inventory.read_columns(content, ("record_id", "noise_id"))
    return set(names["record_id" if "record_id" in names else "noise_id"].dropna())


def _versions(store: Store, report: str) -> dict[str, str]:
    """Of the suites that a gate checked its table with; none for ingest."""
    parts = json.loads(inventory.find_file(store, report, "validation.json") or b"[]")
    return {part["digest"]: str(part["version"]) for part in parts}


def _entry(
    row: dict[str, Any], record: StepRecord, source: str, versions: Mapping[str, str]
) -> Entry:
    digest = row.get("suite_digest") or ""
    code = record.provenance.get("code", "")
    return Entry(
        record=row["record_id"] or f"row {row['row']}",
        reason=row["reason"],
        detail=row["detail"],
        site=row["hospital_id"] or "",
        task=row["task"] or "",
        step=record.step,
        suite=row.get("suite") or "",
        suite_digest=digest,
        suite_version=versions.get(digest, "") if digest else code[:12],
        source=source,
        first_seen=record.finished_at,
        last_seen=record.finished_at,
    )
