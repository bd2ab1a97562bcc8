"""The ledger of quarantine: every refused recording, why, since when, and who released it.

It is read from what the runs left, so it cannot disagree with them: the quarantine tables of ingest
and of the gates, and the releases.  A release is a decision of a person that later runs heed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from spira_tasks.artifacts import Store
from spira_tasks.errors import ArtifactCorrupt, ConfigError
from spira_tasks.governance import decisions, inventory
from spira_tasks.intake.releases import AS_IT_IS, RELEASABLE

TABLE = "quarantine.parquet"
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
    first_seen, last_seen : str
        UTC times of the first and the last run that refused it.
    n_runs : int
    state : {"open", "released", "past"}
        ``past``: the newest run no longer refuses it.
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
    first_seen: str
    last_seen: str
    n_runs: int = 1
    state: State = "open"
    released_by: str = ""
    released_at: str = ""
    why: str = ""


def ledger(store: Store) -> list[Entry]:
    """Every entry, the ones seen last at the end."""
    entries: dict[tuple[str, str, str], Entry] = {}
    newest: dict[str, str] = {}  # the last time that each step said anything
    for step, at, rows in _quarantines(store):
        newest[step] = max(at, newest.get(step, ""))
        for row in rows:
            entry = _entry(row, step, at)
            key = (entry.record, entry.reason, step)
            known = entries.get(key)
            if known:
                entry = replace(
                    entry if at >= known.last_seen else known,
                    first_seen=min(known.first_seen, at),
                    last_seen=max(known.last_seen, at),
                    n_runs=known.n_runs + 1,
                )
            entries[key] = entry
    releases = {
        (one.about["record"], one.about["reason"]): one
        for one in decisions.known(store, "releases")
    }
    found = []
    for entry in entries.values():
        release = releases.get((entry.record, entry.reason))
        if release:
            entry = replace(  # noqa: PLW2901
                entry,
                state="released",
                released_by=release.by,
                released_at=release.at,
                why=release.why,
            )
        elif entry.last_seen < newest[entry.step]:
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
    from expectations import catalogue

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


def _quarantines(store: Store) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    """Step, time and rows of every quarantine table that a run left."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for run_id in store.run_ids():
        for name in store.record_names(run_id):
            record = store.read_record(run_id, name) or {}
            digest = record.get("outputs", {}).get("quarantine")
            if digest is None:
                continue
            if digest not in tables:
                try:
                    frame = inventory.read_table(store, digest, TABLE).astype(object)
                except (ArtifactCorrupt, ConfigError):  # past its retention
                    tables[digest] = []
                else:
                    tables[digest] = frame.where(frame.notna(), None).to_dict("records")
            yield name, record["finished_at"], tables[digest]


def _entry(row: dict[str, Any], step: str, at: str) -> Entry:
    return Entry(
        record=row["record_id"] or f"row {row['row']}",
        reason=row["reason"],
        detail=row["detail"],
        site=row["hospital_id"] or "",
        task=row["task"] or "",
        step=step,
        suite=row.get("suite") or "",
        suite_digest=row.get("suite_digest") or "",
        first_seen=at,
        last_seen=at,
    )
