"""The way of SPIRA v1, written from its published description, and MFCC by librosa.

Casanova et al., Findings of ACL-IJCNLP 2021: a Python loop over recordings; for each the file is
read, ward noises are read and added, windows are cut, and every window gets a new transform; five
files a step, all of their windows; Adam with Noam's schedule.  On a CPU, in one process, with the
modules of today's torch: nothing is slower than it has to be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor, nn

from benchmarks.rows.pairs import Cost, cost
from spira_tasks.speech.torchaudio_import import transforms

SAMPLE_RATE_HZ, N_WINDOW, N_STEP = 16_000, 64_000, 16_000
N_FFT, WINDOW, HOP, N_MELS = 1200, 400, 160, 40
N_FILES, N_NOISES = 5, 3
MIN_PEAK, MAX_PEAK = 0.033474047, 0.19233719


def features_by_version1(folder: Path) -> Callable[[], Cost]:
    """MFCC of all windows of all files, kept as NumPy files."""
    return lambda: cost(lambda: _all_features(folder, mfcc))


def features_by_librosa(folder: Path) -> Callable[[], Cost]:
    """The same by librosa, window by window."""
    return lambda: cost(lambda: _all_features(folder, mfcc_by_librosa))


def _all_features(folder: Path, of_window: Callable[[Tensor], np.ndarray]) -> None:
    (folder / "made").mkdir(exist_ok=True)
    for file in sorted((folder / "audio").iterdir()):
        matrix = np.stack([of_window(window) for window in windows(read(file), keep=True)])
        np.save(folder / "made" / f"{file.stem}.npy", matrix)


def mfcc(window: Tensor) -> np.ndarray:
    """(frame, coefficient) of a (time,) window."""
    stft = {"n_fft": N_FFT, "win_length": WINDOW, "hop_length": HOP, "n_mels": N_MELS}
    made: Tensor = transforms.MFCC(SAMPLE_RATE_HZ, N_MELS, melkwargs=stft)(window[None])
    found: np.ndarray = made[0].T.numpy()
    return found


def mfcc_by_librosa(window: Tensor) -> np.ndarray:
    """The same numbers: HTK's mel scale without norm, an orthonormal DCT, a mirrored signal."""
    import librosa

    made: np.ndarray = librosa.feature.mfcc(
        y=window.numpy(),
        sr=SAMPLE_RATE_HZ,
        n_mfcc=N_MELS,
        n_mels=N_MELS,
        n_fft=N_FFT,
        win_length=WINDOW,
        hop_length=HOP,
        pad_mode="reflect",
        htk=True,
        mel_norm=None,
    )
    return made.T


def read(file: Path) -> Tensor:
    samples, rate = soundfile.read(file, dtype="float32")
    assert rate == SAMPLE_RATE_HZ
    return torch.from_numpy(samples)


def windows(waveform: Tensor, *, keep: bool) -> list[Tensor]:
    """4 s every second; v1 ends strictly before the recording does, ours may keep the last."""
    last = len(waveform) - N_WINDOW
    starts = list(range(0, last, N_STEP))
    if keep:
        starts = [*range(0, last + 1, N_STEP), *([last] if last % N_STEP else [])]
    return [waveform[start : start + N_WINDOW] for start in starts]


def noisy(waveform: Tensor, noises: list[Path], rng: np.random.Generator) -> Tensor:
    for _ in range(N_NOISES):
        noise = read(noises[rng.integers(len(noises))])
        start = int(rng.integers(len(noise) - len(waveform), endpoint=True))
        crop = noise[start : start + len(waveform)]
        waveform = waveform + crop * (rng.uniform(MIN_PEAK, MAX_PEAK) / float(crop.max()))
    return waveform


def batches(folder: Path, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Features (window, 1, frame, coefficient) and labels of five files, until all were seen."""
    files, noises = (sorted((folder / name).iterdir()) for name in ("audio", "noise"))
    order = rng.permutation(len(files))
    for start in range(0, len(files), N_FILES):
        matrices, labels = [], []
        for index in order[start : start + N_FILES]:
            made = [
                torch.from_numpy(mfcc(window))
                for window in windows(noisy(read(files[index]), noises, rng), keep=False)
            ]
            matrices += made
            labels += [float(index % 2)] * len(made)
        yield torch.stack(matrices)[:, None], torch.tensor(labels)


class SpiraConvVersion2(nn.Module):
    """Four convolutions over time, normalised by groups, then two dense layers."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        n_in = 1
        for n_out, kernel, dilation, groups in ((32, 7, 2, 16), (16, 5, 2, 8), (8, 3, 2, 4)):
            layers += [
                *(nn.Conv2d(n_in, n_out, (kernel, 1), dilation=(dilation, 1)),),
                *(nn.GroupNorm(groups, n_out), nn.Mish(), nn.MaxPool2d((2, 1)), nn.Dropout(0.7)),
            ]
            n_in = n_out
        layers += [nn.Conv2d(8, 4, (2, 1)), nn.GroupNorm(2, 4), nn.Mish(), nn.Dropout(0.7)]
        dense = [nn.Linear(6880, 100), nn.Mish(), nn.Dropout(0.7), nn.Linear(100, 1), nn.Sigmoid()]
        self.layers = nn.Sequential(*layers, nn.Flatten(), *dense)

    def forward(self, features: Tensor) -> Tensor:
        scores: Tensor = self.layers(features)
        return scores.squeeze(1)


def data_side(folder: Path) -> Callable[[], Cost]:
    """The batches of an epoch, and nothing done with them."""
    rng = np.random.default_rng(1)
    return lambda: cost(lambda: sum(len(labels) for _, labels in batches(folder, rng)))


def epoch(folder: Path) -> Callable[[], Cost]:
    """One epoch of training; nothing is validated."""
    network, rng, loss = SpiraConvVersion2().train(), np.random.default_rng(1), nn.BCELoss()
    adam = torch.optim.Adam(network.parameters(), lr=1e-3, weight_decay=0.01)
    step = 0

    def train() -> None:
        nonlocal step
        for features, labels in batches(folder, rng):
            step += 1
            rate = 1e-3 * 1000**0.5 * min(step * 1000**-1.5, step**-0.5)
            for group in adam.param_groups:
                group["lr"] = rate
            adam.zero_grad()
            found = loss(network(features), labels)
            found.backward()
            adam.step()
            found.item()

    return lambda: cost(train)
