"""The sessions of one person: audio files, their rows, and faults of delivery.

Rows have the columns of the canonical layout; their ``truth`` goes to ``truth.csv``.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from scipy.io import wavfile

from spira_tasks.cohort import people
from spira_tasks.cohort.people import TASKS
from spira_tasks.speech import acoustics, synthesis
from spira_tasks.speech.synthesis import SAMPLE_RATE_HZ, Waveform

N_BABBLE_BEDS = 4  # for recordings; the two pools of ward noise have their own

# The first ten damage one recording in 33, the others the rows of one session in 33.
FAULTS: Mapping[str, str] = {
    "clip": "recorded far too loud",
    "partial_sync": "the row arrived, its audio file did not",
    "dc": "a constant offset from a broken microphone",
    "8k": "recorded at 8 kHz",
    "silent": "digital silence",
    "zero_len": "an empty file",
    "truncated": "the transfer broke off: the file is cut and its sha256 is that of the whole",
    "not_audio": "a login page, saved as .wav",
    "nan": "a float file with NaN samples",
    "dup_upload": "the same file was uploaded twice, under a second session",
    "unit_error": "SpO2 as a fraction",
    "tz_naive": "collected_at without an offset",
    "free_text_hospital": "hospital_id typed by hand",
    "personal_data": "a CPF in a text column",
}
N_RECORDING_FAULTS = 10

Row = dict[str, Any]


def record_subject(out: Path, plan: people.Plan, index: int) -> list[Row]:
    """Write the audio of subject ``index`` under ``out``; return its rows."""
    person = people.draw_person(plan, index)
    rows = []
    for number in range(4 if "leak" in plan.confounds else 1):
        session = people.draw_session(plan, person, number)
        row = _session_row(plan.seed, person, session)
        faults = [fault for fault in plan.faults if _has_fault(fault, index) and number == 0]
        session_fault = next((fault for fault in faults if _damaged_task(fault) is None), "")
        _damage_row(row, session_fault)
        for task in plan.tasks:
            fault = next((name for name in faults if _damaged_task(name) == task), "")
            waveform, latents = render(plan.seed, person, session, task)
            record = row | {"task": task, "record_id": f"{session.session_id}-{task.lower()}"}
            record["truth"] = _truth(person, session) | latents
            record["truth"] |= {"record_id": record["record_id"], "fault": fault or session_fault}
            _write_audio(out, record, waveform, session, fault)
            rows.append(record)
            if fault == "dup_upload":
                rows.append(_write_duplicate(out, record))
    return rows


def render(
    seed: int, person: people.Person, session: people.Session, task: str
) -> tuple[Waveform, dict[str, float]]:
    """Render one clip at 16 kHz, before the device encodes it; return it with its latents.

    The session alone sets the level of the noise.  A level relative to the speech would show pauses
    in the ambient track.
    """
    rng = np.random.default_rng(
        [seed, people.CLIP, person.index, session.number, TASKS.index(task)]
    )
    latents: dict[str, float] = {}
    lead, trail = (rng.uniform((0.35, 0.5), (0.7, 0.9)) * SAMPLE_RATE_HZ).astype(int)
    if task == "AMBIENT":
        speech = np.zeros(int(rng.uniform(5.2, 7.0) * SAMPLE_RATE_HZ))
        lead = trail = 0
    elif task == "VOWEL":
        seconds = synthesis.draw_phonation_seconds(rng, person.effect)
        speech = synthesis.hold_vowel(rng, person.voice, person.effect, seconds)
        latents = {"phonation_seconds": round(seconds, 3)}
    else:
        pauses = synthesis.draw_pauses(
            np.random.default_rng([seed, people.PAUSES, person.index, session.number]),
            person.effect,
            session.prompt,
        )
        speech = synthesis.read_sentence(rng, person.voice, person.effect, session.prompt, pauses)
        latents = {"n_pauses": len(pauses), "pause_seconds": round(sum(pauses.values()), 3)}
    speech = np.pad(acoustics.wear_mask(speech, session.mask_type), (lead, trail))
    if session.in_ward:
        bed = _babble(seed, int(rng.integers(N_BABBLE_BEDS)))
        noise = acoustics.ward_noise(rng, len(speech), session.mix, bed)
    else:
        noise = acoustics.quiet_noise(rng, len(speech))
    mixed = 10 ** (session.speech_db / 20) * (speech + 10 ** (-session.snr_db / 20) * noise)
    mixed = acoustics.equalise(mixed, person.site.microphone)
    return acoustics.CHANNELS[session.channel](rng, mixed), latents


def _session_row(seed: int, person: people.Person, session: people.Session) -> Row:
    app, _, suppression, gain, echo, codec = people.CAPTURE[session.channel]
    label = person.labelled_ill
    cause = (person.cause or "other") if label else ""
    vitals = people.draw_vitals(seed, person, session)
    vitals["spo2_at"] = vitals["spo2_at"].isoformat()
    wait = timedelta(hours=1 + (person.index * 7) % 40)  # devices are often offline
    collector = f"{person.site.hospital_id}/{person.index % 3}"
    return vitals | {
        "patient_rgh": person.rgh,
        "session_id": session.session_id,
        "hospital_id": person.site.hospital_id,
        "unit": "WARD" if session.in_ward else "OUTPATIENT",
        "collector_pid": hashlib.sha256(collector.encode()).hexdigest(),
        "collected_at": session.collected_at.isoformat(),
        "ingested_at": (session.collected_at + wait).isoformat(),
        "app": app,
        "app_version": session.app_version,
        "prompt_version": session.prompt,
        "device_model": session.device[0],
        "os": session.device[1],
        "capture_ns": suppression,
        "capture_agc": gain,
        "capture_aec": echo,
        "codec_original": "flac" if session.flac and codec == "pcm16" else codec,
        "sex": person.sex,
        "age": person.age,
        "mask_type": session.mask_type,
        "cid10": people.CID10[cause] if label else "",
        "sample_type": "PATIENT" if label else "CONTROL",
        "ri_clinical": int(label),
        "ri_cause": cause,
        "label_source": "clinician",
        "label_confidence": 0.95,
        "label_version": 1,
        "consent_status": "granted",
        "consent_version": "2",
        "consent_scope": "research",
        "retention_until": f"{session.collected_at.year + 20}-12-31",
        "x_synthetic": "true",  # reports on it say so
    }


def _truth(person: people.Person, session: people.Session) -> Row:
    return {
        "subject": person.index,
        "ill": person.ill,
        "labelled_ill": person.labelled_ill,
        "severity": round(person.severity, 4),
        "cause": person.cause,
        "effect": round(person.effect, 4),
        "in_ward": session.in_ward,
        "snr_db": round(session.snr_db, 2),
        "channel": session.channel,
        "mask_type": session.mask_type,
        "f0_hz": round(person.voice.f0_hz, 1),
        "tempo": round(person.voice.tempo, 3),
    }


def _damaged_task(fault: str) -> str | None:
    """Return the task whose recording a fault damages, None for a fault of a session's rows."""
    number = list(FAULTS).index(fault)
    return TASKS[::-1][number % 3] if number < N_RECORDING_FAULTS else None


