"""Optional packages, installed beside this environment where a test needs them."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from spira_tasks.provenance import ROOT


def pinned(requirements: str) -> list[str]:
    lines = (ROOT / requirements).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def folder_of(requirements: str) -> Path:
    """Where they are kept: they are installed once."""
    return ROOT / ".spira" / "+".join(pinned(requirements))


@contextmanager
def installed(requirements: str) -> Iterator[None]:
    """The packages of a file can be imported for as long as this lasts."""
    folder, packages = folder_of(requirements), pinned(requirements)
    folder.parent.mkdir(exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
            new = folder.with_name(f"{folder.name}.new")
            done = subprocess.run([*pip, str(new), *packages], capture_output=True, check=False)
            if done.returncode:
                pytest.skip(f"{', '.join(packages)} cannot be installed here")
            new.rename(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield
