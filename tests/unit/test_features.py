"""Features and windows: SPIRA v1's by its numbers, without v1's ways of losing audio."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from spira_tasks.errors import ConfigError
from spira_tasks.speech.features import FeatureExtractor, FeatureSpec, Tail, window_starts, windows
from spira_tasks.speech.torchaudio_import import transforms

V1 = FeatureSpec()
V1_MFCC = transforms.MFCC(
    sample_rate=16_000,
    n_mfcc=40,
    log_mels=False,
    melkwargs={"n_fft": 1200, "win_length": 400, "hop_length": 160, "n_mels": 40},
)


def speech_like(n_samples: int, seed: int = 0, level: float = 0.1) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(level * rng.standard_normal(n_samples)).float()


@pytest.mark.parametrize(("seconds", "n_frames"), [(4.0, 401), (3.0, 301)])
def test_a_window_of_version_1_is_a_matrix_of_the_published_shape(
    seconds: float, n_frames: int
) -> None:
    spec = FeatureSpec(window_seconds=seconds)
    features = FeatureExtractor(spec)(windows(speech_like(round(seconds * 16_000)), spec))
    assert features.shape == (1, n_frames, 40) == (1, spec.n_frames, spec.n_bins)


def test_mfcc_are_those_of_torchaudio_with_version_1_parameters() -> None:
    waveform = speech_like(64_000)
    ours = FeatureExtractor(V1)(waveform.unsqueeze(0))[0]
    assert torch.equal(ours, V1_MFCC(waveform).T)


# The mel spectrogram of v1b's CNN14, and v1's spectrogram.
V1B = {"n_fft": 1024, "win_length": 1024, "hop_length": 320, "n_mels": 64}
STFT = {"n_fft": 1200, "win_length": 400, "hop_length": 160}
MFCC_OF_LOGARITHMS = transforms.MFCC(
    16_000, 13, log_mels=True, melkwargs={**V1B, "f_min": 50.0, "f_max": 7_000.0}
)


@pytest.mark.parametrize(
    ("settings", "transform"),
    [
        ({"name": "mel", **V1B}, transforms.MelSpectrogram(16_000, **V1B)),
        (
            {"name": "mel", **V1B, "mel_fmin_hz": 50.0, "mel_fmax_hz": 7_000.0},
            transforms.MelSpectrogram(16_000, **V1B, f_min=50.0, f_max=7_000.0),
        ),
        ({"name": "spectrogram", "decibels": False}, transforms.Spectrogram(**STFT)),
        (
            {"n_mfcc": 13, "log_mels": True, **V1B, "mel_fmin_hz": 50.0, "mel_fmax_hz": 7_000.0},
            MFCC_OF_LOGARITHMS,
        ),
    ],
)
def test_every_parameter_of_versions_1_and_1b_has_the_effect_it_has_in_torchaudio(
    settings: dict[str, Any], transform: nn.Module
) -> None:
    spec, waveform = FeatureSpec(**settings), speech_like(64_000)
    extractor = FeatureExtractor(spec)
    ours = extractor(waveform.unsqueeze(0))[0]
    assert ours.shape == (spec.n_frames, spec.n_bins)
    assert torch.equal(ours, transform(waveform).T)
    torch.testing.assert_close(extractor.of_recording(waveform)[0], ours, rtol=1e-5, atol=2e-4)


def test_a_padded_recording_is_its_own_features_and_then_zeros() -> None:
    spec = FeatureSpec(temporal="padding", window_seconds=3.0)
    short, extractor = speech_like(32_000), FeatureExtractor(spec)
    features = extractor(windows(short, spec))
    assert features.shape == (1, 301, 40)
    assert torch.equal(features[0, :201], V1_MFCC(short).T)
    assert not features[0, 201:].any()
    assert torch.equal(extractor.of_recording(short), features)
    long = speech_like(64_000)
    assert torch.equal(extractor.of_recording(long)[0], V1_MFCC(long[:48_000]).T)
    assert torch.isfinite(extractor.of_recording(speech_like(10))).all()


@pytest.mark.parametrize(
    ("in_db", "powers"),
    [
        ({"name": "log_mel"}, {"name": "mel"}),
        ({"name": "spectrogram"}, {"name": "spectrogram", "decibels": False}),
    ],
)
def test_what_follows_a_padded_recording_is_silence_in_db_too(
    in_db: dict[str, Any], powers: dict[str, Any]
) -> None:
    """As if the powers had been padded, as v1b does."""
    padding: dict[str, Any] = {"temporal": "padding", "window_seconds": 3.0}
    for level in (0.1, 1e-4):
        short = speech_like(32_000, level=level)
        found = FeatureExtractor(FeatureSpec(**in_db, **padding)).of_recording(short)
        padded = FeatureExtractor(FeatureSpec(**powers, **padding)).of_recording(short)
        assert not padded[0, 201:].any()
        expected = transforms.AmplitudeToDB("power", top_db=80)(padded.unsqueeze(1)).squeeze(1)
        torch.testing.assert_close(found, expected)
        assert found[0, 201:].max() < found[0, :201].max() - 30


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temporal": "whole"}, "mfcc cannot .*: of a whole recording it has as many frames as"),
        ({"parameters": {"depth": 1}}, "it has no parameters depth"),
        ({"n_mfcc": 41}, "Cannot select more MFCC coefficients than # mel bins"),
        ({"name": "wavelet"}, "no 'wavelet' among the features. Known are: mfcc, log_mel, mel, "),
    ],
)
def test_what_cannot_be_computed_is_refused_with_the_reason(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        FeatureExtractor(FeatureSpec(**settings))


@pytest.mark.parametrize("name", ["mfcc", "log_mel", "mel", "spectrogram"])
@pytest.mark.parametrize("tail", ["keep", "drop"])
@pytest.mark.parametrize("n_samples", [30_000, 64_000, 64_001, 96_000, 144_123])
def test_frames_that_windows_share_are_those_of_each_window_by_itself(
    name: str, tail: Tail, n_samples: int
) -> None:
    """Quiet and loud by turns, so that the 80 dB of one window are not those of another."""
    spec = FeatureSpec(name=name, tail=tail)
    waveform = speech_like(n_samples) * (torch.arange(n_samples) // 20_000 % 2 * 0.99 + 0.01)
    waveform[:5000] = 0
    extractor = FeatureExtractor(spec)
    together, single = extractor.of_recording(waveform), extractor(windows(waveform, spec))
    torch.testing.assert_close(together, single, rtol=1e-5, atol=2e-4)  # dB


def test_windows_between_two_frames_share_none() -> None:
    spec = FeatureSpec(step_seconds=0.505)  # 50.5 frames
    waveform, extractor = speech_like(90_000), FeatureExtractor(spec)
    expected = extractor(windows(waveform, spec))
    torch.testing.assert_close(extractor.of_recording(waveform), expected, rtol=1e-5, atol=2e-4)


def test_a_loud_neighbour_in_the_batch_changes_nothing() -> None:
    quiet, loud = speech_like(64_000, 1, level=0.0005), speech_like(64_000, 2, level=0.9)
    extractor = FeatureExtractor(V1)
    together = extractor(torch.stack([quiet, loud]))[0]
    torch.testing.assert_close(together, extractor(quiet.unsqueeze(0))[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("name", "n_bins"), [("mfcc", 40), ("log_mel", 40), ("spectrogram", 601)])
def test_every_feature_is_finite_even_in_digital_silence(name: str, n_bins: int) -> None:
    spec = FeatureSpec(name=name)
    features = FeatureExtractor(spec)(windows(torch.zeros(64_000), spec))
    assert features.shape == (1, 401, n_bins)
    assert torch.isfinite(features).all()


def test_a_tone_is_loudest_in_the_band_it_is_in() -> None:
    tone = 0.5 * torch.sin(2 * torch.pi * 1_000 * torch.arange(64_000) / 16_000)
    spectrogram = FeatureExtractor(FeatureSpec(name="spectrogram"))(tone.unsqueeze(0))[0]
    assert int(spectrogram.mean(dim=0).argmax()) == 75  # 1000 Hz in steps of 16000 / 1200 Hz


def test_windows_of_version_1_end_strictly_before_the_recording_does() -> None:
    """v1: ``range(window, length, step)``; the clips of its paper last 9.05 s and 11.18 s."""
    spec = FeatureSpec(tail="drop")
    counts = {s: len(window_starts(round(s * 16_000), spec)) for s in (4.5, 5, 6.5, 9.05, 11.18)}
    assert counts == {4.5: 1, 5: 1, 6.5: 3, 9.05: 6, 11.18: 8}


def test_a_recording_of_exactly_one_window_is_one_window() -> None:
    """v1 crashed on it."""
    for tail in ("keep", "drop"):
        spec = FeatureSpec(tail=tail)
        assert windows(speech_like(64_000), spec).shape == (1, 64_000)


@given(st.integers(min_value=1, max_value=30 * 16_000))
def test_no_sample_of_any_recording_is_lost(n_samples: int) -> None:
    starts = window_starts(n_samples, V1)
    assert starts[0] == 0
    assert starts == sorted(set(starts))
    assert all(b - a <= V1.n_window_samples for a, b in itertools.pairwise(starts))
    assert starts[-1] + V1.n_window_samples == max(n_samples, V1.n_window_samples)


def test_a_short_recording_is_padded_with_silence_to_one_window() -> None:
    short = speech_like(40_000)
    padded = windows(short, V1)
    assert padded.shape == (1, 64_000)
    assert torch.equal(padded[0, :40_000], short)
    assert not padded[0, 40_000:].any()
