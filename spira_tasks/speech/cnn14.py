"""A small network in the manner of CNN14, trained from scratch.

Kong, Cao, Iqbal, Wang, Wang, Plumbley, "PANNs: Large-Scale Pretrained Audio Neural Networks for
Audio Pattern Recognition", IEEE/ACM TASLP 28, 2020.  CNN14 has six blocks of two 3 × 3 convolutions
with 64 to 2048 channels, 81 million parameters; it was trained on 5000 hours.  This has the same
blocks and the same pooling with fewer channels, for hundreds of recordings.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional


class Cnn14(nn.Module):
    """Blocks of two convolutions over time and bins, then mean and maximum over time.

    Parameters
    ----------
    n_frames, n_bins : int
        Shape of one window's features; log-mel bands as in the paper, or MFCC.  Any number of
        frames from ``2 ** len(channels)`` on is taken, and so of bins.
    channels : sequence of int
        Output channels of each block; the paper's are 64, 128, 256, 512, 1024, 2048.  With those
        of the default and 64 bins it has 310,481 parameters.
    dropout : float
        Before the last layer.  After each block it is 0.4 of that: the paper's 0.2 and 0.5.
    """

    def __init__(
        self,
        n_frames: int,
        n_bins: int,
        channels: Sequence[int] = (16, 32, 64, 128),
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if not channels or min(n_frames, n_bins) < 2 ** len(channels):
            raise ValueError(
                f"{len(channels)} blocks halve a window so often that it needs at least "
                f"{2 ** len(channels)} frames and bins"
            )
        self.normalize = nn.BatchNorm2d(n_bins)  # by bin
        self.dropout = dropout
        blocks, n_in = [], 1
        for n_out in channels:
            blocks.append(_Block(n_in, n_out, 0.4 * dropout))
            n_in = n_out
        self.blocks = nn.Sequential(*blocks)
        self.embedding = nn.Linear(n_in, n_in)
        self.output = nn.Linear(n_in, 1)
        for layer in (self.embedding, self.output):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Map (batch, frame, bin) features to (batch,) logits."""
        hidden = self.normalize(features.transpose(1, 2).unsqueeze(3))  # (batch, bin, frame, 1)
        hidden = self.blocks(hidden.permute(0, 3, 2, 1)).mean(dim=3)  # (batch, channel, frame)
        pooled = hidden.amax(dim=2) + hidden.mean(dim=2)
        pooled = functional.dropout(pooled, self.dropout, self.training)
        pooled = functional.dropout(self.embedding(pooled).relu(), self.dropout, self.training)
        logits: Tensor = self.output(pooled)
        return logits.squeeze(1)


class _Block(nn.Sequential):
    def __init__(self, n_in: int, n_out: int, dropout: float) -> None:
        layers: list[nn.Module] = []
        for n in (n_in, n_out):
            convolution = nn.Conv2d(n, n_out, kernel_size=3, padding=1, bias=False)
            nn.init.xavier_uniform_(convolution.weight)
            layers += [convolution, nn.BatchNorm2d(n_out), nn.ReLU()]
        super().__init__(*layers, nn.AvgPool2d(2), nn.Dropout(dropout))
