"""Contents by digest: the name of a file is the hash of what is in it, so it can be verified."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from spira_tasks.artifacts.backends import Backend, Content
from spira_tasks.errors import ArtifactCorrupt, ConfigError

DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
N_THREADS = 16  # they wait for a disk or a network, or hash outside Python's lock

T = TypeVar("T")
R = TypeVar("R")


class Blobs:
    """Contents by digest, read and written one by one.  Safe to use from many threads."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def put(self, content: bytes) -> str:
        """Store ``content`` unless it is there; return its digest, ``"sha256:<hex>"``."""
        digest = digest_of(content)
        self._put(digest, len(content), content)
        return digest

    def put_file(self, path: Path, *, durable: bool = False) -> str:
        """Store a local file as ``put`` does, without holding it in memory.

        ``durable``: it survives a power loss once this returns, and not only the end of a process.
        """
        digest = digest_of_file(path)
        self._put(digest, path.stat().st_size, path, durable=durable)
        return digest

    def read(self, digest: str) -> bytes:
        """Return the content of ``digest``.

        Raises ArtifactCorrupt when it is missing or damaged.  What is damaged is moved out of the
        way, so that the next ``put`` of the same content stores it again.
        """
        name = name_of(digest)
        content = self._backend.read(name)
        if content is None:
            raise missing(self._backend, name)
        return self._verified(digest, content)

    def path(self, digest: str) -> Path:
        """Return a local file with the content of ``digest``, to read and never to write.

        A store in a folder lends its own file; one in a bucket fetches it into a private folder
        that is removed when the process ends.  Raises as ``read`` does.
        """
        name = name_of(digest)
        path = self._backend.local(name)
        if path is None:
            raise missing(self._backend, name)
        if digest_of_file(path) != digest:
            raise set_aside(self._backend, name)
        return path

    def exists(self, digest: str) -> bool:
        """Say whether the content is stored, without reading it."""
        return self.size(digest) is not None

    def size(self, digest: str) -> int | None:
        """Return the stored size in bytes, or None when the content is not there."""
        return self._file_size(digest)

    def delete(self, digest: str) -> None:
        """Remove a content for good; do nothing when it is gone."""
        self._backend.delete(name_of(digest))

    def _put(self, digest: str, size: int, content: Content, *, durable: bool = False) -> None:
        if self._file_size(digest) != size:  # absent, or cut short by a power loss
            self._backend.write(name_of(digest), content, durable=durable)

    def _file_size(self, digest: str) -> int | None:
        entry = self._backend.find(name_of(digest))
        return None if entry is None else entry.size

    def _verified(self, digest: str, content: bytes) -> bytes:
        if digest_of(content) != digest:
            raise set_aside(self._backend, name_of(digest))
        return content


def digest_of(content: bytes | memoryview) -> str:
    """Return the digest of ``content``, ``"sha256:<hex>"``."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def digest_of_file(path: Path) -> str:
    """Return the digest of a file's content, read piece by piece."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def hex_of(digest: str) -> str:
    """Return the hex digits of a digest; ConfigError when it is not one."""
    match = DIGEST.fullmatch(digest)
    if match is None:
        raise ConfigError(f"{digest!r} is not a digest; one looks like sha256:<64 hex digits>")
    return match[1]


def canonical_json(value: Any) -> bytes:
    """Canonical JSON: one value has one text, hence one digest."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def in_threads(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Call ``function`` for every item, several at a time; results in the order of the items."""
    with ThreadPoolExecutor(N_THREADS) as pool:
        return list(pool.map(function, items))


def set_aside(backend: Backend, name: str) -> ArtifactCorrupt:
    """Move a damaged file out of the way; return the error to raise."""
    try:
        backend.set_aside(name)
    except ConfigError as error:  # who reads here may not write
        return ArtifactCorrupt(f"{name} does not have the content its name promises; {error}")
    return ArtifactCorrupt(
        f"{name} in {backend.url} did not have the content its name promises and was moved to "
        f"corrupt/{name}. Run it again: the step that made it will be computed again"
    )


def missing(backend: Backend, name: str) -> ArtifactCorrupt:
    """The error to raise where a content is not there."""
    return ArtifactCorrupt(
        f"{name} is missing in {backend.url}. "
        "Run it again: the step that made it will be computed again"
    )


def name_of(digest: str) -> str:
    """How the store names a content."""
    sha256 = hex_of(digest)
    return f"blobs/{sha256[:2]}/{sha256}"
