"""The ledger of quarantine: every refused recording, why, since when, and who released it.

It is read from what the runs left, so it cannot disagree with them: the quarantine tables of ingest
and of the gates, and the releases.  A release is a decision of a person that later runs heed.

A refusal stands until the recording itself comes again and is not refused for the same reason: runs
on the data of another hospital say nothing of it.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from spira_tasks.artifacts import Store
from spira_tasks.errors import ArtifactCorrupt, ConfigError
from spira_tasks.governance import decisions, inventory
from spira_tasks.intake.releases import AS_IT_IS, RELEASABLE

TABLE = "quarantine.parquet"
HANDED_ON = ("recordings", "table")  # the outputs in which a step hands on what it did not refuse
OF_A_GATE = re.compile(r"expect_\w+:.+")  # the reasons that a suite gives

State = Literal["open", "released", "past"]


@dataclass(frozen=True)
class Entry:
    """One recording that was refused for one reason.

    Attributes
    ----------
    record : str
        ``record_id``, or ``row <n>`` of its table where the row had none that may be kept.
    reason, detail : str
        Stable code, and what it says of the column; never a value.
    site, task : str
        Empty where they may not be kept.
    step, suite, suite_digest : str
        Who refused it; the last two are empty for ingest.
    suite_version : str
        Of the suite; for ingest, which has none, the first 12 digits of the digest of its code.
    source : str
        Where the data of the last run that refused it came from.
    first_seen, last_seen : str
        UTC times of the first and the last run that refused it.
    n_runs : int
    state : {"open", "released", "past"}
        ``past``: a later run was given it and did not refuse it for this.  Of a row without a
        name nobody can tell that, so there it is a later run on the same source.
    released_by, released_at, why : str
        Of the release, where there is one.
    """

    record: str
    reason: str
    detail: str
    site: str
    task: str
    step: str
    suite: str
    suite_digest: str
    suite_version: str
    source: str
    first_seen: str
    last_seen: str
    n_runs: int = 1
    state: State = "open"
    released_by: str = ""
    released_at: str = ""
    why: str = ""


def ledger(store: Store) -> list[Entry]:
    """Every entry, the ones seen last at the end."""
    entries: dict[tuple[str, ...], Entry] = {}
    judged = list(_judged(store))
    for one in judged:
        for row in one.refused:
            entry = _entry(row, one)
            key = (one.name_of(row), entry.record, entry.reason, one.step)
            known = entries.get(key)
            if known:
                entry = replace(
                    entry if one.at >= known.last_seen else known,
                    first_seen=min(known.first_seen, one.at),
                    last_seen=max(known.last_seen, one.at),
                    n_runs=known.n_runs + 1,
                )
            entries[key] = entry
    last_given = _last_given(store, judged)
    releases = {
        (one.about["record"], one.about["reason"]): one
        for one in decisions.known(store, "releases")
    }
    found = []
    for (name, *_), entry in entries.items():
        release = releases.get((entry.record, entry.reason))
        if release:
            entry = replace(  # noqa: PLW2901
                entry,
                state="released",
                released_by=release.by,
                released_at=release.at,
                why=release.why,
            )
        elif entry.last_seen < last_given[entry.step, name]:
            entry = replace(entry, state="past")  # noqa: PLW2901
        found.append(entry)
    return sorted(found, key=lambda entry: (entry.last_seen, entry.record, entry.reason))


def release(store: Store, record: str, reason: str | None, why: str) -> tuple[Entry, str]:
    """Lift a refusal; later runs take the recording.

    Parameters
    ----------
    reason : str or None
        The code; None where the recording was refused for one reason only.

    Returns
    -------
    Entry
        What is released.
    str
        What that means for the next run.

    Raises
    ------
    ConfigError
        When there is no such entry, or a person may not lift it.
    """
    entry = _one(store, record, reason, {"open", "past"})
    meaning = releasable(entry.reason)
    if meaning is None:
        raise ConfigError(
            f"{record} is refused for {entry.reason}, which nobody may lift: mend it where the "
            f"data come from. What may be lifted: {', '.join(sorted(RELEASABLE))}, and what a gate "
            "refused for anything but consent, personal data or pseudonyms"
        )
    decisions.decide(store, "releases", {"record": entry.record, "reason": entry.reason}, why)
    return entry, meaning


def withdraw(store: Store, record: str, reason: str | None, why: str) -> Entry:
    """Take a release back; later runs refuse the recording again."""
    entry = _one(store, record, reason, {"released"})
    decisions.withdraw(store, "releases", {"record": entry.record, "reason": entry.reason}, why)
    return entry


def releasable(reason: str) -> str | None:
    """What releasing from this reason means, or None when nobody may."""
    if not OF_A_GATE.fullmatch(reason):
        return RELEASABLE.get(reason)
    from expectations.words import catalogue

    kind, _, columns = reason.partition(":")
    return None if catalogue.is_firm(kind, tuple(columns.split("+"))) else AS_IT_IS


def _one(store: Store, record: str, reason: str | None, states: set[str]) -> Entry:
    found = [entry for entry in ledger(store) if entry.record == record and entry.state in states]
    found = [entry for entry in found if reason in (None, entry.reason)]
    if not found:
        raise ConfigError(
            f"there is no recording {record!r}"
            + (f" with the reason {reason}" if reason else "")
            + f" that is {' or '.join(sorted(states))} in the ledger; see: "
            "python -m spira_tasks quarantine list"
        )
    reasons = {entry.reason for entry in found}
    if len(reasons) > 1:
        raise ConfigError(
            f"{record} was refused for {len(reasons)} reasons; name one by --reason: "
            + ", ".join(sorted(reasons))
        )
    return found[-1]


@dataclass(frozen=True)
class Judged:
    """What one step of one run made of the recordings that it was given."""

    step: str
    at: str
    source: str  # where the data of the run came from
    code: str
    versions: dict[str, str]  # digest of a suite to its version
    refused: list[dict[str, Any]]
    handed_on: str  # digest of the table with all others

    def name_of(self, row: dict[str, Any]) -> str:
        """By what a row is known again: the recording, or where there is no name, the source."""
        return str(row["record_id"] or self.source)


def _last_given(store: Store, judged: Iterable[Judged]) -> dict[tuple[str, str], str]:
    """The last time that a step was given each recording that it ever refused, by its name.

    Tables are long and most say nothing new, so only those are read that may settle an entry.
    """
    last: dict[tuple[str, str], str] = {}
    for one in judged:
        for name in {one.source, *map(one.name_of, one.refused)}:
            last[one.step, name] = max(one.at, last.get((one.step, name), ""))
    sources = {one.source for one in judged}
    names: dict[str, set[str]] = {}
    for one in sorted(judged, key=lambda one: one.at):
        earlier = {name for (step, name), at in last.items() if step == one.step and at < one.at}
        earlier -= sources
        if not earlier:
            continue
        if one.handed_on not in names:
            names[one.handed_on] = _names(store, one.handed_on)
        for name in earlier & names[one.handed_on]:
            last[one.step, name] = one.at
    return last


def _judged(store: Store) -> Iterator[Judged]:
    """What every step of every run said that has a quarantine."""
    tables: dict[str, list[dict[str, Any]]] = {}
    versions: dict[str, dict[str, str]] = {}
    for run_id in store.run_ids():
        records = [store.read_record(run_id, name) or {} for name in store.record_names(run_id)]
        sources = [one["inputs"]["data"] for one in records if "data" in one.get("inputs", {})]
        for record in records:
            outputs = record.get("outputs", {})
            if "quarantine" not in outputs:
                continue
            digest, report = outputs["quarantine"], outputs.get("report", "")
            if digest not in tables:
                tables[digest] = _rows(store, digest)
            if report not in versions:
                versions[report] = _versions(store, report)
            yield Judged(
                record["step"],
                record["finished_at"],
                next(iter(sources), ""),
                record.get("provenance", {}).get("code", ""),
                versions[report],
                tables[digest],
                next((outputs[name] for name in HANDED_ON if name in outputs), ""),
            )


def _rows(store: Store, digest: str) -> list[dict[str, Any]]:
    try:
        frame = inventory.read_table(store, digest, TABLE).astype(object)
    except (ArtifactCorrupt, ConfigError):  # past its retention
        return []
    rows: list[dict[str, Any]] = frame.where(frame.notna(), None).to_dict("records")
    return rows


def _names(store: Store, digest: str) -> set[str]:
    """The recordings, or ward noises, of a table that was handed on."""
    import pandas as pd
    import pyarrow.parquet as pq

    try:
        table = next((name for name in store.files(digest) if name.endswith(".parquet")), "")
        content = inventory.read_file(store, digest, table)
    except (ArtifactCorrupt, ConfigError):  # past its retention
        return set()
    columns = pq.read_schema(io.BytesIO(content)).names
    column = "record_id" if "record_id" in columns else "noise_id"
    return set(pd.read_parquet(io.BytesIO(content), columns=[column])[column].dropna())


def _versions(store: Store, report: str) -> dict[str, str]:
    """Of the suites that a gate held its table against; none for ingest."""
    try:
        parts = json.loads(inventory.read_file(store, report, "validation.json"))
    except (ArtifactCorrupt, ConfigError):  # no gate's, or past its retention
        return {}
    return {part["digest"]: str(part["version"]) for part in parts}


def _entry(row: dict[str, Any], judged: Judged) -> Entry:
    digest = row.get("suite_digest") or ""
    return Entry(
        record=row["record_id"] or f"row {row['row']}",
        reason=row["reason"],
        detail=row["detail"],
        site=row["hospital_id"] or "",
        task=row["task"] or "",
        step=judged.step,
        suite=row.get("suite") or "",
        suite_digest=digest,
        suite_version=judged.versions.get(digest, "") if digest else judged.code[:12],
        source=judged.source,
        first_seen=judged.at,
        last_seen=judged.at,
    )
