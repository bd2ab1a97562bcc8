"""The records of runs: ``runs/<run_id>/<step>.json``, one a step."""

from __future__ import annotations

from collections.abc import Iterator

from spira_tasks.artifacts.backends import Backend, checked, parsed
from spira_tasks.contract.run import Run, StepRecord


class Runs:
    """The runs that left a record."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def write(self, run_id: str, record: StepRecord) -> None:
        """Write the record of a step over what was there, whole or not at all."""
        self._backend.write(_name(run_id, record.step), record.to_json().encode())

    def step(self, run_id: str, step: str) -> StepRecord | None:
        """The record of one step, or None when there is none."""
        return parsed(self._backend, _name(run_id, step), StepRecord.from_json)

    def read(self, run_id: str) -> Run:
        """A run, without any step when the store does not know it."""
        folder = f"runs/{checked(run_id)}"
        names = [entry.name.removeprefix(f"{folder}/") for entry in self._backend.entries(folder)]
        records = {
            name: record
            for name in sorted(name.removesuffix(".json") for name in names)
            if (record := self.step(run_id, name)) is not None
        }
        return Run.of(run_id, records)

    def ids(self) -> list[str]:
        """The runs that left a record, the one that last wrote one at the end."""
        newest: dict[str, float] = {}
        for entry in self._backend.entries("runs"):
            run_id = entry.name.split("/")[1]
            newest[run_id] = max(entry.modified, newest.get(run_id, 0.0))
        return sorted(newest, key=lambda run_id: (newest[run_id], run_id))

    def __iter__(self) -> Iterator[Run]:
        """All runs, in the order of ``ids``."""
        return (self.read(run_id) for run_id in self.ids())


def _name(run_id: str, step: str) -> str:
    return f"runs/{checked(run_id)}/{checked(step)}.json"
