"""See to it that no process outlives whoever started it.

``keep`` starts a keeper in a session of its own.  Keeper and starter are both told when their
parent ends, and inherit the processes whose own parents end (Linux calls it a child subreaper), so
whatever a server starts, however deep, has one of them as an ancestor.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess

import psutil

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
STOP_SECONDS = 15.0


def keep(command: list[str]) -> int:
    """Run a keeper, hand signals on to it, and return its exit status."""
    end_with_parent()
    inherit_orphans()
    keeper = subprocess.Popen(command, start_new_session=True)

    def stop(signum: int, frame: object) -> None:
        keeper.terminate()

    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, stop)
    status = keeper.wait()
    kill()  # nothing is left, unless the keeper was killed
    return status if status >= 0 else 1


def end_with_parent() -> None:
    """Get SIGTERM when the process that started this one ends, whatever ended it."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise SystemExit(1)  # it has ended meanwhile


def inherit_orphans() -> None:
    """Become the parent of processes whose own parent ends, so that none is lost sight of."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def end(processes: list[subprocess.Popen[bytes]]) -> None:
    """Ask processes to end, and wait for them for a while."""
    asked = [psutil.Process(one.pid) for one in processes if one.poll() is None]
    for process in asked:
        process.terminate()
    psutil.wait_procs(asked, timeout=STOP_SECONDS)


def end_running(arguments: list[str]) -> None:
    """Ask descendants to end whose command line goes on with ``arguments``; wait for a while."""
    asked = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.cmdline()[1 : 1 + len(arguments)] == arguments:
                process.terminate()
                asked.append(process)
        except psutil.NoSuchProcess:
            continue  # it has just ended
    psutil.wait_procs(asked, timeout=STOP_SECONDS)


def kill() -> None:
    """Kill all descendants, and those that they leave to us, until there are none."""
    while processes := psutil.Process().children(recursive=True):
        for process in processes:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(processes, timeout=5)
