"""A formant synthesiser that reads the SPIRA sentence and holds an /a/, well or short of breath.

It is a source-filter synthesiser in the manner of Klatt (JASA 1980): band-limited glottal pulses
and aspiration noise go through a cascade of resonators that moves from phone to phone; frication
and bursts are added beside it.  It needs numpy and scipy, no voice data and no binary.

Respiratory insufficiency is one number, ``effect`` in [0, 1].  What it changes follows what was
measured on SPIRA patients and in the literature on dyspnoea: more and longer pauses at less
predictable places (Speech Prosody 2022), higher and less steady pitch (JASA 2023), more jitter,
shimmer and breathiness, a shorter sustained vowel (Asiaee 2020).  With ``effect`` 0 nothing here
depends on whether a speaker is ill.  Synthetic speech verifies the platform, not the medicine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft, signal
from scipy.ndimage import uniform_filter1d

from spira_tasks.speech.phones import NOISE_BANDS_HZ, PAUSE_FORMANTS_HZ, PHONES, Segment, syllables

SAMPLE_RATE_HZ = 16_000
FRAME_SAMPLES = 160  # 10 ms: how often the resonators move

Waveform = NDArray[np.float64]  # shape (time,), at SAMPLE_RATE_HZ

# Above the three formants that distinguish phones, in Hz of an adult man.
UPPER_FORMANTS_HZ = (3500.0, 4500.0, 5500.0, 6500.0)
UPPER_BANDWIDTHS_HZ = (250.0, 400.0, 700.0, 1400.0)
BANDWIDTHS_HZ = (80.0, 120.0, 160.0)  # F1 (unless a phone has its own), F2, F3


@dataclass(frozen=True)
class Voice:
    """How a person speaks when well."""

    f0_hz: float  # mean pitch
    formant_scale: float  # relative to an adult man's; grows as the vocal tract gets shorter
    tempo: float  # duration of a phone relative to :data:`PHONES`
    intonation: float  # depth of the pitch accents, as a fraction of ``f0_hz``
    jitter: float  # standard deviation of a period's length, as a fraction
    shimmer: float  # the same of its strength
    aspiration: float  # RMS of the breath noise relative to that of the voiced source


def draw_voice(rng: np.random.Generator, sex: str, age: float) -> Voice:
    """A person's voice.  Pitch falls with age in women and rises a little in men."""
    female = sex == "F"
    f0_hz = rng.normal(208 - 0.4 * (age - 45), 20) if female else rng.normal(120, 15)
    if not female and age > 60:
        f0_hz += 0.5 * (age - 60)
    return Voice(
        f0_hz=float(np.clip(f0_hz, 75, 290)),
        formant_scale=float(rng.normal(1.17 if female else 1.0, 0.035)),
        tempo=float(rng.lognormal(0.06 + 0.002 * (age - 50), 0.11)),
        intonation=float(rng.uniform(0.04, 0.14)),
        jitter=float(0.004 * rng.lognormal(0, 0.35) * (1 + 0.006 * max(age - 50, 0))),
        shimmer=float(0.03 * rng.lognormal(0, 0.3)),
        aspiration=float(0.05 * rng.lognormal(0, 0.6)),
    )


def draw_pauses(rng: np.random.Generator, effect: float, prompt: str) -> dict[int, float]:
    """Draw the pauses of a reader.

    Counts, lengths and places follow SPIRA's study of pauses (Speech Prosody 2022: 0.85 pauses of
    0.13 s in controls, 3.16 of 0.53 s in patients; places predictable or not).

    Returns
    -------
    dict of int to float
        Index of a syllable to the seconds of silence after it.
    """
    weight = {"|": 6 * max(0.0, 1 - effect) + 1, " ": 0.15 + effect, ".": 0.1 * (0.15 + effect)}
    # without the last: the end of the sentence is not a pause
    weights = [weight[boundary] for _, boundary in syllables(prompt)[:-1]]
    expected = (0.75 + 2.41 * effect / 0.66) * rng.gamma(6, 1 / 6)
    n_pauses = min(int(rng.poisson(expected)), 12)
    probability = np.array(weights) / sum(weights)
    places = rng.choice(len(weights), size=n_pauses, replace=False, p=probability)
    median_seconds = 0.24 + 0.26 * min(1.3, effect / 0.66)
    seconds = np.clip(rng.lognormal(np.log(median_seconds), 0.45, n_pauses), 0.12, 2.5)
    return {int(place): float(length) for place, length in zip(places, seconds, strict=True)}


