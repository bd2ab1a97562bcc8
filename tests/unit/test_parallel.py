"""Two processes train what one process trains."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from spira_tasks.errors import ServiceUnavailable
from spira_tasks.speech import cpu, parallel
from spira_tasks.speech.model import SpiraConv
from spira_tasks.stages import train

FEATURES = torch.randn(10, 3, 61, 10, generator=torch.Generator().manual_seed(4))
N_WINDOWS = (1, 3, 2, 1, 2, 3, 1, 1, 2, 3)  # the windows of each recording: never equal shares
HERE = Path(__file__)


def trained() -> list[float]:
    """Weights after two epochs of three steps; the last step of an epoch has fewer recordings."""
    cpu.prepare(n_threads=1)
    torch.manual_seed(1)
    network = SpiraConv(61, 10, dropout=0.0)
    optimizer = torch.optim.Adam(network.parameters(), weight_decay=0.01)
    for _ in range(2):
        for step in ([3, 1, 4, 0, 5], [9, 2, 6, 7], [8]):
            mine = parallel.share(step)
            optimizer.zero_grad()
            features = torch.cat([FEATURES[i, : N_WINDOWS[i]] for i in mine])
            labels = torch.cat([torch.full((N_WINDOWS[i],), i % 2.0) for i in mine])
            cross_entropy(network(features), labels).backward()  # type: ignore[no-untyped-call]
            parallel.average_gradients(network, sum(N_WINDOWS[i] for i in mine))
            optimizer.step()
    return nn.utils.parameters_to_vector(network.parameters()).tolist()


@pytest.mark.slow
def test_two_processes_under_torchrun_give_the_weights_of_one(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        f"import json, sys; sys.path[:0] = {[str(HERE.parent), str(HERE.parents[2])]!r}\n"
        "import test_parallel as here; from spira_tasks.speech import parallel\n"
        "parallel.join()\n"
        f"out = f'{tmp_path}/{{parallel.rank()}}.json'\n"
        "json.dump([here.trained(), parallel.summed(1, parallel.rank())], open(out, 'w'))\n"
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    subprocess.run([*torchrun, "--nproc-per-node", "2", str(program)], check=True)
    (first, totals), (second, _) = (
        json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)
    )
    assert totals == [2, 1]
    assert first == second
    torch.testing.assert_close(torch.tensor(first), torch.tensor(trained()), rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_process_that_ends_ends_the_training_with_what_to_do() -> None:
    program = "import sys; from spira_tasks.speech import parallel; parallel.join(); sys.exit(3)"

    def train() -> None:
        with parallel.assistants([sys.executable, "-c", program], 2):
            parallel.summed(1.0)

    with pytest.raises(ServiceUnavailable, match=r"^1 of the 2 processes.*ended with status 3"):
        train()


def test_one_process_alone_keeps_its_gradients_and_all_recordings() -> None:
    network = nn.Linear(2, 1)
    network(torch.ones(3, 2)).mean().backward()
    before = [weight.grad for weight in network.parameters()]
    parallel.average_gradients(network, 3)
    assert [weight.grad for weight in network.parameters()] == before
    assert parallel.share([4, 2, 7]) == [4, 2, 7]
    assert parallel.summed(2.0, 3.0) == (2.0, 3.0)


def test_what_looks_at_a_whole_batch_is_refused_in_several_processes() -> None:
    for settings in ({"mixup": 1.0}, {"loss": "balanced_bce"}):
        with pytest.raises(ValueError, match="n_processes above 1 needs the loss bce"):
            train.Config(n_processes=2, **settings)
    assert parallel.sees_its_batch(SpiraConv(61, 10, "spiraconv_v1"))
    assert not parallel.sees_its_batch(SpiraConv(61, 10, "spiraconv_v2"))
