"""Files of the store that are not named by their content: documents, checkpoints and records."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from spira_tasks.artifacts import sealed
from spira_tasks.artifacts.backends import Backend, checked
from spira_tasks.artifacts.blobs import canonical_json, digest_of
from spira_tasks.artifacts.sources import Directory
from spira_tasks.contract.run import Run, StepRecord
from spira_tasks.errors import ArtifactCorrupt

log = logging.getLogger(__name__)


class Checkpoint:
    """The state of unfinished work on one result: one file, each replacing the last.

    It belongs to a key, hence to one code, configuration and input: whatever is read here was left
    by the same work.  Its seal is the first line of the file, before the state.
    """

    def __init__(self, backend: Backend, key: str, *, read_only: bool = False) -> None:
        self._backend, self._read_only = backend, read_only
        self._name = f"checkpoints/{key}.safetensors"

    def load(self) -> bytes | None:
        """Return what was last saved, or None when there is nothing, or nothing to rely on."""
        content = self._backend.read(self._name)
        if content is None:
            return None
        given, _, state = content.partition(b"\n")
        finding = sealed.check(self._name, state, given.decode(errors="replace"))
        if finding == "whole":
            return state
        log.warning("%s is %s: the checkpoint is set aside", self._name, finding)
        self.set_aside()
        return None

    def save(self, content: bytes) -> None:
        """Replace what was saved, whole or not at all."""
        if self._read_only:
            return
        given = sealed.seal_of(self._name, content).encode()
        self._backend.write(self._name, given + b"\n" + content)

    def set_aside(self) -> None:
        """Move what cannot be used out of the way."""
        if not self._read_only:
            self._backend.set_aside(self._name)

    def delete(self) -> None:
        """Remove it: the work is finished."""
        self._backend.delete(self._name)


class Documents:
    """Small JSON objects by name: decisions of people, and events of the audit log."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def names(self, folder: str) -> list[str]:
        """Return the names of all documents below a folder, sorted."""
        return [entry.name for entry in self._backend.entries(folder)]

    def read(self, name: str) -> dict[str, Any] | None:
        """Return a document, or None when there is none.

        Raises ArtifactCorrupt when it is not JSON.  It is left where it is: it cannot be made
        again.
        """
        content = self._backend.read(name)
        return None if content is None else self._parsed(name, content)

    def _parsed(self, name: str, content: bytes) -> dict[str, Any]:
        try:
            return dict(json.loads(content))
        except (TypeError, ValueError):
            raise ArtifactCorrupt(
                f"{name} in {self._backend.url} is not JSON; restore it from a backup"
            ) from None

    def write(self, name: str, value: Mapping[str, Any]) -> None:
        """Write over what is there."""
        self._backend.write(name, canonical_json(value))

    def write_once(self, name: str, value: Mapping[str, Any]) -> bool:
        """Write, unless there is one of this name; say whether it was written."""
        return self._backend.write_once(name, canonical_json(value))

    def read_sealed(self, name: str) -> dict[str, Any] | None:
        """Return what ``write_sealed`` wrote, or None when there is nothing or it was changed."""
        return sealed.read(self._backend, name, json.loads)

    def write_sealed(self, name: str, value: Mapping[str, Any]) -> None:
        """Write over what is there, with a seal."""
        self._backend.write(name, sealed.sealed(name, value))

    def delete(self, name: str) -> None:
        self._backend.delete(name)

    def directory(self, folder: str, keep: Callable[[str, bytes], bool]) -> Directory:
        """Some documents below a folder, by name there and content, as one immutable input.

        Its digest is that of the content of those in it.
        """
        contents = {
            short: content
            for name in self.names(folder)
            if (content := self._backend.read(name)) is not None
            and keep(short := name.removeprefix(f"{folder}/"), content)
        }
        digest = digest_of(canonical_json({n: digest_of(c) for n, c in contents.items()}))
        return Directory(
            lambda: digest,
            contents,
            lambda name: _no_file(folder, name),
            lambda name: contents[name],
            identify=lambda name: digest_of(contents[name]),
            where=f"{folder} of {self._backend.url}",
        )


class Runs:
    """The runs that left a record: ``runs/<run_id>/<step>.json``, one a step."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def write(self, run_id: str, record: StepRecord) -> None:
        """Write the record of a step over what was there, whole or not at all."""
        name = _record(run_id, record.step)
        self._backend.write(name, sealed.sealed(name, asdict(record)))

    def step(self, run_id: str, step: str) -> StepRecord | None:
        """The record of one step, or None when there is none."""
        return sealed.read(self._backend, _record(run_id, step), StepRecord.from_json)

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


def _no_file(folder: str, name: str) -> Any:
    raise TypeError(f"{folder}/{name} is held in memory: read() it")


def _record(run_id: str, step: str) -> str:
    return f"runs/{checked(run_id)}/{checked(step)}.json"
