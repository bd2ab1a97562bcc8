"""Noise of wards and quiet rooms, masks, microphones and recording channels.

No function takes the label.  Every noise is returned with RMS 1; the caller sets its level, so that
the level of a room never depends on what is said in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import signal

from spira_tasks.speech.phones import SENTENCES
from spira_tasks.speech.synthesis import (
    SAMPLE_RATE_HZ,
    Waveform,
    butterworth,
    draw_pauses,
    draw_voice,
    read_sentence,
)

MASK_SHELF_DB: Mapping[str, float] = {"NONE": 0.0, "THIN": -3.0, "THICK": -8.0}  # above 2 kHz


@dataclass(frozen=True)
class WardMix:
    """Level of each source of a ward relative to the broadband noise (amplitude ratios)."""

    hum: float = 0.3
    monitor: float = 0.5
    babble: float = 0.7
    oxygen: float = 0.3
    clatter: float = 0.4


def coloured_noise(rng: np.random.Generator, n_samples: int, exponent: float = 1.0) -> Waveform:
    """Noise whose power falls as ``1 / f ** exponent`` above 20 Hz; RMS 1, shape ``(time,)``."""
    n_fft = 1 << max(n_samples - 1, 1).bit_length()
    spectrum = np.fft.rfft(rng.standard_normal(n_fft))
    frequency_hz = np.fft.rfftfreq(n_fft, 1 / SAMPLE_RATE_HZ)
    spectrum *= np.maximum(frequency_hz, 20.0) ** (-exponent / 2)
    spectrum[0] = 0
    return unit_rms(np.fft.irfft(spectrum)[:n_samples])


def ward_noise(
    rng: np.random.Generator, n_samples: int, mix: WardMix, babble: Waveform
) -> Waveform:
    """A hospital ward without the patient's voice.

    Broadband noise, mains hum with harmonics, a monitor's beeps (784 to 1047 Hz, one every 0.8 to
    2 s), other people talking (a crop of ``babble``, from :func:`babble_bed`, that starts at a
    random sample), the hiss of oxygen (1.5 to 6 kHz) and clatter.  Shapes ``(time,)``.
    """
    noise = coloured_noise(rng, n_samples, rng.uniform(0.8, 1.2))
    noise += mix.hum * mains_hum(rng, n_samples)
    noise += mix.monitor * monitor_beeps(rng, n_samples)
    start = rng.integers(len(babble))
    noise += mix.babble * np.take(babble, np.arange(start, start + n_samples), mode="wrap")
    hiss_band = butterworth(2, (1500, 6000), "band")
    noise += mix.oxygen * unit_rms(signal.sosfilt(hiss_band, rng.standard_normal(n_samples)))
    noise += mix.clatter * clatter(rng, n_samples)
    return unit_rms(noise)


def quiet_noise(rng: np.random.Generator, n_samples: int) -> Waveform:
    """A quiet room or a home: street rumble, a little mains hum, the microphone's own hiss."""
    noise = coloured_noise(rng, n_samples, rng.uniform(1.2, 1.7))
    noise += rng.uniform(0.05, 0.3) * mains_hum(rng, n_samples)
    noise += rng.uniform(0.1, 0.3) * rng.standard_normal(n_samples)
    return unit_rms(noise)


def mains_hum(rng: np.random.Generator, n_samples: int) -> Waveform:
    """60 Hz (Brazil) and its harmonics; RMS 1."""
    seconds = np.arange(800) / SAMPLE_RATE_HZ  # three whole periods, repeated
    hum = np.zeros(800)
    for harmonic in (1, 2, 3, 4, 6, 8):
        strength = rng.uniform(0.3, 1.0) / harmonic
        hum += strength * np.cos(2 * np.pi * (60 * harmonic * seconds + rng.random()))
    return np.resize(unit_rms(hum), n_samples)


def monitor_beeps(rng: np.random.Generator, n_samples: int) -> Waveform:
    """A patient monitor: one pitch, one pulse; RMS 1 while it sounds."""
    seconds = np.arange(n_samples) / SAMPLE_RATE_HZ
    period_seconds, beep_seconds = rng.uniform(0.8, 2.0), rng.uniform(0.08, 0.16)
    since_onset = (seconds + rng.uniform(0, period_seconds)) % period_seconds
    envelope = np.clip(since_onset / 0.004, 0, 1) * np.clip(
        (beep_seconds - since_onset) / 0.01, 0, 1
    )
    pitch_hz = rng.choice([784.0, 880.0, 988.0, 1047.0])
    sounds = np.flatnonzero(envelope)  # a tenth of the time: a sine is the costly part
    at = seconds[sounds]
    tone = np.sin(2 * np.pi * pitch_hz * at) + 0.4 * np.sin(4 * np.pi * pitch_hz * at)
    envelope[sounds] = envelope[sounds] * tone * np.sqrt(2)
    return np.asarray(envelope)


def clatter(rng: np.random.Generator, n_samples: int) -> Waveform:
    """Trolleys, doors and dishes: one ringing impact in two seconds, of peak 2 to 6."""
    noise = np.zeros(n_samples)
    for _ in range(rng.poisson(n_samples / SAMPLE_RATE_HZ * 0.5)):
        start = int(rng.integers(n_samples))
        seconds = np.arange(min(int(0.25 * SAMPLE_RATE_HZ), n_samples - start)) / SAMPLE_RATE_HZ
        ring = np.sin(2 * np.pi * rng.uniform(400, 4000) * seconds)
        impact = (rng.standard_normal(len(seconds)) + ring) * np.exp(
            -seconds / rng.uniform(0.01, 0.05)
        )
        noise[start : start + len(seconds)] += (
            6 * rng.uniform(0.3, 1) * impact / np.max(abs(impact))
        )
    return noise


