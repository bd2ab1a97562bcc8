"""Results, checkpoints, memory and the records of runs, in a folder and in a bucket."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from pathlib import Path

import pytest
from stores import backend, blob_name, fill, output, step_record, store

from spira_tasks.artifacts import Store, sealed
from spira_tasks.artifacts.backends import Backend
from spira_tasks.artifacts.blobs import digest_of
from spira_tasks.contract.record import Result
from spira_tasks.contract.seal import VARIABLE
from spira_tasks.contract.step import Step
from spira_tasks.contract.verdict import Number, Verdict
from spira_tasks.errors import ArtifactCorrupt, ConfigError
from spira_tasks.runner import run_step

__all__ = ["backend", "output", "store"]  # the fixtures

RUN_ID = "manual__2026-11-21T09:16:00+00:00"


# Results


def test_a_result_comes_back_as_it_was_saved(store: Store, output: Path) -> None:
    result = Result(
        stage="train",
        key="ab12",
        outputs={"model": store.put_directory(output)},
        metrics={"loss": 0.25},
        verdicts=(Verdict("gate", "warn", Number(0.5), n=7),),
        seconds=1.5,
        provenance={"git": "abc"},
    )
    assert store.find_result("ab12") is None
    store.save_result(result)

    assert store.find_result("ab12") == result


def test_the_first_of_many_results_stays(store: Store) -> None:
    results = [Result("stage", "key1", {}, metrics={"seed": float(seed)}) for seed in range(16)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(store.save_result, results))
    first = store.find_result("key1")
    store.save_result(Result("stage", "key1", {}, metrics={"seed": 99.0}))

    assert first in results
    assert store.find_result("key1") == first


def test_a_result_that_lost_its_outputs_gives_way_to_a_new_one(
    store: Store, backend: Backend, tmp_path: Path
) -> None:
    lost = store.put_directory(fill(tmp_path / "lost", {"weights": b"first"}))
    store.save_result(Result("train", "key1", {"model": lost}))
    backend.set_aside(blob_name(digest_of(b"first")))
    made = store.put_directory(fill(tmp_path / "made", {"weights": b"second"}))
    second = Result("train", "key1", {"model": made})
    store.save_result(second)

    assert store.find_result("key1") == second


def test_a_result_that_is_not_json_is_set_aside(store: Store, backend: Backend) -> None:
    backend.write("results/key1.json", b"")

    assert store.find_result("key1") is None
    assert backend.entries("results") == []
    store.save_result(Result("stage", "key1", {}))
    assert store.find_result("key1") is not None


# Checkpoints


def test_a_checkpoint_is_replaced_by_the_next_and_gone_when_the_work_is_done(
    store: Store, backend: Backend
) -> None:
    checkpoint = store.checkpoint("key1")
    assert checkpoint.load() is None
    checkpoint.delete()  # most work keeps none

    checkpoint.save(b"after epoch 1")
    assert checkpoint.load() == b"after epoch 1"
    checkpoint.save(b"after epoch 2")
    assert store.checkpoint("key1").load() == b"after epoch 2"
    assert store.checkpoint("key2").load() is None

    checkpoint.delete()
    assert checkpoint.load() is None
    assert backend.entries("checkpoints") == []


@pytest.mark.parametrize("spoil", [lambda state: state[:-1] + b"2", lambda state: state[66:]])
def test_a_checkpoint_that_somebody_changed_is_set_aside(
    spoil: Callable[[bytes], bytes], store: Store, backend: Backend
) -> None:
    store.checkpoint("key1").save(b"after epoch 1")
    name = "checkpoints/key1.safetensors"
    backend.write(name, spoil(backend.read(name) or b""))
    assert store.checkpoint("key1").load() is None
    assert [entry.name for entry in backend.entries("corrupt")] == [f"corrupt/{name}"]


def test_a_checkpoint_that_is_of_no_use_is_set_aside(store: Store, backend: Backend) -> None:
    checkpoint = store.checkpoint("key1")
    checkpoint.save(b"half")
    checkpoint.set_aside()

    assert checkpoint.load() is None
    assert backend.entries("checkpoints") == []
    assert (backend.read("corrupt/checkpoints/key1.safetensors") or b"").endswith(b"half")


# Memory and run records


def test_memory_lasts_as_long_as_the_blobs_it_mentions(store: Store, backend: Backend) -> None:
    content = b"features of a recording"
    features = store.blobs.add(content)
    record = {"features": features, "original": digest_of(b"not stored here"), "n": 3}
    assert store.blobs.recall("abcd") is None
    store.blobs.memorize("abcd", record)
    assert store.blobs.recall("abcd") == record
    store.blobs.flush()
    assert Store(store.url).blobs.recall("abcd") == record

    (pack,) = backend.entries("blobs")
    backend.write(pack.name, content[:5])
    assert Store(store.url).blobs.recall("abcd") is None
    with pytest.raises(ArtifactCorrupt):
        Store(store.url).blobs.read(features)
    assert Store(store.url).blobs.recall("abcd") is None


def test_damage_is_the_error_of_a_step_also_where_a_record_of_its_run_has_no_seal(
    store: Store, backend: Backend, output: Path
) -> None:
    (output / "recordings.parquet").write_bytes(b"a table")
    digest = store.put_directory(output)
    backend.write(blob_name(digest_of(b"a table")), b"another")
    store.runs.write(RUN_ID, step_record("train"))
    (entry,) = [one for one in backend.entries("runs") if "train" in one.name]
    fields = json.loads(backend.read(entry.name) or b"")
    fields.pop(sealed.SEAL)
    backend.write(entry.name, json.dumps(fields).encode())
    with pytest.raises(ConfigError, match="not sealed"):
        store.runs.read(RUN_ID)

    with pytest.raises(ArtifactCorrupt):
        run_step(Step("split", "split", {"recordings": digest}), RUN_ID, store)
    assert getattr(store.runs.step(RUN_ID, "split"), "error", "") == "ArtifactCorrupt"


def test_a_record_of_a_run_is_replaced_by_the_next(store: Store) -> None:
    assert store.runs.step(RUN_ID, "train") is None
    store.runs.write(RUN_ID, step_record("train", state="failed"))
    store.runs.write(RUN_ID, step_record("train"))
    store.runs.write(RUN_ID, step_record("split"))

    assert store.runs.step(RUN_ID, "train") == step_record("train")
    assert list(store.runs.read(RUN_ID).steps) == ["split", "train"]
    assert store.runs.read("scheduled__1").steps == {}


def test_a_record_that_is_not_whole_counts_as_none(store: Store, backend: Backend) -> None:
    store.runs.write(RUN_ID, step_record("train"))
    name = f"runs/{RUN_ID}/split.json"
    for content in (b"", b"[]", sealed.sealed(name, {"step": "train", "state": "done"})):
        backend.write(name, content)
        assert store.runs.step(RUN_ID, "split") is None
    newer = json.loads(step_record("train").to_json()) | {"a_field_of_tomorrow": 1}
    name = f"runs/{RUN_ID}/train.json"
    backend.write(name, sealed.sealed(name, newer))
    assert store.runs.step(RUN_ID, "train") == step_record("train")


def every_record(store: Store) -> dict[str, Callable[[], object]]:
    """A result, a memory and a record of a run, and how each is read."""
    store.save_result(Result("stage", "key1", {}, verdicts=(Verdict("gate", "block"),)))
    store.blobs.memorize("abcd", {"gate": "block"})
    store.blobs.flush()
    (index,) = store.entries("memo")
    store.runs.write(RUN_ID, step_record("train", metrics={"block": 1.0}))
    return {
        "results/key1.json": lambda: store.find_result("key1"),
        index.name: lambda: copy(store.blobs).recall("abcd"),  # which knows nothing yet
        f"runs/{RUN_ID}/train.json": lambda: store.runs.step(RUN_ID, "train"),
    }


def test_a_record_that_somebody_changed_is_computed_again(store: Store, backend: Backend) -> None:
    for name, read in every_record(store).items():
        assert read() is not None
        content = backend.read(name)
        assert content is not None
        backend.write(name, content.replace(b"block", b"pass"))
        assert read() is None
        assert backend.read(f"corrupt/{name}")


def test_a_record_that_was_put_in_the_place_of_another_is_not_read(
    store: Store, backend: Backend
) -> None:
    every_record(store)
    content = backend.read("results/key1.json")
    assert content is not None
    backend.write("results/key2.json", content)
    assert store.find_result("key2") is None


@pytest.mark.parametrize("key", ["", "1" * 64])
def test_a_record_without_a_seal_of_this_key_is_neither_used_nor_moved(
    key: str, store: Store, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "sealed with another key" if key else "not sealed"
    for name, read in every_record(store).items():
        if key:
            monkeypatch.setenv(VARIABLE, key)
        else:
            fields = json.loads(backend.read(name) or b"")
            backend.write(name, json.dumps({**fields, "seal": ""}).encode())
        with pytest.raises(ConfigError, match=f"{re.escape(name)}.*{said}.*{VARIABLE}"):
            read()
        assert backend.read(name)
        monkeypatch.undo()


def test_a_key_that_is_none_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "secret")
    with pytest.raises(ConfigError, match=f"{VARIABLE} is not 64 hex digits"):
        store.save_result(Result("stage", "key1", {}))


def test_runs_are_listed_with_the_latest_written_last(store: Store) -> None:
    assert store.runs.ids() == []
    for run_id in ("b", RUN_ID, "a", "b"):
        store.runs.write(run_id, step_record("split"))
        # The clock of a file system may be coarse; an S3 service tells whole seconds.
        time.sleep(1.05 if store.url.startswith("s3:") else 0.02)

    assert store.runs.ids() == [RUN_ID, "a", "b"]


@pytest.mark.parametrize("name", ["", ".hidden", "..", "a/b", "a\n", "a\\b", "ü", "x" * 201])
def test_a_name_that_could_leave_its_place_is_refused(store: Store, name: str) -> None:
    for use in (
        lambda: store.runs.write(name, step_record("split")),
        lambda: store.runs.write(RUN_ID, step_record(name)),
        lambda: store.runs.step(name, "split"),
        lambda: store.runs.read(name).steps,
        lambda: store.find_result(name),
        lambda: store.save_result(Result("stage", name, {})),
        lambda: store.blobs.recall(name),
        lambda: store.blobs.memorize(name, {}),
        lambda: store.checkpoint(name),
    ):
        with pytest.raises(ConfigError, match="cannot name a record"):
            use()
