"""What changes the features of a training batch: stripes that hide parts, and mixing of pairs.

Both work on the whole batch, on its device, and look at no label.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Stripes:
    """SpecAugment: how many stripes hide frames and bins, and how wide they are.

    Park et al., "SpecAugment", Interspeech 2019, policy without warping.  v1b had 2 stripes of
    each, narrower than 64 frames and 8 bins.
    """

    n_time: int = 0
    n_frequency: int = 0
    frames: int = 64  # a stripe's width is drawn from 0 to one less,
    bins: int = 8  # each width as often

    def __bool__(self) -> bool:
        return self.n_time + self.n_frequency > 0

    def draw(
        self, shape: tuple[int, int], rng: np.random.Generator, n_windows: int
    ) -> list[np.ndarray[tuple[int, int, int], np.dtype[np.int64]]]:
        """Draw the stripes of windows of ``shape``, (frame, bin): of time, then of frequency.

        Returns
        -------
        list of two (window, stripe, 2) arrays
            First frame or bin of the stripe, and the one after its last.
        """
        drawn = []
        for n_stripes, wide, total in (
            (self.n_time, self.frames, shape[0]),
            (self.n_frequency, self.bins, shape[1]),
        ):
            width = rng.integers(min(wide, total), size=(n_windows, n_stripes))
            start = rng.integers(total - width)
            drawn.append(np.stack([start, start + width], axis=2))
        return drawn


PUBLISHED = Stripes(n_time=2, n_frequency=2)


def hide(features: Tensor, stripes: list[Tensor], fill: Tensor) -> Tensor:
    """Put a constant into the stripes of features.

    Parameters
    ----------
    features : (window, frame, bin) tensor
    stripes : list of two (window, stripe, 2) integer tensors
        As ``Stripes.draw`` makes them, on the device of the features.
    fill : (bin,) tensor
        What a hidden bin holds: its mean on the training set, which the network sees as 0.
    """
    inside = []
    for axis, bounds in enumerate(stripes, start=1):
        places = torch.arange(features.shape[axis], device=features.device)
        first, last = bounds[..., :1], bounds[..., 1:]
        inside.append(((places >= first) & (places < last)).any(dim=1))
    hidden = inside[0][:, :, None] | inside[1][:, None, :]
    return torch.where(hidden, fill, features)


def mix(features: Tensor, labels: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Mix the first half of a batch with the second, the labels too; an odd window stays as it is.

    Zhang et al., "mixup", ICLR 2018.  v1b mixed neighbours of a batch in random order with one
    window a recording.  Here windows of one recording are neighbours, so halves are mixed.

    Parameters
    ----------
    features : (window, frame, bin) tensor
    labels : (window,) tensor
    shares : (window // 2,) tensor
        Share of the window of the first half, in [0, 1].

    Returns
    -------
    ((window + 1) // 2, frame, bin) and ((window + 1) // 2,) tensors
    """
    half = len(labels) // 2
    if not half:
        return features, labels
    mixed = torch.lerp(features[half : 2 * half], features[:half], shares[:, None, None])
    mixed_labels = torch.lerp(labels[half : 2 * half], labels[:half], shares)
    return torch.cat([mixed, features[2 * half :]]), torch.cat([mixed_labels, labels[2 * half :]])
