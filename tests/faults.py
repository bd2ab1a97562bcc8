"""What the tests of faults have in common: a run long enough to be hit, and what it must leave."""

from __future__ import annotations

from conftest import SETTINGS
from production import Run, docker

N_EPOCHS = 15  # long enough to be hit in the middle
STEPS = ("split", "materialize", "train", "evaluate", "register")
SHORT = {name: value for name, value in SETTINGS.items() if name.startswith(STEPS)}
FAULTY = SHORT | {"train.epochs": N_EPOCHS, "train.patience_epochs": N_EPOCHS}
MIDDLE = {"materialize": "materialize: computing", "train": "epoch 3 of"}
Outputs = dict[str, dict[str, str]]


def outputs(run: Run) -> Outputs:
    effects = ("register", "promote")  # their outputs name the version, which counts up
    return {n: r["outputs"] for n, r in run.records().items() if n not in effects}


def nothing_left_running() -> None:
    left = docker("ps", "-q", "--filter", "label=spira.step").stdout.split()
    assert not left, f"{len(left)} containers are still running"