def babble_bed(rng: np.random.Generator, n_samples: int, n_voices: int = 5) -> Waveform:
    """Several well people reading at once in a reverberant room; RMS 1, loops without a seam."""
    bed = np.zeros(n_samples)
    for _ in range(n_voices):
        voice = draw_voice(rng, "F" if rng.random() < 0.5 else "M", rng.uniform(20, 80))
        prompt = sorted(SENTENCES)[int(rng.integers(len(SENTENCES)))]
        speech = read_sentence(rng, voice, 0.0, prompt, draw_pauses(rng, 0.0, prompt))
        start = int(rng.integers(n_samples))
        positions = (start + np.arange(n_samples)) % n_samples
        bed[positions] += rng.uniform(0.4, 1.0) * np.resize(speech, n_samples)
    decay = np.exp(-6.9 * np.arange(int(0.6 * SAMPLE_RATE_HZ)) / (0.6 * SAMPLE_RATE_HZ))  # 60 dB
    room = rng.standard_normal(len(decay)) * decay
    spectrum = np.fft.rfft(bed) * np.fft.rfft(room, n_samples)  # circular, so without a seam
    return unit_rms(np.fft.irfft(spectrum, n_samples))


def wear_mask(speech: Waveform, mask_type: str) -> Waveform:
    """Damp the voice above 2 kHz as a thin or thick mask does; shape ``(time,)``."""
    gain_db = MASK_SHELF_DB[mask_type]
    return np.asarray(signal.sosfilt(high_shelf(2000, gain_db), speech)) if gain_db else speech


def high_shelf(corner_hz: float, gain_db: float) -> Waveform:
    """Second-order high shelf, shape ``(1, 6)`` (Bristow-Johnson, Audio EQ Cookbook, slope 1)."""
    a = 10 ** (gain_db / 40)
    w = 2 * np.pi * corner_hz / SAMPLE_RATE_HZ
    cos, alpha = np.cos(w), np.sin(w) / np.sqrt(2)
    root = 2 * np.sqrt(a) * alpha
    b = [a * (a + 1 + (a - 1) * cos + root), -2 * a * (a - 1 + (a + 1) * cos)]
    b.append(a * (a + 1 + (a - 1) * cos - root))
    denominator = [a + 1 - (a - 1) * cos + root, 2 * (a - 1 - (a + 1) * cos)]
    denominator.append(a + 1 - (a - 1) * cos - root)
    return np.asarray([[*b, *denominator]] / denominator[0])


def peaking(centre_hz: float, gain_db: float) -> Waveform:
    """Second-order peak or dip an octave wide, shape ``(1, 6)`` (Audio EQ Cookbook, Q = 1.41)."""
    a = 10 ** (gain_db / 40)
    w = 2 * np.pi * centre_hz / SAMPLE_RATE_HZ
    alpha = np.sin(w) / (2 * np.sqrt(2))
    b = [1 + alpha * a, -2 * np.cos(w), 1 - alpha * a]
    denominator = [1 + alpha / a, -2 * np.cos(w), 1 - alpha / a]
    return np.asarray([[*b, *denominator]] / denominator[0])


def equalise(waveform: Waveform, peaks: Sequence[tuple[float, float]]) -> Waveform:
    """Colour a (time,) waveform as a microphone does, by peaks ``(centre_hz, gain_db)``."""
    return np.asarray(signal.sosfilt(np.vstack([peaking(*peak) for peak in peaks]), waveform))


def _browser(rng: np.random.Generator, waveform: Waveform) -> Waveform:
    """The noise suppression of a browser: a spectral gate, at most 14 dB deep.

    It estimates the noise on the first 0.25 s, which have no speech, so that the residual noise
    does not depend on how much of the recording is speech.
    """
    hop = 160
    _, _, spectrum = signal.stft(waveform, nperseg=512, noverlap=512 - hop)
    power = np.abs(spectrum) ** 2
    floor = power[:, 2 : int(0.25 * SAMPLE_RATE_HZ) // hop].mean(axis=1, keepdims=True)
    gain = np.clip(1 - 2.5 * floor / (power + 1e-20), 0.2, 1.0)
    gain = signal.lfilter([0.5], [1, -0.5], gain, axis=1)
    _, cleaned = signal.istft(spectrum * gain, nperseg=512, noverlap=512 - hop)
    return np.asarray(cleaned[: len(waveform)])


def _voice_note(rng: np.random.Generator, waveform: Waveform) -> Waveform:
    """A messenger's voice note: 90 Hz to 6.2 kHz, automatic gain within 6 dB, codec noise."""
    band = butterworth(4, (90, 6200), "band")
    narrow = signal.sosfilt(band, waveform)
    target, forget = 0.1**2, np.exp(-1 / (1.5 * SAMPLE_RATE_HZ))
    power, _ = signal.lfilter([1 - forget], [1, -forget], narrow**2, zi=np.array([forget * target]))
    gain = np.clip((target / np.maximum(power, 1e-12)) ** 0.25, 0.5, 2.0)
    return np.asarray(narrow * gain + rng.uniform(-1, 1, len(narrow)) * 2.0**-9)


# Processing between the room and the file; no channel depends on where the speech is.
CHANNELS: Mapping[str, Callable[[np.random.Generator, Waveform], Waveform]] = {
    "raw": lambda _, waveform: waveform,
    "webns": _browser,
    "whatsapp": _voice_note,
}


def unit_rms(waveform: Waveform) -> Waveform:
    return np.asarray(waveform / (np.sqrt(np.mean(waveform**2)) + 1e-12))
