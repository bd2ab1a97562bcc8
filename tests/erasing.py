"""A store with what a few people left in it, and ways to erase one of them."""

from __future__ import annotations

import io
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from folders import AS_OF, Cohort

from spira_tasks.artifacts import Store
from spira_tasks.contract.step import Step
from spira_tasks.governance import erasure, inventory
from spira_tasks.runner import run_step
from spira_tasks.tracking import MODEL, Tracker

WHY = "asked for it in writing"
NUMBER, SITE = "1234567A", "site-a"  # of the recordings 0 and 1 of the cohort
STEPS = (
    Step("ingest", "ingest", {"data": ""}, {"as_of": AS_OF, "max_quarantine_fraction": 1.0}),
    Step("split", "split", {"recordings": "ingest.recordings"}),
    Step("materialize", "materialize", {"recordings": "split.recordings"}),
)


def fill(store: Store, data: str, run_id: str = "r") -> None:
    """Take in a folder, split it and make features: all that a recording leaves in a store."""
    for step in STEPS:
        inputs = {"data": data} if step.name == "ingest" else step.inputs
        run_step(Step(step.name, step.stage, inputs, step.config), run_id, store)


def table(store: Store, name: str, step: str = "ingest", run_id: str = "r") -> pd.DataFrame:
    record = store.runs.step(run_id, step)
    assert record is not None
    digest = record.outputs[{"split": "recordings"}.get(step, name)]
    return inventory.read_table(store, digest, f"{name}.parquet")


def erase(store: Store, subject: str, **options: Any) -> tuple[dict[str, Any], bool]:
    known, tag = erasure.known_from(subject), erasure.tag_of(subject)
    return erasure.erase(store, known, tag, WHY, **options)


def register(store: Store, recordings: str, folder: Path, task: str = "SENTENCE") -> str:
    """Register a version that learned from an artifact of recordings; nothing else is known of it.

    Returns
    -------
    str
        The version.
    """
    tracker = Tracker(store.tracking_uri)
    run_id = tracker.run_of(f"sha256:{'1' * 64}", "model")
    about = {"spira.recordings": recordings}
    tracker.describe(run_id, params={}, metrics={}, tags=about, history=[], files=[])
    tracker.client.create_registered_model(MODEL)
    tags = {"spira.classifier": f"sha256:{'2' * 64}", "spira.task": task}
    made = tracker.client.create_model_version(MODEL, folder.as_uri(), run_id, tags)
    return str(made.version)


def is_marked(store: Store) -> bool:
    """Whether the one version that is registered says that it learned from an erased person."""
    (version,) = Tracker(store.tracking_uri).versions()
    return version.tags.get(erasure.CONTAINS_ERASED) == "true"


def traces(place: Path, names: set[str]) -> list[str]:
    """Every file below a folder that quotes a name, in its bytes or, of a table, in a cell."""
    found = []
    for path in sorted(path for path in place.rglob("*") if path.is_file()):
        content = path.read_bytes()
        cells = pd.read_parquet(io.BytesIO(content)).to_csv() if content[:4] == b"PAR1" else ""
        found += [
            f"{path.relative_to(place)}: {name}"
            for name in names
            if name.encode() in content or name in cells
        ]
    return found


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which six people have two recordings each."""
    folder = tmp_path_factory.mktemp("filled")
    cohort = Cohort(folder / "data")
    for row in cohort.rows:  # as real ones are: nobody's is a part of another name
        row["record_id"] = f"recording-{row['record_id']}"
        row["session_id"] = f"session-{row['session_id']}"
    fill(Store(str(folder / "store")), cohort.write())
    return folder


@pytest.fixture
def store(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A copy to erase from, on a machine without temporary files of other tests."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    shutil.copytree(filled, tmp_path / "copy")
    return Store(str(tmp_path / "copy/store"))


@pytest.fixture
def subject(store: Store) -> str:
    return str(table(store, "recordings")["subject_id"].iloc[0])


def contents(store: Store) -> dict[str, bytes]:
    return {entry.name: store.read(entry.name) or b"" for entry in store.entries("")}
