"""Logistic regression: the honest baseline that every network has to beat."""

from __future__ import annotations

from torch import Tensor, nn


class Logistic(nn.Module):
    """One weight a feature, on the mean over the frames of a window.

    On acoustic markers each weight can be read: by how much the log-odds change when a marker is
    one standard deviation above the mean of the training recordings.
    """

    def __init__(self, n_frames: int, n_bins: int) -> None:  # noqa: ARG002 - as every network
        super().__init__()
        self.linear = nn.Linear(n_bins, 1)
        nn.init.zeros_(self.linear.weight)  # the loss is convex: no start is better
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Map (batch, frame, bin) features to (batch,) logits."""
        logits: Tensor = self.linear(features.mean(dim=1))
        return logits.squeeze(1)
