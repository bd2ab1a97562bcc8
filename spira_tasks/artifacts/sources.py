"""Directories of read-only files, and the places outside the store where data enters."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterable
from functools import cache, cached_property
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from spira_tasks.artifacts.backends import Backend, Folder
from spira_tasks.artifacts.blobs import canonical_json, digest_of, digest_of_file, in_threads
from spira_tasks.errors import ConfigError, ServiceUnavailable
from spira_tasks.progress import progress

T = TypeVar("T")
NEWEST = "newest.json"  # in a folder of snapshots: which one is to be read


class Directory:
    """Read-only files by relative name; immutable.

    ``names`` are posix relative paths, sorted.  ``identify`` says what a file's content is known
    by, without fetching it: its digest, or what its service calls that version of it.
    """

    def __init__(
        self,
        digest: Callable[[], str],
        names: Iterable[str],
        lend: Callable[[str], Path],
        read: Callable[[str], bytes],
        *,
        identify: Callable[[str], str],
        where: str,
    ) -> None:
        self._digest = digest
        self._identify = identify
        self.names = tuple(sorted(names))
        self._known = frozenset(self.names)
        self._lend = lend
        self._read = read
        self._where = where

    @cached_property
    def digest(self) -> str:
        """The ``"sha256:<hex>"`` of all names and contents; of a folder, all of it is read."""
        return self._digest()

    def identity(self, name: str) -> str:
        """What the content of a file is known by: ``"sha256:<hex>"``, or a version of S3."""
        self._check(name)
        return self._identify(name)

    def path(self, name: str) -> Path:
        """Return a local file to read, never to write.

        Raises
        ------
        ConfigError
            For a name that is not in ``names``.
        ArtifactCorrupt
            When the content no longer matches the digest (artifacts).
        ServiceUnavailable
            When the file has changed since the directory was opened (sources), or S3 is away.
        """
        self._check(name)
        return self._lend(name)

    def read(self, name: str) -> bytes:
        """Return the content of a file, and leave no copy on this machine; raises as ``path``."""
        self._check(name)
        return self._read(name)

    def copy_to(self, folder: Path) -> None:
        """Copy every file into a folder, and make the folder; raises as ``path``."""
        for name in self.names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.path(name), folder / name)

    def _check(self, name: str) -> None:
        if name not in self._known:  # names in a source may identify a person: not quoted
            raise ConfigError(f"no such file in {self._where}; check the name that was asked for")


def open_backend(url: str) -> Backend:
    """Open ``"s3://bucket/prefix"``, ``"file:///folder"`` or the path of a folder."""
    parts = urlsplit(url)
    if parts.scheme == "s3":
        from spira_tasks.artifacts.s3 import Bucket

        return Bucket(parts.netloc, parts.path.strip("/"))
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Folder(Path(unquote(parts.path)))
    if not url or "://" in url:
        raise ConfigError(f"{url!r} is neither a folder nor s3://bucket/prefix")
    return Folder(Path(url))


def open_source(reference: str) -> Directory:
    """Open a place outside the store where data enters: a folder or the prefix of a bucket.

    Hidden files are left out.  A file that changes afterwards is refused when it is asked for.
    Of a folder of snapshots the newest is opened.

    Parameters
    ----------
    reference : str
        ``"folder:<path>"`` or ``"s3://bucket/prefix"``.

    Returns
    -------
    Directory
        Its digest covers names and contents; in a bucket, names, ETags and sizes, so that
        nothing has to be fetched to know it.

    Raises
    ------
    ConfigError
        When the place does not exist, is empty or may not be read.
    """
    place = reference.removeprefix("folder:")
    if place == reference and not reference.startswith("s3://"):
        raise ConfigError(f"{reference!r} is neither folder:<path> nor s3://bucket/prefix")
    backend = open_backend(place)
    try:
        if isinstance(backend, Folder) and not backend.root.is_dir():
            raise ConfigError(f"the folder {backend.root} does not exist; check the path or mount")
        if newest := backend.read(NEWEST):
            return open_source(f"{reference.rstrip('/')}/{_snapshot(newest, reference)}")
        found = [entry for entry in backend.entries("") if not _is_hidden(entry.name)]
        if not found:
            raise ConfigError(f"there are no files in {reference}; check that the data have come")
    except PermissionError as error:
        raise _not_readable(reference) from error
    versions = {entry.name: entry.version for entry in found}
    sizes = {entry.name: entry.size for entry in found}

    @cache
    def identify(name: str) -> str:
        if not isinstance(backend, Folder):  # the service says when content changes
            return f"{versions[name]} {sizes[name]}"
        try:
            return digest_of_file(backend.root / name)
        except PermissionError as error:
            raise _not_readable(reference) from error
        except FileNotFoundError:
            return unchanged(None)

    def digest() -> str:
        identities = zip(versions, in_threads(identify, versions), strict=True)
        return digest_of(canonical_json([*identities]))

    def unchanged(content: T | None) -> T:
        if content is None:
            raise ServiceUnavailable(
                f"a file of {reference} was changed or removed while it was being read; "
                "run the step again once the upload has finished"
            )
        return content

    return Directory(
        digest,
        versions,
        lambda name: unchanged(backend.local(name, versions[name])),
        lambda name: unchanged(backend.read(name, versions[name])),
        identify=identify,
        where=reference,
    )


def put_source(source: Directory, url: str, last: Iterable[str], *, replace: bool) -> int:
    """Copy a folder of recordings to the place where data enters; return how many files are new.

    Parameters
    ----------
    source : Directory
    url : str
        ``"s3://bucket/prefix"``, or the path of a folder.
    last : iterable of str
        Names that are written after all others: a run that begins meanwhile finds no table that
        names a file which is still to come.
    replace : bool
        Whether a file that is there with another content is replaced.

    Raises
    ------
    ConfigError
        When such files are there and ``replace`` is false; nothing is written then.
    """
    backend = open_backend(url)
    there = {entry.name: entry for entry in backend.entries("")}

    def is_there(name: str) -> bool:
        entry, content = there.get(name), source.path(name)
        if entry is None or entry.size != content.stat().st_size:
            return False
        md5 = hashlib.md5(content.read_bytes(), usedforsecurity=False).hexdigest()
        # an upload in parts, and a folder, have another mark
        return entry.version == md5 or backend.read(name) == content.read_bytes()

    compared = progress(source.names, "comparing", len(source.names))
    new = [name for name in compared if not is_there(name)]
    n_other = sum(name in there for name in new)
    if n_other and not replace:
        raise ConfigError(
            f"{n_other} of the {len(source.names)} files are in {url} with another content, and "
            "nothing was written: put the delivery under another prefix, or replace them"
        )
    at_the_end = set(last)
    ordered = sorted(new, key=lambda name: name in at_the_end)
    for name in progress(ordered, "putting", len(ordered)):
        backend.write(name, source.path(name))
    return len(new)


def _not_readable(reference: str) -> ConfigError:
    return ConfigError(
        f"{reference} may not be read by this user; give it permission to read all of it"
    )


def _snapshot(newest: bytes, reference: str) -> str:
    """The name of the snapshot that is the newest."""
    try:
        return re.fullmatch("[0-9a-f]{16}", json.loads(newest)["snapshot"])[0]  # type: ignore[index]
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{NEWEST} in {reference} names no snapshot; write one again") from None


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))
