"""Normalise, Mish, pool and dropout of a layer in one pass over memory, where it is trained.

These passes, not the convolutions, are most of a training on a CPU: docs/adr/0036.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@cache
def has_compiler() -> bool:
    return importlib.util.find_spec("numba") is not None


def can(x: Tensor, dropout: float) -> bool:
    """Whether ``normalised_mish`` takes a tensor: float32 on a CPU that numba compiles for."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and dropout < 1 and has_compiler()


def normalised_mish(x: Tensor, norm: nn.GroupNorm, pooled: bool, dropout: float) -> Tensor:
    """Dropout of the maximum of every two frames of Mish of the normalised ``x``.

    As ``dropout(max_pool2d(mish(norm(x)), (2, 1)))`` to the last digits; without ``pooled``, each
    frame by itself.  What is dropped depends on torch's seed, never on the number of threads, and
    so do the sums.

    Parameters
    ----------
    x : (batch, channel, frame, bin) float32 Tensor
    norm : nn.GroupNorm
    pooled : bool
    dropout : float
        Probability below 1 of a zero; what is left is divided by one minus it.
    """
    seed = int(torch.randint(2**62, ()))
    y: Tensor = _NormalisedMish.apply(  # type: ignore[no-untyped-call]
        x, norm.weight, norm.bias, norm, pooled, dropout, seed
    )
    return y


class _NormalisedMish(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917  (``apply`` knows no keywords)
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        norm: nn.GroupNorm,
        pooled: bool,
        dropout: float,
        seed: int,
    ) -> Tensor:
        from spira_tasks.speech import kernels

        x = x.contiguous()
        n_batch, n_channels, n_frames, n_bins = x.shape
        n_rows, step = n_batch * n_channels, 2 if pooled else 1
        y = x.new_empty(n_batch, n_channels, n_frames // step, n_bins)
        slope = torch.empty_like(y)
        moments = np.empty((n_batch * norm.num_groups, 2))
        keys = np.random.default_rng(seed).integers(2**32, size=(n_rows, 2), dtype=np.uint32)
        _in_threads(
            len(moments),
            kernels.forward,
            x.numpy().reshape(n_rows, n_frames, n_bins),
            weight.detach().double().numpy(),
            bias.detach().double().numpy(),
            norm.num_groups,
            norm.eps,
            keys,
            np.uint32(round(dropout * 2**32)),
            np.float32(1 / (1 - dropout)),
            step,
            y.numpy().reshape(n_rows, -1, n_bins),
            slope.numpy().reshape(n_rows, -1, n_bins),
            moments,
        )
        ctx.save_for_backward(x, weight, slope)
        ctx.moments, ctx.n_groups, ctx.step = moments, norm.num_groups, step
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        from spira_tasks.speech import kernels

        x, weight, slope = ctx.saved_tensors
        n_batch, n_channels, n_frames, n_bins = x.shape
        n_rows = n_batch * n_channels
        dx, sums = torch.empty_like(x), np.empty((n_rows, 2))
        _in_threads(
            len(ctx.moments),
            kernels.backward,
            x.numpy().reshape(n_rows, n_frames, n_bins),
            weight.detach().double().numpy(),
            ctx.n_groups,
            slope.numpy().reshape(n_rows, -1, n_bins),
            ctx.moments,
            ctx.step,
            gradients[0].contiguous().numpy().reshape(n_rows, -1, n_bins),
            dx.numpy().reshape(n_rows, n_frames, n_bins),
            sums,
        )
        bias, scale = torch.from_numpy(sums.reshape(n_batch, n_channels, 2).sum(0).T).to(x.dtype)
        return dx, scale, bias, None, None, None, None


def _in_threads(n_groups: int, kernel: Callable[..., None], *arguments: Any) -> None:
    """Call a kernel on all groups, an equal share in each of torch's threads."""
    n_threads = min(torch.get_num_threads(), n_groups)
    ends = [n_groups * number // n_threads for number in range(n_threads + 1)]
    if n_threads == 1:
        kernel(*arguments, *ends)
        return
    work = [
        _pool(n_threads).submit(kernel, *arguments, first, last) for first, last in pairwise(ends)
    ]
    for share in work:
        share.result()


@cache
def _pool(n_threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n_threads, "kernel")
