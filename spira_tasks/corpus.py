"""From tables of digests to tensors: the recordings and ward noises that models are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import torch

from spira_tasks.speech.audio import read_pcm16
from spira_tasks.speech.augmentation import to_float
from spira_tasks.speech.training import Example

if TYPE_CHECKING:
    from torch import Tensor

    from spira_tasks.artifacts import Blobs, Directory


def examples(table: pd.DataFrame, blobs: Blobs, device: str) -> list[Example]:
    """Every recording of the table as int16 samples on the device."""
    return [
        Example(
            record_id=row.record_id,
            pcm16=torch.from_numpy(read_pcm16(blobs.read(row.waveform))).to(device),
            label=float(row.label),
        )
        for row in table.itertuples()
    ]


def noise_bank(ward_noise: Directory, pool: str, blobs: Blobs, device: str) -> list[Tensor]:
    """The (time,) float waveforms of one pool of the ward-noise bank; the pools are disjoint."""
    table = pd.read_parquet(ward_noise.path("ward_noise.parquet"))
    return [
        to_float(torch.from_numpy(read_pcm16(blobs.read(digest))).to(device))
        for digest in table[table["pool"] == pool]["waveform"]
    ]
