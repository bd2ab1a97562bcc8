"""The features that can be computed, by name.

A strategy says the shape of one window's features and makes the module that computes them::

    n_frames(spec) -> int
    n_bins(spec) -> int
    extractor(spec) -> torch.nn.Module   # (batch, time) in [-1, 1] -> (batch, frame, bin)

``spec`` is the ``FeatureSpec``; what a package's strategy needs beside it comes in
``spec.parameters``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from spira_tasks.registry import Registry

if TYPE_CHECKING:
    from torch import nn

    from spira_tasks.speech.features import FeatureSpec


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
