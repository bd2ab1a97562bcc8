"""From the bytes of an incoming file to one waveform.

Incoming files are of the kinds in ``containers.SIGNATURES``, and of those in
``containers.COMPRESSED`` where their decoder is installed, at any rate from 16 kHz, with one or two
channels.  A stored waveform is mono, 16 kHz, 16-bit PCM.  The format is read from the content,
never from the file's name.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from spira_tasks.speech.compressed import Stream
from spira_tasks.speech.containers import COMPRESSED, Contained, UnusableAudio, opened

SAMPLE_RATE_HZ = 16_000  # of every stored waveform
FULL_SCALE = 32_768  # a 16-bit sample of this value would be 1.0

Number = TypeVar("Number", bound=np.floating[Any])
HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")  # of a PCM WAV file, 44 bytes


MAX_CANCELLED_DB = 9.0  # of the mix below its louder channel; beside a silent channel it is 6 dB


class _Streamed(soundfile.SoundFile):  # type: ignore[misc]
    """Reads on without seeking: a FLAC file that does not declare its length has no end to seek."""

    def seekable(self) -> bool:
        return False


@dataclass(frozen=True)
class Sound:
    """A decoded file."""

    waveform: NDArray[np.float32]  # (channel, time), in [-1, 1], at the file's own rate
    sample_rate_hz: int
    container: str  # of ``containers.SIGNATURES`` or ``containers.COMPRESSED``, or mp3
    codec: str  # ``"pcm16"``, ``"float"``, ``"flac"``, ``"opus"``, ``"vorbis"``, ``"aac"``, …


def decode(content: bytes, max_seconds: float) -> Sound:
    """Decode a file.

    Parameters
    ----------
    content : bytes
        The whole file.
    max_seconds : float
        Longer files are refused before they are decoded: the header of a few kilobytes can claim
        days.

    Raises
    ------
    UnusableAudio
        With reason ``undecodable``, ``too_long``, ``low_sample_rate``, ``too_many_channels``,
        ``not_finite``, ``channels_cancel``, ``constant``, or one of ``containers.opened`` or
        ``compressed.Stream``.
    """
    found = opened(content)
    read = _compressed if found.container in COMPRESSED else _with_libsndfile
    samples, rate_hz, codec = read(found, max_seconds)
    if not len(samples):
        raise UnusableAudio("empty", "the file has no samples")
    if not np.isfinite(samples).all():
        raise UnusableAudio("not_finite", "there are NaN or infinite samples")
    sound = Sound(np.ascontiguousarray(samples.T), rate_hz, found.container, codec)
    mono = mean_channel(sound.waveform, np.float32)
    if len(sound.waveform) > 1:
        loudest = samples.std(axis=0, dtype=np.float64).max()
        if loudest > 0 and mono.std(dtype=np.float64) < loudest * 10 ** (-MAX_CANCELLED_DB / 20):
            raise UnusableAudio(
                "channels_cancel", "the channels cancel: one is inverted; send one of them"
            )
    if mono.min() == mono.max():
        raise UnusableAudio("constant", "all samples are equal: silence, or a dead input")
    return sound


def mean_channel(waveform: NDArray[np.float32], dtype: type[Number]) -> NDArray[Number]:
    """The (time,) mean of the channels.  A single one is itself; numpy's mean of it is slow."""
    if len(waveform) == 1:
        return np.asarray(waveform[0], dtype)
    return np.asarray(waveform.mean(axis=0, dtype=dtype), dtype)


