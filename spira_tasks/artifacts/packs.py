"""Packs: the contents and the memory of many recordings in two files.

A pack is a blob: contents one after the other.  Its *index*, ``memo/<sha256>.json``, says where
each content lies, and has the records of the work that was done.  A content keeps its own digest:
that is its name in every table, and what is read is verified by it, so a wrong index is found like
any other damage.  The index is written last, so it is the commit.  See docs/adr/0037.
"""

from __future__ import annotations

import json
import logging
import mmap
import os
import platform
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from spira_tasks.artifacts import sealed
from spira_tasks.artifacts.backends import Backend, Entry, checked
from spira_tasks.artifacts.blobs import (
    DIGEST,
    N_THREADS,
    Blobs,
    canonical_json,
    digest_of,
    hex_of,
    in_threads,
    missing,
    name_of,
)
from spira_tasks.errors import ArtifactCorrupt, ConfigError, ServiceUnavailable

PACK_BYTES = 16 << 20  # what a pack holds at most, but for its last content
PACK_SECONDS = 30.0  # what a kill without warning costs at most
FOLDER = "memo"
LOCK = "locks/packs.json"  # who writes packs anew: no other may, or it would bring back what went
LOCK_SECONDS = 120.0  # without a sign of life of a holder elsewhere: it may have been killed
SETTLE_SECONDS = 1.0  # in which all who find the lock left behind have written it

log = logging.getLogger(__name__)


@dataclass
class Index:
    """What one index says; ``pack`` is empty where it has records alone."""

    pack: str = ""  # digest of the blob with the contents
    contents: dict[str, tuple[int, int]] = field(default_factory=dict)  # digest: offset, size
    # Key to a record of work, and the contents that it needs.
    records: dict[str, tuple[Mapping[str, Any], list[str]]] = field(default_factory=dict)

    @classmethod
    def from_json(cls, content: bytes) -> Index:
        """Read an index; ValueError where it is none."""
        fields = json.loads(content)
        try:
            contents = {digest: (int(at), int(n)) for digest, (at, n) in fields["contents"].items()}
            records = {key: (record, needs) for key, (record, needs) in fields["records"].items()}
            return cls(str(fields["pack"]), contents, records)
        except (KeyError, TypeError, AttributeError):
            raise ValueError("it is no index of a pack") from None


