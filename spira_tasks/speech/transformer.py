"""A small transformer of MFCC-grams, trained from scratch.

Gauy and Finger, "Audio MFCC-gram Transformers for respiratory insufficiency detection in
COVID-19", arXiv 2210.14085, put an encoder on the frames of an MFCC-gram.  They trained it first
without labels on other speech, which gave it its lead; this has no pre-training.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MfccGramTransformer(nn.Module):
    """Groups of frames, their places added, through an encoder; the mean of what comes out.

    Parameters
    ----------
    n_frames, n_bins : int
        Shape of one window's features; a remainder of fewer than ``n_grouped`` frames is left out.
    n_grouped : int
        Frames that make one token; attention takes memory in the square of the number of tokens.
    n_channels, n_heads, n_layers : int
        Width of a token, heads of attention, layers.  With the defaults, 401 frames and 40 bins
        it has 77,441 parameters.
    dropout : float
        In every layer.
    """

    positions: Tensor

    def __init__(
        self,
        n_frames: int,
        n_bins: int,
        *,
        n_grouped: int = 4,
        n_channels: int = 64,
        n_heads: int = 4,
        n_layers: int = 2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        n_tokens = n_frames // n_grouped
        if n_tokens < 1 or n_channels % 2 or n_channels % n_heads:
            raise ValueError(
                f"n_grouped has to be at most {n_frames}, and n_channels even and a multiple of "
                "n_heads"
            )
        self.n_grouped, self.n_tokens = n_grouped, n_tokens
        self.token = nn.Linear(n_grouped * n_bins, n_channels)
        self.register_buffer("positions", _positions(n_tokens, n_channels), persistent=False)
        self.dropout = nn.Dropout(dropout)
        layer = nn.TransformerEncoderLayer(
            n_channels, n_heads, 2 * n_channels, dropout, "gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, n_layers, enable_nested_tensor=False)
        self.normalize = nn.LayerNorm(n_channels)
        self.output = nn.Linear(n_channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Map (batch, frame, bin) features to (batch,) logits."""
        whole = features[:, : self.n_tokens * self.n_grouped]
        grouped = whole.reshape(-1, self.n_tokens, self.n_grouped * features.shape[2])
        tokens = self.token(grouped) + self.positions
        hidden = self.normalize(self.encoder(self.dropout(tokens)))
        logits: Tensor = self.output(hidden.mean(dim=1))
        return logits.squeeze(1)


def _positions(n_tokens: int, n_channels: int) -> Tensor:
    """Sines and cosines of the place of a token, (token, channel) (Vaswani et al. 2017, 3.5)."""
    place = torch.arange(n_tokens).unsqueeze(1)
    period = 10_000 ** (torch.arange(0, n_channels, 2) / n_channels)
    return torch.cat([(place / period).sin(), (place / period).cos()], dim=1)
