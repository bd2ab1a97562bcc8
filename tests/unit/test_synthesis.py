from typing import Any

import numpy as np
import pytest
from scipy import signal
from scipy.ndimage import uniform_filter1d

from spira_tasks.speech import acoustics, phones, synthesis
from spira_tasks.speech.synthesis import SAMPLE_RATE_HZ, Voice

MAN = Voice(120.0, 1.0, 1.0, 0.08, 0.004, 0.03, 0.05)
WOMAN = Voice(210.0, 1.17, 1.0, 0.08, 0.004, 0.03, 0.05)


def rng(*stream: int) -> np.random.Generator:
    return np.random.default_rng([17, *stream])


def pitch_hz(waveform: Any) -> tuple[float, float]:
    """Autocorrelation peak between 60 and 400 Hz, and its height: periodicity."""
    piece = waveform[8000 : 8000 + 4096] - np.mean(waveform[8000 : 8000 + 4096])
    correlation = np.correlate(piece, piece, "full")[len(piece) - 1 :]
    lag = SAMPLE_RATE_HZ // 400 + np.argmax(
        correlation[SAMPLE_RATE_HZ // 400 : SAMPLE_RATE_HZ // 60]
    )
    return float(SAMPLE_RATE_HZ / lag), float(correlation[lag] / correlation[0])


def level_db(waveform: Any, low_hz: float, high_hz: float) -> float:
    frequency_hz, power = signal.welch(waveform, SAMPLE_RATE_HZ, nperseg=1024)
    band = (frequency_hz >= low_hz) & (frequency_hz < high_hz)
    return float(10 * np.log10(np.mean(power[band])))


@pytest.mark.parametrize(("prompt", "n_syllables"), [("coronavirus", 31), ("essa_fase", 29)])
def test_the_prompts_have_the_syllables_of_the_sentences(prompt: str, n_syllables: int) -> None:
    syllables = phones.syllables(prompt)
    assert len(syllables) == n_syllables
    assert all(phone in phones.PHONES for text, _ in syllables for phone in text)


@pytest.mark.parametrize("voice", [MAN, WOMAN])
def test_a_vowel_has_the_pitch_and_the_formants_of_its_speaker(voice: Voice) -> None:
    vowel = synthesis.hold_vowel(rng(1), voice, 0.0, 3.0)
    assert pitch_hz(vowel)[0] == pytest.approx(voice.f0_hz, rel=0.05)
    first, second, _ = (hz * voice.formant_scale for hz in phones.PHONES["a"][0].formants_hz)
    valley = level_db(vowel, 1.35 * second, 1.6 * second)
    assert level_db(vowel, 0.85 * first, 1.15 * first) > valley + 15
    assert level_db(vowel, 0.90 * second, 1.10 * second) > valley + 6


def test_illness_makes_a_voice_less_periodic_and_higher() -> None:
    well = [pitch_hz(synthesis.hold_vowel(rng(2, n), MAN, 0.0, 2.0)) for n in range(8)]
    ill = [pitch_hz(synthesis.hold_vowel(rng(2, n), MAN, 0.9, 2.0)) for n in range(8)]
    hz, periodicity = np.mean(ill, axis=0) - np.mean(well, axis=0)
    assert hz > 4
    assert periodicity < -0.1


def test_pauses_follow_the_published_counts_and_lengths() -> None:
    for effect, n_expected, seconds_expected in ((0.06, 0.97, 0.29), (0.66, 3.16, 0.54)):
        drawn = [synthesis.draw_pauses(rng(3, n), effect, "coronavirus") for n in range(3000)]
        assert np.mean([len(pauses) for pauses in drawn]) == pytest.approx(n_expected, abs=0.15)
        seconds = [length for pauses in drawn for length in pauses.values()]
        assert np.mean(seconds) == pytest.approx(seconds_expected, abs=0.04)


def test_the_well_pause_between_phrases_and_the_ill_anywhere() -> None:
    ends = {index for index, (_, end) in enumerate(phones.syllables("coronavirus")) if end == "|"}

    def share_at_phrase_ends(effect: float) -> float:
        drawn = [synthesis.draw_pauses(rng(4, n), effect, "coronavirus") for n in range(500)]
        places = [place for pauses in drawn for place in pauses]
        return float(np.mean([place in ends for place in places]))

    assert share_at_phrase_ends(0.0) > 0.8
    assert share_at_phrase_ends(0.9) < 0.4


