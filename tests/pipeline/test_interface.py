"""The interface answers as it describes itself, whatever is sent."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks import interface
from spira_tasks.provenance import ROOT


@pytest.mark.slow
def test_no_answer_is_a_fault_of_the_server_or_other_than_described() -> None:
    try:
        interface.installed()
    except subprocess.CalledProcessError:
        pytest.skip(f"{interface.PINNED} cannot be installed here")
    command = [sys.executable, "benchmarks/interface.py", "--examples", "10"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "No issues found" in done.stdout
