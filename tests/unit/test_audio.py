"""Files as hospitals send them become waveforms, or are refused for a reason."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from spira_tasks.speech.audio import FULL_SCALE, decode, encode_wav, read_pcm16, to_pcm16
from spira_tasks.speech.containers import W64_SAMPLES, UnusableAudio
from spira_tasks.speech.probe import Probe, probe

RNG = np.random.default_rng([20, 26])


def tone(
    rate_hz: int, seconds: float = 2.0, frequency_hz: float = 440.0, amplitude: float = 0.5
) -> NDArray[np.float64]:
    times = np.arange(round(rate_hz * seconds)) / rate_hz
    return amplitude * np.sin(2 * np.pi * frequency_hz * times)


def file_of(
    samples: NDArray[Any], rate_hz: int, container: str = "WAV", codec: str = "PCM_16"
) -> bytes:
    content = io.BytesIO()
    soundfile.write(content, samples, rate_hz, format=container, subtype=codec)
    return content.getvalue()


def heard(content: bytes) -> tuple[NDArray[np.int16], Probe]:
    sound = decode(content, max_seconds=60)
    pcm16 = to_pcm16(sound)
    return pcm16, probe(sound, pcm16)


def refusal(content: bytes, max_seconds: float = 60) -> str:
    with pytest.raises(UnusableAudio) as error:
        to_pcm16(decode(content, max_seconds))
    return error.value.reason


FORMATS = [
    ("WAV", "PCM_16", 16_000, 1),
    ("WAV", "PCM_16", 44_100, 2),
    ("WAV", "PCM_24", 48_000, 1),
    ("WAV", "FLOAT", 22_050, 2),
    ("WAV", "PCM_U8", 16_000, 1),
    ("WAVEX", "PCM_16", 48_000, 2),
    ("FLAC", "PCM_16", 44_100, 1),
    ("FLAC", "PCM_24", 96_000, 2),
    ("OGG", "OPUS", 48_000, 1),
    ("OGG", "OPUS", 16_000, 1),
    ("OGG", "VORBIS", 44_100, 2),
    ("RF64", "PCM_16", 48_000, 1),
    ("W64", "PCM_16", 48_000, 1),
    ("AIFF", "PCM_16", 44_100, 1),
    ("CAF", "PCM_16", 44_100, 1),
    ("AU", "PCM_16", 16_000, 1),
    ("MP3", "MPEG_LAYER_III", 44_100, 1),
]


@pytest.mark.parametrize(("container", "codec", "rate_hz", "n_channels"), FORMATS)
def test_whatever_a_hospital_sends_becomes_mono_16_khz(
    container: str, codec: str, rate_hz: int, n_channels: int
) -> None:
    samples = np.stack([tone(rate_hz)] * n_channels, axis=1)
    pcm16, measured = heard(file_of(samples, rate_hz, container, codec))
    assert abs(pcm16.size - 2 * 16_000) <= 1
    assert (measured.native_sample_rate_hz, measured.n_channels) == (rate_hz, n_channels)
    assert measured.duration_seconds == pytest.approx(2.0, abs=1e-3)
    spectrum = np.abs(np.fft.rfft(pcm16 * np.hanning(pcm16.size)))
    assert np.argmax(spectrum) * 16_000 / pcm16.size == pytest.approx(440, abs=1)
    assert measured.level_dbfs == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.3)


@given(arrays(np.int16, st.integers(16, 2_000)))
@settings(max_examples=50, deadline=None)
def test_a_mono_16_bit_file_at_16_khz_keeps_every_sample(samples: NDArray[np.int16]) -> None:
    samples[0] = 1 if samples[0] != 1 else 2  # never constant
    samples[1] = -1
    pcm16, _ = heard(file_of(samples, 16_000))
    np.testing.assert_array_equal(pcm16, samples)


def test_equal_waveforms_make_equal_files_and_come_back() -> None:
    samples = RNG.integers(-FULL_SCALE, FULL_SCALE, 5_000).astype(np.int16)
    assert encode_wav(samples) == encode_wav(samples.copy())
    np.testing.assert_array_equal(read_pcm16(encode_wav(samples)), samples)
    read, rate_hz = soundfile.read(io.BytesIO(encode_wav(samples)), dtype="int16")
    assert rate_hz == 16_000  # any program opens it
    np.testing.assert_array_equal(read, samples)


def test_only_a_stored_waveform_is_read_as_one() -> None:
    other = file_of(tone(44_100), 44_100)
    cut = encode_wav(np.ones(100, np.int16))[:-2]
    for content in (other, cut):
        with pytest.raises(ValueError, match="not a stored waveform"):
            read_pcm16(content)


def test_what_lies_above_8_khz_is_not_folded_into_the_voice() -> None:
    high = tone(48_000, frequency_hz=12_000) + tone(48_000, frequency_hz=440, amplitude=1e-3)
    _, measured = heard(file_of(high, 48_000, codec="FLOAT"))
    pcm16 = to_pcm16(decode(file_of(high, 48_000, codec="FLOAT"), 60))
    assert np.abs(pcm16[1000:-1000]).max() / FULL_SCALE < 2e-3
    assert measured.peak == pytest.approx(0.501, abs=1e-3)  # of what came


def test_bytes_decide_and_not_the_name() -> None:
    assert refusal(b"<!doctype html><title>Login</title>") == "unknown_container"
    assert refusal(b"\x89PNG\r\n\x1a\n" + bytes(200)) == "unknown_container"
    assert refusal(b"RIFF" + bytes(4) + b"AVI " + bytes(200)) == "unknown_container"
    assert refusal(b"") == "empty"


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"\0\0\0\x20ftypM4A ", "m4a"),
        (b"\0\0\0\x18ftyp3gp4", "3gp"),
        (b"\x1aE\xdf\xa3", "WebM"),
        (b"#!AMR\n", "AMR"),
        (b"\xff\xf1\x50\x80", "AAC"),
    ],
)
def test_a_kind_of_file_that_is_not_read_is_named(start: bytes, name: str) -> None:
    with pytest.raises(UnusableAudio, match=f"{name}.*send the recording as WAV or FLAC") as error:
        decode(start + bytes(500), 60)
    assert error.value.reason == "unsupported_container"


@pytest.mark.parametrize("part", [0.001, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize(
    ("container", "codec"), [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "OPUS")]
)
def test_a_file_that_was_cut_anywhere_is_noticed(container: str, codec: str, part: float) -> None:
    content = file_of(RNG.normal(0, 0.1, 96_000), 48_000, container, codec)
    cut = content[: max(1, int(len(content) * part))]
    assert refusal(cut) in {"truncated", "undecodable", "unknown_container"}


def with_size(content: bytes, size: int, big_endian: bool = False) -> bytes:
    """A WAV file that declares so many bytes of samples."""
    place = content.index(b"data") + 4
    return content[:place] + struct.pack(">I" if big_endian else "<I", size) + content[place + 4 :]


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFDB, 64_044, 64_036, 63_956])
@pytest.mark.parametrize("endian", ["LITTLE", "BIG"])
def test_a_wav_whose_writer_did_not_know_the_length_is_taken(size: int, endian: str) -> None:
    """Programs that record into a pipe, or that stop early, leave such a size."""
    samples = tone(16_000)
    content = io.BytesIO()
    soundfile.write(content, samples, 16_000, format="WAV", subtype="PCM_16", endian=endian)
    whole, _ = heard(content.getvalue())
    pcm16, _ = heard(with_size(content.getvalue(), size, endian == "BIG"))
    np.testing.assert_array_equal(pcm16, whole)


def flac_of_length(n_samples: int, content: bytes) -> bytes:
    return content[:21] + bytes([content[21] & 0xF0]) + struct.pack(">I", n_samples) + content[26:]


def test_a_flac_whose_writer_did_not_know_the_length_is_taken() -> None:
    content = file_of(tone(16_000), 16_000, "FLAC")
    whole, _ = heard(content)
    np.testing.assert_array_equal(heard(flac_of_length(0, content))[0], whole)
    tagged = b"ID3\x04\0\0\0\0\x01\x02" + bytes(130) + content + b"TAG" + bytes(125)
    np.testing.assert_array_equal(heard(tagged)[0], whole)
    assert refusal(flac_of_length(0, content)[:-500]) == "undecodable"
    assert refusal(flac_of_length(0, content), max_seconds=1) == "too_long"


@pytest.mark.parametrize(
    ("container", "before", "size"),
    [
        ("AU", b"\0\0\0\x18", b"\xff" * 4),
        ("CAF", b"data", b"\xff" * 8),
        ("CAF", b"data", bytes(8)),
        ("AIFF", b"SSND", bytes(4)),
        ("W64", W64_SAMPLES, bytes(8)),
        ("RF64", b"\x1c\0\0\0" + bytes(8), bytes(8)),
    ],
)
def test_other_containers_may_leave_their_length_open(
    container: str, before: bytes, size: bytes
) -> None:
    content = file_of(tone(16_000), 16_000, container)
    if container == "RF64":  # both sizes, of the file and of the samples, are in its first chunk
        content = content[:20] + bytes(8) + content[28:]
    place = content.index(before) + len(before)
    opened = content[:place] + size + content[place + len(size) :]
    np.testing.assert_array_equal(heard(opened)[0], heard(content)[0])


def test_what_a_header_does_not_declare_is_not_dropped() -> None:
    wav = file_of(tone(16_000), 16_000)
    assert refusal(with_size(wav, 32_000)) == "undeclared_bytes"
    assert refusal(wav + wav) == "undeclared_bytes"
    assert refusal(wav + RNG.bytes(500)) == "undeclared_bytes"
    assert refusal(flac_of_length(16_000, file_of(tone(16_000), 16_000, "FLAC"))) == (
        "undeclared_bytes"
    )
    for container in ("AIFF", "CAF", "AU", "W64", "RF64"):
        content = file_of(tone(16_000), 16_000, container)
        assert refusal(content + content) == "undeclared_bytes", container
        assert refusal(content[:-1_000]) == "truncated", container


@pytest.mark.parametrize(
    ("container", "codec"),
    [("OGG", "OPUS"), ("OGG", "VORBIS"), ("FLAC", "PCM_16"), ("MP3", "MPEG_LAYER_III")],
)
def test_two_recordings_in_one_file_are_refused(container: str, codec: str) -> None:
    """Two voice notes joined: only the first would be heard."""
    content = file_of(tone(16_000), 16_000, container, codec)
    assert refusal(content + content) == "several_streams"


def test_other_chunks_and_zeros_after_the_samples_are_no_sound() -> None:
    wav = file_of(tone(16_000), 16_000)
    whole, _ = heard(wav)
    for rest in (b"LIST\4\0\0\0INFO", b"id3 \3\0\0\0abc", b"id3 \3\0\0\0abc\0", bytes(452), b"\n"):
        np.testing.assert_array_equal(heard(wav + rest)[0], whole)
    odd = file_of(tone(16_000)[:-1], 16_000, codec="PCM_24")
    whole, _ = heard(odd)
    assert len(odd) % 2 == 0  # padded
    np.testing.assert_array_equal(heard(odd[:-1] + b"LIST\4\0\0\0INFO")[0], whole)


def test_a_header_without_samples_is_empty() -> None:
    assert refusal(file_of(np.zeros(0), 16_000)) == "empty"


def test_damage_that_would_spread_is_refused() -> None:
    samples = tone(16_000)
    samples[500] = np.nan
    assert refusal(file_of(samples, 16_000, codec="FLOAT")) == "not_finite"
    samples[500] = np.inf
    assert refusal(file_of(samples, 16_000, codec="FLOAT")) == "not_finite"


def test_silence_in_all_its_forms_is_refused() -> None:
    assert refusal(file_of(np.zeros(16_000), 16_000)) == "constant"
    assert refusal(file_of(np.full(48_000, 0.1), 48_000)) == "constant"  # a dead input
    assert refusal(file_of(tone(16_000, amplitude=1e-6), 16_000, codec="FLOAT")) == "constant"


@pytest.mark.parametrize("gain", [1.0, 0.9, 0.4])
def test_channels_that_cancel_are_refused(gain: float) -> None:
    """A second microphone that is inverted takes the voice down, and leaves the noise."""
    left = tone(16_000)
    opposite = np.stack([left, -gain * left], axis=1) + 0.1  # an offset hides nothing
    assert refusal(file_of(opposite, 16_000, codec="FLOAT")) == "channels_cancel"


def test_channels_that_differ_are_mixed() -> None:
    noise = RNG.normal(0, 0.1, (2, 32_000))
    silent = np.zeros(32_000)
    for right in (noise[1], silent, 0.5 * noise[0], -0.2 * noise[0]):
        pcm16, _ = heard(file_of(np.stack([noise[0], right], axis=1), 16_000, codec="FLOAT"))
        mix = np.rint((noise[0] + right) / 2 * FULL_SCALE)
        assert np.abs(pcm16 - mix).max() <= 1


def test_what_was_never_recorded_is_not_made_up() -> None:
    assert refusal(file_of(tone(8_000), 8_000)) == "low_sample_rate"
    assert refusal(file_of(np.zeros((1_000, 6)), 16_000)) == "too_many_channels"


def test_an_endless_file_is_refused_before_it_is_decoded() -> None:
    """A FLAC of silence holds hours in kilobytes."""
    content = file_of(np.zeros(16_000 * 600), 16_000, "FLAC")
    assert len(content) < 100_000
    assert refusal(content, max_seconds=300) == "too_long"


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_no_damage_does_anything_worse_than_being_refused(data: st.DataObject) -> None:
    container, codec = data.draw(st.sampled_from([("WAV", "PCM_16"), ("OGG", "OPUS")]))
    content = bytearray(file_of(tone(16_000, 0.2), 16_000, container, codec))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        pcm16, measured = heard(bytes(content))
    except UnusableAudio:
        return
    assert pcm16.dtype == np.int16
    assert measured.duration_seconds > 0


def test_levels_are_those_of_a_known_sine() -> None:
    _, measured = heard(file_of(tone(48_000, amplitude=0.5), 48_000, codec="FLOAT"))
    assert measured.level_dbfs == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.01)
    assert measured.peak == pytest.approx(0.5, abs=1e-3)
    assert measured.clipping_fraction == 0
    assert measured.longest_digital_silence_seconds < 1e-3


def test_clipping_and_offset_are_measured_on_what_came() -> None:
    clipped = np.clip(tone(48_000, amplitude=2.0), -1, 1)
    _, measured = heard(file_of(clipped, 48_000))
    # beyond 0.985 of full scale: all but the part of the sine within ±asin(0.985 / 2)
    assert measured.clipping_fraction == pytest.approx(1 - 2 * np.arcsin(0.4925) / np.pi, abs=1e-3)
    _, measured = heard(file_of(tone(16_000, amplitude=0.1) + 0.2, 16_000))
    assert measured.dc_offset == pytest.approx(0.2, abs=1e-3)
    assert measured.level_dbfs == pytest.approx(20 * np.log10(0.1 / np.sqrt(2)), abs=0.05)


def test_only_silence_within_the_recording_counts_as_a_gap() -> None:
    samples = tone(16_000, 3.0) + 1e-3
    samples[:8_000] = 0  # silence before and after is what cutting leaves
    samples[20_000:24_000] = 0  # a lost packet of 0.25 s
    samples[-4_000:] = 0
    _, measured = heard(file_of(samples, 16_000))
    assert measured.longest_digital_silence_seconds == pytest.approx(0.25, abs=1e-3)


def spoken(snr_db: float, gain: float = 1.0) -> NDArray[np.float64]:
    """Bursts of half a second with pauses as long, in white noise."""
    voice = tone(16_000, 6.0, amplitude=0.3) * (np.arange(96_000) // 8_000 % 2)
    power = np.mean(voice[voice != 0] ** 2)
    return gain * (voice + RNG.normal(0, np.sqrt(power * 10 ** (-snr_db / 10)), voice.size))


@pytest.mark.parametrize("snr_db", [10, 20, 35])
def test_pauses_separate_noise_from_voice(snr_db: float) -> None:
    _, measured = heard(file_of(spoken(snr_db), 16_000))
    assert measured.snr_db == pytest.approx(snr_db, abs=1.5)
    assert measured.speech_fraction == pytest.approx(0.5, abs=0.03) or snr_db < 12


def test_loudness_changes_the_level_and_nothing_else() -> None:
    samples = spoken(20)
    _, loud = heard(file_of(samples, 16_000, codec="FLOAT"))
    _, soft = heard(file_of(samples / 4, 16_000, codec="FLOAT"))
    assert loud.level_dbfs - soft.level_dbfs == pytest.approx(20 * np.log10(4), abs=0.01)
    assert loud.snr_db == pytest.approx(soft.snr_db, abs=0.1)
    assert loud.bandwidth_hz == pytest.approx(soft.bandwidth_hz, abs=20)
    assert loud.speech_fraction == pytest.approx(soft.speech_fraction, abs=0.01)


def test_a_held_vowel_without_pauses_is_all_voice() -> None:
    _, measured = heard(file_of(tone(16_000, 3.0) + RNG.normal(0, 1e-3, 48_000), 16_000))
    assert measured.speech_fraction == 1.0


def test_a_narrow_channel_is_seen() -> None:
    from scipy.signal import butter, sosfilt

    wide = RNG.normal(0, 0.05, 48_000)
    narrow = sosfilt(butter(8, 3_400, fs=16_000, output="sos"), wide)
    assert heard(file_of(wide, 16_000))[1].bandwidth_hz > 7_500
    assert heard(file_of(narrow, 16_000))[1].bandwidth_hz < 4_500


def test_a_noise_gate_does_not_pass_for_a_quiet_room() -> None:
    gated = spoken(20)
    gated[np.arange(gated.size) // 8_000 % 4 == 0] = 0  # every other pause is cut to silence
    _, measured = heard(file_of(gated, 16_000))
    assert measured.snr_db == pytest.approx(20, abs=2)
    assert measured.longest_digital_silence_seconds == pytest.approx(0.5, abs=0.01)


def test_lost_packets_are_counted_and_pauses_are_not() -> None:
    samples = tone(16_000, 4.0) + 1e-3
    for start in (10_005, 20_003, 30_007):
        samples[start : start + 320] = 0  # 20 ms, in the middle of sound
    _, measured = heard(file_of(samples, 16_000))
    assert measured.dropouts_per_second == pytest.approx(3 / 4)


def test_a_noise_gate_loses_no_packets() -> None:
    gated = spoken(30)
    pause = np.arange(gated.size) // 8_000 % 2 == 0
    gated[
        pause & (np.arange(gated.size) % 8_000 > 800) & (np.arange(gated.size) % 8_000 < 7_200)
    ] = 0
    _, measured = heard(file_of(gated, 16_000))
    assert measured.longest_digital_silence_seconds > 0.3
    assert measured.dropouts_per_second == 0


MEASURE = """
import numpy as np
from spira_tasks.speech.audio import Sound
from spira_tasks.speech.probe import probe
bursts = np.arange(48_000) // 4_000 % 2 + 0.01
for seed in range(10):
    noise = (np.random.default_rng(seed).normal(0, 2000, 48_000) * bursts).astype(np.int16)
    print(probe(Sound(noise[None] / 32768, 16_000, "wav", "pcm16"), noise))
"""


def test_a_measurement_is_the_same_by_whatever_kernels_a_cpu_has() -> None:
    """A table with digits of the kernel would have another digest on another machine."""
    said = {
        subprocess.run(
            [sys.executable, "-c", MEASURE],
            env=os.environ | {"OPENBLAS_CORETYPE": kernels},
            check=True,
            capture_output=True,
        ).stdout
        for kernels in ("", "Nehalem")  # the machine's own choice, and old ones
    }
    assert len(said) == 1
