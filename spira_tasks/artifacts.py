"""The store: content-addressed files, the results that point to them, and small records.

Layout, the same in a folder and in a bucket::

    blobs/ab/<sha256>            one file's content, stored once
    trees/<sha256>.json          one artifact: [[relative path, sha256, size], ...]
    results/<key>.json           the Result of a key; written last, so it is the commit
    memo/ab/<key>.json           a small record of work done for one recording
    runs/<run_id>/<name>.json    what happened in a run; the only files that are overwritten
    corrupt/...                  what was found damaged, moved out of the way

Whoever reads gets the content that the name promises, or an error: damage is never handed on.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from spira_tasks.backends import Backend, Folder
from spira_tasks.blobs import DIGEST, Blobs, damaged, hex_of, sha256_of
from spira_tasks.contract import Result
from spira_tasks.errors import ArtifactCorrupt, ConfigError, ServiceUnavailable

__all__ = ["Blobs", "Directory", "Store", "open_backend", "open_source", "store_url"]

log = logging.getLogger(__name__)

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:+=@~-]{0,199}")
N_THREADS = 16  # they wait for a disk or a network, or hash outside Python's lock

T = TypeVar("T")
R = TypeVar("R")


class Directory:
    """Read-only files by relative name; immutable.

    Attributes
    ----------
    digest : str
        ``"sha256:<hex>"`` of all names and contents.
    names : tuple of str
        Posix relative paths, sorted.
    """

    def __init__(
        self, digest: str, sizes: Mapping[str, int], lend: Callable[[str], Path], where: str
    ) -> None:
        self.digest = digest
        self.names = tuple(sorted(sizes))
        self._sizes = sizes
        self._lend = lend
        self._where = where

    def size(self, name: str) -> int:
        """Return the size of a file in bytes."""
        self._check(name)
        return self._sizes[name]

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

    def _check(self, name: str) -> None:
        if name not in self._sizes:  # names in a source may identify a person: not quoted
            raise ConfigError(f"no such file in {self._where}; check the name that was asked for")


class Store:
    """Artifacts, blobs, results, memory and run records, in a folder or a bucket.

    Parameters
    ----------
    url : str
        The path of a folder, ``"file:///folder"`` or ``"s3://bucket/prefix"``.
    """

    def __init__(self, url: str) -> None:
        self._backend = open_backend(url)
        self.url = self._backend.url
        self.blobs = Blobs(self._backend)

    def put_directory(self, folder: Path) -> str:
        """Store every file under ``folder``; return the digest of the artifact."""
        if not folder.is_dir():
            raise ConfigError(f"{folder} is not a folder: there is no output to store")
        files = Folder(folder).entries("")
        digests = _in_threads(
            lambda file: self.blobs.put_file(folder / file.name, file.size), files
        )
        tree = [
            [file.name, hex_of(digest), file.size]
            for file, digest in zip(files, digests, strict=True)
        ]
        content = _json(tree)
        sha256 = hashlib.sha256(content).hexdigest()
        name = f"trees/{sha256}.json"
        entry = self._backend.find(name)
        if entry is None or entry.size != len(content):
            self._backend.write(name, content)
        return f"sha256:{sha256}"

    def directory(self, digest: str) -> Directory:
        """Open an artifact; its files are verified one by one when they are asked for."""
        tree = self._tree(digest)
        if tree is None:
            raise ConfigError(f"there is no artifact {digest} in {self.url}; check the digest")
        digests = {name: f"sha256:{sha256}" for name, sha256, _ in tree}
        return Directory(
            digest,
            {name: size for name, _, size in tree},
            lambda name: self.blobs.path(digests[name]),
            f"artifact {digest}",
        )

    def find_result(self, key: str) -> Result | None:
        """Return the result of ``key``, or None when it has to be computed (again).

        A result counts only while every file of every output is there in its full size.  Content
        is not read here: it is verified when it is used.
        """
        record = self._record(f"results/{_checked(key)}.json")
        if record is None:
            return None
        result = Result.from_json(json.dumps(record))
        missing = [name for name, digest in result.outputs.items() if not self._is_whole(digest)]
        if missing:
            log.warning("result %s: files of %s are missing in the store", key[:12], missing)
            return None
        return result

    def save_result(self, result: Result) -> None:
        """Commit a result, after its outputs are stored.  One that is already there stays."""
        name = f"results/{_checked(result.key)}.json"
        content = result.to_json().encode()
        if not self._backend.write_once(name, content) and self.find_result(result.key) is None:
            self._backend.write(name, content)  # the one that is there has lost its outputs

    def recall(self, key: str) -> dict[str, Any] | None:
        """Return what was memorized under ``key``, or None when there is nothing to rely on.

        A record whose blobs are no longer whole is forgotten, so that they are made again.
        """
        memo = self._record(_memo(key))
        if memo is None:
            return None
        if any(self.blobs.size(digest) != size for digest, size in memo["blobs"].items()):
            return None
        return dict(memo["record"])

    def memorize(self, key: str, record: Mapping[str, Any]) -> None:
        """Keep a small JSON record, and which blobs it mentions by digest."""
        content = _json(record)
        mentioned = sorted({found[0] for found in DIGEST.finditer(content.decode())})
        sizes = {digest: self.blobs.size(digest) for digest in mentioned}
        blobs = {digest: size for digest, size in sizes.items() if size is not None}
        self._backend.write(_memo(key), _json({"record": record, "blobs": blobs}))

    def write_record(self, run_id: str, name: str, record: Mapping[str, Any]) -> None:
        """Write ``runs/<run_id>/<name>.json`` over what was there, whole or not at all."""
        self._backend.write(f"runs/{_checked(run_id)}/{_checked(name)}.json", _json(record))

    def read_record(self, run_id: str, name: str) -> dict[str, Any] | None:
        """Return a record of a run, or None when there is none."""
        return self._record(f"runs/{_checked(run_id)}/{_checked(name)}.json")

    def record_names(self, run_id: str) -> list[str]:
        """Return the names of the records of a run, sorted."""
        folder = f"runs/{_checked(run_id)}"
        names = [entry.name.removeprefix(f"{folder}/") for entry in self._backend.entries(folder)]
        return sorted(name.removesuffix(".json") for name in names)

    def run_ids(self) -> list[str]:
        """Return the runs that have left a record, the one that last wrote one at the end."""
        newest: dict[str, float] = {}
        for entry in self._backend.entries("runs"):
            run_id = entry.name.split("/")[1]
            newest[run_id] = max(entry.modified, newest.get(run_id, 0.0))
        return sorted(newest, key=lambda run_id: (newest[run_id], run_id))

    def _tree(self, digest: str) -> list[tuple[str, str, int]] | None:
        name = f"trees/{hex_of(digest)}.json"
        content = self._backend.read(name)
        if content is None:
            return None
        if hashlib.sha256(content).hexdigest() != hex_of(digest):
            raise damaged(self._backend, name)
        return [(name, sha256, size) for name, sha256, size in json.loads(content)]

    def _is_whole(self, digest: str) -> bool:
        try:
            tree = self._tree(digest)
        except ArtifactCorrupt as error:
            log.warning("%s", error)  # it has been set aside: the same as missing
            return False
        if tree is None:
            return False
        sizes = _in_threads(lambda file: self.blobs.size(f"sha256:{file[1]}"), tree)
        return sizes == [size for _, _, size in tree]

    def _record(self, name: str) -> dict[str, Any] | None:
        content = self._backend.read(name)
        if content is None:
            return None
        try:
            return dict(json.loads(content))
        except ValueError:  # a power loss can leave a file empty: the same as none
            log.warning("%s in %s is not JSON; set aside", name, self.url)
            self._backend.set_aside(name)
            return None


def open_backend(url: str) -> Backend:
    """Open ``"s3://bucket/prefix"``, ``"file:///folder"`` or the path of a folder."""
    parts = urlsplit(url)
    if parts.scheme == "s3":
        from spira_tasks.s3 import Bucket

        return Bucket(parts.netloc, parts.path.strip("/"))
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Folder(Path(unquote(parts.path)))
    if not url or "://" in url:
        raise ConfigError(f"{url!r} is neither a folder nor s3://bucket/prefix")
    return Folder(Path(url))


def open_source(reference: str) -> Directory:
    """Open a place outside the store where data enters: a folder or the prefix of a bucket.

    Hidden files are left out.  A file that changes afterwards is refused when it is asked for.

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
        found = [entry for entry in backend.entries("") if not _is_hidden(entry.name)]
        if not found:
            raise ConfigError(f"there are no files in {reference}; check that the data have come")
        if isinstance(backend, Folder):
            root = backend.root
            contents = _in_threads(lambda entry: sha256_of(root / entry.name), found)
            identity: list[list[Any]] = [
                [e.name, sha256] for e, sha256 in zip(found, contents, strict=True)
            ]
        else:
            identity = [[entry.name, entry.version, entry.size] for entry in found]
    except PermissionError as error:
        raise ConfigError(
            f"{reference} may not be read by this user; give it permission to read all of it"
        ) from error
    versions = {entry.name: entry.version for entry in found}

    def lend(name: str) -> Path:
        path = backend.local(name, versions[name])
        if path is None:
            raise ServiceUnavailable(
                f"a file of {reference} was changed or removed while it was being read; "
                "run the step again once the upload has finished"
            )
        return path

    digest = f"sha256:{hashlib.sha256(_json(identity)).hexdigest()}"
    return Directory(digest, {entry.name: entry.size for entry in found}, lend, reference)


def store_url() -> str:
    """Where the store is: SPIRA_STORE, by default a folder of the working directory."""
    return os.environ.get("SPIRA_STORE") or ".spira/store"


def _in_threads(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    with ThreadPoolExecutor(N_THREADS) as pool:
        return list(pool.map(function, items))


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _json(value: Any) -> bytes:
    """Canonical JSON: one value has one text, hence one digest."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _checked(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot name a record of the store: up to 200 letters, digits and "
            "_ . : + = @ ~ - are allowed, and no leading dot"
        )
    return name


def _memo(key: str) -> str:
    return f"memo/{_checked(key)[:2]}/{key}.json"
