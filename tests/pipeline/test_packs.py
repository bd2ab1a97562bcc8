"""Packs: many contents in one file, read by their own digests, and erased for good."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from threading import Barrier, Thread
from typing import Any

import pytest
from stores import backend, remembered, store

from spira_tasks.artifacts import Store, packs
from spira_tasks.artifacts.backends import Backend
from spira_tasks.artifacts.packs import LOCK, Packs
from spira_tasks.errors import ArtifactCorrupt, ServiceUnavailable

__all__ = ["backend", "store"]  # fixtures

CONTENTS = [f"RIFF: recording {number} ".encode() * 10 * number for number in range(1, 8)]


@pytest.fixture
def digests(store: Store) -> list[str]:
    """Seven contents in one pack, each remembered under a key of its own."""
    found = [store.blobs.add(content) for content in CONTENTS]
    for number, digest in enumerate(found):
        store.blobs.memorize(f"key{number}", {"waveform": digest, "n": number})
    store.blobs.flush()
    return found


def test_many_contents_are_two_files_and_each_is_read_by_its_digest(
    store: Store, backend: Backend, digests: list[str]
) -> None:
    assert len(backend.entries("")) == 2
    for other in (store, Store(store.url)):
        assert [other.blobs.read(digest) for digest in digests] == CONTENTS
        assert [other.blobs.size(digest) for digest in digests] == list(map(len, CONTENTS))
        assert other.blobs.recall("key3") == {"waveform": digests[3], "n": 3}
    listed = {entry.name[-64:]: entry.size for entry in store.blobs.entries()}
    assert listed == {d[-64:]: len(c) for d, c in zip(digests, CONTENTS, strict=True)}


def test_a_content_can_be_read_before_its_pack_is_stored(store: Store) -> None:
    digest = store.blobs.add(b"not stored yet")
    store.blobs.memorize("abcd", {"features": digest})
    assert store.blobs.read(digest) == b"not stored yet"
    assert store.blobs.recall("abcd") == {"features": digest}
    assert not Store(store.url).blobs.exists(digest)


def test_what_is_read_again_is_looked_for_on_this_machine_first(
    store: Store, backend: Backend, digests: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or every epoch would fetch the recordings that memory does not hold."""
    asked: list[bool] = []
    real = type(backend).read_range

    def noted(
        self: Backend, name: str, offset: int, size: int, *, keep: bool = False
    ) -> bytes | None:
        asked.append(keep)
        return real(self, name, offset, size, keep=keep)

    monkeypatch.setattr(type(backend), "read_range", noted)
    reader = Store(store.url).blobs
    assert reader.exists(digests[0])
    assert reader.read(digests[0], again=True) == reader.read(digests[0]) == CONTENTS[0]
    assert asked == [True, False]


def test_what_another_process_packs_is_found(store: Store, digests: list[str]) -> None:
    other = Store(store.url)
    assert other.blobs.read(digests[0]) == CONTENTS[0]
    late = store.blobs.add(b"late")
    store.blobs.flush()
    assert other.blobs.read(late) == b"late"
    store.blobs.delete(digests[0])  # the others are in a new pack now
    assert other.blobs.read(digests[1]) == CONTENTS[1]
    with pytest.raises(ArtifactCorrupt, match="is missing"):
        other.blobs.read(digests[0])


def test_what_is_in_a_pack_is_not_packed_again(
    store: Store, backend: Backend, digests: list[str]
) -> None:
    other = Store(store.url)
    assert [other.blobs.add(content) for content in CONTENTS] == digests
    other.blobs.flush()
    assert len(backend.entries("")) == 2


def test_a_content_that_is_deleted_leaves_no_byte_and_the_others_stay(
    store: Store, backend: Backend, digests: list[str]
) -> None:
    store.blobs.delete_all({digests[2], digests[5]})
    everything = b"".join(backend.read(entry.name) or b"" for entry in backend.entries(""))
    assert CONTENTS[2] not in everything
    assert digests[2].encode() not in everything
    assert CONTENTS[3] in everything
    for other in (store, Store(store.url)):
        assert not other.blobs.exists(digests[5])
        assert other.blobs.recall("key5") is None
        assert other.blobs.recall("key6") is not None
        assert other.blobs.read(digests[6]) == CONTENTS[6]
    store.blobs.delete_all(set(digests))
    assert backend.entries("") == []


