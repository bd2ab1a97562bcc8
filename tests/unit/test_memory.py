"""A training that does not fit is refused before it starts, and one that fits is not."""

from __future__ import annotations

import subprocess
import sys

import pandas as pd
import pytest
import torch

from spira_tasks.errors import ConfigError
from spira_tasks.speech import memory
from spira_tasks.speech.classifier import Classifier, ClassifierSpec
from spira_tasks.speech.features import FeatureSpec
from spira_tasks.speech.model import SpiraConv
from spira_tasks.stages import train

SPEC = FeatureSpec()
# A limit as `ulimit -d` or a batch system sets it; 100 and 8 windows, and then the real thing.
PROGRAM = """
import resource, torch
from spira_tasks.errors import ConfigError
from spira_tasks.speech import cpu, memory
from spira_tasks.speech.features import FeatureSpec
from spira_tasks.speech.model import SpiraConv

cpu.prepare(1)
network = SpiraConv(401, 40)
network.plain(torch.randn(1, 401, 40)).sum().backward()
used = memory._proc("/proc/self/status")["VmData"]
resource.setrlimit(resource.RLIMIT_DATA, (used + 400 * 2**20,) * 2)
for n_windows in (8, 100):
    need = memory.needed(network, FeatureSpec(), n_windows=n_windows, n_samples=0)
    try:
        memory.check(need, "cpu")
        print(n_windows, "accepted")
    except ConfigError as error:
        print(n_windows, error)
    try:
        network.plain(torch.randn(n_windows, 401, 40)).sum().backward()
        print("done")
    except RuntimeError as error:
        print(type(error).__name__, "allocate memory" in str(error))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the limits of Linux")
def test_what_a_real_limit_cannot_hold_is_refused_and_what_it_can_is_not() -> None:
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    accepted, done, refused, failed = process.stdout.splitlines()
    assert (accepted, done, failed) == ("8 accepted", "done", "RuntimeError True")
    assert "for activations of the 100 windows of a step" in refused
    assert "make train.batch_size smaller" in refused


def test_the_estimate_counts_what_is_held_and_leaves_the_network_as_it_is() -> None:
    torch.manual_seed(1)
    network = SpiraConv(401, 40, "spiraconv_v1")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.random.get_rng_state()
    few, many = (
        sum(memory.needed(network, SPEC, n_windows=n, n_samples=0, held=7).values())
        for n in (5, 10)
    )
    assert few < many < 2 * few
    assert torch.equal(state, torch.random.get_rng_state())
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    with pytest.raises(ConfigError, match="MiB of memory") as refused:
        memory.check({"recordings that are held": 2**60, "weights": 2**20, "other": 0}, "cpu")
    assert "(1,099,511,627,776 for recordings that are held, 1 for weights)" in str(refused.value)


def test_the_estimate_counts_the_recordings_and_the_noise_that_this_device_holds() -> None:
    """A GPU holds a quarter of what is free of the recordings to train on, and of the others."""
    classifier = Classifier(ClassifierSpec("SENTENCE", SPEC, "logistic"))
    names = [f"r{number}" for number in range(1000)]
    features = pd.DataFrame({"record_id": names, "n_windows": 7})
    tables = features[:800], features[800:]
    seconds = SPEC.window_seconds + 6 * SPEC.step_seconds
    n_bytes = int(2 * seconds * SPEC.sample_rate_hz)  # of one recording

    def held(most_bytes: int, *bank: torch.Tensor) -> int:
        holds = [(table, most_bytes) for table in tables]
        parts = train.needed(classifier, train.Config(), holds, features, bank)
        return parts["recordings, ward noise and features that are held"]

    room = 100 * n_bytes
    assert held(room) == held(0) + 2 * room
    assert held(10 * room) == held(0) + 1000 * n_bytes
    noises = torch.zeros(10), torch.zeros(30)
    assert held(0, *noises) == held(0) + 2 * 2 * 30 * 4
