"""SPIRAConv: the published classifiers of (batch, frame, bin) features.

Casanova et al., "Deep Learning against COVID-19: Respiratory Insufficiency Detection in Brazilian
Portuguese Speech", Findings of ACL-IJCNLP 2021.  Every published experiment uses version 2.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from spira_tasks.speech import fused

ModelName = Literal["spiraconv_v1", "spiraconv_v2", "spiraconv_v4"]

LOG2_E = 1 / math.log(2)

KERNELS, DILATIONS = (7, 5, 3, 2), (2, 2, 2, 1)  # frames, as published
# out channels, groups of the normalisation, pooled
LAYERS = ((32, 16, True), (16, 8, True), (8, 4, True), (4, 2, False))


class Standardize(nn.Module):
    """Shift and scale every feature bin to mean 0 and standard deviation 1 on the training set.

    SPIRA v1 does not standardise.  The first MFCC, the loudness, is ten times as large as the
    others, and group normalisation then nearly removes those.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, n_bins: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_bins))
        self.register_buffer("std", torch.ones(n_bins))

    def fit(self, features: Iterable[Tensor]) -> None:
        """Take the statistics of (window, frame, bin) features, one recording after another."""
        n, total, squares = 0, torch.zeros(()).double(), torch.zeros(()).double()
        for matrix in features:
            frames = matrix.flatten(end_dim=1).double()
            n += len(frames)
            total, squares = total + frames.sum(dim=0), squares + frames.square().sum(dim=0)
        mean = total / n
        self.mean.copy_(mean)
        self.std.copy_((squares / n - mean.square()).clamp(min=1e-6).sqrt())

    def forward(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.std


class SpiraConv(nn.Module):
    """Four convolutions over time, each feature bin by itself, then two dense layers.

    Parameters
    ----------
    n_frames, n_bins : int
        Shape of one window's features; the first dense layer is made for it.
    version : {"spiraconv_v1", "spiraconv_v2", "spiraconv_v4"}
        Version 1 normalises by batch, versions 2 and 4 by group.  Version 4 is the name that
        SPIRA-ComParE2021 gave version 2 with other kernels, dilations and dropout.
    dropout : float
        After every layer but the last.  Published: 0.7.
    n_hidden : int
        Width of the first dense layer.  Published: 100.
    kernels, dilations : four ints each
        Of the convolutions, in frames.
    pooling : {"flatten", "average"}
        What the dense layers see: all frames, as published, or their mean.

    Notes
    -----
    With 4 s windows of 40 MFCC it has 691,613 parameters, 99.5 % of them in the first dense layer.
    Version 1 as published ignored the setting for windows and scored every time step; here all
    versions score the window.

    Raises
    ------
    ValueError
        When there are not four kernels and dilations, or they need more frames than there are.
    """

    def __init__(
        self,
        n_frames: int,
        n_bins: int,
        version: ModelName = "spiraconv_v2",
        dropout: float = 0.7,
        n_hidden: int = 100,
        *,
        kernels: Sequence[int] = KERNELS,
        dilations: Sequence[int] = DILATIONS,
        pooling: Literal["flatten", "average"] = "flatten",
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        n_in, n_left = 1, n_frames
        if not len(kernels) == len(dilations) == len(LAYERS):
            raise ValueError(
                f"{len(kernels)} kernels and {len(dilations)} dilations: SPIRAConv has "
                f"{len(LAYERS)} convolutions, give as many of each"
            )
        for (n_out, groups, pooled), kernel, dilation in zip(
            LAYERS, kernels, dilations, strict=True
        ):
            batch_norm = version == "spiraconv_v1"
            layers += [
                nn.Conv2d(n_in, n_out, kernel_size=(kernel, 1), dilation=(dilation, 1)),
                nn.BatchNorm2d(n_out) if batch_norm else nn.GroupNorm(groups, n_out),
                nn.Mish(),
                *([nn.MaxPool2d(kernel_size=(2, 1))] if pooled else []),
                nn.Dropout(dropout),
            ]
            n_in, n_left = n_out, (n_left - dilation * (kernel - 1)) // (2 if pooled else 1)
        if n_left < 1:
            raise ValueError(
                f"windows of {n_frames} frames are too short for kernels {tuple(kernels)} with "
                f"dilations {tuple(dilations)}: make them or the dilations smaller, or windows "
                "longer"
            )
        self.pooling = pooling
        self.convolutions = nn.Sequential(*layers)
        n_flat = n_in * n_bins * (n_left if pooling == "flatten" else 1)
        self.dense = nn.Sequential(
            nn.Linear(n_flat, n_hidden), nn.Mish(), nn.Dropout(dropout), nn.Linear(n_hidden, 1)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map (batch, frame, bin) features to (batch,) logits of respiratory insufficiency.

        Where it can, the layers that follow a convolution are one pass over memory
        (docs/adr/0036); ``plain`` is the same network in torch's own layers.
        """
        if not self.training:
            return self.plain(features) if torch.is_grad_enabled() else self.infer(features)
        hidden = features.unsqueeze(1)  # (batch, channel, frame, bin)
        layers = iter(self.convolutions)
        for convolution, norm in zip(layers, layers, strict=False):
            hidden, following = convolution(hidden), [next(layers), next(layers)]
            if pooled := isinstance(following[-1], nn.MaxPool2d):
                following.append(next(layers))
            dropout: nn.Dropout = following[-1]  # type: ignore[assignment]
            if isinstance(norm, nn.GroupNorm) and fused.can(hidden, dropout.p):
                hidden = fused.normalised_mish(hidden, norm, pooled, dropout.p)
            else:
                for layer in (norm, *following):
                    hidden = layer(hidden)
        return self._scores(hidden)

    def plain(self, features: Tensor) -> Tensor:
        """As ``forward``, by torch's own layers."""
        return self._scores(self.convolutions(features.unsqueeze(1)))

    def infer(self, features: Tensor) -> Tensor:
        """As ``forward`` of a network that is not being trained, in a third of the time.

        The numbers differ in their last digits, by ``mish``; see docs/adr/0029.
        """
        hidden = features.unsqueeze(1)
        for layer in self.convolutions:
            if isinstance(layer, nn.Mish):
                hidden = mish(hidden)
            elif isinstance(layer, nn.MaxPool2d):
                n_even = hidden.shape[2] // 2 * 2
                hidden = torch.maximum(hidden[:, :, :n_even:2], hidden[:, :, 1:n_even:2])
            elif not isinstance(layer, nn.Dropout):
                hidden = layer(hidden)
        return self._scores(hidden)

    def _scores(self, hidden: Tensor) -> Tensor:
        """Logits of (batch, channel, frame, bin) outputs of the convolutions."""
        if self.pooling == "average":
            hidden = hidden.mean(dim=2)
        logits: Tensor = self.dense(hidden.flatten(start_dim=1))
        return logits.squeeze(1)


def mish(x: Tensor) -> Tensor:
    """``x * tanh(log(1 + exp(x)))`` with one exponential, and no gradient.

    With u = exp(x) it is x - 2x / ((1 + u)² + 1): tanh(log y) is (y² - 1) / (y² + 1).  Where u
    overflows the fraction is 0, as it should be.  torch's powers of 2 take a third of the time of
    its powers of e.
    """
    denominator = (x * LOG2_E).exp2_().add_(1)
    denominator.square_().add_(1)
    return torch.addcdiv(x, x, denominator, value=-2, out=denominator)


spiraconv_v1 = partial(SpiraConv, version="spiraconv_v1")
spiraconv_v2 = partial(SpiraConv, version="spiraconv_v2")
spiraconv_v4 = partial(SpiraConv, version="spiraconv_v4")
