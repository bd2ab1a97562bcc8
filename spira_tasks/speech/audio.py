"""From the bytes of an incoming file to one waveform.

Incoming files are WAV, FLAC, or Ogg with Opus or Vorbis, at any rate from 16 kHz, with one or two
channels.  A stored waveform is mono, 16 kHz, 16-bit PCM.  The format is read from the content,
never from the file's name.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 16_000  # of every stored waveform
FULL_SCALE = 32_768  # a 16-bit sample of this value would be 1.0

CONTAINERS = {b"RIFF": "wav", b"fLaC": "flac", b"OggS": "ogg"}
UNKNOWN_SIZE = 0xFFFFFFFF  # programs that stream a WAV write this in place of the size
HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")  # of a PCM WAV file, 44 bytes


class UnusableAudio(ValueError):
    """A file that cannot become a waveform; ``reason`` is a stable code, the text one line.

    It never ends a run: ingest puts the recording into quarantine and goes on.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class Sound:
    """A decoded file."""

    waveform: NDArray[np.float32]  # (channel, time), in [-1, 1], at the file's own rate
    sample_rate_hz: int
    container: str  # wav, flac or ogg
    codec: str  # ``"pcm16"``, ``"float"``, ``"flac"``, ``"opus"``, ``"vorbis"``, …


def decode(content: bytes, max_seconds: float) -> Sound:
    """Decode a WAV, FLAC or Ogg file.

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
        With reason ``empty``, ``unknown_container``, ``truncated``, ``undecodable``, ``too_long``,
        ``low_sample_rate``, ``too_many_channels``, ``not_finite`` or ``constant``.
    """
    if not content:
        raise UnusableAudio("empty", "the file has no bytes")
    container = CONTAINERS.get(content[:4])
    if container is None or (container == "wav" and content[8:12] != b"WAVE"):
        raise UnusableAudio("unknown_container", "neither WAV nor FLAC nor Ogg by its first bytes")
    if (container == "wav" and _is_cut_wav(content)) or (
        container == "ogg" and _is_cut_ogg(content)
    ):
        raise UnusableAudio("truncated", "the file ends before what its header promises")
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            _check_header(file, max_seconds)
            promised, rate_hz, subtype = file.frames, file.samplerate, str(file.subtype)
            samples = file.read(dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        raise UnusableAudio("undecodable", f"libsndfile cannot decode this {container}") from error
    if len(samples) < promised:
        raise UnusableAudio("truncated", "fewer samples than the header promises")
    if not np.isfinite(samples).all():
        raise UnusableAudio("not_finite", "there are NaN or infinite samples")
    mono = samples.mean(axis=1)
    if mono.min() == mono.max():
        raise UnusableAudio("constant", "all samples are equal: silence, or a dead input")
    codec = "flac" if container == "flac" else subtype.lower().replace("_", "")
    return Sound(np.ascontiguousarray(samples.T), rate_hz, container, codec)


def to_pcm16(sound: Sound) -> NDArray[np.int16]:
    """Return the mean of the channels at 16 kHz, as a (time,) int16 array.

    Resampled by soxr at its HQ setting (20 bits, linear phase).  A mono 16-bit file at 16 kHz keeps
    every sample.

    Raises
    ------
    UnusableAudio
        With reason ``constant``, when no sample reaches one step of 16 bits.
    """
    mono = sound.waveform.mean(axis=0, dtype=np.float32)
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


def read_float32(content: bytes) -> NDArray[np.float32]:
    """Decode what ``encode_wav`` made to (time,) samples in [-1, 1]; raises as ``read_pcm16``."""
    return read_pcm16(content).astype(np.float32) / np.float32(FULL_SCALE)


def _check_header(file: soundfile.SoundFile, max_seconds: float) -> None:
    """Refuse what the header alone shows to be unusable."""
    if file.frames <= 0:
        raise UnusableAudio("empty", "the file has no samples")
    if file.samplerate < SAMPLE_RATE_HZ:
        raise UnusableAudio(
            "low_sample_rate", f"{file.samplerate} Hz; at least {SAMPLE_RATE_HZ} Hz are needed"
        )
    if file.channels > 2:
        raise UnusableAudio("too_many_channels", f"{file.channels} channels; at most 2 are taken")
    if file.frames > max_seconds * file.samplerate:
        raise UnusableAudio("too_long", f"longer than {max_seconds:g} s")


def _is_cut_wav(content: bytes) -> bool:
    """Whether the data chunk is missing or shorter than its header says."""
    position = 12
    while position + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, position)
        if name == b"data":
            return bool(size != UNKNOWN_SIZE and position + 8 + size > len(content))
        position += 8 + size + size % 2  # chunks are padded to an even size
    return True


def _is_cut_ogg(content: bytes) -> bool:
    """Whether the last page is incomplete.

    The end-of-stream flag is not read, because some phones never set it: a file that is cut exactly
    between two pages (about a second apart) passes.
    """
    page = content.rfind(b"OggS")
    table = content[page + 27 :]
    n_segments = content[page + 26] if len(content) > page + 26 else 256
    return len(table) < n_segments + sum(table[:n_segments])


def _header(n_samples: int) -> bytes:
    n_bytes = 2 * n_samples
    return HEADER.pack(
        *(b"RIFF", HEADER.size - 8 + n_bytes, b"WAVE"),
        *(b"fmt ", 16, 1, 1, SAMPLE_RATE_HZ, 2 * SAMPLE_RATE_HZ, 2, 16),  # PCM, mono, 16 bits
        *(b"data", n_bytes),
    )
