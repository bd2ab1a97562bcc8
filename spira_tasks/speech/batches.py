"""What an epoch sees of some recordings: noise, windows and features, computed for all at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from spira_tasks.speech.augmentation import (
    SILENT_PEAK,
    Insertion,
    NoisePolicy,
    draw_insertions,
    recording_rng,
    to_float,
)
from spira_tasks.speech.features import FeatureSpec, window_starts, windows
from spira_tasks.speech.frames import features_of

if TYPE_CHECKING:
    from spira_tasks.speech.examples import Example


@dataclass(frozen=True)
class Batch:
    features: Tensor  # (window, frame, bin) on the device
    labels: Tensor  # (window,) in [0, 1], on the device
    recordings: Tensor  # (window,) place of the window's recording in the batch, on the CPU


class Batches:
    """Makes batches of recordings; what is drawn depends on the seed, the recording and the draw.

    Random numbers are drawn on the host, recording by recording, and waveforms are addressed there;
    every operation on samples is one for the whole batch, on the device of the waveforms.

    Parameters
    ----------
    examples : sequence of Example
        Recordings, asked for when a batch needs them.
    extractor : nn.Module with a ``spec``
        Maps (window, time) signals in [-1, 1] to (window, frame, bin) features.
    bank : sequence of (time,) Tensor
        Ward noises on the device, as int16 samples or as floats in [-1, 1]; may be empty.
    noise : NoisePolicy
    windows : {"all", "random"}
        All windows of a recording, or one that starts at a random sample.
    seed : int
    """

    def __init__(
        self,
        examples: Sequence[Example],
        extractor: nn.Module,
        bank: Sequence[Tensor],
        noise: NoisePolicy,
        *,
        windows: Literal["all", "random"],
        seed: int,
    ) -> None:
        self.examples, self.extractor, self.noise = examples, extractor, noise
        self.windows, self.seed = windows, seed
        self.lengths = [len(ward) for ward in bank]
        self.bank = pad_sequence(list(bank), batch_first=True) if bank else None

    def make(self, indices: Sequence[int], draws: int | Sequence[int]) -> Batch:
        """The batch of the examples at ``indices``.

        ``draws`` is the number of the epoch, or another number for a draw that never changes; or
        such a number for each example.
        """
        if isinstance(draws, int):
            draws = [draws] * len(indices)
        chosen = [self.examples[index] for index in indices]
        spec: FeatureSpec = self.extractor.spec  # type: ignore[assignment]
        signals = self._noisy(chosen, draws, spec.n_window_samples)
        if spec.temporal != "windows":
            return self._whole(chosen, signals, spec)
        starts = [
            self._starts(example, draw, spec) for example, draw in zip(chosen, draws, strict=True)
        ]
        n_windows = [len(of_one) for of_one in starts]
        rows = np.repeat(np.arange(len(chosen)), n_windows)
        firsts = np.concatenate(starts).astype(np.int64)
        spectral = getattr(self.extractor, "spectral", None)
        if spectral is not None:
            features = features_of(spectral, signals, rows, firsts)
        else:
            cuts = signals.unfold(1, spec.n_window_samples, 1)
            features = self.extractor(cuts[torch.from_numpy(rows), torch.from_numpy(firsts)])
        labels = torch.tensor([example.label for example in chosen])
        recordings = torch.from_numpy(rows)
        return Batch(features, labels[recordings].to(signals.device), recordings)

    def _whole(self, chosen: Sequence[Example], signals: Tensor, spec: FeatureSpec) -> Batch:
        """A batch of one matrix a recording, computed by itself: they differ in length."""
        features = torch.cat(
            [
                self.extractor(windows(signal[: len(example.pcm16)], spec))
                for example, signal in zip(chosen, signals, strict=True)
            ]
        )
        labels = torch.tensor([example.label for example in chosen])
        return Batch(features, labels.to(signals.device), torch.arange(len(chosen)))

    def _starts(self, example: Example, draw: int, spec: FeatureSpec) -> list[int]:
        n_samples = len(example.pcm16)
        if self.windows == "all":
            return window_starts(max(n_samples, spec.n_window_samples), spec)
        spare = max(n_samples - spec.n_window_samples, 0)
        rng = recording_rng(self.seed, example.record_id, draw, 1)
        return [int(rng.integers(spare, endpoint=True))]

    def _noisy(self, chosen: Sequence[Example], draws: Sequence[int], n_least: int) -> Tensor:
        """Waveforms with ward noise, (recording, time), zeros behind the shorter ones."""
        device = chosen[0].pcm16.device
        waveforms = to_float(pad_sequence([example.pcm16 for example in chosen], batch_first=True))
        if waveforms.shape[1] < n_least:
            waveforms = nn.functional.pad(waveforms, (0, n_least - waveforms.shape[1]))
        if self.bank is None:
            return waveforms
        drawn = [
            self._insertions(example, draw) for example, draw in zip(chosen, draws, strict=True)
        ]
        n_most = max(map(len, drawn))
        if not n_most:
            return waveforms
        # recording by recording, n_most crops each; one of no samples where it has fewer
        crops = [
            self._crop(insertion, len(example.pcm16))
            for example, insertions in zip(chosen, drawn, strict=True)
            for insertion in (*insertions, *[None] * (n_most - len(insertions)))
        ]
        noise = to_float(pad_sequence(crops, batch_first=True))
        peaks = [
            [insertion.peak for insertion in insertions] + [0.0] * (n_most - len(insertions))
            for insertions in drawn
        ]
        loudest = (noise if self.noise.peak == "signed" else noise.abs()).amax(dim=1)
        loudest = loudest.view(len(chosen), n_most)
        scale = torch.tensor(peaks, dtype=noise.dtype).to(device) / loudest.clamp(min=SILENT_PEAK)
        scale = torch.where(loudest > SILENT_PEAK, scale, 0)
        for place in range(n_most):  # in the order of insertion
            waveforms[:, : noise.shape[1]].addcmul_(
                noise.view(len(chosen), n_most, -1)[:, place], scale[:, place, None]
            )
        return waveforms

    def insertions(self, index: int, draw: int) -> list[Insertion]:
        """The ward noises that a draw puts on the example at ``index``."""
        return self._insertions(self.examples[index], draw)

    def _insertions(self, example: Example, draw: int) -> list[Insertion]:
        rng = recording_rng(self.seed, example.record_id, draw)
        return draw_insertions(
            len(example.pcm16), self.lengths, self.noise, rng, label=example.label
        )

    def _crop(self, insertion: Insertion | None, n_samples: int) -> Tensor:
        """The samples of the bank that an insertion takes: a view, but for a noise that repeats."""
        assert self.bank is not None  # noqa: S101
        if insertion is None:
            return self.bank[0, :0]
        ward = self.bank[insertion.noise, : self.lengths[insertion.noise]]
        if len(ward) < n_samples:
            ward = ward.repeat(-(-n_samples // len(ward)))
        return ward[insertion.start : insertion.start + n_samples]
