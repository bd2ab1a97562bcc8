"""Optimisers, and how the learning rate changes from step to step."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Optimizer

Weights = Iterable[nn.Parameter]

# ``fused``: a step of one pass over memory, on the CPU 0.4 ms for a SPIRAConv instead of 1.8.


def adam(weights: Weights, learning_rate: float, weight_decay: float) -> Optimizer:
    """Adam; the decay is an L2 penalty, added to the gradient: SPIRA v1's optimiser."""
    return torch.optim.Adam(weights, lr=learning_rate, weight_decay=weight_decay, fused=True)


def adamw(weights: Weights, learning_rate: float, weight_decay: float) -> Optimizer:
    """Adam; the decay shrinks the weights themselves, whatever the gradient is."""
    return torch.optim.AdamW(weights, lr=learning_rate, weight_decay=weight_decay, fused=True)


def radam(weights: Weights, learning_rate: float, weight_decay: float) -> Optimizer:
    """Rectified Adam with a decoupled decay, as v1b has it.

    While the variance of the gradients is uncertain, in the first five steps, it is a gradient
    step with momentum (Liu et al., "On the variance of the adaptive learning rate", 2020).
    """
    return torch.optim.RAdam(
        weights, lr=learning_rate, weight_decay=weight_decay, decoupled_weight_decay=True
    )


def constant(n_steps_done: int, warmup: int, n_steps: int) -> float:
    """No schedule: the factor is 1 from the first step on."""
    return 1.0


def noam(n_steps_done: int, warmup: int, n_steps: int = 0) -> float:
    """Factor on the learning rate: linear warm-up to 1, then falling as one over a square root.

    ``warmup**0.5 * min(step * warmup**-1.5, step**-0.5)``: Vaswani et al., "Attention is all you
    need", 2017, equation 3, scaled to peak at 1 as SPIRA v1 does.

    Examples
    --------
    >>> [round(noam(n, 1000), 3) for n in (0, 499, 999, 3999)]  # steps 1, 500, 1000, 4000
    [0.001, 0.5, 1.0, 0.5]
    """
    step = n_steps_done + 1
    return float(warmup**0.5 * min(step * warmup**-1.5, step**-0.5))


def cosine(n_steps_done: int, warmup: int, n_steps: int) -> float:
    """Factor on the learning rate: linear warm-up to 1, then half a cosine to 0.

    Loshchilov and Hutter, "SGDR", 2017, equation 5, one cycle.  The last of ``n_steps`` steps is
    the one before 0.

    Examples
    --------
    >>> [round(cosine(n, 10, 110), 3) for n in (0, 9, 10, 60, 109)]
    [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    if n_steps_done < warmup:
        return (n_steps_done + 1) / warmup
    share = (n_steps_done - warmup) / max(n_steps - warmup, 1)
    return (1 + math.cos(math.pi * min(share, 1.0))) / 2
