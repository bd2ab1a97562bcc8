"""What determines a feature matrix, and the features that can be computed, by name.

A strategy says the shape of one window's features and makes the module that computes them::

    n_frames(spec) -> int
    n_bins(spec) -> int
    extractor(spec) -> torch.nn.Module   # (batch, time) in [-1, 1] -> (batch, frame, bin)

``spec`` is the ``FeatureSpec``; what a package's strategy needs beside it comes in
``spec.parameters``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from spira_tasks.registry import Registry

if TYPE_CHECKING:
    from torch import nn

Tail = Literal["keep", "drop"]
Temporal = Literal["windows", "padding", "whole"]


class Strategy(Protocol):
    """How one feature is computed."""

    def n_frames(self, spec: FeatureSpec, /) -> int: ...

    def n_bins(self, spec: FeatureSpec, /) -> int: ...

    def extractor(self, spec: FeatureSpec, /) -> nn.Module: ...


STRATEGIES: Registry[Strategy] = Registry(
    "features",
    {
        "mfcc": "spira_tasks.speech.spectral:MFCC",
        "log_mel": "spira_tasks.speech.spectral:LOG_MEL",
        "mel": "spira_tasks.speech.spectral:MEL",
        "spectrogram": "spira_tasks.speech.spectral:SPECTROGRAM",
        "markers": "spira_tasks.speech.markers:MARKERS",
    },
)


@dataclass(frozen=True)
class FeatureSpec:
    """Everything that determines a feature matrix, and nothing else.

    ``mfcc`` is SPIRA v1's feature; ``log_mel`` and ``spectrogram`` are in dB, 80 dB below the
    loudest value of the window and no less; ``mel``, and ``spectrogram`` without ``decibels``, are
    the powers that v1 took.

    ``temporal`` says what of a recording is described.

    * ``windows``: one after another.  With tail ``keep`` the last window ends where the recording
      ends, so no speech is lost; ``drop`` is SPIRA v1's rule: windows end strictly before the
      recording does.  In both, a recording shorter than a window is padded with zeros to one.
    * ``padding``: the recording, cut to ``window_seconds``.  Frames of zeros, or of silence in dB,
      follow until the features have the shape of a window's (v1's ``padding_with_max_lenght``).
    * ``whole``: the recording, by one frame; for features that have one, such as ``markers``.
    """

    name: str = "mfcc"  # of spira_tasks.speech.strategies
    sample_rate_hz: int = 16_000
    n_fft: int = 1200  # samples, as the next two
    win_length: int = 400
    hop_length: int = 160
    n_mels: int = 40
    n_mfcc: int = 40
    window_seconds: float = 4.0
    step_seconds: float = 1.0  # between the starts of two windows
    tail: Tail = "keep"
    temporal: Temporal = "windows"
    log_mels: bool = False  # of mfcc: natural logarithms of mel bands in place of dB
    decibels: bool = True  # of spectrogram: dB, or powers
    mel_fmin_hz: float = 0.0
    mel_fmax_hz: float | None = None  # None: half the sample rate
    parameters: Mapping[str, Any] = field(default_factory=dict)  # of a package's strategy
    implementation: str = ""  # of the package that the strategy is of

    @property
    def n_window_samples(self) -> int:
        return round(self.window_seconds * self.sample_rate_hz)

    @property
    def n_step_samples(self) -> int:
        return round(self.step_seconds * self.sample_rate_hz)

    @property
    def n_frames(self) -> int:
        return STRATEGIES.find(self.name).n_frames(self)

    @property
    def n_bins(self) -> int:
        return STRATEGIES.find(self.name).n_bins(self)

    @property
    def schema(self) -> str:
        """Short hash of everything that determines the numbers' meaning."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> FeatureSpec:
        return cls(**json.loads(text))
