"""An empty store in a folder or in a bucket, what lies behind it, and files to put into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spira_tasks.artifacts import Store
from spira_tasks.artifacts.backends import Backend
from spira_tasks.artifacts.sources import open_backend
from spira_tasks.contract.run import StepRecord


@pytest.fixture
def store(place: str) -> Store:
    return Store(place)


@pytest.fixture
def backend(place: str) -> Backend:
    """The same place as the store's, to look behind it and to damage it."""
    return open_backend(place)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return fill(
        tmp_path / "output",
        {"table.csv": b"n\n1\n", "deep/er/weights": bytes(range(256)) * 5, "empty": b""},
    )


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def step_record(step: str = "train", **fields: Any) -> StepRecord:
    """The record of a step, for tests that need one and not its content."""
    known: dict[str, Any] = {
        "stage": step,
        "state": "done",
        "finished_at": "2026-11-21T09:16:00+00:00",
        "seconds": 1.0,
    }
    return StepRecord(step, **known | fields)


def remembered(store: Store) -> set[str]:
    """The keys of all work that a store remembers."""
    documents = (store.documents.read(name) for name in store.documents.names("memo"))
    return {key for document in documents if document for key in document["records"]}


def blob_name(digest: str) -> str:
    sha256 = digest.removeprefix("sha256:")
    return f"blobs/{sha256[:2]}/{sha256}"
