"""Several processes that train one network: each sees a share of the recordings of every step.

They meet as torchrun's processes do, by the variables RANK, WORLD_SIZE, MASTER_ADDR and
MASTER_PORT.  Where there is one process, all functions here do nothing.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn

from spira_tasks.errors import ServiceUnavailable

T = TypeVar("T")

# A process waits so long for the others: for the first epoch's data, or a slow validation.
PATIENCE = timedelta(minutes=10)
STOP_SECONDS = 10.0  # that the others have to end by themselves


def n_processes() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def join() -> None:
    """Meet the other processes, in one that the first, or torchrun, has started."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group(_backend(), timeout=PATIENCE)


def _backend() -> str:
    if not torch.cuda.is_available():
        return "gloo"
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    return "nccl"


@contextmanager
def assistants(command: Sequence[str], n: int) -> Iterator[None]:
    """Train with ``n - 1`` other processes that ``command`` starts on this machine.

    This process is the first: only what it computes is kept.  The others end with it.

    Raises
    ------
    ServiceUnavailable
        When another process ended by itself, which ends the training.
    """
    store = dist.TCPStore(  # type: ignore[attr-defined]
        "127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=PATIENCE
    )
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "WORLD_SIZE": str(n)}
    others = [
        subprocess.Popen(
            command,
            env=os.environ | meeting | {"RANK": str(number), "LOCAL_RANK": str(number)},
            stdout=subprocess.DEVNULL,  # the first one's is the result of the step
        )
        for number in range(1, n)
    ]
    try:
        dist.init_process_group(
            _backend(),
            # where ``join`` looks for it
            store=dist.PrefixStore("default_pg", store),  # type: ignore[attr-defined]
            rank=0,
            world_size=n,
            timeout=PATIENCE,
        )
        yield
    except RuntimeError as error:  # what a connection that ends raises
        failed = [status for other in others if (status := _ended(other)) is not None]
        if not failed:
            raise
        raise ServiceUnavailable(
            f"{len(failed)} of the {n} processes of the training ended with status {failed[0]}; "
            "their lines are above. Without enough memory for all of them, set fewer "
            "train.n_processes"
        ) from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
        for other in others:
            try:
                other.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                other.kill()
                other.wait()


def _ended(process: subprocess.Popen[bytes]) -> int | None:
    """The status of a process whose connections may have just closed; None while it runs."""
    try:
        return process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        return None


def share(drawn: Sequence[T]) -> Sequence[T]:
    """The part of the recordings of a step that is for this process.

    A step of fewer recordings than processes is for each of them, whose mean is then the same.
    """
    return drawn[rank() :: n_processes()] if len(drawn) >= n_processes() else drawn


def sees_its_batch(network: nn.Module) -> bool:
    """Whether what the network makes of a window depends on the others of its batch."""
    return any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in network.modules())


def average_gradients(network: nn.Module, n_windows: int) -> None:
    """Replace the gradients by those of the mean loss over the windows of all processes.

    Parameters
    ----------
    network : nn.Module
        Its gradients are those of the mean loss over this process's ``n_windows``.
    """
    if n_processes() == 1:
        return
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    gradients = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
    sums = torch.cat([*(one.flatten() for one in gradients), weights[0].new_ones(1)]) * n_windows
    dist.all_reduce(sums)
    sums = sums[:-1] / sums[-1]
    means = torch.split(sums, [weight.numel() for weight in weights])
    for weight, mean in zip(weights, means, strict=True):
        weight.grad = mean.view_as(weight)


def summed(*numbers: float) -> tuple[float, ...]:
    """The sums of numbers over the processes."""
    if n_processes() == 1:
        return numbers
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    sums = torch.tensor(numbers, dtype=torch.float64, device=device)
    dist.all_reduce(sums)
    return tuple(sums.tolist())
