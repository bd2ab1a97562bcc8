"""Refuse a training that does not fit into memory, with the numbers, before it starts."""

from __future__ import annotations

import copy
import resource
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from spira_tasks.errors import ConfigError
from spira_tasks.speech.features import FeatureSpec

MIB = 2**20
# Float32 copies of the weights: network, average, best so far, gradients, two moments, and the five
# of them that a checkpoint keeps, and those again while it is written.
N_COPIES = 16
# What an allocator leaves unused between tensors of unlike sizes, as measured on a CPU.
SLACK = 1.3
LIMITS = ("memory.max", "memory/memory.limit_in_bytes")  # of a container: cgroups 2 and 1


def needed(
    network: nn.Module,
    spec: FeatureSpec,
    *,
    n_windows: int,
    n_samples: int,
    n_noises: int = 0,
    held: int = 0,
) -> dict[str, int]:
    """Estimate the bytes that a training needs beyond what its process has now.

    Parameters
    ----------
    network : nn.Module
        Maps (window, frame, bin) features to logits; it is not changed.
    spec : FeatureSpec
    n_windows : int
        The most windows of one step.
    n_samples : int
        The most samples of one step: recordings times the longest of them.
    n_noises : int
        The most ward noises that a recording gets.
    held : int
        Bytes that stay in memory and are not there yet.

    Returns
    -------
    dict of str to int
        What it is for, to bytes.
    """
    weights = sum(weight.nbytes for weight in network.parameters())
    saved, largest = _activations(network, (spec.n_frames, spec.n_bins))
    # waveforms, each noise and its magnitude; of each frame its samples, spectrum and power
    signals = 4 * n_samples * (2 + 2 * n_noises)
    spectra = n_windows * spec.n_frames * (12 * (spec.n_fft // 2 + 1) + 8 * spec.win_length)
    return {
        "weights and checkpoints": N_COPIES * weights,
        f"activations of the {n_windows} windows of a step": round(
            SLACK * n_windows * (saved + 2 * largest)
        ),
        "waveforms and spectra of a step": round(SLACK * (signals + spectra)),
        "recordings, ward noise and features that are held": held,
    }


def _activations(network: nn.Module, shape: tuple[int, int]) -> tuple[int, int]:
    """Bytes that one window leaves for the backward pass, and the largest tensor among them."""
    network = copy.deepcopy(network).train()
    weight = next(network.parameters())
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    n_tried = 2  # a batch normalisation needs more than one
    devices = [weight.device] if weight.is_cuda else []
    with (
        torch.random.fork_rng(devices),
        torch.autograd.graph.saved_tensors_hooks(note, lambda t: t),
    ):
        network(torch.zeros(n_tried, *shape, device=weight.device)).sum()
    of_windows = [size for place, size in sizes.items() if place not in own]
    return sum(of_windows) // n_tried, max(of_windows, default=0) // n_tried


def available(device: str) -> int | None:
    """Bytes that this process may still take, on a GPU or of memory; None where nothing says."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info()[0])
    status, machine = _proc("/proc/self/status"), _proc("/proc/meminfo")
    limits = [machine["MemAvailable"]] if "MemAvailable" in machine else []
    for name in LIMITS:
        file = Path("/sys/fs/cgroup", name)
        if file.is_file() and (text := file.read_text().strip()) != "max":
            limits.append(int(text) - status.get("VmRSS", 0))
    for kind, used in ((resource.RLIMIT_DATA, "VmData"), (resource.RLIMIT_AS, "VmSize")):
        soft, _ = resource.getrlimit(kind)
        if soft != resource.RLIM_INFINITY:
            limits.append(soft - status.get(used, 0))
    return max(min(limits), 0) if limits else None


def _proc(name: str) -> dict[str, int]:
    """The lines ``Name: n kB`` of a file of Linux, in bytes; empty elsewhere."""
    file = Path(name)
    lines = file.read_text().splitlines() if file.is_file() else []
    words = [line.split() for line in lines if line.endswith(" kB")]
    return {name.rstrip(":"): int(kib) * 1024 for name, kib, _ in words}


def check(parts: Mapping[str, int], device: str) -> None:
    """Raise ConfigError when what is ``needed`` is more than what is ``available``."""
    free, total = available(device), sum(parts.values())
    if free is None or total <= free:
        return
    what = "GPU memory" if device.startswith("cuda") else "memory"
    listing = ", ".join(f"{size / MIB:,.0f} for {name}" for name, size in parts.items() if size)
    remedy = (
        "run it on a larger GPU"
        if device.startswith("cuda")
        else "give the step more memory_mib in the site file"
    )
    raise ConfigError(
        f"this training needs about {total / MIB:,.0f} MiB of {what}, and {free / MIB:,.0f} MiB "
        f"are free ({listing}): make train.batch_size smaller, set train.windows=random, shorten "
        f"materialize.window_seconds, or {remedy}"
    )
