"""Does the answer stay when a recording changes in a way that says nothing of the illness?

Ribeiro et al., "Beyond accuracy: behavioral testing of NLP models with CheckList", 2020, call these
invariance tests.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from spira_tasks.evaluation.counterfactuals import CLASSES
from spira_tasks.speech import acoustics, audio, metrics
from spira_tasks.speech.audio import SAMPLE_RATE_HZ
from spira_tasks.speech.metrics import Array

Waveform = NDArray[np.float32]  # (time,), in [-1, 1], at 16 kHz
LOUDER = 10 ** (6 / 20)  # 6 dB
SILENCE_SECONDS = 0.5  # at either end, with one step of noise, as a quiet converter has
CLIPPED = 0.99  # quantile of the magnitudes beyond which samples are clipped


def through(format: str, subtype: str) -> Callable[[Waveform], Waveform]:
    """A round trip through a codec of libsndfile, at its usual quality."""

    def trip(waveform: Waveform) -> Waveform:
        file = io.BytesIO()
        soundfile.write(
            file, np.clip(waveform, -1, 1), SAMPLE_RATE_HZ, format=format, subtype=subtype
        )
        seconds = len(waveform) / SAMPLE_RATE_HZ + 1
        heard = audio.to_pcm16(audio.decode(file.getvalue(), seconds))
        return (heard / audio.FULL_SCALE).astype(np.float32)

    return trip


def with_silence(waveform: Waveform) -> Waveform:
    n = int(SILENCE_SECONDS * SAMPLE_RATE_HZ)
    steps = np.random.default_rng(0).integers(-1, 2, 2 * n) / np.float32(audio.FULL_SCALE)
    return np.concatenate([steps[:n], waveform, steps[n:]]).astype(np.float32)


def resampled(waveform: Waveform) -> Waveform:
    """To the rate of a compact disc, and back."""
    there = soxr.resample(waveform, SAMPLE_RATE_HZ, 44_100)
    return np.asarray(soxr.resample(there, 44_100, SAMPLE_RATE_HZ), np.float32)


def clipped(waveform: Waveform) -> Waveform:
    top = float(np.quantile(np.abs(waveform), CLIPPED))
    return np.clip(waveform, -top, top)


def masked(waveform: Waveform) -> Waveform:
    return acoustics.wear_mask(waveform.astype(np.float64), "THIN").astype(np.float32)


TRANSFORMS: Mapping[str, Callable[[Waveform], Waveform]] = {
    "louder": lambda waveform: waveform * np.float32(LOUDER),
    "quieter": lambda waveform: waveform / np.float32(LOUDER),
    "opus": through("OGG", "OPUS"),
    "mp3": through("MP3", "MPEG_LAYER_III"),
    "mu_law": through("WAV", "ULAW"),
    "silence": with_silence,
    "polarity": np.negative,
    "resampling": resampled,
    "mask": masked,
    "clipping": clipped,
}


def measure(
    labels: Array,
    clean: Array,
    changed: Mapping[str, Array],
    threshold: float,
    *,
    weights: Array,
    n_people: tuple[int, int],
) -> dict[str, Any]:
    """How often an answer changes, and how far the log-odds move, by transform.

    Parameters
    ----------
    labels, clean : (recording,) arrays
        Labels in {0, 1}, scores as recorded.
    changed : mapping of str to (recording,) array
        Scores of the same recordings, changed.
    threshold : float
    weights : (resample, recording) array
    n_people : tuple of int
        Controls and patients.

    Returns
    -------
    dict
        ``flips``: by class, since many controls would hide what happens to few patients; an
        estimate never narrower than Wilson's interval.  ``shift``: of the mean magnitude, of all.
    """
    totals = weights.sum(axis=1)
    by_class = [np.where(labels == label, weights, 0.0) for label in (0, 1)]
    found = {}
    for name, scores in changed.items():
        flipped = (scores >= threshold) != (clean >= threshold)
        moved = np.abs(metrics.log_odds(scores) - metrics.log_odds(clean))
        flips = {}
        for who, w, n in zip(CLASSES, by_class, n_people, strict=True):
            with np.errstate(invalid="ignore"):  # a resample may hold one class only
                rate = metrics.estimate(w @ flipped / w.sum(axis=1))
            flips[who] = asdict(metrics.widened(rate, *metrics.wilson_interval(rate.value, n)))
        found[name] = {"flips": flips, "shift": asdict(metrics.estimate(weights @ moved / totals))}
    return found
