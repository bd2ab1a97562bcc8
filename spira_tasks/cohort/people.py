"""People, hospitals, sessions and vital signs of a synthetic cohort, drawn from a seed.

Draws of subject ``i`` come from ``default_rng([seed, stream, i, …])``, so a subject is the same in
a cohort of any size.  Confounds change what is computed from these draws, never the draws, so two
cohorts that differ in one confound differ in nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np

from spira_tasks.speech.acoustics import WardMix
from spira_tasks.speech.phones import SENTENCES
from spira_tasks.speech.synthesis import Voice, draw_voice

PERSON, PAIR, SESSION, VITALS, CLIP, PAUSES, WARD_NOISE, BABBLE = range(1, 9)  # streams
BRASILIA = timezone(timedelta(hours=-3))
TASKS = ("AMBIENT", "VOWEL", "SENTENCE")
N_WARD_NOISES = 24  # two thirds for training, the rest for evaluation


@dataclass(frozen=True)
class Site:
    """A hospital.  Sites differ in rooms, microphones, ages and masks, not in who is ill."""

    hospital_id: str
    p_ward: float  # share of sessions in the ward; the others are in a quiet room
    mix: WardMix
    microphone: tuple[tuple[float, float], ...]  # (centre_hz, gain_db)
    years_older: float = 0.0
    p_masks: tuple[float, float, float] = (0.4, 0.4, 0.2)  # NONE, THIN, THICK


SITES = (
    Site("hospital-a", 0.6, WardMix(), ((300, 1.5), (3000, 2.0)), 0),
    Site("hospital-b", 0.4, WardMix(hum=0.5, babble=1.0), ((150, -3.0), (4500, -2.5)), 6),
    Site("hospital-c", 0.5, WardMix(monitor=1.0, oxygen=0.6), ((1200, -2.0), (2500, 2.5)), -5),
    Site("hospital-d", 0.5, WardMix(clatter=0.9, babble=0.4), ((500, 2.0), (5500, -3.0)), 2),
)
NEW_SITE = Site(
    "hospital-e", 0.8, WardMix(hum=0.9, oxygen=1.0), ((200, -5.0), (1000, 4.0), (5000, -6.0)), 8
)


@dataclass(frozen=True)
class Preset:
    """A study; ``causes`` maps each cause to its share of the patients."""

    description: str
    severity_beta: tuple[float, float]
    causes: Mapping[str, float]
    years: float
    p_coronavirus_prompt: float
    first_day: datetime
    p_ward: float | None = None  # None: that of each site


OTHER_CAUSES = {"asthma": 0.2, "copd": 0.3, "heart": 0.25, "smoking": 0.1, "other": 0.15}
_PRESETS = {
    "clean": Preset(
        "acoustics shared by both classes, moderate COVID-19; what CI trains on",
        (2.2, 1.6), {"covid": 1.0}, 52, 0.7, datetime(2021, 3, 1, tzinfo=BRASILIA),
    ),
    "p1": Preset(
        "like SPIRA's first phase: severe COVID-19, one prompt; easy",
        (4, 2), {"covid": 1.0}, 52, 1.0, datetime(2020, 6, 1, tzinfo=BRASILIA),
    ),
    "p2": Preset(
        "like SPIRA's second phase: other causes, older people, controls in the same wards; hard",
        (4, 2), OTHER_CAUSES, 66, 0.0, datetime(2023, 3, 1, tzinfo=BRASILIA), p_ward=1.0,
    ),
}  # fmt: skip
PRESETS: Mapping[str, str] = {name: preset.description for name, preset in _PRESETS.items()}

CONFOUNDS: Mapping[str, str] = {
    "ward_noise": "patients in noisy wards, controls in quiet rooms",
    "noise_level": "patients' recordings have 10 dB less signal to noise, same kinds of noise",
    "noise_type": "patients' noise is a ward's, controls' a home's, at the same level",
    "channel": "patients by voice note, controls by browser",
    "sex": "80 % of the patients and 20 % of the controls are women",
    "age": "patients are 66 years old on average, controls 32",
    "leak": "four sessions a subject: a split by recording leaks",
    "label_flip": "the recorded label is wrong for one subject in ten",
    "etiology_shift": "patients have other causes than COVID-19",
    "new_hospital": "a third of the subjects come from a hospital never seen before",
    "new_app_version": "four sessions in ten use a new version of the app",
    "prompt": "patients read the coronavirus prompt, controls the other",
}

# Audible effect of a cause, relative to COVID-19.
AUDIBILITY = {
    "covid": 1.0,
    "asthma": 0.7,
    "copd": 0.65,
    "other": 0.5,
    "smoking": 0.5,
    "heart": 0.45,
}
CID10 = {"covid": "U07.1", "asthma": "J45", "copd": "J44.1", "heart": "I50.0", "smoking": "F17.2",
         "other": "J96.0"}  # fmt: skip
# app, app_version, noise suppression, automatic gain, echo cancelling, codec
CAPTURE = {
    "raw": ("spira-app", "3.2.0", False, False, False, "pcm16"),
    "webns": ("spira-pwa", "2.1.4", True, True, True, "pcm16"),
    "whatsapp": ("whatsapp", "2.20", False, True, False, "opus"),
}
DEVICES = (
    ("Moto G7", "Android 10", 48_000), ("Galaxy A32", "Android 11", 44_100),
    ("Redmi Note 10", "Android 11", 48_000), ("iPhone SE", "iOS 14", 44_100),
    ("Moto E6", "Android 9", 16_000),
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What determines a cohort; stored with it as ``cohort.json``."""

    generator: int
    subjects: int
    seed: int
    preset: str = "clean"
    signal: float = 1.0
    confounds: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    tasks: tuple[str, ...] = TASKS
    ward_noises: int = N_WARD_NOISES


