"""Windows of a waveform, and the acoustic features of a window.

The defaults are those of every published SPIRA experiment (Casanova et al., ACL-IJCNLP Findings
2021): 16 kHz, 40 MFCC of 40 mel bands, 25 ms analysis windows every 10 ms, and windows of 4 s
every 1 s, so that a window is a ``(401, 40)`` matrix.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from spira_tasks.speech.torchaudio_import import transforms

FeatureName = Literal["mfcc", "log_mel", "spectrogram"]
Tail = Literal["keep", "drop"]


@dataclass(frozen=True)
class FeatureSpec:
    """Everything that determines a feature matrix, and nothing else.

    ``mfcc`` is SPIRA v1's feature; ``log_mel`` and ``spectrogram`` are in dB, 80 dB below the
    loudest value of the window and no less.  With tail ``keep`` the last window ends where the
    recording ends, so no speech is lost; ``drop`` is SPIRA v1's rule: windows end strictly before
    the recording does.  In both, a recording shorter than a window is padded with zeros to one.
    """

    name: FeatureName = "mfcc"
    sample_rate_hz: int = 16_000
    n_fft: int = 1200  # samples, as the next two
    win_length: int = 400
    hop_length: int = 160
    n_mels: int = 40
    n_mfcc: int = 40
    window_seconds: float = 4.0
    step_seconds: float = 1.0  # between the starts of two windows
    tail: Tail = "keep"

    @property
    def n_window_samples(self) -> int:
        return round(self.window_seconds * self.sample_rate_hz)

    @property
    def n_step_samples(self) -> int:
        return round(self.step_seconds * self.sample_rate_hz)

    @property
    def n_frames(self) -> int:
        return 1 + self.n_window_samples // self.hop_length

    @property
    def n_bins(self) -> int:
        bins = {"mfcc": self.n_mfcc, "log_mel": self.n_mels, "spectrogram": self.n_fft // 2 + 1}
        return bins[self.name]

    @property
    def schema(self) -> str:
        """Short hash of everything that determines the numbers' meaning."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> FeatureSpec:
        return cls(**json.loads(text))


def window_starts(n_samples: int, spec: FeatureSpec) -> list[int]:
    """First sample of every window of a recording; never empty.

    Examples
    --------
    >>> window_starts(6 * 16_000 + 8_000, FeatureSpec())  # 6.5 s: the last one is moved back
    [0, 16000, 32000, 40000]
    >>> window_starts(6 * 16_000 + 8_000, FeatureSpec(tail="drop"))
    [0, 16000, 32000]
    >>> window_starts(3 * 16_000, FeatureSpec())
    [0]
    """
    length, step = spec.n_window_samples, spec.n_step_samples
    if spec.tail == "drop":
        return list(range(0, n_samples - length, step)) or [0]
    last = max(n_samples - length, 0)
    starts = list(range(0, last + 1, step))
    return starts if starts[-1] == last else [*starts, last]


def windows(waveform: Tensor, spec: FeatureSpec) -> Tensor:
    """Cut a (time,) waveform into its (window, time) windows."""
    missing = spec.n_window_samples - waveform.shape[0]
    if missing > 0:
        waveform = nn.functional.pad(waveform, (0, missing))
    starts = window_starts(waveform.shape[0], spec)
    return torch.stack([waveform[start : start + spec.n_window_samples] for start in starts])


class FeatureExtractor(nn.Module):
    """Features of windows, on whichever device the module is moved to.

    Each window is transformed by itself, whatever the level of the others in its batch.
    (torchaudio limits the dynamic range per item of the *leading* axes only; a plain (batch, time)
    tensor would share one limit.)
    """

    def __init__(self, spec: FeatureSpec) -> None:
        super().__init__()
        self.spec = spec
        stft = {"n_fft": spec.n_fft, "win_length": spec.win_length, "hop_length": spec.hop_length}
        self.transform: nn.Module
        if spec.name == "mfcc":
            self.transform = transforms.MFCC(
                spec.sample_rate_hz, spec.n_mfcc, melkwargs={**stft, "n_mels": spec.n_mels}
            )
        elif spec.name == "log_mel":
            mel = transforms.MelSpectrogram(spec.sample_rate_hz, n_mels=spec.n_mels, **stft)
            self.transform = nn.Sequential(mel, transforms.AmplitudeToDB("power", top_db=80))
        else:
            spectrogram = transforms.Spectrogram(**stft)
            decibel = transforms.AmplitudeToDB("power", top_db=80)
            self.transform = nn.Sequential(spectrogram, decibel)

    def forward(self, windows: Tensor) -> Tensor:
        """Map (batch, time) windows in [-1, 1] to (batch, frame, bin) features."""
        features: Tensor = self.transform(windows.unsqueeze(1))  # (batch, 1, bin, frame)
        return features.squeeze(1).transpose(1, 2)
