"""Spectral features: MFCC, mel bands and spectrograms, with SPIRA v1's parameters and v1b's.

v1 is Casanova et al., ACL-IJCNLP Findings 2021; v1b its successor for the ComParE 2021 challenge.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spira_tasks.speech.strategies import FeatureSpec
from spira_tasks.speech.torchaudio_import import transforms


class Spectral(nn.Module):
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
        mels = {"n_mels": spec.n_mels, "f_min": spec.mel_fmin_hz, "f_max": spec.mel_fmax_hz}
        self.transform: nn.Module
        self.decibel = transforms.AmplitudeToDB("power", top_db=80)
        self.scale: nn.Module | None = None  # from bins to mel bands
        if spec.name == "mfcc":
            mfcc = transforms.MFCC(
                spec.sample_rate_hz, spec.n_mfcc, log_mels=spec.log_mels, melkwargs={**stft, **mels}
            )
            self.transform, self.scale = mfcc, mfcc.MelSpectrogram.mel_scale
        elif spec.name == "spectrogram":
            spectrogram = transforms.Spectrogram(**stft)
            in_db = [self.decibel] if spec.decibels else []
            self.transform = nn.Sequential(spectrogram, *in_db)
        else:
            mel = transforms.MelSpectrogram(spec.sample_rate_hz, **mels, **stft)
            self.transform = nn.Sequential(mel, self.decibel) if spec.name == "log_mel" else mel
            self.scale = mel.mel_scale
        # from mel bands to coefficients
        self.register_buffer("dct", getattr(self.transform, "dct_mat", None), persistent=False)

    def forward(self, windows: Tensor) -> Tensor:
        """Map (batch, time) windows in [-1, 1] to (batch, frame, bin) features."""
        features: Tensor = self.transform(windows.unsqueeze(1))  # (batch, 1, bin, frame)
        return features.squeeze(1).transpose(1, 2)

    def bands(self, waveform: Tensor) -> Tensor:
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

    def levels(self, bands: Tensor) -> Tensor:
        """Features of (window, bin, frame) powers: (window, frame, bin)."""
        spec = self.spec
        if spec.name == "mel" or (spec.name == "spectrogram" and not spec.decibels):
            return bands.transpose(1, 2)
        if spec.name == "mfcc" and spec.log_mels:
            levels = (bands + 1e-6).log().transpose(1, 2)
        else:
            levels = self.decibel(bands.unsqueeze(1)).squeeze(1).transpose(1, 2)
        return levels if self.dct is None else levels @ self.dct

    def silence(self, features: Tensor) -> Tensor:
        """What follows a recording that is padded, for its (batch, frame, bin) features.

        Zeros, as v1 has it: of coefficients, and of powers.  A feature in dB gets the level of no
        power, because 0 dB would be as loud as speech; v1b pads powers and takes dB afterwards.

        Returns
        -------
        (batch, 1, 1) tensor
        """
        spec = self.spec
        if spec.name == "log_mel" or (spec.name == "spectrogram" and spec.decibels):
            lowest = 10 * math.log10(self.decibel.amin)
            loudest = features.amax(dim=(1, 2), keepdim=True)
            floor: Tensor = (loudest - self.decibel.top_db).clamp(min=lowest)
            return floor
        return features.new_zeros(len(features), 1, 1)


@dataclass(frozen=True)
class SpectralStrategy:
    """A feature with a frame every ``hop_length`` samples."""

    count: Callable[[FeatureSpec], int]

    def n_frames(self, spec: FeatureSpec) -> int:
        return 1 + spec.n_window_samples // spec.hop_length

    def n_bins(self, spec: FeatureSpec) -> int:
        return self.count(spec)

    def extractor(self, spec: FeatureSpec) -> Spectral:
        if spec.temporal == "whole":
            raise ValueError(
                "of a whole recording it has as many frames as the recording is long, and a "
                "network takes one number of frames: choose the temporal windows or padding, or "
                "the feature markers"
            )
        if spec.parameters:
            raise ValueError(f"it has no parameters {', '.join(sorted(spec.parameters))}")
        return Spectral(spec)


MFCC = SpectralStrategy(lambda spec: spec.n_mfcc)
LOG_MEL = MEL = SpectralStrategy(lambda spec: spec.n_mels)
SPECTROGRAM = SpectralStrategy(lambda spec: spec.n_fft // 2 + 1)
