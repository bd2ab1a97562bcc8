"""The records of runs: ``runs/<run_id>/<step>.json``, one a step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from spira_tasks.artifacts.backends import Backend
from spira_tasks.contract.run import Run, StepRecord

log = logging.getLogger(__name__)


class Runs:
    """The runs that left a record.

    Parameters
    ----------
    backend : Backend
    checked : callable
        Returns a name that may be part of a path, and raises ConfigError for any other.
    """

    def __init__(self, backend: Backend, checked: Callable[[str], str]) -> None:
        self._backend = backend
        self._checked = checked

    def write(self, run_id: str, record: StepRecord) -> None:
        """Write the record of a step over what was there, whole or not at all."""
        self._backend.write(self._name(run_id, record.step), record.to_json().encode())

    def step(self, run_id: str, step: str) -> StepRecord | None:
        """The record of one step, or None when there is none."""
        name = self._name(run_id, step)
        content = self._backend.read(name)
        if content is None:
            return None
        try:
            return StepRecord.from_json(content)
        except ValueError as error:  # a power loss can leave a file empty: the same as none
            log.warning("%s in %s is no record (%s); set aside", name, self._backend.url, error)
            self._backend.set_aside(name)
            return None

    def read(self, run_id: str) -> Run:
        """A run, without any step when the store does not know it."""
        folder = f"runs/{self._checked(run_id)}"
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

    def _name(self, run_id: str, step: str) -> str:
        return f"runs/{self._checked(run_id)}/{self._checked(step)}.json"
