"""The confounds that are planted, and the gate that each of them has to trip.

Decided before anything was measured.  A trip is a verdict of a gate with a status, whose sentence
names the confound.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import soundfile
import soxr

from spira_tasks.contract.verdict import Status

WEAK, LEVEL = "expect_association_with_label_to_be_weak", "expect_no_level_of_one_class"
ALIKE, ONE = "expect_classes_to_be_alike", "expect_one_value_per_group"
AS_BEFORE, NEW = "expect_feature_to_be_as_before", "expect_no_new_categories"
RATE_HZ = 16_000


@dataclass(frozen=True)
class Trip:
    """A verdict that a confound has to raise.

    ``says`` are words of which the sentence in English has to hold one.
    """

    step: str  # of the pipeline of training
    verdict: str
    says: tuple[str, ...]
    status: Status = "block"

    @property
    def is_trained(self) -> bool:
        """Whether it needs a model."""
        return self.step == "promote"


@dataclass(frozen=True)
class Switch:
    """A cohort with a confound, and what has to find it."""

    what: str
    trips: tuple[Trip, ...] = ()
    cohort: Mapping[str, Any] = field(default_factory=dict)  # arguments of ``write_cohort``
    # Put into the published layout, which has no metadata of a recording, and split by this.
    published: Literal["", "person", "recording"] = ""
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the training
    is_compared: bool = False  # with a champion that learned from a clean cohort


DATA, CONFOUNDS, DRIFT, PROMOTE = "check_training_set", "check_confounds", "check_drift", "promote"
NOISE = Trip(CONFOUNDS, "noise_only_control", ("noise", "silence", "before anybody speaks"))
HEARD = Trip(CONFOUNDS, "channel_heard", ("channel", "device", "codec", "recorded"))


def confounded(*names: str, **more: Any) -> dict[str, Any]:
    return {"confounds": names, **more}


SWITCHES: Mapping[str, Switch] = {
    "ward_noise": Switch(
        "patients in noisy wards, controls in quiet rooms",
        (
            NOISE,
            Trip(DATA, f"{WEAK}(level_dbfs, AMBIENT strong)", ("level",)),
            Trip(PROMOTE, "ward_noise_counterfactual", ("noise",)),
        ),
        confounded("ward_noise", signal=0),
        # without inserted noise a network hears the ward
        settings={"train.max_noises": 0},
    ),
    "noise_level": Switch(
        "patients' recordings have 10 dB less signal to noise, same kinds of noise",
        (NOISE,),
        confounded("noise_level"),
    ),
    "noise_type": Switch(
        "patients' noise is a ward's, controls' a home's, at the same level",
        (NOISE,),
        confounded("noise_type"),
    ),
    "channel": Switch(
        "patients by voice note, controls by browser",
        (Trip(DATA, f"{WEAK}(codec_original, strong)", ("audio coding",)), HEARD),
        confounded("channel"),
    ),
    "prompt": Switch(
        "patients read one prompt, controls the other",
        (Trip(DATA, f"{WEAK}(prompt_version, strong)", ("spoken text",)),),
        confounded("prompt"),
    ),
    "sex": Switch(
        "80 % of the patients and 20 % of the controls are women",
        (Trip(DATA, f"{ALIKE}(sex, limit)", ("sex",)), Trip(CONFOUNDS, "metadata_alone", ("sex",))),
        confounded("sex"),
    ),
    "age": Switch(
        "patients are 66 years old on average, controls 32",
        (Trip(DATA, f"{ALIKE}(age, limit)", ("age",)), Trip(CONFOUNDS, "metadata_alone", ("age",))),
        confounded("age"),
    ),
    "leak": Switch(
        "four recordings a person, divided by recording as the published splitter did",
        (Trip(DATA, f"{ONE}(subject_id, split)", ("person",)),),
        confounded("leak", tasks=("SENTENCE",), subjects=20),
        published="recording",
    ),
    "label_flip": Switch(
        "the recorded label is wrong for one person in ten",
        (Trip(PROMOTE, "label_quality", ("label",), "insufficient"),),
        confounded("label_flip"),
    ),
    "etiology_shift": Switch(
        "new patients have other causes than those the champion learned from",
        (Trip(DRIFT, f"{AS_BEFORE}(ri_cause)", ("cause",), "warn"),),
        confounded("etiology_shift"),
        is_compared=True,
    ),
    "new_hospital": Switch(
        "a third of the new people come from a hospital that the champion never met",
        (Trip(DRIFT, f"{NEW}(hospital_id)", ("site",), "warn"),),
        confounded("new_hospital"),
        is_compared=True,
    ),
    "new_app_version": Switch(
        "four new recordings in ten come from a version of the app that the champion never met",
        (Trip(DRIFT, f"{NEW}(app_version)", ("app version",), "warn"),),
        confounded("new_app_version"),
        is_compared=True,
    ),
    "over_noise": Switch(
        "so much ward noise is inserted in training that the voice is lost",
        (Trip(PROMOTE, "not_degenerate", ("class", "both ways")),),
        settings={"train.min_noises": 12, "train.max_noises": 12},
    ),
    "published": Switch(
        "ward noise and channel together, in the published layout: no ambient track, no columns",
        (NOISE, HEARD),
        confounded("ward_noise", "channel", tasks=("SENTENCE",)),
        published="person",
    ),
}
CONTROLS: Mapping[str, Switch] = {
    "clean": Switch("no confound: nothing may block", is_compared=True),
    # A network learns too little from fewer people, and is refused for that.
    "clean_large": Switch(
        "no confound, people and epochs as in the demo: nothing may block",
        cohort={"subjects": 400},
        settings={"train.epochs": 30, "split.test_fraction": 0.2},
    ),
    "clean_published": Switch(
        "no confound, in the published layout: nothing may block",
        cohort={"tasks": ("SENTENCE",)},
        published="person",
    ),
    "zero_signal": Switch(
        "no confound, and no illness in the voices: a gate has to refuse the model",
        cohort={"signal": 0},
    ),
}


def publish(cohort: Path, folder: Path, by: Literal["person", "recording"]) -> None:
    """Put the sentences of a cohort into the published layout, coded all alike.

    Nothing but the sound tells how a recording was made.  The names of the files tell the person,
    as those of the web form of 2020 did.
    """
    (folder / "audio").mkdir(parents=True)
    tables: dict[str, list[list[object]]] = {"train": [], "eval": [], "test": []}
    sides = ("train", "train", "train", "eval", "test")
    people: dict[str, int] = {}
    with (cohort / "recordings.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["task"] == "SENTENCE"]
    for number, row in enumerate(rows):
        person = people.setdefault(row["patient_rgh"], len(people))
        path = f"audio/{person:016x}_{number}.wav"
        samples, rate_hz = soundfile.read(cohort / row["audio_uri"])
        samples = soxr.resample(samples, rate_hz, RATE_HZ)
        soundfile.write(folder / path, samples, RATE_HZ, "PCM_16")
        # patients and controls alternate in pairs, so pairs are divided
        side = sides[(person // 2 if by == "person" else number) % len(sides)]
        tables[side].append([path, row["ri_clinical"], row["sex"], row["age"]])
    for side, lines in tables.items():
        with (folder / f"metadata_{side}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["file_path", "class", "sexo", "idade"], *lines])
