"""What is heard of a recording besides the voice: the room, and the channel to the file.

Measured where nobody is asked to speak: in the ambient track, and in the edges of a recording.
Pauses inside a sentence are left out, because breath is heard in them, and breath is the illness.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spira_tasks.speech.audio import FULL_SCALE, SAMPLE_RATE_HZ

Array = NDArray[np.float64]

EDGE_SECONDS = 0.220  # before the first word, and after the last
MAX_SECONDS = 30.0  # of an ambient track
N_FFT, HOP = 512, 256
N_ZEROS = 16  # a millisecond
FLOOR = 1e-10  # power of a bin: -100 dB, below what 16 bits resolve
ROOM_EDGES_HZ = np.geomspace(60, 7800, 17)  # of 16 bands, a little less than half an octave each
# Frequencies at which codecs and telephone lines end, each with the bands below and above.  A room
# or a microphone changes slowly over frequency; a channel ends within a few hundred hertz.
CUTS_HZ = (
    ((110, 160), (60, 90)),
    ((3000, 3400), (3700, 4100)),
    ((5500, 6000), (6500, 7000)),
    ((6600, 7100), (7400, 7800)),
)
GATED_HZ = ((300, 1000), (1000, 2000), (2000, 4000), (4000, 6000), (6000, 7800))
ROOM = (
    *(f"mean_{number}_db" for number in range(16)),
    *(f"spread_{number}_db" for number in range(16)),
)
CHANNEL = (
    *(f"end_{below[1]}_hz_db" for below, _ in CUTS_HZ),
    *(f"gated_{low}_hz_db" for low, _ in GATED_HZ),
    *(f"holes_{low}_hz_db" for low, _ in GATED_HZ),
    "silence",
)


def edges(pcm16: NDArray[np.int16]) -> list[NDArray[np.int16]]:
    """The first and the last 220 ms of a (time,) recording."""
    n = round(EDGE_SECONDS * SAMPLE_RATE_HZ)
    return [pcm16[:n], pcm16[-n:]]


def of_edges(pcm16: NDArray[np.int16]) -> dict[str, float]:
    """The room and the channel of a (time,) recording, before its first word and after its last."""
    parts = edges(pcm16)
    return room(parts) | channel(parts)


def room(parts: list[NDArray[np.int16]]) -> dict[str, float]:
    """Level of each band, and its standard deviation over time, on parts of a recording."""
    power = spectra(parts)
    levels = _db(np.stack([_band(power, *ends) for ends in _pairs(ROOM_EDGES_HZ)], axis=1))
    numbers = [*levels.mean(axis=0).tolist(), *levels.std(axis=0).tolist()]
    return dict(zip(ROOM, numbers, strict=True))


def channel(parts: list[NDArray[np.int16]]) -> dict[str, float]:
    """Traces of codecs and of processing, on parts of a recording, each (time,).

    ``end_…``: by how much the level falls across a frequency at which channels end.

    ``gated_…``: how far the quiet moments of a frequency lie below its median.  It is the same for
    every steady noise, and larger where a noise gate or a noise suppression opens and closes.

    ``holes_…``: how far the mean of the levels of a band lies below the level of its mean, at one
    moment.  It is the same for every even noise, and larger where a codec has left bins empty.

    ``silence``: share of the samples in runs of zeros, as a noise gate leaves.
    """
    power = spectra(parts)
    median, quiet = np.quantile(power, [0.5, 0.1], axis=0)
    falls = [
        float(_db(_band(median[None], *below) / _band(median[None], *above))[0])
        for below, above in CUTS_HZ
    ]
    depth = _db(median / quiet)
    gates = [float(_band(depth[None], *ends)[0]) for ends in GATED_HZ]
    levels = _db(power)
    holes = [float(np.mean(_db(_band(power, *ends)) - _band(levels, *ends))) for ends in GATED_HZ]
    numbers = [*falls, *gates, *holes, silence(np.concatenate(parts))]
    return dict(zip(CHANNEL, numbers, strict=True))


def silence(pcm16: NDArray[np.int16]) -> float:
    """Share of the samples of (time,) in runs of zeros of a millisecond; faint noise has none."""
    changes = np.flatnonzero(np.diff(np.pad(pcm16 == 0, 1).astype(np.int8)))
    lengths = changes[1::2] - changes[::2]
    return float(lengths[lengths >= N_ZEROS].sum() / pcm16.size)


def spectra(parts: list[NDArray[np.int16]]) -> Array:
    """Power of (frame, bin), of every part that is long enough for a frame."""
    frames = [
        np.lib.stride_tricks.sliding_window_view(part / FULL_SCALE, N_FFT)[::HOP]
        for part in parts
        if part.size >= N_FFT
    ]
    if not frames:
        return np.full((1, N_FFT // 2 + 1), FLOOR)
    window = np.hanning(N_FFT)
    framed = np.concatenate(frames)[: round(MAX_SECONDS * SAMPLE_RATE_HZ / HOP)]
    power = np.abs(np.fft.rfft(framed * window, axis=1)) ** 2 / (window**2).sum()
    return np.asarray(np.maximum(power, FLOOR))


def _band(power: Array, low_hz: float, high_hz: float) -> Array:
    """Mean of the bins of a band; an array of (frame,)."""
    frequency_hz = np.fft.rfftfreq(N_FFT, 1 / SAMPLE_RATE_HZ)
    first, last = np.searchsorted(frequency_hz, [low_hz, high_hz])
    return np.asarray(power[:, first : max(last, first + 1)].mean(axis=1))


def _pairs(ends: Array) -> list[tuple[float, float]]:
    return list(zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True))


def _db(power: Array) -> Array:
    return np.asarray(10 * np.log10(power))
