"""Batches give the numbers that recordings give one by one."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spira_tasks.speech.augmentation import NoisePolicy, insert_ward_noise, recording_rng, to_float
from spira_tasks.speech.batches import Batches
from spira_tasks.speech.examples import Example
from spira_tasks.speech.features import FeatureExtractor, FeatureSpec, windows

SPEC = FeatureSpec(window_seconds=1.0, step_seconds=0.25, n_mels=20, n_mfcc=20)
SECONDS = (2.63, 0.4, 1.0, 1.9)  # longer, shorter and just as long as a window


def sound(number: int, seconds: float) -> Tensor:
    rng = np.random.default_rng(number)
    return torch.from_numpy((rng.normal(0, 3_000, int(seconds * 16_000))).astype(np.int16))


EXAMPLES = [Example(f"r{n}", sound(n, s), float(n % 2)) for n, s in enumerate(SECONDS)]
# one repeats, one is silent
BANK = [sound(11, 1.5), sound(12, 4.0), torch.zeros(70_000, dtype=torch.int16), sound(13, 5.0)]


def cut(waveform: Tensor, spec: FeatureSpec, which: str, rng: np.random.Generator) -> Tensor:
    """The (window, time) windows of a waveform that one epoch uses."""
    if which == "random":
        spare = max(waveform.shape[0] - spec.n_window_samples, 0)
        start = int(rng.integers(spare, endpoint=True))
        waveform = waveform[start : start + spec.n_window_samples]
    return windows(waveform, spec)


def one_by_one(
    extractor: nn.Module, noise: NoisePolicy, which: str, spec: FeatureSpec, draw: int
) -> tuple[Tensor, list[int]]:
    bank, cuts = [to_float(ward) for ward in BANK], []
    for example in EXAMPLES:
        noisy = insert_ward_noise(
            to_float(example.pcm16),
            bank,
            noise,
            recording_rng(9, example.record_id, draw),
            label=example.label,
        )
        cuts.append(cut(noisy, spec, which, recording_rng(9, example.record_id, draw, 1)))
    return torch.cat([extractor(views) for views in cuts]), [len(views) for views in cuts]


@pytest.mark.parametrize(
    ("which", "noise", "changes"),
    [
        ("all", NoisePolicy(3, 3), {}),
        ("all", NoisePolicy(0, 2), {"tail": "drop", "name": "log_mel"}),
        ("random", NoisePolicy(0, 2), {}),
        ("all", NoisePolicy(1, 1, patients=(2, 3), peak="signed"), {"hop_length": 150}),
        ("random", NoisePolicy(0, 0), {"name": "spectrogram", "n_fft": 500, "win_length": 301}),
    ],
)
def test_a_batch_has_the_numbers_of_its_recordings(
    which: Literal["all", "random"], noise: NoisePolicy, changes: dict[str, str]
) -> None:
    spec = replace(SPEC, **changes)  # type: ignore[arg-type]
    extractor = FeatureExtractor(spec)
    expected, n_windows = one_by_one(extractor, noise, which, spec, draw=4)
    batches = Batches(EXAMPLES, extractor, BANK, noise, windows=which, seed=9)
    batch = batches.make(range(len(EXAMPLES)), 4)
    assert batch.recordings.bincount().tolist() == n_windows
    assert batch.labels.tolist() == [float(n % 2) for n in batch.recordings]
    assert batch.features.shape == expected.shape
    assert float((batch.features - expected).abs().max() / expected.std()) < 1e-4


class Signals(nn.Module):
    """The windows themselves, as an extractor of another package may be."""

    spec = SPEC

    def forward(self, cuts: Tensor) -> Tensor:
        return cuts[:, :, None]


@pytest.mark.parametrize("which", ["all", "random"])
def test_the_waveforms_of_a_batch_are_those_of_its_recordings(
    which: Literal["all", "random"],
) -> None:
    for draw, policy in product((1, 2), (NoisePolicy(3, 3), NoisePolicy(0, 2, peak="signed"))):
        expected, _ = one_by_one(Signals(), policy, which, SPEC, draw)
        batches = Batches(EXAMPLES, Signals(), BANK, policy, windows=which, seed=9)
        batch = batches.make(range(len(EXAMPLES)), draw)
        torch.testing.assert_close(batch.features, expected, rtol=0, atol=1e-6)


def test_what_a_recording_becomes_does_not_depend_on_its_batch() -> None:
    batches = Batches(EXAMPLES, Signals(), BANK, NoisePolicy(1, 3), windows="random", seed=9)
    together, alone = batches.make([3, 0, 2], 1), batches.make([2], 1)
    torch.testing.assert_close(together.features[2:], alone.features, rtol=0, atol=1e-7)


def test_only_a_policy_that_counts_by_label_looks_at_it() -> None:
    turned = [replace(example, label=1 - example.label) for example in EXAMPLES]

    def signals(examples: list[Example], policy: NoisePolicy) -> Tensor:
        batches = Batches(examples, Signals(), BANK, policy, windows="all", seed=9)
        return batches.make(range(len(examples)), 1).features

    blind, published = NoisePolicy(1, 1), NoisePolicy(1, 1, patients=(0, 0))
    assert torch.equal(signals(EXAMPLES, blind), signals(turned, blind))
    assert not torch.equal(signals(EXAMPLES, published), signals(turned, published))
    with pytest.raises(ValueError, match="needs the label"):
        published.counts(None)


@pytest.mark.parametrize("changes", [{"temporal": "padding", "window_seconds": 2.0}])
def test_a_batch_of_padded_recordings_has_one_matrix_for_each(changes: dict[str, Any]) -> None:
    spec = replace(SPEC, **changes)
    extractor, noise = FeatureExtractor(spec), NoisePolicy(1, 1)
    batches = Batches(EXAMPLES, extractor, BANK, noise, windows="all", seed=9)
    batch = batches.make(range(len(EXAMPLES)), 3)
    assert batch.recordings.tolist() == list(range(len(EXAMPLES)))
    assert batch.features.shape == (len(EXAMPLES), spec.n_frames, spec.n_bins)
    expected, _ = one_by_one(extractor, noise, "all", spec, 3)
    torch.testing.assert_close(batch.features, expected, rtol=1e-4, atol=1e-3)
    assert not batch.features[1, 1 + int(0.4 * 100) :].any()  # 0.4 s, then zeros
