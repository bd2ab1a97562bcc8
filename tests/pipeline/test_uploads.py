"""A server that is killed while devices send, and connections that are cut."""

from __future__ import annotations

import subprocess
import sys

import pytest

from spira_tasks.provenance import ROOT


@pytest.mark.slow
def test_through_cuts_and_kills_nothing_is_lost_doubled_or_given_to_another() -> None:
    command = [sys.executable, "benchmarks/uploads.py", "--sessions", "12", "--burst", "4"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    cuts, again, burst, _ = done.stdout.splitlines()
    assert cuts.startswith("48 cuts, ")
    assert " 0 kills" not in cuts
    assert cuts.endswith("0 lost, 0 twice, 0 files of another session")
    assert again.startswith("0.00 %")
    assert burst.endswith("0 lost, 0 twice, 0 files of another session")