def read_sentence(
    rng: np.random.Generator, voice: Voice, effect: float, prompt: str, pauses: Mapping[int, float]
) -> Waveform:
    """Synthesise one reading of the prompt, shape ``(time,)``.

    RMS 1 while the voice sounds, so that pauses do not change the level.
    """
    segments = _timeline(rng, voice, effect, prompt, pauses)
    lengths = np.array([round(segment.seconds * SAMPLE_RATE_HZ) for segment in segments])
    n_samples = int(lengths.sum())
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    voicing = _smooth(np.repeat([s.voicing for s in segments], lengths), 0.014)
    f0_hz = _intonation(rng, voice, effect, voicing)
    source = glottal_source(rng, voice, effect, f0_hz, voicing)
    speech = _vocal_tract(source, segments, lengths, voice.formant_scale)
    speech += _frication(rng, segments, lengths, voicing)
    speech *= np.linspace(1, 1 - 0.25 * effect, n_samples)  # the breath runs out
    speech /= np.sqrt(np.mean(speech[voicing > 0.5] ** 2))
    for start, segment in zip(starts, segments, strict=True):
        if segment.formants_hz == PAUSE_FORMANTS_HZ and segment.seconds > 0.2:
            _inhale(rng, speech[start : start + round(segment.seconds * SAMPLE_RATE_HZ)], effect)
    return speech


def hold_vowel(rng: np.random.Generator, voice: Voice, effect: float, seconds: float) -> Waveform:
    """A sustained /a/ of the given length; RMS 1.  Shape ``(time,)``."""
    n_samples = round(seconds * SAMPLE_RATE_HZ)
    ramps = np.minimum(np.arange(n_samples) / 800, np.arange(n_samples)[::-1] / 2400)
    voicing = np.minimum(ramps, 1.0) * np.linspace(1, 0.6, n_samples)
    wander = _wander(rng, n_samples, 2.0) * (0.010 + 0.020 * effect)
    f0_hz = (voice.f0_hz + 10 * effect) * (1 + wander) * np.linspace(1.01, 0.97, n_samples)
    source = glottal_source(rng, voice, effect, f0_hz, voicing)
    vowel = [Segment(seconds, PHONES["a"][0].formants_hz)]
    speech = _vocal_tract(source, vowel, np.array([n_samples]), voice.formant_scale)
    return np.asarray(speech / np.sqrt(np.mean(speech**2)))


def draw_phonation_seconds(rng: np.random.Generator, effect: float) -> float:
    """Maximum phonation time: about 15 s in the healthy, 7 s in the dyspnoeic."""
    return float(np.clip(rng.normal(15 - 8 * effect, 4 - 1.5 * effect), 1.5, 30))


def glottal_source(
    rng: np.random.Generator, voice: Voice, effect: float, f0_hz: Waveform, voicing: Waveform
) -> Waveform:
    """Glottal pulses and pulsating breath noise, shape ``(time,)``.

    ``f0_hz`` and ``voicing`` are pitch and strength of the voice at every sample.
    """
    n_samples = len(f0_hz)
    cycles = np.cumsum(f0_hz) / SAMPLE_RATE_HZ
    jitter = voice.jitter + 0.010 * effect
    closures = np.cumsum(1 + jitter * rng.standard_normal(int(cycles[-1])))
    instants = np.interp(closures[closures < cycles[-1]], cycles, np.arange(n_samples))
    strengths = 1 + (voice.shimmer + 0.08 * effect) * rng.standard_normal(len(instants))
    pulses = _impulses(instants, strengths, n_samples)
    # Two real poles give the pulse its -12 dB per octave, a third the softer closing of a breathy
    # voice; the zero is the radiation at the lips.
    aspiration = voice.aspiration + 0.5 * effect * rng.lognormal(0, 0.5)
    for cutoff_hz in (110.0, 220.0, 3600.0 / (1 + 1.5 * aspiration)):
        pole = np.exp(-2 * np.pi * cutoff_hz / SAMPLE_RATE_HZ)
        pulses = signal.lfilter([1 - pole], [1, -pole], pulses)
    pulses = signal.lfilter([1, -0.98], [1], pulses)
    pulses /= np.sqrt(np.mean(pulses**2)) + 1e-12
    high_pass = butterworth(2, 1800, "high")
    breath = signal.sosfilt(high_pass, rng.standard_normal(n_samples))
    breath = signal.lfilter([1], [1, -np.exp(-2 * np.pi * 2500 / SAMPLE_RATE_HZ)], breath)
    breath /= np.sqrt(np.mean(breath**2))
    breath *= 1 + 0.6 * np.cos(2 * np.pi * cycles)
    return np.asarray(voicing * (pulses + aspiration * breath))


