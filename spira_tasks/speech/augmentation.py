"""Ward-noise insertion: the same for every label, and reproducible recording by recording.

SPIRA v1 inserted a different number of noises into each class, at test time as well; a network
then learns the class from the noise.  No function here takes a label.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

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


def recording_rng(seed: int, record_id: str, *more: int) -> np.random.Generator:
    """Return a generator that depends on the seed and the recording, not on the cohort."""
    identity = int.from_bytes(hashlib.sha256(record_id.encode()).digest()[:8])
    return np.random.default_rng([seed, identity, *more])


def insert_ward_noise(
    waveform: Tensor, bank: Sequence[Tensor], policy: NoisePolicy, rng: np.random.Generator
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
        Source of the count, the noises, the crops and the peaks, drawn in that order.

    Returns
    -------
    (time,) float Tensor
        A new tensor.  Samples may leave [-1, 1], as in the published experiments.
    """
    noisy = waveform.clone()
    n_samples = waveform.shape[0]
    for _ in range(rng.integers(policy.min_insertions, policy.max_insertions, endpoint=True)):
        noise = bank[int(rng.integers(len(bank)))]
        if noise.shape[0] < n_samples:
            noise = noise.repeat(-(-n_samples // noise.shape[0]))
        start = int(rng.integers(noise.shape[0] - n_samples, endpoint=True))
        peak = rng.uniform(MIN_NOISE_PEAK, MAX_NOISE_PEAK)
        crop = noise[start : start + n_samples]
        loudest = float(crop.abs().max())
        if loudest > SILENT_PEAK:
            noisy += crop * (peak / loudest)
    return noisy


def to_float(pcm16: Tensor) -> Tensor:
    """Map (time,) int16 samples to float32 in [-1, 1)."""
    return pcm16.to(torch.float32) / 32_768
