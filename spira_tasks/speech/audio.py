"""From the bytes of an incoming file to one waveform, and what can be measured on it.

Whatever a hospital sends (WAV, FLAC, Ogg with Opus or Vorbis; any rate from 16 kHz, one or two
channels) becomes the same thing: mono, 16 kHz, 16-bit PCM.  Nothing here trusts a file's name.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from spira_tasks.speech.envelopes import fingerprint, syllabic_modulation_db

SAMPLE_RATE_HZ = 16_000  # of every stored waveform
FULL_SCALE = 32_768  # a 16-bit sample of this value would be 1.0
CLIPPED = 0.985  # of full scale; converters saturate a little below 1.0

CONTAINERS = {b"RIFF": "wav", b"fLaC": "flac", b"OggS": "ogg"}
UNKNOWN_SIZE = 0xFFFFFFFF  # what programs that stream a WAV write for a size they do not know yet
HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")  # of a PCM WAV file, 44 bytes

WINDOW_SECONDS, HOP_SECONDS = 0.025, 0.010  # of the frames whose level is measured
DROPOUT_SECONDS = 0.002  # the shortest gap that counts; a lost packet leaves 20 ms or more
TORN = 0.25  # of the root mean square: a gap that begins or ends above it cuts through sound
FLOOR_DB = -120.0  # level of digital silence; 16 bits reach down to about -98
MAX_SNR_DB = 100.0


class UnusableAudio(ValueError):
    """A file that cannot become a waveform; ``reason`` is a stable code, the text one line.

    It never ends a run: whoever ingests puts the recording into quarantine and goes on.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class Sound:
    """A decoded file.

    Attributes
    ----------
    waveform : (channel, time) float32 array
        Samples in [-1, 1] at the file's own rate.
    sample_rate_hz : int
    container : {"wav", "flac", "ogg"}
    codec : str
        ``"pcm16"``, ``"float"``, ``"flac"``, ``"opus"``, ``"vorbis"``, …
    """

    waveform: NDArray[np.float32]
    sample_rate_hz: int
    container: str
    codec: str


@dataclass(frozen=True)
class Probe:
    """What is measured on one recording.  Fractions are of samples or frames, in [0, 1].

    Attributes
    ----------
    native_sample_rate_hz, n_channels, container, codec
        Of the file as it came.
    duration_seconds : float
    level_dbfs : float
        Root mean square of the mono signal without its offset; 0 dB is a full-scale square wave.
    peak : float
        Largest magnitude in any channel, 1.0 being full scale.
    clipping_fraction : float
        Samples of any channel beyond 0.985 of full scale.
    dc_offset : float
        Mean of the mono signal.
    snr_db : float or None
        Active against quietest frames.  Wherever there is no pause (a sustained vowel, an ambient
        track) it compares the signal with itself and says little.
    bandwidth_hz : float
        99 % roll-off of the stored waveform's spectrum; at most 8 kHz.
    speech_fraction : float
        Active frames, by an energy detector.
    longest_digital_silence_seconds : float
        Longest run of exact zeros between the first and the last sample that sounds: what a
        noise gate or a lost packet leaves, and no room ever does.
    dropouts_per_second : float
        Gaps of digital silence that tear the sound off: see :func:`n_dropouts`.
    syllabic_modulation_db, fingerprint
        Of the stored waveform: see :mod:`spira_tasks.speech.envelopes`.
    """

    native_sample_rate_hz: int
    n_channels: int
    container: str
    codec: str
    duration_seconds: float
    level_dbfs: float
    peak: float
    clipping_fraction: float
    dc_offset: float
    snr_db: float | None
    bandwidth_hz: float
    speech_fraction: float
    longest_digital_silence_seconds: float
    dropouts_per_second: float
    syllabic_modulation_db: float
    fingerprint: str


