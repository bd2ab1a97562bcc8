"""The outputs of a run, as far as they are still there."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from spira_tasks.artifacts import Directory, Store
from spira_tasks.contract.run import Run
from spira_tasks.errors import ArtifactCorrupt, ConfigError
from spira_tasks.governance.inventory import read_file

if TYPE_CHECKING:
    import pandas as pd

QUARANTINE = ("reason", "hospital_id")
PREDICTIONS = ("subject_id", "split", "label", "clean")


class Reader:
    """Reads outputs by ``"<step>.<output>"``; never fails because one is not there.

    Attributes
    ----------
    missing : set of str
        The outputs that the run made and that cannot be read any more.
    """

    def __init__(self, store: Store, run: Run) -> None:
        self._store = store
        self.run = run
        self.missing: set[str] = set()

    def read(self, reference: str, name: str) -> bytes | None:
        """The content of one file of an output, or None."""
        directory = self.directory(reference)
        if directory is None or name not in directory.names:
            return None
        try:
            return read_file(self._store, directory.digest, name)
        except ArtifactCorrupt:  # past its retention, or damaged: there is nothing to show
            self.missing.add(reference)
            return None

    def directory(self, reference: str) -> Directory | None:
        digest = self.run.digest(reference)
        if not digest:
            return None
        try:
            return self._store.directory(digest)
        except (ConfigError, ArtifactCorrupt):
            self.missing.add(reference)
            return None

    def json(self, reference: str, name: str) -> dict[str, Any] | None:
        content = self.read(reference, name)
        return None if content is None else dict(json.loads(content))

    def table(self, references: Sequence[str], columns: Sequence[str]) -> pd.DataFrame | None:
        """Some columns of the first of these tables that is there; absent ones are empty."""
        for reference in references:
            content = self.read(reference, "recordings.parquet")
            if content is not None:
                return _columns(content, columns)
        return None

    def predictions(self) -> pd.DataFrame | None:
        """The answers of the model on each test recording; None where they are gone."""
        content = self.read("evaluate.report", "predictions.parquet")
        return None if content is None else _columns(content, PREDICTIONS)

    def quarantine(self) -> dict[str, pd.DataFrame]:
        """Step to the reason and the site of each recording that it refused."""
        found = {}
        for step in self.run.steps:
            content = self.read(f"{step}.quarantine", "quarantine.parquet")
            if content is not None:
                found[step] = _columns(content, QUARANTINE)
        return found


def _columns(content: bytes, columns: Sequence[str]) -> pd.DataFrame:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(io.BytesIO(content))
    there = [name for name in columns if name in file.schema_arrow.names]
    return file.read(columns=there).to_pandas().reindex(columns=list(columns))
