"""The store behaves the same in a folder and in a bucket, whatever happens to its writers."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from spira_tasks.artifacts import Blobs, Store, store_url
from spira_tasks.artifacts.backends import ABANDONED_SECONDS, Backend
from spira_tasks.artifacts.blobs import digest_of
from spira_tasks.artifacts.sources import open_backend
from spira_tasks.contract import Result, Verdict
from spira_tasks.errors import ArtifactCorrupt, ConfigError

RUN_ID = "manual__2026-11-21T09:16:00+00:00"


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


def blob_name(digest: str) -> str:
    sha256 = digest.removeprefix("sha256:")
    return f"blobs/{sha256[:2]}/{sha256}"


# Blobs and directories


@pytest.mark.parametrize(
    "content", [b"", b"a", bytes(range(256)) * 12_000], ids=["empty", "1", "3 MB"]
)
def test_a_blob_is_read_back_by_the_hash_of_its_content(store: Store, content: bytes) -> None:
    digest = store.blobs.put(content)

    assert digest == digest_of(content)
    assert store.blobs.exists(digest)
    assert store.blobs.read(digest) == content
    assert store.blobs.path(digest).read_bytes() == content


def test_a_directory_is_read_back_file_by_file(store: Store, output: Path) -> None:
    directory = store.directory(store.put_directory(output))

    assert directory.names == ("deep/er/weights", "empty", "table.csv")
    for name in directory.names:
        assert directory.path(name).read_bytes() == (output / name).read_bytes()
        assert directory.size(name) == (output / name).stat().st_size


def test_a_digest_covers_names_and_contents_and_nothing_else(tmp_path: Path, store: Store) -> None:
    files = {"a": b"1", "b/c": b"2"}
    digest = store.put_directory(fill(tmp_path / "one", files))
    again = fill(tmp_path / "two", dict(reversed(files.items())))
    os.utime(again / "a", (0, 0))

    assert store.put_directory(again) == digest
    assert store.put_directory(fill(tmp_path / "three", {"a": b"1", "b/d": b"2"})) != digest
    assert store.put_directory(fill(tmp_path / "four", {"a": b"1", "b/c": b"3"})) != digest


def test_a_name_that_is_not_in_a_directory_is_refused(store: Store, output: Path) -> None:
    directory = store.directory(store.put_directory(output))

    for name in ("other", "../table.csv", "deep", ""):
        with pytest.raises(ConfigError, match=r"no such file.*table\.csv"):
            directory.path(name)
        with pytest.raises(ConfigError, match="no such file"):
            directory.size(name)


def test_what_is_not_there_is_said_to_be_missing(store: Store, tmp_path: Path) -> None:
    absent = digest_of(b"never stored")

    assert not store.blobs.exists(absent)
    with pytest.raises(ArtifactCorrupt, match=r"missing.*Run it again"):
        store.blobs.read(absent)
    with pytest.raises(ArtifactCorrupt, match=r"missing.*Run it again"):
        store.blobs.path(absent)
    with pytest.raises(ConfigError, match="no artifact"):
        store.directory(absent)
    with pytest.raises(ConfigError, match="not a folder"):
        store.put_directory(tmp_path / "absent")


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:../../etc", f"md5:{'0' * 64}"])
def test_what_is_not_a_digest_is_refused(store: Store, digest: str) -> None:
    with pytest.raises(ConfigError, match="not a digest"):
        store.blobs.read(digest)
    with pytest.raises(ConfigError, match="not a digest"):
        store.directory(digest)


def test_64_writers_of_the_same_blobs_leave_each_once_and_whole(
    store: Store, backend: Backend
) -> None:
    contents = [bytes([i]) * 200_000 for i in range(4)]
    with ThreadPoolExecutor(64) as pool:
        digests = list(pool.map(store.blobs.put, contents * 16))

    assert len(backend.entries("blobs")) == len(contents)
    assert [store.blobs.read(digest) for digest in digests[:4]] == contents


def test_a_forked_worker_reads_and_writes_blobs_while_its_parent_does(store: Store) -> None:
    contents = [f"recording {i}".encode() for i in range(60)]
    digests = [store.blobs.put(content) for content in contents]
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(2, mp_context=context) as workers:
        theirs = workers.map(_read_and_put, [store.blobs] * len(digests), digests, chunksize=5)
        ours = [store.blobs.path(digest).read_bytes() for digest in digests]
        made = list(theirs)

    assert ours == contents
    assert [store.blobs.read(digest) for digest in made] == [c + b" again" for c in contents]


def _read_and_put(blobs: Blobs, digest: str) -> str:
    return blobs.put(blobs.path(digest).read_bytes() + b" again")


# Damage


@pytest.mark.parametrize("damage", ["cut short", "altered", "emptied"])
def test_a_damaged_file_is_never_handed_on_and_can_be_made_again(
    store: Store, backend: Backend, output: Path, damage: str
) -> None:
    digest = store.put_directory(output)
    store.save_result(Result("stage", "key1", {"model": digest}))
    weights = (output / "deep/er/weights").read_bytes()
    name = blob_name(digest_of(weights))
    damaged = {"cut short": weights[:-1], "altered": b"X" + weights[1:], "emptied": b""}[damage]

    for read in (
        lambda: store.directory(digest).path("deep/er/weights"),
        lambda: store.blobs.path(digest_of(weights)),
        lambda: store.blobs.read(digest_of(weights)),
    ):
        assert store.find_result("key1") is not None
        backend.write(name, damaged)
        with pytest.raises(ArtifactCorrupt, match=r"moved to corrupt/.*Run it again"):
            read()
        assert backend.read(f"corrupt/{name}") == damaged
        assert store.find_result("key1") is None

        assert store.put_directory(output) == digest
        assert store.blobs.read(digest_of(weights)) == weights


def test_a_damaged_list_of_files_is_refused_and_made_again(
    store: Store, backend: Backend, output: Path
) -> None:
    digest = store.put_directory(output)
    store.save_result(Result("stage", "key1", {"table": digest}))
    name = f"trees/{digest.removeprefix('sha256:')}.json"
    backend.write(name, b"[]")

    with pytest.raises(ArtifactCorrupt, match=r"moved to corrupt/.*Run it again"):
        store.directory(digest)
    assert store.find_result("key1") is None
    assert store.put_directory(output) == digest
    assert store.find_result("key1") is not None


def test_a_blob_cut_short_is_written_again_by_the_next_put(store: Store, backend: Backend) -> None:
    content = b"waveform" * 100
    digest = store.blobs.put(content)
    backend.write(blob_name(digest), content[:10])

    assert store.blobs.put(content) == digest
    assert store.blobs.read(digest) == content


# Results


def test_a_result_comes_back_as_it_was_saved(store: Store, output: Path) -> None:
    result = Result(
        stage="train",
        key="ab12",
        outputs={"model": store.put_directory(output)},
        metrics={"loss": 0.25},
        verdicts=(Verdict("gate", "warn", statistic=0.5, n=7, reason="few subjects"),),
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


def test_a_checkpoint_that_is_of_no_use_is_set_aside(store: Store, backend: Backend) -> None:
    checkpoint = store.checkpoint("key1")
    checkpoint.save(b"half")
    checkpoint.set_aside()

    assert checkpoint.load() is None
    assert backend.read("corrupt/checkpoints/key1.safetensors") == b"half"


def test_a_deleted_file_is_gone_for_every_way_of_reading_it(backend: Backend) -> None:
    backend.write("folder/file", b"content")
    assert backend.local("folder/file") is not None
    backend.delete("folder/file")
    backend.delete("folder/file")
    backend.delete("never/there")

    assert backend.read("folder/file") is None
    assert backend.local("folder/file") is None
    assert backend.find("folder/file") is None
    assert backend.entries("") == []


# Memory and run records


def test_memory_lasts_as_long_as_the_blobs_it_mentions(store: Store, backend: Backend) -> None:
    content = b"features of a recording"
    features = store.blobs.put(content)
    record = {"features": features, "original": digest_of(b"not stored here"), "n": 3}
    assert store.recall("abcd") is None
    store.memorize("abcd", record)
    assert store.recall("abcd") == record

    backend.write(blob_name(features), content[:5])
    assert store.recall("abcd") is None
    with pytest.raises(ArtifactCorrupt):
        store.blobs.read(features)
    assert store.recall("abcd") is None
    store.blobs.put(content)
    assert store.recall("abcd") == record


def test_a_record_of_a_run_is_replaced_by_the_next(store: Store) -> None:
    assert store.read_record(RUN_ID, "train") is None
    store.write_record(RUN_ID, "train", {"state": "running"})
    store.write_record(RUN_ID, "train", {"state": "done"})
    store.write_record(RUN_ID, "split", {"state": "done"})

    assert store.read_record(RUN_ID, "train") == {"state": "done"}
    assert store.record_names(RUN_ID) == ["split", "train"]
    assert store.record_names("scheduled__1") == []


def test_runs_are_listed_with_the_latest_written_last(store: Store) -> None:
    assert store.run_ids() == []
    for run_id in ("b", RUN_ID, "a", "b"):
        store.write_record(run_id, "split", {})
        time.sleep(0.02)  # the clock of a file system may be coarse

    assert store.run_ids() == [RUN_ID, "a", "b"]


@pytest.mark.parametrize("name", ["", ".hidden", "..", "a/b", "a\n", "a\\b", "ü", "x" * 201])
def test_a_name_that_could_leave_its_place_is_refused(store: Store, name: str) -> None:
    for use in (
        lambda: store.write_record(name, "split", {}),
        lambda: store.write_record(RUN_ID, name, {}),
        lambda: store.read_record(name, "split"),
        lambda: store.record_names(name),
        lambda: store.find_result(name),
        lambda: store.save_result(Result("stage", name, {})),
        lambda: store.recall(name),
        lambda: store.memorize(name, {}),
        lambda: store.checkpoint(name),
    ):
        with pytest.raises(ConfigError, match="cannot name a record"):
            use()


# A folder


def test_a_folder_lends_its_own_read_only_file(tmp_path: Path, output: Path) -> None:
    store = Store(str(tmp_path / "store"))
    directory = store.directory(store.put_directory(output))
    path = directory.path("table.csv")

    assert path == tmp_path / "store" / blob_name(digest_of(b"n\n1\n"))
    assert path.stat().st_mode & 0o777 == 0o444


def test_what_a_killed_writer_left_is_cleared_away_after_a_day(tmp_path: Path) -> None:
    fill(tmp_path / "store/tmp", {"old": b"half a fi", "new": b"half a fi"})
    long_ago = time.time() - ABANDONED_SECONDS - 60
    os.utime(tmp_path / "store/tmp/old", (long_ago, long_ago))
    store = Store(str(tmp_path / "store"))
    store.blobs.put(b"content")

    assert [path.name for path in (tmp_path / "store/tmp").iterdir()] == ["new"]


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    fill(tmp_path, {"file": b""})

    with pytest.raises(ConfigError, match="is a file"):
        Store(str(tmp_path / "file"))
    with pytest.raises(ConfigError, match=r"cannot write to the store.*SPIRA_STORE"):
        Store(str(tmp_path / "file/store")).blobs.put(b"content")


def test_a_store_is_named_by_a_path_or_a_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = Store(str(tmp_path / "a store")).blobs.put(b"content")

    assert Store(f"file://{tmp_path}/a%20store").blobs.read(digest) == b"content"
    for url in ("", "gs://bucket/prefix", "file://host/path", "s3://", "s3://UPPER/case"):
        with pytest.raises(ConfigError, match="s3://bucket/prefix"):
            Store(url)

    monkeypatch.delenv("SPIRA_STORE", raising=False)
    assert store_url() == ".spira/store"
    monkeypatch.setenv("SPIRA_STORE", "s3://spira/store")
    assert store_url() == "s3://spira/store"


# Sudden death

WRITER = """
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
import numpy as np
from spira_tasks.artifacts import Store
from spira_tasks.contract import Result

