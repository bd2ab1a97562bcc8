"""The Docker engine itself goes down in the middle of a training."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from faults import FAULTY, MIDDLE, Reference, nothing_left_running, outputs
from production import Production

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.alone]


def test_the_engine_is_restarted(platform: Production, reference: Reference) -> None:
    """Everything goes down with it, Airflow too, and comes back by itself."""
    oldest = ["pgrep", "-o", "-x", "dockerd"]
    pid = int(subprocess.run(oldest, capture_output=True, text=True, check=True).stdout)
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().rstrip("\0").split("\0")
    reference.forget("train")
    run = platform.trigger_faulty("engine-restarted", **FAULTY)
    run.wait_for_line("train", MIDDLE["train"])
    os.kill(pid, signal.SIGTERM)
    while Path(f"/proc/{pid}").exists() and Path(f"/proc/{pid}/status").read_text().find("Z (") < 0:
        time.sleep(0.2)
    with Path("/tmp/dockerd-restarted.log").open("a") as log:
        subprocess.run(["setsid", "--fork", *words], stdout=log, stderr=log, check=True)
    time.sleep(3)
    run.wait()
    assert outputs(run) == reference.outputs
    states = run.states
    assert all(states[name] == ("success", 1) for name in ("split", "materialize")), states
    assert states["train"][1] > 1
    nothing_left_running()
