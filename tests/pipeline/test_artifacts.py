"""The store behaves the same in a folder and in a bucket, whatever happens to its writers."""

from __future__ import annotations

import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from stores import backend, blob_name, fill, output, remembered, store

from spira_tasks.artifacts import Blobs, Store, store_url
from spira_tasks.artifacts.backends import ABANDONED_SECONDS, Backend
from spira_tasks.artifacts.blobs import digest_of
from spira_tasks.contract.record import Result
from spira_tasks.errors import ArtifactCorrupt, ConfigError

__all__ = ["backend", "output", "store"]  # the fixtures


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
            directory.read(name)


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


# A folder


def test_a_folder_lends_its_own_read_only_file(tmp_path: Path, output: Path) -> None:
    store = Store(str(tmp_path / "store"))
    directory = store.directory(store.put_directory(output))
    path = directory.path("table.csv")

    assert path == tmp_path / "store" / blob_name(digest_of(b"n\n1\n"))
    assert path.stat().st_mode & 0o777 == 0o444


def test_a_new_store_is_closed_to_other_users_and_a_given_folder_keeps_its_mode(
    tmp_path: Path,
) -> None:
    given = tmp_path / "given"
    given.mkdir()
    given.chmod(0o770)
    before = os.umask(0o002)
    try:
        for place in (tmp_path / "deep/er/new", given):
            Store(str(place)).blobs.put(b"voice")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "deep/er/new").stat().st_mode) == 0o700
    assert stat.S_IMODE(given.stat().st_mode) == 0o770


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
    store = Store(str(tmp_path / "store"))
    store.blobs.put(b"while it could be written")
    (tmp_path / "store/tmp").rmdir()
    (tmp_path / "store/tmp").touch()  # neither written in nor removed from, as if mounted read-only
    with pytest.raises(ConfigError, match=r"cannot write to the store.*SPIRA_STORE"):
        store.blobs.put(b"and now cannot")
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
from spira_tasks.contract.record import Result
from spira_tasks.contract.run import StepRecord

store, n_steps = Store(sys.argv[1]), int(sys.argv[2])
print("started", flush=True)
for step in range(n_steps):
    key = f"{step:04d}"
    if store.find_result(key):
        continue
    rng = np.random.default_rng([20261121, step])
    waveform = store.blobs.add(rng.bytes(1_000) * 2_000)
    store.blobs.memorize(key, {"waveform": waveform})
    store.blobs.flush()
    with TemporaryDirectory() as scratch:
        for name in ("table", "report", "weights"):
            Path(scratch, name).write_bytes(rng.bytes(1_000) * int(rng.integers(1_000)))
        outputs = {"all": store.put_directory(Path(scratch))}
    store.save_result(Result("stage", key, outputs))
    record = StepRecord(f"step{step % 5}", "stage", "done", "2026-11-21", 1.0, key=key)
    store.runs.write("run", record)
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
        assert Store(store.url).blobs.recall(f"{step:04d}") is not None


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
            assert directory.path(name).is_file()
    new = Store(store.url)
    for key in remembered(new):
        record = new.blobs.recall(key)
        assert record is not None
        assert new.blobs.read(record["waveform"])
    assert len(store.runs.read("run").steps) == len(backend.entries("runs"))
    assert backend.entries("corrupt") == []
