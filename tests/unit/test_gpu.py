"""The script of what only a GPU can show says so where there is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: run benchmarks/gpu.py")
def test_without_a_gpu_it_refuses_and_writes_nothing() -> None:
    process = subprocess.run(
        [sys.executable, "benchmarks/gpu.py"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert process.returncode == 2
    assert process.stderr.startswith("torch sees no GPU here: run it where one is")
    assert not process.stdout
    assert not (ROOT / "benchmarks" / "gpu.json").exists()
