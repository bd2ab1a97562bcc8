"""Acoustic markers that clinicians read: pauses, pitch, and how regular and clear a voice is.

Formulas: Boersma, "Accurate short-term analysis of the fundamental frequency and the
harmonics-to-noise ratio of a sampled sound", IFA Proceedings 17, 1993 (pitch and HNR, as Praat);
Hillenbrand, Cleveland, Erickson, "Acoustic correlates of breathy vocal quality", JSHR 37, 1994
(CPP); jitter and shimmer "local" of the Praat manual.  The numbers are near Praat's and not the
same: its path through the candidates of pitch is not followed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spira_tasks.speech.audio import SAMPLE_RATE_HZ
from spira_tasks.speech.probe import active_frames, frame_means, rounded
from spira_tasks.speech.strategies import FeatureSpec

Waveform = NDArray[np.float64]

MIN_F0_HZ, MAX_F0_HZ = 75.0, 500.0
HOP_SECONDS = 0.010  # as the frames of spira_tasks.speech.probe
MIN_PAUSE_SECONDS = 0.15  # the closure of a plosive is shorter

# Of pitch, with Praat's names and defaults.
PERIODS = 4.5  # of the lowest pitch in a frame: Boersma's choice for HNR
VOICING_THRESHOLD = 0.45  # of the normalised autocorrelation
SILENCE_THRESHOLD = 0.03  # of the largest magnitude of the recording
OCTAVE_COST = 0.01  # what a candidate an octave lower has to be better by
FINER = 4  # lags a sample: the autocorrelation is interpolated by zero-padding its spectrum
MAX_PITCH_RATIO = 1.6  # beyond it from the median a frame is an octave error, not voiced
MAX_PERIOD_RATIO = 1.3  # of two periods that are compared (Praat: maximum period factor)

N_FFT = 1024  # of the cepstrum: 64 ms
MOST_KNOWN = 20_000  # windows whose markers are kept: some megabytes
BLOCK = 256  # frames at a time: memory does not grow with the recording


@dataclass(frozen=True)
class Markers:
    """Of one recording.  What cannot be measured is 0; with no voice, so is the phonation time."""

    pauses_per_minute: float  # silences of 0.15 s or more between the first and the last sound
    pause_mean_seconds: float
    pause_fraction: float  # of the time between the first and the last sound
    phonation_seconds: float  # with a voice: all stretches together
    longest_phonation_seconds: float  # of a sustained vowel: its maximum phonation time
    f0_mean_hz: float
    f0_spread_semitones: float  # standard deviation
    jitter_percent: float  # local: mean difference of neighbouring periods over the mean period
    shimmer_percent: float  # local: the same of their amplitudes
    hnr_db: float  # mean harmonics-to-noise ratio of the voiced frames
    cpp_db: float  # mean cepstral peak prominence of the voiced frames


NAMES = tuple(field.name for field in fields(Markers))


def markers(waveform: Waveform) -> Markers:
    """Measure a (time,) waveform at 16 kHz in [-1, 1]."""
    signal = waveform - waveform.mean() if waveform.size else np.zeros(1)
    pauses, span_seconds = pause_lengths(signal)
    f0_hz, hnr = pitch(signal)
    voiced = f0_hz > 0
    stretches = [*_stretches(voiced)]
    longest = max((end - start for start, end in stretches), default=0)
    found = {name: 0.0 for name in NAMES}
    if span_seconds:
        found["pauses_per_minute"] = 60 * len(pauses) / span_seconds
        found["pause_fraction"] = sum(pauses) / span_seconds
    if pauses:
        found["pause_mean_seconds"] = float(np.mean(pauses))
    if voiced.any():
        mean_hz = f0_hz[voiced].mean()
        found |= {
            "phonation_seconds": HOP_SECONDS * voiced.sum(),
            "longest_phonation_seconds": HOP_SECONDS * longest,
            "f0_mean_hz": mean_hz,
            "f0_spread_semitones": (12 * np.log2(f0_hz[voiced] / mean_hz)).std(),
            "hnr_db": hnr[voiced].mean(),
            "cpp_db": cepstral_peak_prominence(signal, np.flatnonzero(voiced)).mean(),
        }
        cycles = [_cycles(signal, f0_hz, start, end) for start, end in stretches]
        found["jitter_percent"] = _perturbation(cycles, 0)
        found["shimmer_percent"] = _perturbation(cycles, 1)
    return Markers(**{name: rounded(value) for name, value in found.items()})


def pause_lengths(signal: Waveform) -> tuple[list[float], float]:
    """Seconds of each pause, and from the beginning of the first sound to the end of the last."""
    power = np.maximum(frame_means(signal**2), 0.0)
    if not power.any():
        return [], 0.0
    active = active_frames(10 * np.log10(power + 1e-12))
    first, last = np.flatnonzero(active)[[0, -1]]
    silent = [(end - start) * HOP_SECONDS for start, end in _stretches(~active[first : last + 1])]
    span = float(last - first + 1) * HOP_SECONDS
    return [seconds for seconds in silent if seconds >= MIN_PAUSE_SECONDS - 1e-9], span


def pitch(signal: Waveform) -> tuple[Waveform, Waveform]:
    """Fundamental frequency in Hz and harmonics-to-noise ratio in dB of a frame every 10 ms.

    The lag of the largest autocorrelation r of the Hann-windowed frame, divided by that of the
    window, is the period; r / (1 - r) is the ratio of the powers of what repeats and what does not
    (Boersma 1993, equations 4, 9, 23).  The frequency is 0 where there is no voice.
    """
    length = round(PERIODS / MIN_F0_HZ * SAMPLE_RATE_HZ)
    window = np.hanning(length)
    of_window = _autocorrelation(window[None])[0]
    first, last = (round(FINER * SAMPLE_RATE_HZ / limit_hz) for limit_hz in (MAX_F0_HZ, MIN_F0_HZ))
    lags = np.arange(first, last + 1)
    quiet = SILENCE_THRESHOLD * np.abs(signal).max()
    f0_hz, hnr = [], []
    for frames in _frames(signal, length):
        centred = frames - frames.mean(axis=1, keepdims=True)
        correlation = _autocorrelation(centred * window)
        correlation /= np.maximum(correlation[:, :1], 1e-20)
        r = correlation[:, first - 1 : last + 2] / of_window[first - 1 : last + 2] * of_window[0]
        inner = r[:, 1:-1]
        is_peak = (inner > r[:, :-2]) & (inner >= r[:, 2:])
        strength = np.where(is_peak, inner - OCTAVE_COST * np.log2(lags), -np.inf)
        best = strength.argmax(axis=1)
        rows = np.arange(len(best))
        offset, height = _parabola(r[rows, best], inner[rows, best], r[rows, best + 2])
        height = np.clip(height, 1e-6, 1 - 1e-6)
        loud = np.abs(centred).max(axis=1) > quiet
        voiced = loud & is_peak.any(axis=1) & (height > VOICING_THRESHOLD)
        f0_hz.append(np.where(voiced, FINER * SAMPLE_RATE_HZ / (lags[best] + offset), 0.0))
        hnr.append(10 * np.log10(height / (1 - height)))
    f0 = np.concatenate(f0_hz)
    if (f0 > 0).any():
        ratio = np.maximum(f0, 1e-6) / np.median(f0[f0 > 0])
        f0[np.abs(np.log(ratio)) > np.log(MAX_PITCH_RATIO)] = 0.0
    return f0, np.concatenate(hnr)


def cepstral_peak_prominence(signal: Waveform, frames: NDArray[np.int_]) -> Waveform:
    """How far the cepstrum's peak stands out at each of the frames, in dB.

    The cepstrum is the spectrum of the power spectrum in dB.  The peak is that between the
    quefrencies 2 ms and 13.3 ms, of 500 and 75 Hz; the line to which it is compared is fitted from
    1 ms on (Hillenbrand et al. 1994).
    """
    quefrency = np.arange(N_FFT // 2) / SAMPLE_RATE_HZ
    fitted = np.flatnonzero((quefrency >= 0.001) & (quefrency <= 1 / MIN_F0_HZ))
    searched = np.flatnonzero((quefrency >= 1 / MAX_F0_HZ) & (quefrency <= 1 / MIN_F0_HZ))
    design = np.stack([np.ones(len(fitted)), quefrency[fitted]], axis=1)
    line = np.linalg.pinv(design)
    window, prominences, start = np.hanning(N_FFT), [], 0
    for block in _frames(signal, N_FFT):
        chosen = frames[(frames >= start) & (frames < start + len(block))] - start
        start += len(block)
        if len(chosen):
            power = np.abs(np.fft.rfft(block[chosen] * window)) ** 2
            cepstrum = np.abs(np.fft.irfft(10 * np.log10(power + 1e-12)))
            levels = 20 * np.log10(cepstrum[:, : N_FFT // 2] + 1e-12)
            intercept, slope = line @ levels[:, fitted].T
            peak = searched[levels[:, searched].argmax(axis=1)]
            height = levels[np.arange(len(peak)), peak]
            prominences.append(height - intercept - slope * quefrency[peak])
    return np.concatenate(prominences)


def _frames(signal: Waveform, length: int) -> Iterator[NDArray[np.float64]]:
    """Frames of a length around the middle of each frame of the probe, some at a time."""
    hop = round(HOP_SECONDS * SAMPLE_RATE_HZ)
    n_frames = len(frame_means(signal))
    middle = round(0.0125 * SAMPLE_RATE_HZ)
    before = max(length // 2 - middle, 0)
    padded = np.pad(signal, (before, length + n_frames * hop))
    views = np.lib.stride_tricks.sliding_window_view(padded, length)[::hop][:n_frames]
    for start in range(0, n_frames, BLOCK):
        yield views[start : start + BLOCK]


def _autocorrelation(frames: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of (frame, time) signals, ``FINER`` lags a sample."""
    n_fft = 1 << (2 * frames.shape[1] - 1).bit_length()
    power = np.abs(np.fft.rfft(frames, n_fft)) ** 2
    n_lags = round(FINER * SAMPLE_RATE_HZ / MIN_F0_HZ) + 2
    return np.asarray(np.fft.irfft(power, FINER * n_fft)[:, :n_lags])


