"""Contents by digest: the name of a file is the hash of what is in it, so it can be verified."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from spira_tasks.backends import Backend
from spira_tasks.errors import ArtifactCorrupt, ConfigError

DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


class Blobs:
    """Contents by digest, read and written one by one.  Safe to use from many threads."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def put(self, content: bytes) -> str:
        """Store ``content`` unless it is there; return its digest, ``"sha256:<hex>"``."""
        sha256 = hashlib.sha256(content).hexdigest()
        self._put(sha256, len(content), content)
        return f"sha256:{sha256}"

    def read(self, digest: str) -> bytes:
        """Return the content of ``digest``; ArtifactCorrupt when it is damaged or gone."""
        name = _blob(digest)
        content = self._backend.read(name)
        if content is None:
            raise gone(self._backend, name)
        if hashlib.sha256(content).hexdigest() != hex_of(digest):
            raise damaged(self._backend, name)
        return content

    def path(self, digest: str) -> Path:
        """Return a local file with the content of ``digest``, to read and never to write.

        A store in a folder lends its own file; one in a bucket fetches it into a private folder
        that is removed when the process ends.  ArtifactCorrupt when it is damaged or gone.
        """
        name = _blob(digest)
        path = self._backend.local(name)
        if path is None:
            raise gone(self._backend, name)
        if sha256_of(path) != hex_of(digest):
            raise damaged(self._backend, name)
        return path

    def exists(self, digest: str) -> bool:
        """Say whether the content is stored, without reading it."""
        return self._backend.find(_blob(digest)) is not None

    def size(self, digest: str) -> int | None:
        """Return the stored size in bytes, or None when the content is not there."""
        entry = self._backend.find(_blob(digest))
        return None if entry is None else entry.size

    def put_file(self, path: Path, size: int) -> str:
        """Store a local file as ``put`` does, without holding it in memory."""
        sha256 = sha256_of(path)
        self._put(sha256, size, path)
        return f"sha256:{sha256}"

    def _put(self, sha256: str, size: int, content: bytes | Path) -> None:
        digest = f"sha256:{sha256}"
        if self.size(digest) != size:  # absent, or cut short by a power loss
            self._backend.write(_blob(digest), content)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hex_of(digest: str) -> str:
    match = DIGEST.fullmatch(digest)
    if match is None:
        raise ConfigError(f"{digest!r} is not a digest; one looks like sha256:<64 hex digits>")
    return match[1]


def _blob(digest: str) -> str:
    return f"blobs/{hex_of(digest)[:2]}/{hex_of(digest)}"


def gone(backend: Backend, name: str) -> ArtifactCorrupt:
    return ArtifactCorrupt(
        f"{name} is missing in {backend.url}. "
        "Run it again: the step that made it will be computed again"
    )


def damaged(backend: Backend, name: str) -> ArtifactCorrupt:
    backend.set_aside(name)
    return ArtifactCorrupt(
        f"{name} in {backend.url} did not have the content its name promises and was moved to "
        f"corrupt/{name}. Run it again: the step that made it will be computed again"
    )
