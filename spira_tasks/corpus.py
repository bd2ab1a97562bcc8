"""From tables of digests to tensors: recordings and ward noises to train and test on."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from spira_tasks.speech import cpu
from spira_tasks.speech.audio import read_pcm16
from spira_tasks.speech.augmentation import to_float
from spira_tasks.speech.examples import Example
from spira_tasks.speech.features import FeatureExtractor, FeatureSpec, windows
from spira_tasks.speech.held import HELD_BYTES, Held

if TYPE_CHECKING:
    from torch import Tensor

    from spira_tasks.artifacts import Blobs, Directory, Packs


def examples(
    table: pd.DataFrame, blobs: Packs, device: str, most_bytes: int | None = None
) -> Held[Example]:
    """The recordings of a table as int16 samples on the device, loaded when they are asked for.

    Parameters
    ----------
    most_bytes : int, optional
        What is kept of them; by default ``HELD_BYTES``, and on a GPU a quarter of what is free.
    """
    records, waveforms = table["record_id"].tolist(), table["waveform"].tolist()
    labels = table["label"].astype(float).tolist()

    def load(index: int, is_kept: bool) -> Example:
        content = blobs.read(waveforms[index], again=not is_kept)
        pcm16 = torch.from_numpy(read_pcm16(content)).to(device)
        return Example(record_id=records[index], pcm16=pcm16, label=labels[index])

    if most_bytes is None:
        is_gpu = torch.device(device).type == "cuda"
        most_bytes = torch.cuda.mem_get_info(device)[0] // 4 if is_gpu else HELD_BYTES
    return Held(len(table), load, lambda example: example.pcm16.nbytes, most_bytes)


def noise_bank(ward_noise: Directory, pool: str, blobs: Blobs, device: str) -> list[Tensor]:
    """Load the (time,) float waveforms of one pool of the ward-noise bank; pools are disjoint."""
    table = pd.read_parquet(ward_noise.path("ward_noise.parquet"))
    return [
        to_float(torch.from_numpy(read_pcm16(blobs.read(digest))).to(device))
        for digest in table[table["pool"] == pool]["waveform"]
    ]


def load_features(digest: str, blobs: Blobs) -> Tensor:
    """Load the materialized (window, frame, bin) features of a recording."""
    return torch.from_numpy(np.load(io.BytesIO(blobs.read(digest)), allow_pickle=False))


def parity(
    features: pd.Series, waveforms: pd.Series, spec: FeatureSpec, blobs: Blobs, n_recordings: int
) -> pd.Series:
    """Compute the features of some recordings again and compare them with the stored ones.

    Parameters
    ----------
    features, waveforms : Series of str
        Digests, one row a recording; a waveform may be missing.
    n_recordings : int
        Size of the sample, evenly spread over the rows.

    Returns
    -------
    Series of float
        The largest difference, in standard deviations of the matrix; infinite where the shape
        differs, NaN for recordings outside the sample.
    """
    cpu.prepare(n_threads=1)
    extractor = FeatureExtractor(spec).eval()
    differences = pd.Series(np.nan, index=features.index)
    known = features.index[waveforms.notna()]
    sample = np.linspace(0, len(known) - 1, min(n_recordings, len(known))).round().astype(int)
    for row in known[np.unique(sample)]:
        stored = np.load(io.BytesIO(blobs.read(features[row])), allow_pickle=False)
        pcm16 = torch.from_numpy(read_pcm16(blobs.read(waveforms[row])))
        with torch.inference_mode():
            made = extractor(windows(to_float(pcm16), spec)).numpy()
        same_shape = stored.shape == made.shape
        scale = float(made.std()) or 1.0
        differences[row] = np.abs(stored - made).max() / scale if same_shape else np.inf
    return differences