def _parabola(
    left: NDArray[np.float64], middle: NDArray[np.float64], right: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Place of the top of a parabola through three values, from the middle one, and its height."""
    bend = np.minimum(left - 2 * middle + right, -1e-12)
    offset = np.clip((left - right) / (2 * bend), -0.5, 0.5)
    return offset, middle - (left - right) * offset / 4


def _stretches(chosen: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """First index, and the one after the last, of each run of what is chosen."""
    edges = np.flatnonzero(np.diff(chosen.astype(np.int8), prepend=0, append=0))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def _cycles(signal: Waveform, f0_hz: Waveform, start: int, end: int) -> NDArray[np.float64]:
    """Length in samples and amplitude of each period of a voiced stretch: (period, 2).

    From a period to the next it is as far as the waveform has to be moved to be most like itself
    (Praat: "To PointProcess (cc)").  The amplitude is the root mean square of a period under a Hann
    window.
    """
    hop, middle = HOP_SECONDS * SAMPLE_RATE_HZ, 0.0125 * SAMPLE_RATE_HZ
    times = np.arange(start, end) * hop + middle
    place, last = times[0], min(times[-1], signal.size - 1)
    half = round(SAMPLE_RATE_HZ / f0_hz[start] / 2)
    around = signal[max(round(place) - half, 0) : round(place) + half + 1]
    place = max(round(place) - half, 0) + int(np.abs(around).argmax())
    found = []
    while place < last:
        period = SAMPLE_RATE_HZ / np.interp(place, times, f0_hz[start:end])
        half = round(period / 2)
        shortest, longest = round(0.8 * period), round(1.25 * period)
        at = round(place)
        if at - half < 0 or at + longest + half + 2 > signal.size:
            break
        here = signal[at - half : at + half + 1]
        there = signal[at - half + shortest - 1 : at + longest + half + 2]
        views = np.lib.stride_tricks.sliding_window_view(there, here.size)
        likeness = views @ here / np.sqrt((views**2).sum(axis=1) * (here @ here) + 1e-20)
        best = 1 + int(likeness[1:-1].argmax())
        offset, _ = _parabola(*(likeness[[best - 1 + n]] for n in range(3)))
        length = shortest - 1 + best + float(offset[0])
        window = np.cos(np.pi * (np.arange(-half, half + 1) - (place - at)) / (2 * half + 1)) ** 2
        amplitude = float(np.sqrt((here**2 * window).sum() / window.sum()))
        found.append((length, amplitude))
        place += length
    return np.array(found).reshape(-1, 2)


def _perturbation(cycles: list[NDArray[np.float64]], column: int) -> float:
    """Mean difference of neighbours over the mean, in percent; 0 of fewer than two periods."""
    differences, values = [], []
    for one in cycles:
        if len(one) < 2:
            continue
        lengths = one[:, 0]
        ratio = np.maximum(lengths[1:], lengths[:-1]) / np.minimum(lengths[1:], lengths[:-1])
        kept = ratio < MAX_PERIOD_RATIO
        differences.append(np.abs(np.diff(one[:, column]))[kept])
        values.append(one[:, column])
    if not differences or not np.concatenate(differences).size:
        return 0.0
    return float(100 * np.concatenate(differences).mean() / np.concatenate(values).mean())


class MarkerExtractor(nn.Module):
    """One frame of markers for each window; computed on the CPU, wherever the windows are.

    A window that comes again, as in each epoch of a training without noise, is not measured again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[bytes, tuple[float, ...]] = {}  # by digest

    def forward(self, windows: Tensor) -> Tensor:
        """Map (batch, time) windows in [-1, 1] to (batch, 1, marker)."""
        rows = [self._measured(window) for window in windows.detach().cpu().numpy()]
        return torch.tensor(rows, dtype=torch.float32, device=windows.device).unsqueeze(1)

    def _measured(self, window: NDArray[np.float32]) -> tuple[float, ...]:
        digest = hashlib.sha256(window.tobytes()).digest()
        if digest not in self.known:
            if len(self.known) >= MOST_KNOWN:
                self.known.clear()
            self.known[digest] = astuple(markers(window.astype(np.float64)))
        return self.known[digest]


class MarkerStrategy:
    """The acoustic markers of a window, or of a whole recording with ``temporal`` whole."""

    def n_frames(self, _: FeatureSpec) -> int:
        return 1

    def n_bins(self, _: FeatureSpec) -> int:
        return len(NAMES)

    def extractor(self, spec: FeatureSpec) -> MarkerExtractor:
        if spec.sample_rate_hz != SAMPLE_RATE_HZ:
            raise ValueError(f"markers are measured at {SAMPLE_RATE_HZ} Hz")
        if spec.parameters:
            raise ValueError(f"it has no parameters {', '.join(sorted(spec.parameters))}")
        return MarkerExtractor()


MARKERS = MarkerStrategy()
