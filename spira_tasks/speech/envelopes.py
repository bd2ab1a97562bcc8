"""Levels of a recording over time: a fingerprint by bands, and their swing at syllable rate."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import signal

SAMPLE_RATE_HZ = 16_000
N_FFT, HOP = 512, 256
N_BANDS, N_SLICES = 12, 24  # of a fingerprint: bands of frequency, slices of time
BAND_EDGES_HZ = np.geomspace(125, 4000, N_BANDS + 1)  # what a telephone line lets through
STEPS = 7  # of a fingerprint's numbers to either side of zero: one hex digit each

SYLLABLES_HZ = (2, 8)
ENVELOPE_HZ = 50


def fingerprint(waveform: NDArray[np.float64]) -> str:
    """Describe how a recording's spectrum moves over its length, in 288 hex digits.

    Levels in dB of 12 bands in 24 slices of time, each band without its mean: so it depends neither
    on the volume nor on the microphone, and a copy through another codec has nearly the same.
    Measured on 232 synthetic recordings: an Opus copy of a sentence has a cosine of at least 0.97
    (median 0.995) with the original, another sentence at most 0.91, a held vowel at most 0.98.

    Parameters
    ----------
    waveform : (time,) array
        At 16 kHz, in [-1, 1].

    Returns
    -------
    str
        Slice by slice, band by band; digit 7 is zero.  A constant signal has only 7.
    """
    padded = np.pad(waveform, (0, max(N_FFT - waveform.size, 0)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP] * np.hanning(N_FFT)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    frequency_hz = np.fft.rfftfreq(N_FFT, 1 / SAMPLE_RATE_HZ)
    band = np.searchsorted(BAND_EDGES_HZ, frequency_hz, side="right") - 1
    levels = np.stack([power[:, band == number].mean(axis=1) for number in range(N_BANDS)], axis=1)
    levels_db = 10 * np.log10(levels + 1e-9)
    sums = np.vstack([np.zeros(N_BANDS), np.cumsum(levels_db, axis=0)])
    cuts = np.linspace(0, len(levels_db), N_SLICES + 1)
    at_cuts = np.stack([np.interp(cuts, np.arange(len(sums)), column) for column in sums.T], axis=1)
    slices = np.diff(at_cuts, axis=0) / np.diff(cuts)[:, None]
    slices -= slices.mean(axis=0)
    largest = np.abs(slices).max()
    steps = np.round(slices / largest * STEPS) if largest > 1e-6 else np.zeros_like(slices)
    return "".join(f"{int(step) + STEPS:x}" for step in steps.ravel())


def syllabic_modulation_db(waveform: NDArray[np.float64]) -> float:
    """Median swing of the level of the voice band at the rate of syllables (2 to 8 Hz).

    Synthetic sentences: 2.3 to 7.3 dB; ward noises with a babble of five voices: 0.4 to 0.9 dB;
    quiet rooms: 0.2 to 1.9 dB.

    Parameters
    ----------
    waveform : (time,) array
        At 16 kHz, in [-1, 1].
    """
    voice = signal.butter(4, (300, 3400), "band", fs=SAMPLE_RATE_HZ, output="sos")
    banded = signal.sosfilt(voice, waveform)
    hop = SAMPLE_RATE_HZ // ENVELOPE_HZ
    n_frames = banded.size // hop
    if n_frames < ENVELOPE_HZ // 2:  # half a second: not two syllables
        return 0.0
    power = (banded[: n_frames * hop] ** 2).reshape(n_frames, hop).mean(axis=1)
    levels_db = 10 * np.log10(power + 1e-10)
    syllables = signal.butter(2, SYLLABLES_HZ, "band", fs=ENVELOPE_HZ, output="sos")
    return float(np.median(np.abs(signal.sosfiltfilt(syllables, levels_db - levels_db.mean()))))