def test_damage_costs_the_damaged_content_alone(
    store: Store, backend: Backend, digests: list[str]
) -> None:
    (pack,) = backend.entries("blobs")
    content = backend.read(pack.name)
    assert content is not None
    at = content.index(CONTENTS[4]) + 5
    backend.write(pack.name, content[:at] + b"X" + content[at + 1 :])
    reader = Store(store.url)
    assert reader.blobs.read(digests[3]) == CONTENTS[3]
    with pytest.raises(ArtifactCorrupt, match="computed again"):
        reader.blobs.read(digests[4])
    assert backend.read(f"corrupt/{pack.name}") is not None
    assert reader.blobs.recall("key4") is None
    whole = [0, 1, 2, 3, 5, 6]
    new = Store(store.url)
    assert [new.blobs.read(digests[n]) for n in whole] == [CONTENTS[n] for n in whole]
    assert remembered(new) == {f"key{n}" for n in whole}
    assert new.blobs.add(CONTENTS[4]) == digests[4]
    assert new.blobs.read(digests[4]) == CONTENTS[4]


def test_a_pack_that_was_cut_short_is_computed_again(
    store: Store, backend: Backend, digests: list[str]
) -> None:
    (pack,) = backend.entries("blobs")
    backend.write(pack.name, b"".join(CONTENTS)[: len(CONTENTS[0]) + 3])
    reader = Store(store.url)
    assert reader.blobs.recall("key0") is not None
    assert reader.blobs.recall("key1") is None
    assert reader.blobs.add(CONTENTS[1]) == digests[1]
    reader.blobs.flush()
    assert Store(store.url).blobs.read(digests[1]) == CONTENTS[1]


