"""A recording with its label, as training and evaluation see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from spira_tasks.speech.augmentation import NoisePolicy, insert_ward_noise, recording_rng, to_float


@dataclass(frozen=True)
class Example:
    """One recording: (time,) int16 samples on the training device, and its label in [0, 1].

    A label between 0 and 1 is the probability of label 1.
    """

    record_id: str
    pcm16: Tensor
    label: float


def noisy(
    example: Example, bank: Sequence[Tensor], noise: NoisePolicy, seed: int, *draw: int
) -> Tensor:
    """Return the (time,) float waveform of an example with the ward noise of one draw."""
    waveform, rng = to_float(example.pcm16), recording_rng(seed, example.record_id, *draw)
    return insert_ward_noise(waveform, bank, noise, rng) if bank else waveform