@dataclass(frozen=True)
class Person:
    """A subject with the latents that no pipeline may see."""

    index: int
    ill: bool
    labelled_ill: bool
    sex: str
    age: int
    site: Site
    rgh: str
    cause: str
    severity: float
    effect: float
    voice: Voice


@dataclass(frozen=True)
class Session:
    """One visit to one person, in one room, with one device."""

    number: int
    session_id: str
    collected_at: datetime
    in_ward: bool
    mix: WardMix
    speech_db: float  # RMS of the voice, dBFS
    snr_db: float
    channel: str
    mask_type: str
    prompt: str
    device: tuple[str, str, int]
    flac: bool
    app_version: str


def draw_person(plan: Plan, index: int) -> Person:
    """Draw subject ``index``; one of subjects ``2 j`` and ``2 j + 1``, at random, is a patient."""
    seed, preset, confounds = plan.seed, _PRESETS[plan.preset], plan.confounds
    coin = int(np.random.default_rng([seed, PAIR, index // 2]).integers(2))
    ill = index % 2 == coin
    rng = np.random.default_rng([seed, PERSON, index])
    p_woman = (0.8 if ill else 0.2) if "sex" in confounds else 0.5
    sex = "F" if rng.random() < p_woman else "M"
    site = SITES[int(rng.integers(len(SITES)))]
    if rng.random() < 1 / 3 and "new_hospital" in confounds:
        site = NEW_SITE
    years, spread = preset.years + site.years_older, 15
    if "age" in confounds:
        years, spread = (66 if ill else 32), 11
    age = int(np.clip(round(years + spread * rng.standard_normal()), 18, 89))
    causes = OTHER_CAUSES if "etiology_shift" in confounds else preset.causes
    cause = str(rng.choice(list(causes), p=list(causes.values())))
    if_ill, if_well = rng.beta(*preset.severity_beta), rng.beta(1, 14)
    severity = float(if_ill if ill else if_well)
    # Controls are slightly short of breath too, by the causes of the study.
    effect = severity * AUDIBILITY[cause] * plan.signal
    flipped = "label_flip" in confounds and rng.random() < 0.1
    voice = draw_voice(rng, sex, age)
    number = (index * 15_485_863 + seed * 1_299_709 + list(_PRESETS).index(plan.preset)) % 10**8
    return Person(
        index, ill, ill != flipped, sex, age, site, f"{number:08d}{'ABCDEFGHIJK'[number % 11]}",
        cause if ill else "", severity, effect, voice,
    )  # fmt: skip


def draw_session(plan: Plan, person: Person, number: int) -> Session:
    """Draw visit ``number`` to a person; without a confound it is independent of the illness."""
    preset, site, confounds = _PRESETS[plan.preset], person.site, plan.confounds
    rng = np.random.default_rng([plan.seed, SESSION, person.index, number])
    p_ward = site.p_ward if preset.p_ward is None else preset.p_ward
    in_ward = bool(rng.random() < p_ward)
    deviation = rng.standard_normal()
    if "ward_noise" in confounds or "noise_type" in confounds:
        in_ward = person.ill
    snr_db = (14 if in_ward or "noise_type" in confounds else 32) + 5 * deviation
    if "noise_level" in confounds and person.ill:
        snr_db -= 10
    channel = str(rng.choice(list(CAPTURE), p=[0.5, 0.3, 0.2]))
    if "channel" in confounds:
        channel = "whatsapp" if person.ill else "webns"
    newer = rng.random() < 0.4 and "new_app_version" in confounds
    if newer:
        channel = "webns"
    prompt = "coronavirus" if rng.random() < preset.p_coronavirus_prompt else "essa_fase"
    if "prompt" in confounds:
        prompt = sorted(SENTENCES)[0 if person.ill else 1]
    gains = rng.lognormal(0, 0.4, 5)
    mix = WardMix(*(np.array(list(vars(site.mix).values())) * gains).tolist())
    days, minutes = rng.integers(0, 540), rng.integers(8 * 60, 18 * 60)
    return Session(
        number=number,
        session_id=f"{plan.preset}{plan.seed}-{person.index:06d}-{number}",
        collected_at=preset.first_day
        + timedelta(days=int(days) + 90 * number, minutes=int(minutes)),
        in_ward=in_ward,
        mix=mix,
        speech_db=float(np.clip(rng.normal(-20, 2), -25, -16)),
        snr_db=float(max(snr_db, 0)),
        channel=channel,
        mask_type=str(rng.choice(["NONE", "THIN", "THICK"], p=site.p_masks)),
        prompt=prompt,
        device=DEVICES[int(rng.integers(len(DEVICES)))],
        flac=bool(rng.random() < 0.12),
        app_version="5.0.0" if newer else CAPTURE[channel][1],
    )


def draw_vitals(seed: int, person: Person, session: Session) -> dict[str, Any]:
    """Draw vital signs; they depend on the severity, not on the audible effect.

    A random half of the people who need oxygen get it, which raises their SpO2: one reason why SpO2
    is not the label.
    """
    rng = np.random.default_rng([seed, VITALS, person.index, session.number])
    severity = person.severity
    spo2 = rng.normal(97 - 8.5 * severity, 1.6)
    on_oxygen = bool(severity > 0.35 and rng.random() < 0.5)
    fio2 = round(float(rng.uniform(0.24, 0.60)), 2) if on_oxygen else 0.21
    if on_oxygen:
        spo2 += 18 * (fio2 - 0.21)
    systolic = int(np.clip(rng.normal(124 + 0.3 * (person.age - 50), 13), 85, 210))
    tall = rng.normal(161 if person.sex == "F" else 174, 7)
    vitals: dict[str, Any] = {
        "spo2": int(np.clip(round(spo2), 70, 100)),
        "on_oxygen": on_oxygen,
        "fio2": fio2,
        "spo2_at": session.collected_at - timedelta(minutes=int(rng.integers(0, 20))),
        "heart_rate": int(np.clip(round(rng.normal(78 + 22 * severity, 10)), 45, 170)),
        "resp_rate": int(np.clip(round(rng.normal(16 + 12 * severity, 2.5)), 9, 48)),
        "temp": round(float(np.clip(rng.normal(36.6 + 0.6 * severity, 0.4), 35, 40.5)), 1),
        "bp_sys": systolic,
        "bp_dia": int(np.clip(round(systolic * rng.normal(0.64, 0.05)), 45, systolic - 15)),
        "height": int(np.clip(round(tall), 140, 205)),
        "weight": round(float(np.clip(rng.normal(27, 4), 17, 45) * (tall / 100) ** 2), 1),
    }
    if severity > 0.6:  # arterial blood gas is drawn from the sickest
        vitals["pao2"] = round(float(np.clip(rng.normal(95 - 40 * severity, 8), 38, 110)), 1)
        vitals["paco2"] = round(float(np.clip(rng.normal(38, 5), 25, 70)), 1)
        vitals["ph"] = round(float(np.clip(rng.normal(7.40, 0.04), 7.15, 7.55)), 2)
    return vitals