store, n_steps = Store(sys.argv[1]), int(sys.argv[2])
print("started", flush=True)
for step in range(n_steps):
    key = f"{step:04d}"
    if store.find_result(key):
        continue
    rng = np.random.default_rng([20261121, step])
    waveform = store.blobs.put(rng.bytes(1_000) * 2_000)
    store.memorize(key, {"waveform": waveform})
    with TemporaryDirectory() as scratch:
        for name in ("table", "report", "weights"):
            Path(scratch, name).write_bytes(rng.bytes(1_000) * int(rng.integers(1_000)))
        outputs = {"all": store.put_directory(Path(scratch))}
    store.save_result(Result("stage", key, outputs))
    store.write_record("run", f"step{step % 5}", {"key": key})
"""


def test_a_writer_killed_at_any_moment_leaves_only_whole_content(
    place: str, store: Store, backend: Backend, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", WRITER, place]
    environment = os.environ | {"TMPDIR": str(tmp_path)}  # what the killed leave goes with it
    rng = np.random.default_rng(20261121)
    for _ in range(12):
        with subprocess.Popen(
            [*command, "100000"], env=environment, stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"started\n"
            time.sleep(rng.uniform(0.0, 0.15))
            writer.kill()
        assert writer.returncode == -signal.SIGKILL
        assert_everything_is_whole(store, backend)

    n_found = len(backend.entries("results"))
    n_steps = n_found + 5
    subprocess.run([*command, str(n_steps)], env=environment, check=True, timeout=60)

    assert_everything_is_whole(store, backend)
    assert n_found > 0
    for step in range(n_steps):
        assert store.find_result(f"{step:04d}") is not None
        assert store.recall(f"{step:04d}") is not None


def assert_everything_is_whole(store: Store, backend: Backend) -> None:
    for kind in ("blobs", "trees"):
        for entry in backend.entries(kind):
            content = backend.read(entry.name)
            assert content is not None
            assert digest_of(content) == f"sha256:{Path(entry.name).stem}"
    for entry in backend.entries("results"):
        result = store.find_result(Path(entry.name).stem)
        assert result is not None
        directory = store.directory(result.outputs["all"])
        for name in directory.names:
            assert directory.path(name).stat().st_size == directory.size(name)
    for entry in backend.entries("memo"):
        assert store.recall(Path(entry.name).stem) is not None
    for name in store.record_names("run"):
        assert store.read_record("run", name) is not None
    assert backend.entries("corrupt") == []
