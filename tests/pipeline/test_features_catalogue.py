"""The catalogue of features: what there is, who reads it, whether it is right, what may go."""

from __future__ import annotations

import io
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run, linked_copy

from spira_tasks.artifacts import Store
from spira_tasks.cli import main
from spira_tasks.contract.exits import EXIT_CONFIG, EXIT_REJECTED
from spira_tasks.governance import catalogue
from spira_tasks.governance.inventory import read_table


@pytest.fixture
def store(finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    store = linked_copy(finished.store, tmp_path / "store")
    monkeypatch.setenv("SPIRA_STORE", store.url)
    return store


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main(["features", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_readers_that_the_pipelines_declare_are_those_behind_the_gate_too() -> None:
    assert {"check_features", "check_drift", "check_confounds", "train", "evaluate"} <= {
        *catalogue.steps_that_read()
    }
    assert {"ingest", "split", "materialize", "register"}.isdisjoint(catalogue.steps_that_read())


def test_features_are_listed_with_owner_size_readers_and_models(
    finished: Run, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    (found,) = said(capsys, "list")
    made = finished.results["materialize"]
    assert (found["name"], found["owner"]) == ("mfcc", "data science")
    assert found["newest"] == made.outputs["features"]
    assert found["n_recordings"] == made.metrics["n_recordings"]
    assert found["n_bytes"] > 1000 * found["n_recordings"]
    assert found["models"] == ["1"]
    assert {"check_features", "train", "evaluate"} <= set(found["read_by"])
    assert found["undeclared_readers"] == []
    assert said(capsys, "describe", found["schema"][:5]) == found
    assert found["parameters"]["n_mfcc"] == 40
    assert main(["features", "list"]) == 0
    assert "data science" in capsys.readouterr().out


def test_a_name_that_nothing_has_is_an_error_that_lists_what_there_is(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["features", "describe", "wav2vec"]) == EXIT_CONFIG
    assert "names none of the features" in (error := capsys.readouterr().err)
    assert "mfcc (" in error
    assert main(["features", "list", "--store", f"{store.url}-empty"]) == 0
    assert "nothing has been materialized yet" in capsys.readouterr().out


def test_statistics_are_those_of_the_table(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    table = read_table(store, catalogue.find(store, "mfcc").newest, "features.parquet")
    assert said(capsys, "stats", "mfcc")["std"]["median"] == pytest.approx(table["std"].median())


def test_a_matrix_that_is_another_one_is_found(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(capsys, "verify", "mfcc", "--sample", "3") == {
        "n": 3,
        "n_differing": 0,
        "largest": pytest.approx(0.0, abs=1e-3),
    }
    found = catalogue.find(store, "mfcc")
    table = read_table(store, found.newest, "features.parquet")
    digest = table["features"].iloc[0]
    matrix = np.load(io.BytesIO(store.blobs.read(digest)))
    content = io.BytesIO()
    np.save(content, matrix + 1)
    other = store.blobs.add(content.getvalue())
    store.blobs.flush()
    folder = Path(store.url).parent / "changed"
    folder.mkdir()
    table["features"] = table["features"].replace(digest, other)
    table.to_parquet(folder / "features.parquet", index=False)
    (folder / "features.json").write_text(json.dumps(found.specification))
    record = found.tables[found.newest]
    changed = {"features": store.put_directory(folder)}
    latest = "2999-01-01T00:00:00+00:00"  # whatever other runs the store has
    store.runs.write("first", replace(record, outputs=changed, finished_at=latest))
    n = str(len(table))
    assert main(["features", "verify", "mfcc", "--sample", n]) == EXIT_REJECTED
    assert ", 1 differ by more" in capsys.readouterr().out


def test_how_few_recordings_there_are_is_not_told(
    store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    every = catalogue.pairs

    def three(*arguments: Any) -> list[Any]:
        return [one.head(3) for one in every(*arguments)]

    monkeypatch.setattr(catalogue, "pairs", three)
    assert said(capsys, "verify", "mfcc")["n"] is None
    assert main(["features", "verify", "mfcc"]) == 0
    assert "3" not in capsys.readouterr().out.partition(" recordings")[0]


def test_only_features_that_nothing_needs_go_and_only_when_it_is_said(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    left = store.blobs.add(b"features that no table came to name")
    store.blobs.memorize("ab" * 32, {"features": left})
    waveform = store.blobs.add(b"a waveform that no table came to name")
    store.blobs.memorize("cd" * 32, {"waveform": waveform})
    store.blobs.flush()
    for path in Path(store.url).rglob("blobs/*/*"):
        old = time.time() - 3 * 86_400
        os.utime(path, (old, old))
    matrices = catalogue.find(store, "mfcc").matrices
    for arguments, is_there in (([], True), (["--delete"], False)):
        found = said(capsys, "gc", *arguments)
        assert [(one["class"], one["n"]) for one in found["classes"]] == [("GARBAGE", 1)]
        assert Store(store.url).blobs.exists(left) is is_there
    now = Store(store.url)
    assert now.blobs.exists(waveform)
    assert all(map(now.blobs.exists, matrices))
    assert main(["features", "gc"]) == 0
    assert "every feature is needed" in capsys.readouterr().out
