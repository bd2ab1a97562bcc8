"""What a run was made with, beside the run before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from spira_tasks.artifacts import Store
from spira_tasks.reports.facts import Change, History, RunSummary, Since, setting
from spira_tasks.reports.gather import run_records

Records = Mapping[str, Mapping[str, Any]]
COUNTS = ("n_recordings", "n_subjects", "n_quarantined")


def compare(store: Store, run_id: str, history: History) -> Since | None:
    """Compare a run with the one that ended before it; None where no such run is known."""
    ids = [run.run_id for run in history.runs]
    place = ids.index(run_id) if run_id in ids else 0
    if place == 0:
        return None
    earlier, this = history.runs[place - 1], history.runs[place]
    before, now = run_records(store, earlier.run_id), run_records(store, run_id)
    return Since(earlier.run_id, tuple(_changes(before, now, earlier, this)))


def _changes(
    before: Records, now: Records, earlier: RunSummary, this: RunSummary
) -> Iterator[Change]:
    yield Change("recordings", "", _recordings(before), _recordings(now))
    for name in COUNTS:
        yield Change(name, "", getattr(earlier, name), getattr(this, name))
    for name in ("git", "lock"):
        yield Change(name, "", _made_with(before, name), _made_with(now, name))
    for step in now:
        if step in before:  # where one run did not come to a step, nothing is known to differ
            yield from _of_step(step, before[step], now[step])


def _of_step(step: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Change]:
    """The code of a step and its settings, where they are not the same."""
    code = [_short((one.get("provenance") or {}).get("code", "")) for one in (before, now)]
    if code[0] != code[1]:
        yield Change("code", step, *code)
    old, new = before.get("config") or {}, now.get("config") or {}
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            values = (setting(one[name]) if name in one else "" for one in (old, new))
            yield Change("setting", f"{step}.{name}", *values)


def _recordings(records: Records) -> str:
    outputs = records.get("ingest", {}).get("outputs") or {}
    return _short(outputs.get("recordings", "").removeprefix("sha256:"))


def _made_with(records: Records, name: str) -> str:
    """As the newest step of a run says."""
    parts = [record.get("provenance") or {} for record in records.values()]
    newest = max(parts, key=lambda part: str(part.get("at", "")), default={})
    return _short(newest.get(name, ""))


def _short(digest: str) -> str:
    return digest[:13]  # a revision of Git, with its mark of changes, or enough of a digest