def _timeline(
    rng: np.random.Generator, voice: Voice, effect: float, prompt: str, pauses: Mapping[int, float]
) -> list[Segment]:
    tempo = voice.tempo / (1 - 0.12 * effect)
    edge = Segment(0.03, PAUSE_FORMANTS_HZ, voicing=0.0)  # room to start and stop in
    timeline = [edge]
    for index, (phones, boundary) in enumerate(syllables(prompt)):
        lengthening = rng.lognormal(0, 0.15) * (1.3 if boundary == "|" or index in pauses else 1)
        for phone in phones:
            for segment in PHONES[phone]:
                seconds = segment.seconds * tempo * lengthening
                timeline.append(segment._replace(seconds=seconds))
        if index in pauses:
            timeline.append(Segment(pauses[index], PAUSE_FORMANTS_HZ, voicing=0.0))
    return [*timeline, edge]


def _intonation(
    rng: np.random.Generator, voice: Voice, effect: float, voicing: Waveform
) -> Waveform:
    """Pitch in Hz: declination, accents about 2.5 times a second, and the wander of illness."""
    n_samples = len(voicing)
    accents = voice.intonation * _wander(rng, n_samples, 2.5)
    wander = (0.010 + 0.020 * effect) * _wander(rng, n_samples, 8.0)
    declination = np.linspace(1.08, 0.90, n_samples)
    return np.asarray((voice.f0_hz + 10 * effect) * declination * (1 + accents + wander))


def _wander(rng: np.random.Generator, n_samples: int, per_second: float) -> Waveform:
    """Smooth noise of unit variance at its knots, ``per_second`` of them.  Shape ``(time,)``."""
    n_knots = int(n_samples / SAMPLE_RATE_HZ * per_second) + 3
    knots = np.clip(rng.standard_normal(n_knots), -2.5, 2.5)
    return np.interp(np.arange(n_samples) * per_second / SAMPLE_RATE_HZ, np.arange(n_knots), knots)


def _impulses(instants: Waveform, strengths: Waveform, n_samples: int) -> Waveform:
    """Band-limited impulses at fractional sample times, so pitch is not rounded to samples."""
    taps = np.arange(-7, 9)
    whole = np.floor(instants).astype(int)
    distance = taps - (instants - whole)[:, None]  # (pulse, tap)
    kernel = np.sinc(0.9 * distance) * np.cos(np.pi * distance / 18) ** 2
    position = np.clip(whole[:, None] + taps, 0, n_samples - 1)
    weights = (strengths[:, None] * kernel).ravel()
    return np.asarray(np.bincount(position.ravel(), weights, n_samples), dtype=np.float64)


