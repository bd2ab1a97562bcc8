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

    dct: Tensor | None

    def __init__(self, spec: FeatureSpec) -> None:
        super().__init__()
        self.spec = spec
        stft = {"n_fft": spec.n_fft, "win_length": spec.win_length, "hop_length": spec.hop_length}
        self.transform: nn.Module
        self.decibel = transforms.AmplitudeToDB("power", top_db=80)
        self.scale: nn.Module | None = None  # from bins to mel bands
        if spec.name == "mfcc":
            mfcc = transforms.MFCC(
                spec.sample_rate_hz, spec.n_mfcc, melkwargs={**stft, "n_mels": spec.n_mels}
            )
            self.transform, self.scale = mfcc, mfcc.MelSpectrogram.mel_scale
        elif spec.name == "log_mel":
            mel = transforms.MelSpectrogram(spec.sample_rate_hz, n_mels=spec.n_mels, **stft)
            self.transform = nn.Sequential(mel, self.decibel)
            self.scale = mel.mel_scale
        else:
            self.transform = nn.Sequential(transforms.Spectrogram(**stft), self.decibel)
        # from mel bands to coefficients
        self.register_buffer("dct", getattr(self.transform, "dct_mat", None), persistent=False)

    def forward(self, windows: Tensor) -> Tensor:
        """Map (batch, time) windows in [-1, 1] to (batch, frame, bin) features."""
        features: Tensor = self.transform(windows.unsqueeze(1))  # (batch, 1, bin, frame)
        return features.squeeze(1).transpose(1, 2)

    def of_recording(self, waveform: Tensor) -> Tensor:
        """As ``self(windows(waveform, self.spec))`` to the last digits, in a third of the time.

        A frame that several windows have is transformed once, but for those at the ends of a
        window, where the signal is mirrored.  See docs/adr/0029.

        Parameters
        ----------
        waveform : (time,) float tensor
            In [-1, 1].

        Returns
        -------
        (window, frame, bin) tensor
        """
        spec, cut = self.spec, windows(waveform, self.spec)
        hop = spec.hop_length
        n_end = -(-(spec.n_fft // 2) // hop)  # frames that reach over an end of a window
        n_samples = 2 * n_end * hop  # that these frames need
        starts = window_starts(max(waveform.shape[0], spec.n_window_samples), spec)
        shared = [start % hop == 0 for start in starts]
        if sum(shared) < 2 or spec.n_window_samples % hop or spec.n_frames < 2 * n_end:
            return self._levels(self._bands(cut))
        whole = self._bands(waveform[None])[0]  # (bin, frame)
        heads = self._bands(cut[:, :n_samples])[..., :n_end]
        tails = self._bands(cut[:, -n_samples:])[..., -n_end:]
        bands = []
        for number, start in enumerate(starts):
            if shared[number]:
                first, last = start // hop + n_end, start // hop + spec.n_frames - n_end
                middle = whole[:, first:last]
                bands.append(torch.cat([heads[number], middle, tails[number]], dim=1))
            else:
                bands.append(self._bands(cut[number : number + 1])[0])
        return self._levels(torch.stack(bands))

    def _bands(self, waveform: Tensor) -> Tensor:
        """Power of (batch, time) signals in the bins or mel bands: (batch, bin, frame)."""
        spec = self.spec
        spectrum = torch.stft(
            waveform,
            spec.n_fft,
            spec.hop_length,
            spec.win_length,
            torch.hann_window(spec.win_length, device=waveform.device, dtype=waveform.dtype),
            return_complex=True,
        )
        # torchaudio takes the square root of this and squares it again
        power = spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)
        return power if self.scale is None else self.scale(power)

    def _levels(self, bands: Tensor) -> Tensor:
        """Features of (window, bin, frame) powers: (window, frame, bin)."""
        levels: Tensor = self.decibel(bands.unsqueeze(1)).squeeze(1).transpose(1, 2)
        return levels if self.dct is None else levels @ self.dct
