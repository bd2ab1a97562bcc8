"""Clips that travel with every registered model: a server sees by them that it answers as before.

Two synthetic voices, so no patient's audio; the same bytes on every machine with the same packages.
"""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from spira_tasks.speech.acoustics import quiet_noise
from spira_tasks.speech.audio import FULL_SCALE, SAMPLE_RATE_HZ, encode_wav
from spira_tasks.speech.synthesis import Voice, Waveform, draw_pauses, read_sentence

WELL = Voice(120.0, 1.0, 1.0, 0.08, 0.004, 0.03, 0.05)
SHORT_OF_BREATH = Voice(205.0, 1.16, 0.8, 0.06, 0.006, 0.04, 0.08)


class Clip(NamedTuple):
    name: str
    content: bytes
    seconds: float


def clips() -> list[Clip]:
    """Return two files that a model answers, and two that none does.

    The last two are refused for different reasons: one is far too loud, the other is damaged.
    """
    calm, hurried = _reading(1, WELL, 0.0), _reading(2, SHORT_OF_BREATH, 0.8)
    file = io.BytesIO()
    upsampled = soxr.resample(hurried, SAMPLE_RATE_HZ, 48_000, quality="HQ")
    soundfile.write(file, upsampled, 48_000, format="FLAC", subtype="PCM_16")
    breathless = file.getvalue()
    seconds = len(calm) / SAMPLE_RATE_HZ, len(hurried) / SAMPLE_RATE_HZ
    return [
        Clip("calm.wav", encode_wav(_pcm16(calm)), seconds[0]),
        Clip("breathless.flac", breathless, seconds[1]),
        Clip("clipped.wav", encode_wav(_pcm16(40 * calm)), seconds[0]),
        Clip("cut_off.flac", breathless[: len(breathless) // 2], seconds[1]),
    ]


def _reading(seed: int, voice: Voice, effect: float) -> Waveform:
    """The sentence in a quiet room, at the level of a voice near a telephone."""
    rng = np.random.default_rng(seed)
    pauses = draw_pauses(rng, effect, "coronavirus")
    speech = np.pad(read_sentence(rng, voice, effect, "coronavirus", pauses), 8000)
    return 0.06 * (speech + 0.01 * quiet_noise(rng, len(speech)))


def _pcm16(waveform: Waveform) -> NDArray[np.int16]:
    return np.clip(np.rint(waveform * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
