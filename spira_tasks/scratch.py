"""Folders for temporary files that tell whether whoever asked for them still lives.

A step that is killed cannot tidy up after itself, and what it leaves may be a person's voice.  So
its folder is locked while it lives: the kernel lets go of the lock when the last process that holds
it ends, however it ends, which a number of a process, soon another's, would not tell.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir, mkdtemp

PREFIX = "spira-"
OURS = re.compile(r"spira-(s3-)?[a-z0-9_]{8}")  # as tempfile names what ``make`` asks for
OLD_SECONDS = 24 * 3600  # a step's temporary files this old have no step


@contextmanager
def folder() -> Iterator[Path]:
    """An empty folder for the time of a ``with``; only this user may enter it."""
    path, lock = make()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def make(prefix: str = PREFIX) -> tuple[Path, int]:
    """Make a folder that is locked while this process, or a fork of it, lives.

    Returns
    -------
    path : Path
    lock : int
        An open file descriptor: closing it lets go of the folder.
    """
    while True:
        path = Path(mkdtemp(prefix=prefix))
        try:
            lock = os.open(path, os.O_RDONLY)
        except FileNotFoundError:  # swept before it was locked
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
        except OSError:  # a file system without locks: age alone will tell
            return path, lock
        if path.exists():
            return path, lock
        os.close(lock)


def left_behind() -> list[Path]:
    """The files that killed steps of this machine left among its temporary files.

    All files of a folder that nobody holds, and old files of one that somebody does.
    """
    found = []
    for place in _places():
        with _alone(place) as is_dead:
            found += _going(place, is_dead)
    return found


def sweep() -> int:
    """Delete what ``left_behind`` finds, and the folders that nobody holds; count the files."""
    n = 0
    for place in _places():
        with _alone(place) as is_dead:  # while it is ours, nobody begins to work in it
            for path in _going(place, is_dead):
                try:
                    path.unlink()
                    n += 1
                except (FileNotFoundError, PermissionError):  # its step ended, or another user's
                    continue
            if is_dead:
                shutil.rmtree(place, ignore_errors=True)
    return n


@contextmanager
def _alone(place: Path) -> Iterator[bool]:
    """Hold a folder if nobody else does, and say so; one that cannot be asked counts as held."""
    try:
        lock = os.open(place, os.O_RDONLY)
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


def _places() -> list[Path]:
    there = [path for path in Path(gettempdir()).iterdir() if OURS.fullmatch(path.name)]
    return [path for path in there if path.is_dir() and not path.is_symlink()]


def _going(place: Path, is_dead: bool) -> list[Path]:
    files = [path for path in sorted(place.rglob("*")) if path.is_file() and not path.is_symlink()]
    return [path for path in files if is_dead or _is_old(path)]


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > OLD_SECONDS
    except FileNotFoundError:
        return False
