"""Temporary folders that show whether the process that made them still lives, and locks that do.

A killed step cannot remove its files, and they may hold a person's voice.  So each folder is locked
while its process lives: the kernel releases the lock when the last process that holds it ends.  A
process id would not do, because another process soon has the same one.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from tempfile import gettempdir, mkdtemp

log = logging.getLogger(__name__)

PREFIX = "spira-"
MODELS = f"{PREFIX}models-"  # of a worker, which serves them for months: none is too old
OURS = re.compile(r"spira-(s3-|models-)?[a-z0-9_]{8}")  # as tempfile names what ``make`` asks for
OLD_SECONDS = 24 * 3600  # no step runs this long


@contextmanager
def folder() -> Iterator[Path]:
    """Make an empty folder for the time of a ``with``; only this user may enter it.

    The folders that killed processes left are removed first.
    """
    for left in _folders():
        _remove_free(left)
    path, lock = make()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def make(prefix: str = PREFIX) -> tuple[Path, int]:
    """Make a folder that is locked while this process, or a fork of it, lives.

    Returns its path and an open file descriptor: closing it releases the folder.
    """
    while True:
        path = Path(mkdtemp(prefix=prefix))
        try:
            lock = os.open(path, os.O_RDONLY)
        except FileNotFoundError:  # swept before it was locked
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
        except OSError:  # a file system without locks: ``left_behind`` goes by age alone
            return path, lock
        if path.exists():
            return path, lock
        os.close(lock)


@contextmanager
def alone(what: str, store: str) -> Iterator[None]:
    """Wait until no other process of this user on this machine does the same in the same store.

    The kernel releases the lock of a process that is killed.
    """
    digest = sha256(f"{store}\0{what}".encode()).hexdigest()[:20]
    file = Path(gettempdir()) / f"{PREFIX}lock-{os.getuid()}-{digest}"
    while True:
        lock = os.open(file, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning("%s: another process of this machine is at it; waiting for its end", what)
            fcntl.flock(lock, fcntl.LOCK_EX)
        if os.fstat(lock).st_nlink:  # else the one before has removed the file, and a third made it
            break
        os.close(lock)
    try:
        yield
    finally:
        file.unlink()
        fcntl.flock(lock, fcntl.LOCK_UN)  # closing would leave it to a fork of this process
        os.close(lock)


def left_behind() -> list[Path]:
    """List the files of this machine's killed steps among its temporary files.

    These are all files of a folder without a lock, and old files of a step's locked folder.
    """
    found = []
    for path in _folders():
        with _try_lock(path) as is_free:
            found += _left_files(path, is_free)
    return found


def sweep() -> int:
    """Delete what ``left_behind`` lists, and folders without a lock; return the number of files."""
    n = 0
    for path in _folders():
        with _try_lock(path) as is_free:
            for file in _left_files(path, is_free):
                try:
                    file.unlink()
                    n += 1
                except (FileNotFoundError, PermissionError):  # the step ended, or another user's
                    continue
        _remove_free(path)
    return n


def _remove_free(path: Path) -> None:
    with _try_lock(path) as is_free:  # while it is locked here, no process starts to use it
        if is_free:
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _try_lock(path: Path) -> Iterator[bool]:
    """Lock a folder if no process holds it; yield whether that worked."""
    try:
        lock = os.open(path, os.O_RDONLY)
    except OSError:  # another user's, or gone
        yield False
        return
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # held, or a file system without locks
            yield False
        else:
            yield True
    finally:
        os.close(lock)


def _folders() -> list[Path]:
    found = [path for path in Path(gettempdir()).iterdir() if OURS.fullmatch(path.name)]
    return [path for path in found if path.is_dir() and not path.is_symlink()]


def _left_files(folder: Path, is_free: bool) -> list[Path]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
    is_step = not folder.name.startswith(MODELS)
    return [path for path in files if is_free or (is_step and _is_old(path))]


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > OLD_SECONDS
    except FileNotFoundError:
        return False