def decode(content: bytes, max_seconds: float) -> Sound:
    """Decode a WAV, FLAC or Ogg file.

    Parameters
    ----------
    content : bytes
        The whole file.
    max_seconds : float
        Longer files are refused before anything is decoded: a few kilobytes can promise days.

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
    if (container == "wav" and _wav_is_cut(content)) or (
        container == "ogg" and _ogg_is_cut(content)
    ):
        raise UnusableAudio("truncated", "the file ends before what its header promises")
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            _refuse(file, max_seconds)
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
    """The mean of the channels at 16 kHz, as a (time,) int16 array.

    Resampled by soxr at its HQ setting (20 bits, linear phase).  A mono 16-bit file at 16 kHz
    keeps every sample.

    Raises
    ------
    UnusableAudio
        With reason ``constant``, when nothing reaches one step of 16 bits.
    """
    mono = sound.waveform.mean(axis=0, dtype=np.float32)
    if sound.sample_rate_hz != SAMPLE_RATE_HZ:
        mono = soxr.resample(mono, sound.sample_rate_hz, SAMPLE_RATE_HZ, quality="HQ")
    scaled = np.rint(np.asarray(mono, dtype=np.float32) * FULL_SCALE)
    if not scaled.any():
        raise UnusableAudio("constant", "too quiet for 16 bits: all samples would be zero")
    return np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def encode_wav(pcm16: NDArray[np.int16]) -> bytes:
    """A mono 16 kHz WAV file of (time,) int16 samples; equal samples give equal bytes.

    Examples
    --------
    >>> len(encode_wav(np.zeros(100, dtype=np.int16)))
    244
    """
    return _header(pcm16.size) + pcm16.astype("<i2").tobytes()


def read_pcm16(content: bytes) -> NDArray[np.int16]:
    """The (time,) int16 samples of what ``encode_wav`` made.

    Raises
    ------
    ValueError
        For anything else, however similar.
    """
    n_samples = (len(content) - HEADER.size) // 2
    if n_samples < 0 or content[: HEADER.size] != _header(n_samples):
        raise ValueError("this is not a stored waveform (mono 16-bit WAV at 16 kHz)")
    return np.frombuffer(content, dtype="<i2", offset=HEADER.size).astype(np.int16)


def probe(sound: Sound, pcm16: NDArray[np.int16]) -> Probe:
    """Measure a decoded file and the (time,) waveform made of it."""
    n_channels, n_samples = sound.waveform.shape
    magnitude = np.abs(sound.waveform)
    mono = sound.waveform.mean(axis=0, dtype=np.float64)
    sounding = np.flatnonzero(mono)
    longest_gap = int(np.diff(sounding).max(initial=1)) - 1
    stored = pcm16 / FULL_SCALE
    stored -= stored.mean()  # an offset is no sound
    levels_db = _db(np.maximum(frame_means(stored**2), 0.0))  # rounding may fall below zero
    active = active_frames(levels_db)
    gated = frame_means(pcm16 == 0) > 0.5
    return Probe(
        native_sample_rate_hz=sound.sample_rate_hz,
        n_channels=n_channels,
        container=sound.container,
        codec=sound.codec,
        duration_seconds=n_samples / sound.sample_rate_hz,
        level_dbfs=float(_db(np.var(mono))),
        peak=float(magnitude.max()),
        clipping_fraction=float((magnitude > CLIPPED).mean()),
        dc_offset=float(mono.mean()),
        snr_db=snr_db(levels_db, active, gated),
        bandwidth_hz=bandwidth_hz(stored),
        speech_fraction=float(active.mean()),
        longest_digital_silence_seconds=longest_gap / sound.sample_rate_hz,
        dropouts_per_second=n_dropouts(mono, sound.sample_rate_hz)
        * (sound.sample_rate_hz / n_samples),
        syllabic_modulation_db=syllabic_modulation_db(stored),
        fingerprint=fingerprint(stored),
    )


def n_dropouts(mono: NDArray[np.float64], sample_rate_hz: int) -> int:
    """How many runs of exact zeros in a (time,) signal begin or end in the middle of sound.

    A packet that was lost and not concealed does that.  A noise gate closes and opens on what is
    quiet already, and a pause in a silent room has no edge at all: neither counts.
    """
    sounding = np.flatnonzero(mono)
    gaps = np.flatnonzero(np.diff(sounding) > DROPOUT_SECONDS * sample_rate_hz)
    edges = np.maximum(np.abs(mono[sounding[gaps]]), np.abs(mono[sounding[gaps + 1]]))
    return int((edges > TORN * np.sqrt(np.mean(mono**2))).sum())


def frame_means(values: NDArray[np.floating] | NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean of a (time,) array at 16 kHz over every frame: 25 ms, one every 10 ms."""
    window, hop = round(WINDOW_SECONDS * SAMPLE_RATE_HZ), round(HOP_SECONDS * SAMPLE_RATE_HZ)
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    starts = np.arange(0, max(values.size - window, 0) + 1, hop)
    ends = np.minimum(starts + window, values.size)
    return np.asarray((sums[ends] - sums[starts]) / window)


