"""Both queues through kills of whoever puts, of the worker and of the server."""

from __future__ import annotations

import subprocess
import sys

import pytest

from spira_tasks.provenance import ROOT


@pytest.mark.slow
def test_a_kill_of_any_part_loses_no_message() -> None:
    command = [sys.executable, "benchmarks/queues.py", "--kills", "3", "--pairs", "1"]
    done = subprocess.run(
        [*command, "--seconds", "0.1"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    lost = {line[0]: line[3] for line in lines if line[0] in ("SQLite", "JetStream")}
    assert lost == {"SQLite": "0", "JetStream": "0"}
    assert "never retrieved" not in done.stderr
