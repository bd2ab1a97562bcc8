"""The sound of a cohort by another synthesiser: eSpeak NG reads, and the noise is another one too.

It comes by ``apt-get install espeak-ng`` (GPL-3; nothing of it is in the project).  People, rooms,
devices and labels are those of ``spira_tasks.cohort``, so the confounds are the same.  A voice note
goes through a real Opus coder.  Nothing was tuned on these sounds.
"""

from __future__ import annotations

import io
import subprocess
from functools import lru_cache

import numpy as np
import soundfile
import soxr
from scipy import signal

from spira_tasks.cohort.people import CLIP, TASKS, Person, Session
from spira_tasks.speech.synthesis import SAMPLE_RATE_HZ, Waveform

WORDS = "o amor ao próximo ajuda a enfrentar {} com a força que a gente precisa"
NAMED = {"coronavirus": "o coronavírus", "essa_fase": "essa fase"}
VOICES = {"M": ("m1", "m2", "m3", "m4", "m5", "m6", "m7"), "F": ("f1", "f2", "f3", "f4", "f5")}
MUMBLE = "ontem o paciente do leito sete dormiu bem e hoje pediu um copo de água"


def render(
    seed: int, person: Person, session: Session, task: str
) -> tuple[Waveform, dict[str, float]]:
    """As ``spira_tasks.cohort.recorder.render``."""
    rng = np.random.default_rng([seed, CLIP, person.index, session.number, TASKS.index(task), 1])
    if task == "AMBIENT":
        speech = np.zeros(6 * SAMPLE_RATE_HZ)
    else:
        speech = np.pad(read(rng, person, session), SAMPLE_RATE_HZ // 2)
    noise = ward(rng, len(speech)) if session.in_ward else coloured(rng, len(speech), 0.99)
    level_db = session.speech_db - 6  # its voices have higher peaks than ours
    mixed = 10 ** (level_db / 20) * (speech + 10 ** (-session.snr_db / 20) * noise)
    return (voice_note(mixed) if session.channel == "whatsapp" else mixed), {}


def read(rng: np.random.Generator, person: Person, session: Session) -> Waveform:
    """The prompt, with more pauses, breath and haste the more a person lacks air."""
    words, effect = WORDS.format(NAMED[session.prompt]).split(), person.effect
    # eSpeak times a word the same each time, so that two people of one voice sound the same
    words = [f'<prosody rate="{rng.normal(100, 12):.0f}%">{word}</prosody>' for word in words]
    for place in rng.choice(len(words) - 1, rng.poisson(0.75 + 3.6 * effect) % len(words)):
        words[place] += f' <break time="{int(250 * rng.lognormal(0.6 * effect, 0.4))}ms"/>'
    speech = spoken(
        " ".join(words),
        f"pt-br+{rng.choice(VOICES[person.sex])}",
        pitch=int(np.clip(rng.normal(45 + 12 * effect, 10), 0, 99)),
        speed=int(rng.normal(150 * (1 - 0.12 * effect) - 0.3 * (person.age - 50), 15)),
    )
    loud = np.abs(signal.hilbert(speech))
    breath = (0.05 + 0.4 * effect) * np.diff(rng.standard_normal(len(speech) + 1))
    return unit(speech) + breath * unit(loud)


def spoken(text: str, voice: str, *, pitch: int, speed: int) -> Waveform:
    command = ["espeak-ng", "-m", "--stdout", "-v", voice, "-p", str(pitch), "-s", str(speed)]
    sound = subprocess.run([*command, f"<speak>{text}</speak>"], check=True, capture_output=True)
    # the length in the header is not that of a file, because it is written as a stream
    samples = np.frombuffer(sound.stdout[44:], "<i2") / 32768
    return np.asarray(soxr.resample(samples, 22_050, SAMPLE_RATE_HZ))


def ward(rng: np.random.Generator, n_samples: int) -> Waveform:
    """Air, an alarm and two people who talk."""
    seconds = np.arange(n_samples) / SAMPLE_RATE_HZ
    alarm = signal.square(2 * np.pi * rng.uniform(0.4, 1.2) * seconds, 0.1) > 0
    noise = coloured(rng, n_samples, 0.9)
    noise += 0.4 * alarm * np.sin(2 * np.pi * rng.uniform(700, 1200) * seconds)
    for _ in range(2):
        talk = talker(int(rng.integers(6)))
        noise += 0.5 * np.resize(np.roll(talk, int(rng.integers(len(talk)))), n_samples)
    return unit(noise)


@lru_cache
def talker(number: int) -> Waveform:
    return unit(spoken(MUMBLE, f"pt-br+{'mf'[number % 2]}{1 + number // 2}", pitch=50, speed=170))


def coloured(rng: np.random.Generator, n_samples: int, pole: float) -> Waveform:
    return unit(signal.lfilter([1], [1, -pole], rng.standard_normal(n_samples)))


def voice_note(sound: Waveform) -> Waveform:
    """Opus and back."""
    file = io.BytesIO()
    soundfile.write(file, sound, SAMPLE_RATE_HZ, format="OGG", subtype="OPUS")
    file.seek(0)
    decoded, rate_hz = soundfile.read(file)
    return np.asarray(soxr.resample(decoded, rate_hz, SAMPLE_RATE_HZ))


def unit(sound: Waveform) -> Waveform:
    return np.asarray(sound / np.sqrt(np.mean(sound**2) + 1e-12))