class Packs(Blobs):
    """Contents by digest, each a file of its own or in a pack.  Safe to use from many threads.

    ``put`` and ``put_file`` store a file, which ``path`` lends; ``add`` adds a content to the pack
    that is being made, which ``flush`` stores.  Other objects see it from then on.
    """

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self._lock = threading.RLock()
        self._indexes: dict[str, str] = {}  # name of every index that was read, to its pack
        self._places: dict[str, tuple[str, int, int]] = {}  # digest: pack, offset, size
        self._records: dict[str, tuple[bytes, list[str]]] | None = None  # None: not asked for yet
        self._sizes: dict[str, int] = {}  # of packs
        self._has_looked = False
        # The pack that is being made.  Its buffer is apart from the heap, where contents that stay
        # a while between others that do not would leave gaps, and make the process grow.
        self._buffer: mmap.mmap | None = None
        self._new: dict[str, tuple[int, int]] = {}  # its contents: offset, size
        self._remembered: dict[str, tuple[Mapping[str, Any], list[str]]] = {}  # its records,
        self._n_bytes, self._since = 0, 0.0  # its size, and when it was begun

    def __reduce__(self) -> tuple[type[Packs], tuple[Backend]]:
        return Packs, (self._backend,)  # another process makes packs of its own

    def add(self, content: bytes) -> str:
        """Add a content to the pack that is being made; return its digest."""
        digest = digest_of(content)
        with self._lock:
            if digest not in self._new and not self._is_packed(digest):
                self._begin()
                if self._buffer and self._n_bytes + len(content) > len(self._buffer):
                    self.flush()
                if self._buffer is None:
                    n_bytes = max(PACK_BYTES, len(content))
                    self._buffer = mmap.mmap(-1, n_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
                self._new[digest] = (self._n_bytes, len(content))
                self._n_bytes += len(content)
                self._buffer[self._n_bytes - len(content) : self._n_bytes] = content
        return digest

    def memorize(self, key: str, record: Mapping[str, Any]) -> None:
        """Keep a small JSON record beside the contents that it mentions by digest."""
        mentioned = {found[0] for found in DIGEST.finditer(canonical_json(record).decode())}
        needs = sorted(digest for digest in mentioned if self.exists(digest))
        with self._lock:
            self._begin()
            self._remembered[checked(key)] = (record, needs)
            if time.monotonic() - self._since > PACK_SECONDS:
                self.flush()

    def recall(self, key: str) -> dict[str, Any] | None:
        """Return what was memorized under ``key``, or None when there is nothing to rely on.

        What others have memorized since this object first looked is not seen.  A record whose
        contents are no longer whole does not count, so that they are made again.
        """
        checked(key)
        with self._lock:
            if key in self._remembered:
                return dict(self._remembered[key][0])
            if self._records is None:
                self._records, self._indexes = {}, {}  # which were read without their records
                self._refresh()
            found = self._records.get(key)
        if found is None or not all(map(self.exists, found[1])):
            return None
        return dict(json.loads(found[0]))

    def flush(self) -> None:
        """Store the pack that is being made."""
        with self._lock:
            if not (self._new or self._remembered):
                return
            with memoryview(self._buffer or b"") as whole, whole[: self._n_bytes] as pack:
                self._write(pack, self._new, self._remembered)
            if self._buffer:
                self._buffer.close()
            self._buffer = None
            self._new, self._remembered, self._n_bytes, self._since = {}, {}, 0, 0.0

    def read(self, digest: str, *, again: bool = False) -> bytes:
        """As ``Blobs.read``; ``again``: this process will, so a copy may be kept on its disk."""
        hex_of(digest)
        for _ in range(2):
            with self._lock:
                if self._buffer and digest in self._new:
                    offset, size = self._new[digest]
                    return self._buffer[offset : offset + size]
                place = self._places.get(digest)
            if place is not None:
                # a copy on this machine may be what is damaged
                for keep in (True, False) if again else (False,):
                    content = self._backend.read_range(*_file(place), keep=keep)
                    if content is not None and digest_of(content) == digest:
                        return content
            elif (content := self._backend.read(name_of(digest))) is not None:
                return self._verified(digest, content)
            with self._lock:  # another process may have written the pack, or written it anew
                self._refresh()
                moved = self._places.get(digest)
            if place is not None and moved == place:
                raise self._damaged(digest)
        raise missing(self._backend, name_of(digest))

    def size(self, digest: str) -> int | None:
        """Return the stored size in bytes, or None when the content is not there."""
        hex_of(digest)
        with self._lock:
            if digest in self._new:
                return self._new[digest][1]
            if not self._is_packed(digest) and digest not in self._places:
                found = self._file_size(digest)
                if found is not None:
                    return found
                self._refresh()
            return self._places[digest][2] if self._is_packed(digest) else None

    def delete(self, digest: str) -> None:
        """Remove a content for good; do nothing when it is gone."""
        self.delete_all({digest})

    def delete_all(self, digests: Collection[str]) -> None:
        """Remove contents for good: files, and packs, which are written anew without them.

        Records that mention them go too.  It may be called again after it was killed.
        """
        gone = set(digests)
        if not gone:
            return
        with self._lock:
            self.flush()
            with self._alone() as alive:
                old = set()
                for name, index in self._read_all(self._names()):
                    needed = {digest for _, needs in index.records.values() for digest in needs}
                    if not gone.isdisjoint(index.contents.keys() | needed):
                        self._rewrite(name, index, gone, alive)
                        old.add(index.pack)
                if old:
                    alive()  # or another may have brought back what went
                self._delete_packs(old)
                in_threads(super().delete, sorted(gone))

    def entries(self) -> list[Entry]:
        """Every content, under the name that it would have as a file of its own.

        A file that no index knows as its pack counts as a content: who made it was killed.
        """
        with self._lock:
            self._reset()
            self._refresh()
            packs = set(self._indexes.values())
            places = dict(self._places)
        files = {entry.name: entry for entry in self._backend.entries("blobs")}
        loose = [entry for entry in files.values() if _digest(entry.name) not in packs]
        packed = [
            Entry(name_of(digest), size, file.modified, file.version)
            for digest, (pack, _, size) in places.items()
            if (file := files.get(name_of(pack)))
        ]
        return sorted([*loose, *packed], key=lambda entry: entry.name)

    def mentioned_as(self, field_name: str) -> Iterator[str]:
        """What the records of all work have in a field: such as the digests of ``"features"``."""
        for _, index in self._read_all(self._names()):
            for record, _ in index.records.values():
                if field_name in record:
                    yield record[field_name]

    def _begin(self) -> None:
        self._since = self._since or time.monotonic()

    def _is_packed(self, digest: str) -> bool:
        """Whether an index has the content, and its pack is as long as that says."""
        with self._lock:
            if not self._has_looked:
                self._refresh()
            place = self._places.get(digest)
            if place is None:
                return False
            pack, offset, size = place
            if pack not in self._sizes:
                self._sizes[pack] = self._file_size(pack) or 0
            return offset + size <= self._sizes[pack]

    def _names(self) -> list[str]:
        return [one.name for one in self._backend.entries(FOLDER)]

    def _read_all(self, names: Collection[str]) -> Iterator[tuple[str, Index]]:
        """Read indexes, several at a time; one that was changed is set aside."""

        def read(name: str) -> tuple[str, Index | None]:
            return name, sealed.read(self._backend, name, Index.from_json)

        pending = iter(names)
        while some := list(islice(pending, N_THREADS)):
            yield from ((name, index) for name, index in in_threads(read, some) if index)

    def _reset(self) -> None:
        self._indexes, self._places, self._sizes = {}, {}, {}
        self._records = None if self._records is None else {}
        self._has_looked = False

    def _refresh(self) -> None:
        """Look at the indexes that came since, or at all of them where one has gone."""
        names = self._names()
        if not self._indexes.keys() <= set(names):
            self._reset()
        self._has_looked = True
        for name, index in self._read_all([name for name in names if name not in self._indexes]):
            self._know(name, index)

    def _know(self, name: str, index: Index) -> None:
        self._indexes[name] = index.pack
        for digest, (offset, size) in index.contents.items():
            self._places[digest] = (index.pack, offset, size)
        if self._records is not None:
            for key, (record, needs) in index.records.items():
                self._records[key] = (canonical_json(record), needs)

    def _write(
        self,
        pack: bytes | memoryview,
        contents: Mapping[str, tuple[int, int]],
        records: Mapping[str, tuple[Mapping[str, Any], list[str]]],
    ) -> str:
        """Store a pack and its index; return the index's name, empty where it was there already."""
        index = Index("", dict(contents), dict(records))
        if contents:
            index.pack = digest_of(pack)
            self._put(index.pack, len(pack), pack)
        fields = {"pack": index.pack, "contents": index.contents, "records": index.records}
        name = f"{FOLDER}/{hex_of(digest_of(canonical_json(fields)))}.json"
        is_new = self._backend.find(name) is None
        self._backend.write(name, sealed.sealed(name, fields))
        self._know(name, index)
        return name if is_new else ""

    def _rewrite(
        self, name: str, index: Index, gone: Collection[str], alive: Callable[[], None]
    ) -> None:
        """Replace a pack by one without some contents; what is damaged in it goes too.

        ``alive`` is what ``_alone`` yields.  Another that took the lock over since the pack was
        read may have removed contents, so what was written of them is taken back.
        """
        contents: dict[str, tuple[int, int]] = {}
        whole = bytearray()
        for digest, (offset, size) in index.contents.items():
            if digest not in gone:
                place = (index.pack, offset, size)
                content = self._backend.read_range(*_file(place))
                if content is not None and digest_of(content) == digest:
                    contents[digest] = (len(whole), size)
                    whole += content
        lost = (index.contents.keys() - contents.keys()) | set(gone)
        records = {key: one for key, one in index.records.items() if lost.isdisjoint(one[1])}
        alive()
        made = self._write(memoryview(whole), contents, records) if contents or records else ""
        try:
            alive()
        except ServiceUnavailable:
            if made:
                self._backend.delete(made)
            raise
        if len(records) < len(index.records) or len(contents) < len(index.contents):
            self._backend.delete(name)

    def _delete_packs(self, old: Collection[str]) -> None:
        """Remove the packs among some that no index needs any more, and look at all anew."""
        self._reset()
        self._refresh()
        for pack in set(old) - {"", *self._indexes.values()}:
            self._backend.delete(name_of(pack))
        self._sizes = {}

    @contextmanager
    def _alone(self) -> Iterator[Callable[[], None]]:
        """Wait until no other process writes packs anew; yields a sign of life to give.

        Raises
        ------
        ServiceUnavailable
            When another one has not ended in ten minutes.
        """
        me = {"host": platform.node(), "process": os.getpid(), "started": _started(os.getpid())}
        me["at"] = time.time()  # so that no other lock is the same
        content = canonical_json(me)
        until = time.monotonic() + 600
        while not self._backend.write_once(LOCK, content):
            if time.monotonic() > until:
                raise ServiceUnavailable(
                    f"another process writes packs of {self._backend.url} anew; try again later"
                )
            if self._is_left():
                # Others that wait for it may write it too: it is the last one's.
                self._backend.write(LOCK, content)
                time.sleep(SETTLE_SECONDS)
                if self._backend.read(LOCK) == content:
                    break
            else:
                time.sleep(0.2)

        def alive() -> None:
            if self._backend.read(LOCK) != content:
                raise ServiceUnavailable(
                    f"another process took over the packs of {self._backend.url}; try again later"
                )
            self._backend.write(LOCK, content)

        try:
            yield alive
        finally:
            if self._backend.read(LOCK) == content:
                self._backend.delete(LOCK)

    def _is_left(self) -> bool:
        """Whether the process that holds the lock was killed, as far as it can be known.

        One of this machine that lives holds it however long it stalls, in a suspended laptop too.
        """
        entry, content = self._backend.find(LOCK), self._backend.read(LOCK)
        if entry is None or content is None:
            return False
        holder = json.loads(content)
        if holder["host"] == platform.node() and _started(os.getpid()):
            return bool(_started(holder["process"]) != holder["started"])
        return time.time() - entry.modified > LOCK_SECONDS

    def _damaged(self, digest: str) -> ArtifactCorrupt:
        """Keep the damaged pack to look at, and its whole contents in use; the error to raise."""
        try:
            with self._lock, self._alone() as alive:
                self._refresh()
                pack = self._places.get(digest, ("", 0, 0))[0]
                file = self._backend.local(name_of(pack)) if pack else None
                if file is not None:
                    self._backend.write(f"corrupt/{name_of(pack)}", file)
                for name, index in list(self._read_all([*self._indexes])):
                    if pack and index.pack == pack:
                        self._rewrite(name, index, (), alive)
                self._delete_packs([pack])
        except ConfigError as error:  # who reads here may not write
            return ArtifactCorrupt(f"{digest} does not have the content it promises; {error}")
        return ArtifactCorrupt(
            f"{digest} in a pack of {self._backend.url} is gone or did not have the content that "
            "it promises; what was there is in corrupt/. Run it again: the step that made it will "
            "be computed again"
        )


def _started(process: int) -> int:
    """When a process of this machine started, in ticks; 0 where there is none, or no Linux.

    Its number alone would not do, because another process has it later.
    """
    try:
        line = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return 0
    return int(line.rpartition(")")[2].split()[19])  # field 22 of proc(5)


def _file(place: tuple[str, int, int]) -> tuple[str, int, int]:
    pack, offset, size = place
    return name_of(pack), offset, size


def _digest(name: str) -> str:
    return f"sha256:{name.rpartition('/')[2]}"
