"""The store: content-addressed files, the results that point to them, and small records.

Layout, the same in a folder and in a bucket::

    blobs/ab/<sha256>               one file's content, stored once; or a pack of many contents
    trees/<sha256>.json             one artifact: [[relative path, sha256, size], ...]
    results/<key>.json              the Result of a key; written last, so it is the commit
    memo/<sha256>.json              index of a pack: where each content is, and what was done
    locks/packs.json                who writes packs anew, while it does
    runs/<run_id>/<name>.json       what happened in a run
    checkpoints/<key>.safetensors   the state of unfinished work on the result of a key, sealed
    decisions/<kind>/<id>.json      what people decided: releases, waivers, erasures
    audit/<number>.json             the audit log, each event with the hash of the one before
    evidence/<kind>/<recipe>.json   what experiments found about a recipe, sealed
    history.json                    the events of decisions so far, sealed: a part of the log
    erasures/<tag>.json             the journal of an erasure that is not finished
    redactions/<sha256>.json        which table took the place of one that held an erased subject
    certificates/<tag>.json         what was erased, signed
    corrupt/...                     what was found damaged, moved out of the way

Only runs and checkpoints are overwritten, and only checkpoints are deleted: once the result is
there.  Deleting one by hand costs time and nothing else.  Two of ``spira_tasks.governance``
delete what is finished: ``erasure``, on a person's demand, and ``retention``, by age.

A reader gets the content that the name promises, or an error: damage is never handed on.  What is
not named by its content, results, memory and runs, is sealed (``sealed``).
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict
from pathlib import Path

from spira_tasks.artifacts import sealed
from spira_tasks.artifacts.backends import Entry, Folder, checked
from spira_tasks.artifacts.blobs import (
    Blobs,
    canonical_json,
    digest_of,
    hex_of,
    in_threads,
    set_aside,
)
from spira_tasks.artifacts.documents import Checkpoint, Documents, Runs
from spira_tasks.artifacts.packs import Packs
from spira_tasks.artifacts.sources import Directory, open_backend, open_source, put_source
from spira_tasks.contract.record import Result
from spira_tasks.errors import ArtifactCorrupt, ConfigError

__all__ = [
    "Blobs",
    "Checkpoint",
    "Directory",
    "Documents",
    "Packs",
    "Store",
    "open_source",
    "put_source",
    "store_url",
]

log = logging.getLogger(__name__)


class Store:
    """Artifacts, blobs, results, memory and run records, in a folder or a bucket.

    ``url`` is the path of a folder, ``"file:///folder"`` or ``"s3://bucket/prefix"``.
    """

    def __init__(self, url: str) -> None:
        self._backend = open_backend(url)
        self.url = self._backend.url
        self.blobs = Packs(self._backend)
        self.documents = Documents(self._backend)
        self.runs = Runs(self._backend)

    @property
    def folder(self) -> Path:
        """Where things beside the store are kept: its own folder; for a bucket, ``.spira``."""
        return Path(".spira") if "://" in self.url else Path(self.url)

    @property
    def tracking_uri(self) -> str:
        """Where MLflow is: MLFLOW_TRACKING_URI, or an SQLite file beside the store's folders."""
        file = self.folder.resolve() / "mlflow" / "mlflow.db"
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{file}"

    def put_directory(self, folder: Path) -> str:
        """Store every file under ``folder``; return the digest of the artifact."""
        if not folder.is_dir():
            raise ConfigError(f"{folder} is not a folder: there is no output to store")
        entries = Folder(folder).entries("")
        digests = in_threads(lambda entry: self.blobs.put_file(folder / entry.name), entries)
        tree = [(e.name, hex_of(d), e.size) for e, d in zip(entries, digests, strict=True)]
        content = canonical_json(tree)
        digest = digest_of(content)
        entry = self._backend.find(_tree_name(digest))
        if entry is None or entry.size != len(content):
            self._backend.write(_tree_name(digest), content)
        return digest

    def directory(self, digest: str) -> Directory:
        """Open an artifact; its files are verified one by one when they are asked for."""
        tree = self._tree(digest)
        if tree is None:
            raise ConfigError(f"there is no artifact {digest} in {self.url}; check the digest")
        digests = {name: f"sha256:{sha256}" for name, sha256, _ in tree}
        return Directory(
            lambda: digest,
            digests,
            lambda name: self.blobs.path(digests[name]),
            lambda name: self.blobs.read(digests[name]),
            identify=lambda name: digests[name],
            where=f"artifact {digest}, which holds {sorted(digests)[:10]}",
        )

    def find_result(self, key: str) -> Result | None:
        """Return the result of ``key``, or None when it has to be computed (again).

        A result counts only while every file of every output is there in its full size.  Content
        is not read here: it is verified when it is used.
        """
        result = sealed.read(self._backend, _result(key), Result.from_json)
        if result is None:
            return None
        missing = [name for name, digest in result.outputs.items() if not self._is_whole(digest)]
        if missing:
            log.warning("result %s: files of %s are missing in the store", key[:12], missing)
            return None
        return result

    def save_result(self, result: Result) -> None:
        """Commit a result, after its outputs are stored.  One that is already there stays."""
        name = _result(result.key)
        content = sealed.sealed(name, asdict(result))
        if not self._backend.write_once(name, content) and self.find_result(result.key) is None:
            self._backend.write(name, content)  # the one that is there has lost its outputs

    def forget_result(self, key: str) -> None:
        """Set a result aside, so that it is computed again."""
        self._backend.set_aside(_result(key))

    def checkpoint(self, key: str, *, read_only: bool = False) -> Checkpoint:
        """Where work on the result of ``key`` keeps its state until it is finished."""
        return Checkpoint(self._backend, checked(key), read_only=read_only)

    def files(self, digest: str) -> dict[str, str]:
        """The files of an artifact: name to digest, whether their content is still there or not."""
        return {name: f"sha256:{sha256}" for name, sha256, _ in self._tree(digest) or ()}

    def entries(self, folder: str) -> list[Entry]:
        """Everything that is stored below a folder of the layout above (``""`` for all)."""
        return self._backend.entries(folder)

    def read(self, name: str) -> bytes | None:
        """The content of one entry, unverified; None when it is gone."""
        return self._backend.read(name)

    def delete(self, name: str) -> None:
        """Remove one entry for good; do nothing when it is gone."""
        self._backend.delete(name)

    def _tree(self, digest: str) -> list[tuple[str, str, int]] | None:
        content = self._backend.read(_tree_name(digest))
        if content is None:
            return None
        if digest_of(content) != digest:
            raise set_aside(self._backend, _tree_name(digest))
        return [(name, sha256, size) for name, sha256, size in json.loads(content)]

    def _is_whole(self, digest: str) -> bool:
        try:
            tree = self._tree(digest)
        except ArtifactCorrupt as error:
            log.warning("%s", error)  # it has been set aside: the same as missing
            return False
        if tree is None:
            return False
        sizes = in_threads(lambda file: self.blobs.size(f"sha256:{file[1]}"), tree)
        return sizes == [size for _, _, size in tree]


def store_url() -> str:
    """Where the store is: SPIRA_STORE, by default a folder of the working directory."""
    return os.environ.get("SPIRA_STORE") or ".spira/store"


def _tree_name(digest: str) -> str:
    return f"trees/{hex_of(digest)}.json"


def _result(key: str) -> str:
    return f"results/{checked(key)}.json"
