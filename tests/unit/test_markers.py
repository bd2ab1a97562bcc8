"""Acoustic markers of signals whose pitch, pauses, jitter, shimmer and noise are known."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from spira_tasks.speech import markers as markers_module
from spira_tasks.speech.classifier import Classifier, ClassifierSpec
from spira_tasks.speech.features import FeatureExtractor, FeatureSpec, windows
from spira_tasks.speech.markers import NAMES, MarkerExtractor, cepstral_peak_prominence, markers
from spira_tasks.speech.synthesis import draw_voice, hold_vowel

Waveform = NDArray[np.float64]
RATE_HZ = 16_000


def pulses(periods: Waveform, amplitudes: Waveform) -> Waveform:
    """Pulses of 1 ms at any instants, between samples too, as many seconds apart as ``periods``."""
    instants = 0.01 + np.concatenate([[0.0], np.cumsum(periods)[:-1]])
    signal = np.zeros(round((instants[-1] + 0.01) * RATE_HZ))
    for instant, amplitude in zip(instants, amplitudes, strict=True):
        nearest = round(instant * RATE_HZ)
        samples = np.arange(max(nearest - 50, 0), min(nearest + 50, signal.size))
        steps = (samples / RATE_HZ - instant) / 0.0004
        signal[samples] += amplitude * (1 - steps**2) * np.exp(-(steps**2) / 2)
    return signal


def harmonics(f0_hz: float, seconds: float) -> Waveform:
    """A sum of eleven harmonics; RMS 1."""
    time = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    signal = sum(np.sin(2 * np.pi * f0_hz * k * time + k) / k for k in range(1, 12))
    return np.asarray(signal / np.std(signal))


@pytest.mark.parametrize("f0_hz", [90.0, 180.7, 400.0])
def test_a_regular_voice_has_its_pitch_and_neither_jitter_nor_shimmer(f0_hz: float) -> None:
    found = markers(pulses(np.full(round(f0_hz), 1 / f0_hz), np.full(round(f0_hz), 0.5)))
    assert found.f0_mean_hz == pytest.approx(f0_hz, rel=1e-4)
    assert found.f0_spread_semitones < 0.01
    assert found.jitter_percent < 0.15
    assert found.shimmer_percent < 0.2
    assert found.hnr_db > 40
    assert found.longest_phonation_seconds == pytest.approx(1.0, abs=0.03)
    assert found.pauses_per_minute == 0


@pytest.mark.parametrize("size", [0.005, 0.01])
def test_jitter_and_shimmer_are_those_of_the_periods_and_amplitudes(size: float) -> None:
    rng = np.random.default_rng(3)
    periods = (1 + size * rng.standard_normal(300)) / 150
    amplitudes = 0.5 * (1 + 2 * size * rng.standard_normal(300))
    found = markers(pulses(periods, amplitudes))
    jitter = 100 * np.abs(np.diff(periods)).mean() / periods.mean()
    shimmer = 100 * np.abs(np.diff(amplitudes)).mean() / amplitudes.mean()
    assert found.jitter_percent == pytest.approx(jitter, rel=0.1)
    assert found.shimmer_percent == pytest.approx(shimmer, rel=0.1)


@pytest.mark.parametrize("hnr_db", [5.0, 10.0, 20.0, 30.0])
def test_the_noise_of_a_voice_is_measured_as_its_ratio_to_the_harmonics(hnr_db: float) -> None:
    noise = np.random.default_rng(4).standard_normal(2 * RATE_HZ)
    found = markers(0.1 * (harmonics(150.0, 2.0) + 10 ** (-hnr_db / 20) * noise))
    assert found.hnr_db == pytest.approx(hnr_db, abs=0.5)
    assert found.f0_mean_hz == pytest.approx(150.0, rel=1e-3)


def test_a_pitch_that_rises_an_octave_is_spread_as_its_semitones_are() -> None:
    semitones = np.linspace(0, 12, 4 * RATE_HZ)
    phase = np.cumsum(110 * 2 ** (semitones / 12)) / RATE_HZ
    voice = np.sum([np.sin(2 * np.pi * k * phase) / k for k in range(1, 8)], axis=0)
    found = markers(0.1 * voice)
    assert found.f0_spread_semitones == pytest.approx(12 / np.sqrt(12), rel=0.05)


def test_pauses_are_those_between_the_first_sound_and_the_last() -> None:
    """Four sounds of 0.8 s; two pauses that count, and one that is too short; quiet ends."""
    rng, voice = np.random.default_rng(5), harmonics(120.0, 0.8)
    parts = [np.zeros(8_000), voice]
    for seconds in (0.5, 0.1, 0.3):
        parts += [np.zeros(round(seconds * RATE_HZ)), voice]
    signal = np.concatenate([*parts, np.zeros(12_000)])
    found = markers(0.1 * (signal + 0.001 * rng.standard_normal(signal.size)))
    span = 4 * 0.8 + 0.9
    assert found.pauses_per_minute == pytest.approx(60 * 2 / span, rel=0.02)
    assert found.pause_mean_seconds == pytest.approx(0.4, abs=0.025)
    assert found.pause_fraction == pytest.approx(0.8 / span, abs=0.02)
    assert found.phonation_seconds == pytest.approx(4 * 0.8, rel=0.05)
    assert found.longest_phonation_seconds == pytest.approx(0.8, abs=0.05)


def test_the_cepstral_peak_stands_out_of_the_line_by_the_published_formula() -> None:
    noise = np.random.default_rng(6).standard_normal(RATE_HZ)
    clear, rough = (0.1 * (harmonics(160.0, 1.0) + size * noise) for size in (0.03, 1.0))
    assert markers(clear).cpp_db > markers(rough).cpp_db + 3
    middle = 10 * 160 + 200  # of the tenth frame: 25 ms long, one every 10 ms
    cut = clear[middle - 512 : middle + 512] * np.hanning(1024)
    level = 10 * np.log10(np.abs(np.fft.rfft(cut)) ** 2 + 1e-12)
    cepstrum_db = 20 * np.log10(np.abs(np.fft.irfft(level)) + 1e-12)
    ms = 1000 * np.arange(1024) / RATE_HZ
    fitted, searched = (ms >= 1) & (ms <= 1000 / 75), (ms >= 2) & (ms <= 1000 / 75)
    slope, intercept = np.polyfit(ms[fitted], cepstrum_db[fitted], 1)
    peak = np.flatnonzero(searched)[cepstrum_db[searched].argmax()]
    assert ms[peak] == pytest.approx(1000 / 160, abs=0.1)
    (found,) = cepstral_peak_prominence(clear, np.array([10]))
    assert found == pytest.approx(cepstrum_db[peak] - intercept - slope * ms[peak], abs=1e-6)


def test_where_nobody_speaks_every_marker_is_a_number() -> None:
    for signal in (np.zeros(RATE_HZ), np.zeros(0), np.full(300, 0.2)):
        assert astuple(markers(signal)) == (0.0,) * len(NAMES)
    noise = markers(0.1 * np.random.default_rng(7).standard_normal(RATE_HZ))
    assert noise.phonation_seconds == noise.hnr_db == noise.jitter_percent == 0


def test_a_voice_that_is_short_of_breath_is_less_regular_and_noisier() -> None:
    """The synthetic voice, whose effect is that of shortness of breath; medians of five."""
    found = {}
    for effect in (0.0, 0.66):
        voices = [np.random.default_rng(seed) for seed in range(5)]
        held = [hold_vowel(rng, draw_voice(rng, "F", 50), effect, 1.5) for rng in voices]
        found[effect] = np.median([astuple(markers(0.1 * one)) for one in held], axis=0)
    change = dict(zip(NAMES, found[0.66] - found[0.0], strict=True))
    assert change["jitter_percent"] > 0
    assert change["shimmer_percent"] > 0
    assert change["hnr_db"] < 0
    assert change["cpp_db"] < 0


def test_markers_are_one_frame_of_a_window_or_of_a_whole_recording() -> None:
    sound = torch.from_numpy(0.1 * harmonics(140.0, 5.0)).float()
    whole = FeatureSpec(name="markers", temporal="whole")
    features = FeatureExtractor(whole).of_recording(sound)
    assert features.shape == (1, 1, len(NAMES)) == (1, whole.n_frames, whole.n_bins)
    expected = astuple(markers(sound.double().numpy()))
    assert torch.equal(features[0, 0], torch.tensor(expected))
    by_window = FeatureSpec(name="markers")
    extractor = FeatureExtractor(by_window)
    assert extractor(windows(sound, by_window)).shape == (2, 1, len(NAMES))
    classifier = Classifier(ClassifierSpec(features=whole, model="logistic"))
    assert classifier.probability(sound) == 0.5


def test_a_window_that_comes_again_is_not_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    extractor, noise = MarkerExtractor(), torch.randn(2, 8_000, generator=torch.manual_seed(1))
    first = extractor(noise)
    monkeypatch.setattr(markers_module, "markers", None)  # calling it is an error
    assert torch.equal(extractor(noise.flip(0)), first.flip(0))
