"""Ward-noise insertion, reproducible recording by recording, and by default without the label.

SPIRA v1 inserted a different number of noises into each class, at test time as well; a network
then learns the class from the noise.  Only a policy with ``patients`` looks at the label; it is for
repeating published experiments.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

# Peak of an inserted noise, full scale 1.  Measured by SPIRA on the noise-only parts of patients'
# recordings (Casanova et al. 2021, configuration of every published experiment).
MIN_NOISE_PEAK = 0.033474047
MAX_NOISE_PEAK = 0.19233719

SILENT_PEAK = 1e-4  # a quieter crop holds only dither, and is not scaled up


@dataclass(frozen=True)
class NoisePolicy:
    """How many ward noises are summed onto a recording: uniform between two counts."""

    min_insertions: int = 1
    max_insertions: int = 1
    # The two counts of recordings whose label is above a half, as in the published experiments; the
    # others have the two above.  None: the label is not looked at.
    patients: tuple[int, int] | None = None
    # What of a crop is scaled to the drawn peak: its largest magnitude, or as SPIRA v1 its largest
    # sample, which leaves a noise louder whose negative samples are the larger ones.
    peak: Literal["absolute", "signed"] = "absolute"

    def counts(self, label: float | None) -> tuple[int, int]:
        """The fewest and the most insertions of a recording."""
        if self.patients is None:
            return self.min_insertions, self.max_insertions
        if label is None:
            raise ValueError("a noise policy with counts for patients needs the label")
        return self.patients if label > 0.5 else (self.min_insertions, self.max_insertions)


@dataclass(frozen=True)
class Insertion:
    """One ward noise to add: its place in the bank, where its crop starts, its peak."""

    noise: int
    start: int  # sample of the noise, repeated where it is shorter than the recording
    peak: float


def recording_rng(seed: int, record_id: str, *more: int) -> np.random.Generator:
    """Return a generator that depends on the seed and the recording, not on the cohort."""
    identity = int.from_bytes(hashlib.sha256(record_id.encode()).digest()[:8])
    return np.random.default_rng([seed, identity, *more])


def draw_insertions(
    n_samples: int,
    lengths: Sequence[int],
    policy: NoisePolicy,
    rng: np.random.Generator,
    *,
    label: float | None = None,
) -> list[Insertion]:
    """Draw the ward noises of a recording of ``n_samples`` from a bank of noises of ``lengths``.

    The count, then of every insertion the noise, the crop and the peak, are drawn in that order.
    """
    drawn = []
    for _ in range(rng.integers(*policy.counts(label), endpoint=True)):
        noise = int(rng.integers(len(lengths)))
        n_repeated = lengths[noise] * max(-(-n_samples // lengths[noise]), 1)
        start = int(rng.integers(n_repeated - n_samples, endpoint=True))
        drawn.append(Insertion(noise, start, rng.uniform(MIN_NOISE_PEAK, MAX_NOISE_PEAK)))
    return drawn


def insert_ward_noise(
    waveform: Tensor,
    bank: Sequence[Tensor],
    policy: NoisePolicy,
    rng: np.random.Generator,
    *,
    label: float | None = None,
) -> Tensor:
    """Sum random crops of random ward noises onto a waveform.

    Parameters
    ----------
    waveform : (time,) float Tensor
        Samples in [-1, 1].
    bank : sequence of (time,) float Tensor
        Ward noises on the waveform's device.  One shorter than the waveform is repeated.
    policy : NoisePolicy
    rng : numpy Generator
        Source of what ``draw_insertions`` draws.
    label : float, optional
        Only a policy that counts by label looks at it.

    Returns
    -------
    (time,) float Tensor
        A new tensor.  Samples may leave [-1, 1], as in the published experiments.
    """
    noisy = waveform.clone()
    n_samples = waveform.shape[0]
    for drawn in draw_insertions(n_samples, [len(n) for n in bank], policy, rng, label=label):
        noise = bank[drawn.noise]
        if noise.shape[0] < n_samples:
            noise = noise.repeat(-(-n_samples // noise.shape[0]))
        crop = noise[drawn.start : drawn.start + n_samples]
        loudest = float((crop if policy.peak == "signed" else crop.abs()).max())
        if loudest > SILENT_PEAK:
            noisy += crop * (drawn.peak / loudest)
    return noisy


def to_float(samples: Tensor) -> Tensor:
    """Map int16 samples to float32 in [-1, 1); samples that are floats stay as they are."""
    return samples if samples.is_floating_point() else samples.to(torch.float32) / 32_768