def active_frames(levels_db: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which frames hold voice rather than pause: a (frame,) boolean array, from levels alone.

    A frame is active within 25 dB of the loud ones (their 95th percentile) and, when loud and
    quiet (10th percentile) are at least 9 dB apart, also clearly above the quiet ones: by 6 dB,
    or half of what parts them.  With less contrast there is no pause to be told from the voice,
    and all of it counts.
    """
    quiet_db, loud_db = np.percentile(levels_db, [10, 95])
    contrast_db = loud_db - quiet_db
    threshold_db = loud_db - 25.0
    if contrast_db >= 9.0:
        threshold_db = max(threshold_db, quiet_db + min(6.0, contrast_db / 2))
    return np.asarray(levels_db >= threshold_db)


def snr_db(
    levels_db: NDArray[np.float64], active: NDArray[np.bool_], gated: NDArray[np.bool_]
) -> float | None:
    """Power of the active frames against the tenth of the frames that is quietest, in dB.

    Parameters
    ----------
    levels_db, active, gated : (frame,) arrays
        ``gated`` frames are mostly digital silence.  They are left out: what a noise gate leaves
        would pass for a very quiet room.

    Returns
    -------
    float or None
        At most 100 dB; None when no frame is left.
    """
    if gated.all() or not active.any():
        return None
    power = 10 ** (levels_db / 10)
    quietest = np.percentile(power[~gated], 10)
    noise = power[~gated & (power <= quietest)].mean()
    signal = max(power[active].mean() - noise, noise * 1e-3)
    return float(min(10 * np.log10(signal / noise), MAX_SNR_DB))


def bandwidth_hz(waveform: NDArray[np.float64]) -> float:
    """Frequency below which lies 99 % of the long-term magnitude spectrum, pre-emphasised.

    Magnitude and pre-emphasis (1 - 0.97 z⁻¹), because 99 % of a voice's *energy* is below 2.5 kHz
    through any channel.  This one tells channels apart: for a synthetic sentence in noise 14 to
    40 dB below it, about 7.7 kHz unfiltered, 6.1 kHz through a 6.2 kHz low-pass, and 3.0 to
    3.9 kHz through three telephone-like filters.
    """
    n_fft = 1024
    emphasised = np.append(waveform[0], waveform[1:] - 0.97 * waveform[:-1])
    padded = np.pad(emphasised, (0, -emphasised.size % n_fft)).reshape(-1, n_fft)
    power = (np.abs(np.fft.rfft(padded * np.hanning(n_fft), axis=1)) ** 2).mean(axis=0)
    below = np.cumsum(np.sqrt(power))
    return float(np.searchsorted(below, 0.99 * below[-1]) * SAMPLE_RATE_HZ / n_fft)


def _refuse(file: soundfile.SoundFile, max_seconds: float) -> None:
    """Refuse by the header what need not be decoded."""
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


def _wav_is_cut(content: bytes) -> bool:
    """Whether the data chunk is missing or shorter than its header says."""
    position = 12
    while position + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, position)
        if name == b"data":
            return bool(size != UNKNOWN_SIZE and position + 8 + size > len(content))
        position += 8 + size + size % 2  # chunks are padded to an even size
    return True


def _ogg_is_cut(content: bytes) -> bool:
    """Whether the last page is incomplete.

    The end-of-stream flag is not asked for: some phones never set it.  So a file cut exactly
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


def _db(power: NDArray[np.float64] | np.floating) -> NDArray[np.float64]:
    return 10 * np.log10(np.maximum(power, 10 ** (FLOOR_DB / 10)))