def first_subject(fault: str) -> int:
    """Return the first subject with a fault; subjects differ, so that no recording has two."""
    number = list(FAULTS).index(fault)
    n_slots = -(-N_RECORDING_FAULTS // 3)
    return number // 3 if number < N_RECORDING_FAULTS else n_slots + number - N_RECORDING_FAULTS


def _has_fault(fault: str, index: int) -> bool:
    period = 33 if _damaged_task(fault) is None else 11
    return index % period == first_subject(fault)


def _damage_row(row: Row, fault: str) -> None:
    if fault == "unit_error":
        row["spo2"] = row["spo2"] / 100
    elif fault == "tz_naive":
        row["collected_at"] = datetime.fromisoformat(row["collected_at"]).strftime("%FT%T")
    elif fault == "free_text_hospital":
        row["hospital_id"] = "Hosp. A, enfermaria 3"
    elif fault == "personal_data":
        row["device_model"] += " (CPF 000.000.001-91)"


def _write_audio(
    out: Path, record: Row, waveform: Waveform, session: people.Session, fault: str
) -> None:
    """Encode a clip as its device or its fault does; put its name and digest into the record."""
    rate_hz = session.device[2] if session.channel != "whatsapp" else SAMPLE_RATE_HZ
    if fault == "clip":
        waveform = waveform * 15
    elif fault == "dc":
        waveform = waveform + 0.15
    elif fault == "silent":
        waveform = waveform * 0
    elif fault == "8k":
        rate_hz = 8_000
    sound_format = "FLAC" if session.flac else "WAV"
    record["audio_uri"] = f"audio/{record['record_id']}.{sound_format.lower()}"
    sent = _encode(waveform, rate_hz, sound_format)
    arrived = sent
    if fault == "zero_len":
        sent = arrived = b""
    elif fault == "not_audio":
        sent = arrived = b"<!doctype html><title>Login</title><p>Session expired.\n"
    elif fault == "nan":
        sent = arrived = _encode_nan(waveform)
    elif fault == "truncated":
        arrived = sent[: len(sent) // 3]
    record["sha256"] = hashlib.sha256(sent).hexdigest()
    if fault != "partial_sync":
        (out / record["audio_uri"]).write_bytes(arrived)


def _write_duplicate(out: Path, record: Row) -> Row:
    again = record | {
        "record_id": record["record_id"] + "-2",
        "session_id": record["session_id"] + "-2",
    }
    suffix = Path(record["audio_uri"]).suffix
    again["audio_uri"] = f"audio/{again['record_id']}{suffix}"
    again["truth"] = record["truth"] | {"record_id": again["record_id"]}
    (out / again["audio_uri"]).write_bytes((out / record["audio_uri"]).read_bytes())
    return again


def _encode(waveform: Waveform, rate_hz: int, sound_format: str) -> bytes:
    if rate_hz != SAMPLE_RATE_HZ:
        waveform = soxr.resample(waveform, SAMPLE_RATE_HZ, rate_hz)
    pcm = np.round(np.clip(waveform, -1, 1) * 32767).astype(np.int16)
    file = io.BytesIO()
    soundfile.write(file, pcm, rate_hz, "PCM_16", format=sound_format)
    return file.getvalue()


def _encode_nan(waveform: Waveform) -> bytes:
    samples = waveform.astype(np.float32)
    samples[len(samples) // 2 :][:100] = np.nan
    file = io.BytesIO()
    wavfile.write(file, SAMPLE_RATE_HZ, samples)  # libsndfile would write the time into it
    return file.getvalue()


def record_ward_noise(out: Path, plan: people.Plan, number: int) -> list[Row]:
    """Write a recording of a ward without a patient: 24 to 40 s, longer than any sentence."""
    pool = "train" if number % 3 else "evaluation"
    rng = np.random.default_rng([plan.seed, people.WARD_NOISE, number])
    n_samples = int(rng.uniform(24, 40) * SAMPLE_RATE_HZ)
    bed = N_BABBLE_BEDS + 2 * (pool == "evaluation") + int(rng.integers(2))
    site = people.SITES[number // 3 % len(people.SITES)]  # both pools hear every hospital alike
    noise = acoustics.ward_noise(rng, n_samples, site.mix, _babble(plan.seed, bed))
    noise = acoustics.equalise(noise, site.microphone) * 10 ** (rng.normal(-32, 3) / 20)
    path = f"ward_noise/{plan.preset}{plan.seed}-{number:03d}.wav"
    (out / path).write_bytes(_encode(noise, SAMPLE_RATE_HZ, "WAV"))
    return [{"file_path": path, "x_pool": pool}]


@lru_cache(maxsize=16)
def _babble(seed: int, number: int) -> Waveform:
    return acoustics.babble_bed(
        np.random.default_rng([seed, people.BABBLE, number]), 16 * SAMPLE_RATE_HZ
    )