def _with_libsndfile(found: Contained, max_seconds: float) -> tuple[NDArray[np.float32], int, str]:
    """The (time, channel) samples of a file, its rate and its codec."""
    try:
        with _Streamed(io.BytesIO(found.content)) as file:
            n_declared = file.frames if found.n_declared is None else found.n_declared
            if file.frames <= 0:
                raise UnusableAudio("empty", "the file has no samples")
            rate_hz = int(file.samplerate)
            _check_header(rate_hz, file.channels, n_declared / rate_hz, max_seconds)
            subtype = str(file.subtype)
            limit = n_declared or int(max_seconds * rate_hz)
            samples = file.read(limit + 1, dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        raise UnusableAudio(
            "undecodable", f"libsndfile cannot decode this {found.container}"
        ) from error
    if len(samples) > limit:
        if n_declared:
            raise UnusableAudio("undeclared_bytes", "more samples than the header declares")
        raise _too_long(max_seconds)
    if len(samples) < n_declared:
        raise UnusableAudio("truncated", "fewer samples than the header promises")
    codec = "flac" if found.container == "flac" else subtype.lower().replace("_", "")
    return samples, rate_hz, codec


def _compressed(found: Contained, max_seconds: float) -> tuple[NDArray[np.float32], int, str]:
    with Stream(found.content, found.container) as stream:
        _check_header(stream.sample_rate_hz, stream.n_channels, stream.seconds, max_seconds)
        limit = int(max_seconds * stream.sample_rate_hz)
        samples = stream.read(limit)
    if len(samples) > limit:
        raise _too_long(max_seconds)
    return samples, stream.sample_rate_hz, stream.codec


def to_pcm16(sound: Sound) -> NDArray[np.int16]:
    """Return the mean of the channels at 16 kHz, as a (time,) int16 array.

    Resampled by soxr at its HQ setting (20 bits, linear phase).  A mono 16-bit file at 16 kHz keeps
    every sample.

    Raises
    ------
    UnusableAudio
        With reason ``constant``, when no sample reaches one step of 16 bits.
    """
    mono = mean_channel(sound.waveform, np.float32)
    if sound.sample_rate_hz != SAMPLE_RATE_HZ:
        mono = soxr.resample(mono, sound.sample_rate_hz, SAMPLE_RATE_HZ, quality="HQ")
    scaled = np.rint(np.asarray(mono, dtype=np.float32) * FULL_SCALE)
    if not scaled.any():
        raise UnusableAudio("constant", "too quiet for 16 bits: all samples would be zero")
    return np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def encode_wav(pcm16: NDArray[np.int16]) -> bytes:
    """Encode (time,) int16 samples as a mono 16 kHz WAV file; equal samples give equal bytes.

    Examples
    --------
    >>> len(encode_wav(np.zeros(100, dtype=np.int16)))
    244
    """
    return _header(pcm16.size) + pcm16.astype("<i2").tobytes()


def read_pcm16(content: bytes) -> NDArray[np.int16]:
    """Decode what ``encode_wav`` made to (time,) int16 samples.

    Raises
    ------
    ValueError
        For any other content, other kinds of WAV included.
    """
    n_samples = (len(content) - HEADER.size) // 2
    if n_samples < 0 or content[: HEADER.size] != _header(n_samples):
        raise ValueError("this is not a stored waveform (mono 16-bit WAV at 16 kHz)")
    return np.frombuffer(content, dtype="<i2", offset=HEADER.size).astype(np.int16)


def _check_header(rate_hz: int, n_channels: int, seconds: float, max_seconds: float) -> None:
    """Refuse what the header alone shows to be unusable; 0 seconds: it does not say."""
    if rate_hz < SAMPLE_RATE_HZ:
        raise UnusableAudio(
            "low_sample_rate", f"{rate_hz} Hz; at least {SAMPLE_RATE_HZ} Hz are needed"
        )
    if n_channels > 2:
        raise UnusableAudio("too_many_channels", f"{n_channels} channels; at most 2 are taken")
    if seconds > max_seconds:
        raise _too_long(max_seconds)


def _too_long(max_seconds: float) -> UnusableAudio:
    return UnusableAudio("too_long", f"longer than {max_seconds:g} s")


def _header(n_samples: int) -> bytes:
    n_bytes = 2 * n_samples
    return HEADER.pack(
        *(b"RIFF", HEADER.size - 8 + n_bytes, b"WAVE"),
        *(b"fmt ", 16, 1, 1, SAMPLE_RATE_HZ, 2 * SAMPLE_RATE_HZ, 2, 16),  # PCM, mono, 16 bits
        *(b"data", n_bytes),
    )