def _vocal_tract(
    source: Waveform, segments: list[Segment], lengths: NDArray[np.int_], formant_scale: float
) -> Waveform:
    """Apply seven resonators in cascade: three glide from phone to phone, four are fixed.

    Every frame is filtered by itself and the responses overlap and add, so that a formant moves
    without the clicks of a recursive filter whose coefficients change.
    """
    n_frames = -(-len(source) // FRAME_SAMPLES) + 1
    padded = np.pad(source, (FRAME_SAMPLES, (n_frames + 1) * FRAME_SAMPLES - len(source)))
    window = signal.windows.hann(2 * FRAME_SAMPLES, sym=False)
    frames = np.lib.stride_tricks.sliding_window_view(padded, len(window))[::FRAME_SAMPLES]
    centres = np.minimum(np.arange(n_frames) * FRAME_SAMPLES, len(source) - 1)
    at = np.searchsorted(np.cumsum(lengths), centres, side="right")
    targets = np.array([(*s.formants_hz, s.f1_bandwidth_hz) for s in segments], dtype=float)[at]
    tracks = uniform_filter1d(targets, 4, axis=0, mode="nearest")  # a glide takes 40 ms
    bandwidths_hz = np.tile(BANDWIDTHS_HZ, (n_frames, 1))
    bandwidths_hz[:, 0] = tracks[:, -1]
    sections = _resonators(tracks[:, :-1] * formant_scale, bandwidths_hz)  # (frame, resonator, 6)
    # The longest response, of 80 Hz bandwidth, falls by 87 dB within its four frames.
    n_fft = 6 * FRAME_SAMPLES
    delay = np.exp(-2j * np.pi * np.arange(n_fft // 2 + 1) / n_fft)
    spectrum = fft.rfft(frames[:n_frames] * window, n_fft, axis=1)
    for number in range(sections.shape[1]):
        b0, a1, a2 = sections[:, number, [0, 4, 5]].T[..., None]
        spectrum *= b0 / (1 + delay * (a1 + delay * a2))
    responses = fft.irfft(spectrum, n_fft, axis=1).reshape(n_frames, 6, FRAME_SAMPLES)
    speech = np.zeros((n_frames + 6, FRAME_SAMPLES))
    for part in range(6):
        speech[part : part + n_frames] += responses[:, part]
    glided = speech.ravel()[FRAME_SAMPLES : FRAME_SAMPLES + len(source)]
    upper_hz = np.minimum(np.array(UPPER_FORMANTS_HZ) * formant_scale, 7600)
    return np.asarray(signal.sosfilt(_resonators(upper_hz, UPPER_BANDWIDTHS_HZ), glided))


def _resonators(frequencies_hz: ArrayLike, bandwidths_hz: ArrayLike) -> Waveform:
    """Second-order sections of unit gain at 0 Hz (Klatt 1980); shape ``(…, resonator, 6)``."""
    radius = np.exp(-np.pi * np.asarray(bandwidths_hz) / SAMPLE_RATE_HZ)
    a1 = -2 * radius * np.cos(2 * np.pi * np.asarray(frequencies_hz) / SAMPLE_RATE_HZ)
    a2 = radius**2
    zero, one = np.zeros_like(a1), np.ones_like(a1)
    return np.stack([1 + a1 + a2, zero, zero, one, a1, a2], axis=-1)


def _frication(
    rng: np.random.Generator, segments: list[Segment], lengths: NDArray[np.int_], voicing: Waveform
) -> Waveform:
    """Fricatives and bursts: white noise, filtered once per colour, shaped by its own track."""
    total = np.zeros(len(voicing))
    for colour, band_hz in NOISE_BANDS_HZ.items():
        gains = np.repeat([s.noise if s.colour == colour else 0.0 for s in segments], lengths)
        band = butterworth(2, band_hz, "band")
        noise = signal.sosfilt(band, rng.standard_normal(len(voicing)))
        total += _smooth(gains, 0.008) * noise / np.sqrt(np.mean(noise**2))
    return total


def _inhale(rng: np.random.Generator, pause: Waveform, effect: float) -> None:
    """Put a breath into most pauses, in place."""
    n_samples = int(0.7 * len(pause))
    noise = rng.standard_normal(n_samples)
    if rng.random() < 0.8:
        band = butterworth(2, (500, 4500), "band")
        level = (0.03 + 0.05 * effect) * rng.lognormal(0, 0.4)
        pause[:n_samples] += level * signal.sosfilt(band, noise) * np.hanning(n_samples)


@lru_cache
def butterworth(order: int, hz: float | tuple[float, float], kind: str) -> Waveform:
    """Second-order sections of a filter; to design one takes as long as to filter by it."""
    return np.asarray(signal.butter(order, hz, kind, fs=SAMPLE_RATE_HZ, output="sos"))


def _smooth(track: Waveform, seconds: float) -> Waveform:
    size = round(seconds * SAMPLE_RATE_HZ)
    return np.asarray(uniform_filter1d(uniform_filter1d(track.astype(float), size), size))