def test_a_pause_lengthens_the_sentence_and_leaves_its_level() -> None:
    plain = synthesis.read_sentence(rng(5), MAN, 0.0, "coronavirus", {})
    paused = synthesis.read_sentence(rng(5), MAN, 0.0, "coronavirus", {6: 1.0})
    assert 0.9 < (len(paused) - len(plain)) / SAMPLE_RATE_HZ < 1.2  # and a syllable before it
    assert np.sqrt(np.mean(plain**2)) == pytest.approx(
        np.sqrt(np.sum(paused**2) / len(plain)), rel=0.05
    )
    loudness = np.sqrt(np.maximum(uniform_filter1d(paused**2, 1600), 0))
    assert np.sum(loudness < 0.1) > 0.7 * SAMPLE_RATE_HZ


def test_a_held_vowel_gets_shorter_with_illness() -> None:
    seconds = {
        effect: np.mean([synthesis.draw_phonation_seconds(rng(6, n), effect) for n in range(500)])
        for effect in (0.0, 0.9)
    }
    assert seconds[0.0] == pytest.approx(15, abs=0.6)
    assert seconds[0.9] == pytest.approx(7.8, abs=0.6)


def test_a_ward_has_hum_beeps_and_talk() -> None:
    babble = acoustics.babble_bed(rng(7), 8 * SAMPLE_RATE_HZ, n_voices=2)
    noise = acoustics.ward_noise(rng(8), 8 * SAMPLE_RATE_HZ, acoustics.WardMix(), babble)
    assert np.sqrt(np.mean(noise**2)) == pytest.approx(1)
    hum = acoustics.mains_hum(rng(9), 16_000)
    assert level_db(hum, 50, 70) > level_db(hum, 1000, 8000) + 40
    beeps = acoustics.monitor_beeps(rng(10), 4 * SAMPLE_RATE_HZ)
    frequency_hz, power = signal.welch(beeps, SAMPLE_RATE_HZ, nperseg=8192)
    assert 780 < frequency_hz[np.argmax(power)] < 1050
    assert np.mean(beeps == 0) > 0.5


def test_babble_loops_without_a_seam() -> None:
    babble = acoustics.babble_bed(rng(11), 4 * SAMPLE_RATE_HZ, n_voices=2)
    step = abs(babble[0] - babble[-1])
    assert step < np.percentile(abs(np.diff(babble)), 99)


@pytest.mark.parametrize(("mask_type", "gain_db"), [("NONE", 0), ("THIN", -3), ("THICK", -8)])
def test_a_mask_damps_only_above_two_kilohertz(mask_type: str, gain_db: float) -> None:
    impulse = np.zeros(4096)
    impulse[0] = 1
    response = 20 * np.log10(abs(np.fft.rfft(acoustics.wear_mask(impulse, mask_type))))
    frequency_hz = np.fft.rfftfreq(4096, 1 / SAMPLE_RATE_HZ)
    assert response[np.searchsorted(frequency_hz, 300)] == pytest.approx(0, abs=0.2)
    assert response[np.searchsorted(frequency_hz, 7000)] == pytest.approx(gain_db, abs=0.2)


def test_a_voice_note_keeps_nothing_above_its_band() -> None:
    noise = 0.1 * rng(12).standard_normal(3 * SAMPLE_RATE_HZ)
    heard = acoustics.CHANNELS["whatsapp"](rng(13), noise)
    assert level_db(heard, 7200, 8000) < level_db(heard, 1000, 5000) - 20


def test_a_browser_suppresses_steady_noise_and_keeps_the_voice() -> None:
    noise = 0.01 * rng(14).standard_normal(4 * SAMPLE_RATE_HZ)
    vowel = np.pad(synthesis.hold_vowel(rng(15), MAN, 0.0, 2.0), (16_000, 16_000)) * 0.1
    heard = acoustics.CHANNELS["webns"](rng(16), vowel + noise)
    assert np.std(heard[4000:12_000]) < 0.4 * np.std(noise)
    assert np.std(heard[20_000:44_000]) == pytest.approx(np.std(vowel[20_000:44_000]), rel=0.1)


@pytest.mark.parametrize("channel", acoustics.CHANNELS)
def test_what_is_said_later_does_not_change_the_silence_before(channel: Any) -> None:
    silence = 0.01 * rng(17).standard_normal(3 * SAMPLE_RATE_HZ)
    spoken = silence.copy()
    spoken[16_000:] += 0.2 * rng(18).standard_normal(32_000)
    before = [acoustics.CHANNELS[channel](rng(19), clip)[:15_000] for clip in (silence, spoken)]
    np.testing.assert_allclose(before[0], before[1], atol=1e-9)
