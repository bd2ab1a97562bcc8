"""Tables sent through a gate, as the runner does it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from suites import Table

from spira_tasks.artifacts import Store
from spira_tasks.contract.record import Result
from spira_tasks.contract.step import Step
from spira_tasks.runner import run_step

Gate = Callable[..., Result]


@pytest.fixture
def gate(tmp_path: Path, store: Store) -> Gate:
    """Send a table through a gate of the same source; its record is that of ``check`` in ``r``."""

    def send(table: Table, suite: str = "recordings", source: Table | None = None) -> Result:
        digests = {}
        for name, frame in (("table", table), ("source", table if source is None else source)):
            folder = tmp_path / name
            folder.mkdir(exist_ok=True)
            if name == "source" and suite == "recordings":
                counts = {"n_rows": len(frame) + 3, "n_quarantined": 2, "n_excluded": 1}
                (folder / "ingest.json").write_text(json.dumps(counts))
            else:
                frame.to_parquet(folder / "recordings.parquet", index=False)
            digests[name] = store.put_directory(folder)
        return run_step(Step("check", "validate", digests, {"gate": suite}), "r", store)

    return send