def test_a_killed_deletion_leaves_what_the_next_one_removes(
    store: Store, backend: Backend, digests: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    acts: list[str] = []
    real = type(backend).delete

    def dying(self: Backend, name: str) -> None:
        acts.append(name)
        if len(acts) == 2:  # the index is gone, the pack is not
            raise KeyboardInterrupt
        real(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(type(backend), "delete", dying)
        with pytest.raises(KeyboardInterrupt):
            store.blobs.delete_all({digests[2]})
    left = Store(store.url).blobs.entries()
    orphans = {f"sha256:{entry.name[-64:]}" for entry in left} - set(digests)
    assert len(orphans) == 1  # the old pack: nothing names it
    Store(store.url).blobs.delete_all(orphans)
    everything = b"".join(backend.read(entry.name) or b"" for entry in backend.entries(""))
    assert CONTENTS[2] not in everything
    assert Store(store.url).blobs.read(digests[6]) == CONTENTS[6]


def test_what_another_process_deletes_meanwhile_does_not_come_back(
    store: Store, digests: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of them write a pack anew: retention, an erasure, or a reader that mends damage."""
    erasure = Thread(target=Store(store.url).blobs.delete, args=(digests[1],))
    write = Packs._write

    def slowly(self: Packs, *arguments: Any) -> str:
        if not erasure.ident:
            erasure.start()  # after the pack was read, before it is written
            erasure.join(1)
        return write(self, *arguments)

    monkeypatch.setattr(Packs, "_write", slowly)
    store.blobs.delete(digests[4])
    erasure.join()
    there = [copy(store.blobs).exists(digest) for digest in digests]
    assert there == [number not in (1, 4) for number in range(7)]
    assert store.entries("locks") == []


@pytest.fixture
def left(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock of a process that was killed."""
    script = "import os, sys; sys.stdout.write(str(os.getpid()))"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    holder = {"host": platform.node(), "process": int(ended.stdout), "started": 1}
    backend.write(LOCK, json.dumps(holder).encode())
    monkeypatch.setattr(packs, "SETTLE_SECONDS", 0.2)


@pytest.mark.usefixtures("left")
def test_a_lock_that_a_killed_process_left_stops_nobody(
    store: Store, backend: Backend, digests: list[str]
) -> None:
    store.blobs.delete(digests[0])
    assert not store.blobs.exists(digests[0])
    assert backend.find(LOCK) is None


@pytest.mark.usefixtures("left")
def test_of_two_that_find_a_lock_left_behind_one_waits(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside: list[Packs] = []
    found_left: list[Packs] = []
    both, is_left = Barrier(2), Packs._is_left

    def at_once(self: Packs) -> bool:
        found = is_left(self)
        if self not in found_left:
            found_left.append(self)
            both.wait(10)
        return found

    def hold(_: int) -> int:
        own = copy(store.blobs)
        with own._alone():
            inside.append(own)
            time.sleep(0.4)
            n_inside = len(inside)
            inside.remove(own)
        return n_inside

    monkeypatch.setattr(Packs, "_is_left", at_once)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(hold, range(2))) == [1, 1]
    assert len(found_left) == 2


def test_a_living_holder_of_this_machine_keeps_the_lock_however_long_it_stalls(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs, "LOCK_SECONDS", -1.0)
    with store.blobs._alone():
        assert not copy(store.blobs)._is_left()
        monkeypatch.setattr(platform, "node", lambda: "another")
        assert copy(store.blobs)._is_left()  # of another machine nothing else is known


def test_a_number_that_another_process_has_now_holds_nothing(
    store: Store, backend: Backend, digests: list[str]
) -> None:
    backend.write(LOCK, json.dumps({"host": platform.node(), "process": 1, "started": -1}).encode())
    store.blobs.delete(digests[0])
    assert not store.blobs.exists(digests[0])


def test_who_stalls_so_long_that_it_loses_the_lock_brings_nothing_back(
    store: Store, backend: Backend, digests: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has read the pack; meanwhile another process takes over and removes a content."""
    write = Packs._write

    def stalled(self: Packs, *arguments: Any) -> str:
        monkeypatch.setattr(Packs, "_write", write)
        backend.delete(LOCK)
        copy(store.blobs).delete(digests[1])
        return write(self, *arguments)

    monkeypatch.setattr(Packs, "_write", stalled)
    with pytest.raises(ServiceUnavailable, match="took over"):
        store.blobs.delete(digests[4])
    there = [copy(store.blobs).exists(digest) for digest in digests]
    assert there == [number != 1 for number in range(7)]
    store.blobs.delete(digests[4])
    assert not copy(store.blobs).exists(digests[4])


def test_a_deletion_that_lost_its_lock_is_no_success(
    store: Store, backend: Backend, digests: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who took the lock may have read the pack before, and bring back what went."""
    write = Packs._write

    def robbed(self: Packs, *arguments: Any) -> str:
        backend.write(LOCK, b'{"host": "another"}')
        return write(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Packs, "_write", robbed)
        with pytest.raises(ServiceUnavailable, match="took over"):
            store.blobs.delete(digests[0])
    assert backend.read(LOCK) == b'{"host": "another"}'


def test_two_memories_of_the_same_contents_both_stay(store: Store, digests: list[str]) -> None:
    other = copy(store.blobs)
    with memoryview(b"".join(CONTENTS)) as pack:
        places, at = {}, 0
        for digest, content in zip(digests, CONTENTS, strict=True):
            places[digest] = (at, len(content))
            at += len(content)
        records = {f"other{n}": ({"waveform": one}, [one]) for n, one in enumerate(digests)}
        other._write(pack, places, records)
    store.blobs.delete(digests[0])
    assert remembered(store) == {f"{kind}{n}" for kind in ("key", "other") for n in range(1, 7)}


def test_two_threads_that_find_one_damage_both_say_so(
    store: Store, backend: Backend, digests: list[str]
) -> None:
    (pack,) = backend.entries("blobs")
    backend.write(pack.name, b"".join(CONTENTS)[: len(CONTENTS[0])])
    reader = copy(store.blobs)
    with ThreadPoolExecutor(6) as pool:
        said = [pool.submit(reader.read, digest) for digest in digests[1:]]
    assert {type(one.exception()) for one in said} == {ArtifactCorrupt}
    assert reader.read(digests[0]) == CONTENTS[0]
    assert reader.recall("key0") is not None
