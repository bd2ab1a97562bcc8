"""Windows of a waveform, and the acoustic features of a window.

The defaults are those of every published SPIRA experiment (Casanova et al., ACL-IJCNLP Findings
2021): 16 kHz, 40 MFCC of 40 mel bands, 25 ms analysis windows every 10 ms, and windows of 4 s
every 1 s, so that a window is a ``(401, 40)`` matrix.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spira_tasks.errors import ConfigError
from spira_tasks.speech.spectral import Spectral
from spira_tasks.speech.strategies import STRATEGIES, FeatureSpec, Tail

__all__ = ["FeatureExtractor", "FeatureSpec", "Tail", "window_starts", "windows"]


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
    """Cut a (time,) waveform into its (window, time) windows, or take all of it as one.

    Of a spec whose ``temporal`` is not ``windows``, the one window is as long as the recording is.
    """
    if spec.temporal != "windows":
        end = spec.n_window_samples if spec.temporal == "padding" else None
        missing = max(spec.n_fft - waveform.shape[0], 0)  # at least one frame
        return nn.functional.pad(waveform, (0, missing))[None, :end]
    missing = spec.n_window_samples - waveform.shape[0]
    if missing > 0:
        waveform = nn.functional.pad(waveform, (0, missing))
    starts = window_starts(waveform.shape[0], spec)
    return torch.stack([waveform[start : start + spec.n_window_samples] for start in starts])


class FeatureExtractor(nn.Module):
    """Features of windows, by whichever strategy; ``spectral`` where it is one of those.

    Raises
    ------
    ConfigError
        When the strategy, or the package that it was of, is not here, or it does not take these
        parameters.
    """

    def __init__(self, spec: FeatureSpec) -> None:
        super().__init__()
        self.spec = spec
        strategy = STRATEGIES.find(spec.name, spec.implementation)
        try:
            self.strategy = strategy.extractor(spec)
        except (TypeError, ValueError, KeyError, RuntimeError) as error:
            raise ConfigError(
                f"the feature {spec.name} cannot be computed with these settings of materialize: "
                f"{error}"
            ) from error
        self.shape = (spec.n_frames, spec.n_bins)

    @property
    def spectral(self) -> Spectral | None:
        return self.strategy if isinstance(self.strategy, Spectral) else None

    def forward(self, windows: Tensor) -> Tensor:
        """Map (batch, time) windows in [-1, 1] to (batch, frame, bin) features."""
        features: Tensor = self.strategy(windows)
        if self.spec.temporal == "padding" and features.shape[1] < self.shape[0]:
            spectral = self.spectral
            silent = features.new_zeros(1) if spectral is None else spectral.silence(features)
            n_missing = self.shape[0] - features.shape[1]
            frames = silent.expand(len(features), n_missing, features.shape[2])
            features = torch.cat([features, frames], dim=1)
        if features.shape[1:] != self.shape:
            raise ConfigError(
                f"the feature {self.spec.name} made windows of shape {tuple(features.shape[1:])} "
                f"and announces {self.shape} (frame, bin): mend its package"
            )
        return features

    def of_recording(self, waveform: Tensor) -> Tensor:
        """As ``self(windows(waveform, self.spec))``; to the last digits, if that is faster.

        A spectral frame that several windows have is transformed once, but for those at the ends
        of a window, where the signal is mirrored: a third of the time.  See docs/adr/0029.

        Parameters
        ----------
        waveform : (time,) float tensor
            In [-1, 1].

        Returns
        -------
        (window, frame, bin) tensor
        """
        spec, cut, spectral = self.spec, windows(waveform, self.spec), self.spectral
        if spectral is None or spec.temporal != "windows":
            result: Tensor = self(cut)
            return result
        hop = spec.hop_length
        n_end = -(-(spec.n_fft // 2) // hop)  # frames that reach over an end of a window
        n_samples = 2 * n_end * hop  # that these frames need
        starts = window_starts(max(waveform.shape[0], spec.n_window_samples), spec)
        shared = [start % hop == 0 for start in starts]
        if sum(shared) < 2 or spec.n_window_samples % hop or spec.n_frames < 2 * n_end:
            return spectral.levels(spectral.bands(cut))
        whole = spectral.bands(waveform[None])[0]  # (bin, frame)
        heads = spectral.bands(cut[:, :n_samples])[..., :n_end]
        tails = spectral.bands(cut[:, -n_samples:])[..., -n_end:]
        bands = []
        for number, start in enumerate(starts):
            if shared[number]:
                first, last = start // hop + n_end, start // hop + spec.n_frames - n_end
                middle = whole[:, first:last]
                bands.append(torch.cat([heads[number], middle, tails[number]], dim=1))
            else:
                bands.append(spectral.bands(cut[number : number + 1])[0])
        return spectral.levels(torch.stack(bands))
