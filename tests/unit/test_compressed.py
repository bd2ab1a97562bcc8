"""Files of telephones and browsers that only the optional decoder reads."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compressing import FOLDER, PINNED, SECONDS, encoded, installed
from folders import Ingested

from spira_tasks.artifacts import Store
from spira_tasks.intake.audio_reader import convert
from spira_tasks.provenance import ROOT
from spira_tasks.speech import compressed
from spira_tasks.speech.audio import decode, to_pcm16
from spira_tasks.speech.containers import UnusableAudio

KINDS = {  # as encoders write them: format, codec, rate, options
    "webm": ("webm", "libopus", 48_000, {}),
    "webm of a browser": ("webm", "libopus", 48_000, {"live": "1"}),
    "m4a": ("ipod", "aac", 44_100, {}),
    "m4a in pieces": (
        *("mp4", "aac", 48_000),
        {"movflags": "frag_keyframe+empty_moov", "frag_duration": "300000"},
    ),
    "m4a, header first": ("mp4", "aac", 48_000, {"movflags": "faststart"}),
    "aac": ("adts", "aac", 44_100, {}),
}


@pytest.fixture(scope="module")
def av() -> Iterator[Any]:
    with installed() as found:
        yield found


@pytest.fixture(scope="module")
def files(av: Any) -> dict[str, bytes]:
    return {name: encoded(av, *how) for name, how in KINDS.items()}


def refusal(content: bytes, max_seconds: float = 60) -> str:
    with pytest.raises(UnusableAudio) as error:
        to_pcm16(decode(content, max_seconds))
    return error.value.reason


@pytest.mark.parametrize("kind", KINDS)
def test_the_tone_is_heard_with_the_rate_and_codec_of_the_file(
    files: dict[str, bytes], kind: str
) -> None:
    _, codec, rate_hz, _ = KINDS[kind]
    sound = decode(files[kind], 60)
    assert (sound.sample_rate_hz, sound.codec) == (rate_hz, codec.removeprefix("lib"))
    assert sound.waveform.shape[0] == 1
    pcm16 = to_pcm16(sound)
    assert pcm16.size == pytest.approx(SECONDS * 16_000, abs=1600)
    spectrum = np.abs(np.fft.rfft(pcm16 * np.hanning(pcm16.size)))
    assert np.argmax(spectrum) * 16_000 / pcm16.size == pytest.approx(440, abs=1)
    assert np.std(pcm16 / 32_768) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_was_cut_is_noticed(files: dict[str, bytes], kind: str) -> None:
    content = files[kind]
    # Frames of AAC stand one after the other: a cut exactly between two is not seen.
    n_cuts = 3 if kind == "aac" else 40
    for n_bytes in np.linspace(len(content) // 3, len(content) - 1, n_cuts).astype(int):
        assert refusal(content[:n_bytes]) in {"truncated", "undecodable"}, n_bytes


def test_two_channels_and_what_was_measured_are_as_with_any_file(av: Any) -> None:
    found = convert(encoded(av, "ipod", "aac", 44_100, {}, n_channels=2), 60)
    about = (found["container"], found["codec"], found["native_sample_rate_hz"])
    assert about == ("mpeg4", "aac", 44_100)
    assert (found["n_channels"], found["clipping_fraction"]) == (2, 0.0)


def test_a_telephone_line_is_too_narrow_and_a_long_file_is_not_decoded(
    av: Any, files: dict[str, bytes]
) -> None:
    for container in ("3gp", "amr"):
        narrow = encoded(av, container, "libopencore_amrnb", 8_000, {})
        assert refusal(narrow) == "low_sample_rate"
    for content in files.values():
        assert refusal(content, max_seconds=1) == "too_long"


def test_whatever_bytes_follow_a_signature_are_refused_and_no_more(files: dict[str, bytes]) -> None:
    generator = np.random.default_rng(5)
    for content in files.values():
        for _ in range(20):
            damaged = bytearray(content)
            for place in generator.integers(8, len(content), 40):
                damaged[place] = generator.integers(256)
            try:
                decode(bytes(damaged), 60)
            except UnusableAudio:
                continue


def test_ingest_reads_a_file_that_it_refused_once_the_decoder_is_there(
    files: dict[str, bytes], tmp_path: Path
) -> None:
    delivery, store = tmp_path / "delivery", Store(str(tmp_path / "store"))
    delivery.mkdir()
    (delivery / "voice.m4a").write_bytes(files["m4a"])
    (delivery / "metadata_train.csv").write_text("file_path,class\nvoice.m4a,1\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [place for place in sys.path if place != str(FOLDER)])
        refused = Ingested(f"folder:{delivery}", store).table("quarantine")
    assert [*refused["reason"]] == ["unsupported_container"]
    taken = Ingested(f"folder:{delivery}", store).table("recordings")
    assert [*taken["codec"]] == ["aac"]


def test_without_the_decoder_the_refusal_says_what_to_install(files: dict[str, bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [place for place in sys.path if place != str(FOLDER)])
        assert compressed.decoder() == ""
        for content in files.values():
            found = convert(content, 60)
            assert found["reason"] == "unsupported_container"
            assert compressed.REQUIREMENTS in found["detail"]
    assert compressed.decoder() == PINNED.partition("==")[2]


def test_the_refusal_names_a_file_that_is_there() -> None:
    assert Path(ROOT, compressed.REQUIREMENTS).exists()
