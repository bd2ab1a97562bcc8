"""What the tests of faults have in common: a run long enough to be hit, and what it must leave."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from production import Production, Run, docker
from small_run import SETTINGS

N_EPOCHS = 15  # long enough to be hit in the middle
STEPS = ("split", "materialize", "train", "evaluate", "register")
SHORT = {name: value for name, value in SETTINGS.items() if name.startswith(STEPS)}
FAULTY = SHORT | {"train.epochs": N_EPOCHS, "train.patience_epochs": N_EPOCHS}
MIDDLE = {"materialize": "materialize: computing", "train": "epoch 3 of"}
Outputs = dict[str, dict[str, str]]


def outputs(run: Run) -> Outputs:
    effects = ("register", "promote")  # their outputs name the version, which counts up
    return {n: r["outputs"] for n, r in run.records().items() if n not in effects}


@dataclass(frozen=True)
class AtWork:
    """A container of a step, looked at from outside while it worked."""

    details: dict[str, Any]
    status: str
    reached: dict[tuple[str, int], bool]


def looked_at(container: str, platform: Production) -> AtWork:
    """What a container is given, and which of the platform's addresses it can connect to."""
    addresses = [
        *(("s3", port) for port in (8333, 8080, 8888, 9333)),
        *(("mlflow", 5000), ("postgres", 5432), ("airflow-apiserver", 8080), ("192.0.2.1", 80)),
        (platform.address_of("postgres"), 5432),
        (platform.address_of("airflow-apiserver"), 8080),
    ]
    program = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def reached(address):
    try:
        socket.create_connection(address, 3).close()
        return True
    except OSError:
        return False
addresses = [tuple(one) for one in json.loads(sys.argv[1])]
with ThreadPoolExecutor(len(addresses)) as pool:  # the training ends while many are waited for
    print(json.dumps(list(pool.map(reached, addresses))))
"""
    details = json.loads(docker("inspect", container).stdout)[0]
    status = docker("exec", container, "cat", "/proc/self/status").stdout
    soon = ("-e", "RES_OPTIONS=timeout:2 attempts:1")  # for names that nobody knows
    command = ("python", "-c", program, json.dumps(addresses))
    answered = docker("exec", *soon, container, *command).stdout
    return AtWork(details, status, dict(zip(addresses, json.loads(answered), strict=True)))


@dataclass(frozen=True)
class Reference:
    """The run of what faults are injected into, without one: every other has to end as it did."""

    platform: Production
    outputs: Outputs
    keys: dict[str, str]
    at_work: AtWork  # its training

    def forget(self, *steps: str) -> None:
        """Let the next run compute some steps anew; it finds the others."""
        names = [f"results/{self.keys[step]}.json" for step in steps]
        if "materialize" in steps:  # its memory, and so the places of the features; no waveforms
            names += self.platform.mentioning("memo/", b'"features":"sha256:')
        self.platform.remove(*names, "checkpoints/")


def nothing_left_running() -> None:
    left = docker("ps", "-q", "--filter", "label=spira.step").stdout.split()
    assert not left, f"{len(left)} containers are still running"
