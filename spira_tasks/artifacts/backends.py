"""What the store asks of the place where its files are, and the simplest place: a folder.

A backend (a folder here, a bucket in ``s3``) knows a few operations on names such as
``blobs/ab/abcd…`` and does not know what the names mean.  A file appears under its name whole or
not at all, whatever kills the writer.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol, TypeAlias
from uuid import uuid4

from spira_tasks.errors import ConfigError, ServiceUnavailable

ABANDONED_SECONDS = 24 * 3600  # nothing is written for a day: what is older in tmp/ has no writer
CHUNK_BYTES = 1 << 20
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # or a limit of files is reached
NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:+=@~-]{0,199}")

Content: TypeAlias = bytes | memoryview | Path  # what is written: it, or a local file that has it

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """One stored file: ``version`` changes when its content does; ``modified`` is Unix time."""

    name: str
    size: int
    modified: float
    version: str


class Backend(Protocol):
    """What the store asks of the place where its files are.  Names are posix relative paths."""

    url: str

    def read(self, name: str, version: str | None = None) -> bytes | None:
        """Return the content; None when there is no such file or it is no longer ``version``."""

    def read_range(self, name: str, offset: int, size: int, *, keep: bool = False) -> bytes | None:
        """Return ``size`` bytes of a file; None when there is no such file or it is shorter.

        ``keep``: they will be read again, so a copy may stay on this machine while it has room.
        """

    def local(self, name: str, version: str | None = None) -> Path | None:
        """Return a file on this machine to read; None when gone or no longer ``version``."""

    def find(self, name: str) -> Entry | None:
        """Look at one file without reading it."""

    def entries(self, prefix: str) -> list[Entry]:
        """List all files below the folder ``prefix`` (``""`` for all), sorted by name."""

    def write(self, name: str, content: Content, *, durable: bool = False) -> None:
        """Write bytes, or the content of a local file, over whatever is there.

        ``durable``: not only the end of this process, but a power loss too leaves the file whole.
        """

    def write_once(self, name: str, content: bytes) -> bool:
        """Write, unless the file exists already; say whether it was written."""

    def set_aside(self, name: str) -> None:
        """Move a file under ``corrupt/``; do nothing when another process already did."""

    def delete(self, name: str) -> None:
        """Remove a file; do nothing when there is none."""


class Folder:
    """Files below a folder.  They are made read-only, and lent to readers without a copy."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self.url = str(self.root)
        self._ready = False
        if self.root.exists() and not self.root.is_dir():
            raise ConfigError(f"{self.root} is a file; name a folder")

    def read(self, name: str, version: str | None = None) -> bytes | None:
        if version is not None and self.local(name, version) is None:
            return None
        try:
            return (self.root / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read_range(self, name: str, offset: int, size: int, *, keep: bool = False) -> bytes | None:  # noqa: ARG002
        try:
            descriptor = os.open(self.root / name, os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            content = os.pread(descriptor, size, offset)
        finally:
            os.close(descriptor)
        return content if len(content) == size else None

    def local(self, name: str, version: str | None = None) -> Path | None:
        entry = self.find(name)
        if entry is None or version not in (None, entry.version):
            return None
        return self.root / name

    def find(self, name: str) -> Entry | None:
        try:
            status = (self.root / name).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        version = f"{status.st_mtime_ns}-{status.st_size}"
        return Entry(name, status.st_size, status.st_mtime, version)

    def entries(self, prefix: str) -> list[Entry]:
        if not (self.root / prefix).is_dir():
            return []
        found, n_left_out = [], 0
        inside = self.root.resolve()
        for folder, folders, files in os.walk(self.root / prefix, onerror=_raise):
            here = Path(folder)
            if any((here / name).is_symlink() for name in folders):
                raise ConfigError(
                    f"{self.root} holds links to folders, which are not followed; "
                    "mount or copy the folders themselves"
                )
            for name in files:
                if (here / name).is_symlink():
                    target = Path(os.path.realpath(here / name))
                    if not (target.is_relative_to(inside) and target.is_file()):
                        n_left_out += 1
                        continue
                entry = self.find((here / name).relative_to(self.root).as_posix())
                if entry is not None:  # else set aside by another process meanwhile
                    found.append(entry)
        if n_left_out:
            log.warning(
                "%d links in %s lead out of it, or nowhere, and are left out; copy the files there",
                n_left_out,
                self.root,
            )
        return sorted(found, key=lambda entry: entry.name)

    def write(self, name: str, content: Content, *, durable: bool = False) -> None:
        target = self.root / name
        with self._whole_file(content, durable=durable) as temporary:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.replace(target)
        if durable:
            _flush_folder(target.parent)

    def write_once(self, name: str, content: bytes) -> bool:
        target = self.root / name
        with self._whole_file(content, durable=True) as temporary:
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                target.hardlink_to(temporary)  # unlike a rename, refuses to replace
            except FileExistsError:
                return False
            _flush_folder(target.parent)
        return True

    def set_aside(self, name: str) -> None:
        target = self.root / "corrupt" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # another process set it aside first
            (self.root / name).replace(target)

    def delete(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)

    @contextmanager
    def _whole_file(self, content: Content, *, durable: bool = False) -> Iterator[Path]:
        """Lend a complete read-only file under ``tmp/``, to be moved to its name."""
        temporary = self.root / "tmp" / uuid4().hex
        try:
            self._prepare()
            with temporary.open("xb") as file:
                if isinstance(content, Path):
                    with content.open("rb") as source:
                        shutil.copyfileobj(source, file, CHUNK_BYTES)
                else:
                    file.write(content)
                os.fchmod(file.fileno(), 0o444)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            yield temporary
        except OSError as error:
            if error.errno in FULL:
                raise ServiceUnavailable(
                    f"the disk of the store {self.root} is full; free some space, then run it again"
                ) from error
            if error.errno in NOT_WRITABLE:
                raise ConfigError(
                    f"cannot write to the store {self.root} ({error.strerror}); make it writable "
                    "for this user, or choose another folder by SPIRA_STORE"
                ) from error
            if isinstance(error, FileNotFoundError) and not temporary.parent.is_dir():
                raise ServiceUnavailable(
                    f"the folder of the store {self.root} has gone; mount its disk again"
                ) from error
            raise
        finally:
            # What cannot be removed now, _prepare removes later; the error above counts.
            with suppress(OSError):
                temporary.unlink()

    def _prepare(self) -> None:
        """Make ``tmp/`` and remove what killed writers left there, once per process.

        A store that is new is closed to other users, for it holds voices; the mode of a folder
        that is there already is its owner's choice.
        """
        if self._ready:
            return
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = self.root / "tmp"
        folder.mkdir(exist_ok=True)
        for left in folder.iterdir():
            with suppress(FileNotFoundError):  # another process removed or moved it
                if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                    left.unlink()
        self._ready = True


def checked(name: str) -> str:
    """Return a name that may be part of a path; ConfigError for any other."""
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot name a record of the store: up to 200 letters, digits and "
            "_ . : + = @ ~ - are allowed, and no leading dot"
        )
    return name


def _raise(error: OSError) -> NoReturn:
    raise error  # os.walk would leave an unreadable folder out without a word


def _flush_folder(folder: Path) -> None:
    """Make a new name in ``folder`` survive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
