"""Tables sent through a gate, as the runner does it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import great_expectations as gx
import pytest
from suites import BETWEEN, IN_SET, LEVEL, NOT_IN_SET, PERSONAL, WEAK, Table

from expectations.suites import audio, labels, metadata, training_set
from spira_tasks import quality
from spira_tasks.artifacts import Store
from spira_tasks.contract.record import Result
from spira_tasks.contract.step import Step
from spira_tasks.runner import run_step

Gate = Callable[..., Result]
CONFOUND = (f"{WEAK}(device_model, strong)", f"{LEVEL}(device_model)")
ERASED = f"{IN_SET}(erased)"
MEASURED = f"{NOT_IN_SET}(label_source, measured)"
HOT = f"{BETWEEN}(temp, possible)"
FEW = (
    (metadata, {HOT, f"{IN_SET}(consent_status, granted)", f"{PERSONAL}(cid10)"}),
    (audio, {f"{BETWEEN}(n_channels)"}),
    (training_set, {*CONFOUND, ERASED}),
    (labels, {MEASURED}),
)


@pytest.fixture
def few_expectations(monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole suite takes seconds, and what a gate makes of a verdict is the same for each."""

    def fewer(module: ModuleType, names: set[str]) -> quality.SuiteFor:
        whole: quality.SuiteFor = module.suite

        def suite(frame: Table) -> gx.ExpectationSuite:
            made = whole(frame)
            few = [e for e in made.expectations if quality.verdict_name(e.configuration) in names]
            return gx.ExpectationSuite(made.name, few, meta=made.meta)

        return suite

    for module, names in FEW:
        monkeypatch.setattr(module, "suite", fewer(module, names))


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
