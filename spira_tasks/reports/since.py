"""What made a run, compared with the run before it."""

from __future__ import annotations

from collections.abc import Iterator

from spira_tasks.artifacts import Store
from spira_tasks.contract.run import Run, StepRecord
from spira_tasks.reports.facts import Change, History, RunSummary, Since, setting

COUNTS = ("n_recordings", "n_subjects", "n_quarantined")


def compare(store: Store, run_id: str, history: History) -> Since | None:
    """Compare a run with the one that ended before it; None where no such run is known."""
    ids = [run.run_id for run in history.runs]
    place = ids.index(run_id) if run_id in ids else 0
    if place == 0:
        return None
    earlier, this = history.runs[place - 1], history.runs[place]
    before, now = (store.runs.read(name).training for name in (earlier.run_id, run_id))
    return Since(earlier.run_id, tuple(_changes(before, now, earlier, this)))


def _changes(before: Run, now: Run, earlier: RunSummary, this: RunSummary) -> Iterator[Change]:
    yield Change("recordings", "", _recordings(before), _recordings(now))
    for name in COUNTS:
        yield Change(name, "", getattr(earlier, name), getattr(this, name))
    for name in ("git", "lock"):
        yield Change(name, "", _made_with(before, name), _made_with(now, name))
    for step, record in now.steps.items():
        if step in before.steps:  # where one run stopped before a step, nothing is known to differ
            yield from _of_step(step, before.steps[step], record)


def _of_step(step: str, before: StepRecord, now: StepRecord) -> Iterator[Change]:
    """The code of a step and its settings, where they are not the same."""
    code = [_short(one.provenance.get("code", "")) for one in (before, now)]
    if code[0] != code[1]:
        yield Change("code", step, *code)
    old, new = before.config, now.config
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            values = (setting(one[name]) if name in one else "" for one in (old, new))
            yield Change("setting", f"{step}.{name}", *values)


def _recordings(run: Run) -> str:
    return _short(run.digest("ingest.recordings").removeprefix("sha256:"))


def _made_with(run: Run, name: str) -> str:
    """As the newest step of a run has it."""
    parts = [record.provenance for record in run.steps.values()]
    newest = max(parts, key=lambda part: part.get("at", ""), default={})
    return _short(newest.get(name, ""))


def _short(digest: str) -> str:
    return digest[:13]  # a revision of Git, with its mark of changes, or enough of a digest
