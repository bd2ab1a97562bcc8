"""S3: what must hold of a table that a model is trained and tested on."""

from __future__ import annotations

import math

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.row_conditions import Column

from expectations.association import (
    ExpectAssociationWithLabelToBeWeak,
    ExpectBothClassesInEveryLevel,
    ExpectClassesToBeAlike,
    ExpectNoLevelOfOneClass,
)
from expectations.custom import ExpectOneValuePerGroup
from expectations.duplicates import ExpectNoNearDuplicates
from expectations.limits import (
    CLASS_SHARE_LIMIT,
    CLASS_SHARE_TYPICAL,
    LARGE_DIFFERENCE,
    MIN_SUBJECTS_PER_CLASS,
    ONE_CLASS_SHARE,
    SAME_RECORDING,
    SMALL_DIFFERENCE,
    SPOKEN,
    STRONG_ASSOCIATION,
    WEAK_ASSOCIATION,
)
from expectations.notes import QUARANTINE, filled, note

VERSION = "2026-11-21.3"

PRIVACY = "data protection officer"
SPLITS = ("train", "validation", "test")

# How a recording was made, and where: it blocks where it tells the label.
CHANNEL = (
    *("unit", "hospital_id", "collector_pid", "app", "app_version", "prompt_version"),
    *("device_model", "os", "capture_ns", "capture_agc", "capture_aec"),
    *("codec_original", "codec", "native_sample_rate_hz"),
)
# Who is recorded, and behind what: the same illness may well go with it.
PERSON = ("sex", "age", "mask_type")
# What the room sounds like before anybody speaks.
AMBIENT = ("level_dbfs", "bandwidth_hz")
LEARNED = "goes with the label: a network may learn it instead of the illness"
# Patients' voice notes come without what an app writes down: what is empty tells the channel too.
EMPTY_TOO = "; an empty field counts as a value of its own"


def template() -> pd.DataFrame:
    """What ``catalogue`` shows the suite for: with the columns that the gate adds."""
    from expectations import catalogue

    return catalogue.template().assign(erased=False)


def suite(frame: pd.DataFrame) -> gx.ExpectationSuite:
    """The suite for a recordings table with ``split``, and ``erased`` as the gate adds it."""
    present = filled(frame)
    labelled = frame[frame["label"].notna()]
    n_subjects = int(labelled["subject_id"].nunique())
    expectations: list[Expectation] = [
        gxe.ExpectTableRowCountToBeBetween(
            min_value=1, meta=note("an empty table passes every other test")
        ),
        gxe.ExpectColumnValuesToNotBeNull(column="split", meta=note("every recording has a side")),
        gxe.ExpectColumnValuesToBeInSet(
            column="split", value_set=list(SPLITS), meta=note("there are three sides")
        ),
        gxe.ExpectColumnValuesToBeUnique(column="record_id", meta=note("a row too many leaks")),
        ExpectOneValuePerGroup(
            column_A="subject_id",
            column_B="split",
            meta=note("a voice heard in training is recognised in testing"),
        ),
        ExpectOneValuePerGroup(
            column_A="audio_sha256",
            column_B="split",
            meta=note("a recording heard in training is recognised in testing"),
        ),
        ExpectNoNearDuplicates(
            column_list=["fingerprint", "duration_seconds", "split"],
            min_cosine=SAME_RECORDING,
            row_condition=Column("task").is_in([*SPOKEN]),
            meta=note("a copy of a recording heard in training is recognised in testing"),
        ),
        gxe.ExpectColumnValuesToNotBeInSet(
            column="sample_type",
            value_set=["TEST"],
            meta=note("trials of the app", action=QUARANTINE),
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="label",
            value_set=[0, 1],
            meta=note("insufficiency, or none", action=QUARANTINE),
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="erased",
            value_set=[False],
            meta=note("erased on their demand, and here again", PRIVACY, firm=True),
        ),
        *_classes(n_subjects),
    ]
    if "consent_status" in present:
        expectations.append(
            gxe.ExpectColumnValuesToBeInSet(
                column="consent_status",
                value_set=["granted"],
                meta=note("no consent, no use", PRIVACY, "", QUARANTINE, firm=True),
            )
        )
    expectations += [
        gxe.ExpectColumnUniqueValueCountToBeBetween(
            column=column, max_value=1, severity=severity, meta=note(reason)
        )
        for column, severity, reason in (
            ("label_version", "critical", "labels of two versions follow two definitions"),
            ("consent_version", "warning", "two forms of consent may permit two different uses"),
            ("consent_scope", "warning", "consents of two scopes may permit two different uses"),
        )
        if column in present
    ]
    expectations += _confounds(frame, present)
    return gx.ExpectationSuite(
        name="training_set", expectations=expectations, meta={"version": VERSION}
    )


def _confounds(frame: pd.DataFrame, present: set[str]) -> list[Expectation]:
    """Device, site, channel, prompt, room, age and sex: weak beside the label, or the run ends.

    In every task on its own, by the worst of them: so there is one check a column, not one a task.
    """
    expectations: list[Expectation] = []

    def weak(column: str, strong: bool, task: str = "") -> None:
        """Told beyond the weak bound; where ``strong``, blocked beyond the strong one."""
        is_channel = column in CHANNEL
        about = {"column": column, "task": task, "missing_is_a_level": is_channel}
        why = LEARNED + EMPTY_TOO if is_channel else LEARNED
        where = f"{task} " if task else ""
        expectations.append(
            ExpectAssociationWithLabelToBeWeak(
                **about,
                max_value=WEAK_ASSOCIATION,
                severity="warning",
                meta=note(why, aspect=f"{where}weak"),
            )
        )
        if strong:
            expectations.append(
                ExpectAssociationWithLabelToBeWeak(
                    **about, max_value=STRONG_ASSOCIATION, meta=note(why, aspect=f"{where}told")
                )
            )

    for column in sorted(present & {*CHANNEL, *PERSON}):
        weak(column, strong=column in CHANNEL)
    for column in sorted(present & set(CHANNEL)):
        expectations.append(
            ExpectNoLevelOfOneClass(
                column=column,
                missing_is_a_level=True,
                max_value=ONE_CLASS_SHARE,
                meta=note(
                    f"many people with one value of it are of one class: {LEARNED}{EMPTY_TOO}"
                ),
            )
        )
    if (frame["task"] == "AMBIENT").any():
        for column in sorted(present & set(AMBIENT)):
            weak(column, strong=True, task="AMBIENT")
    expectations += [
        ExpectClassesToBeAlike(
            column=column,
            max_value=bound,
            severity=severity,
            meta=note("the classes differ in it: " + LEARNED, aspect=aspect),
        )
        for column in sorted(present & {"age", "sex"})
        for bound, severity, aspect in (
            (SMALL_DIFFERENCE, "warning", "alike"),
            (LARGE_DIFFERENCE, "critical", "limit"),
        )
    ]
    if "hospital_id" in present:
        expectations.append(
            ExpectBothClassesInEveryLevel(
                column="hospital_id",
                max_value=0,
                severity="warning",
                meta=note("sites with too few people of one class say nothing of that site"),
            )
        )
    return expectations


def _classes(n_subjects: int) -> list[Expectation]:
    """Enough people of both classes, on every side."""
    slack = 1.96 * math.sqrt(0.25 / max(n_subjects, 1))  # half a 95 % interval around one half

    def share(bounds: tuple[float, float], severity: str, aspect: str) -> Expectation:
        return gxe.ExpectColumnMeanToBeBetween(
            column="label",
            min_value=max(bounds[0] - slack, 0.0),
            max_value=min(bounds[1] + slack, 1.0),
            severity=severity,
            meta=note("share of patients; bounds widened to what few people allow", aspect=aspect),
        )

    expectations = [
        share(CLASS_SHARE_LIMIT, "critical", "limit"),
        share(CLASS_SHARE_TYPICAL, "warning", "typical"),
    ]
    for label, name in ((1, "patients"), (0, "controls")):
        expectations.append(
            gxe.ExpectColumnUniqueValueCountToBeBetween(
                column="subject_id",
                min_value=MIN_SUBJECTS_PER_CLASS,
                row_condition=Column("label") == label,
                severity="warning",
                meta=note("with fewer, results are provisional", aspect=name),
            )
        )
        expectations += [
            gxe.ExpectColumnUniqueValueCountToBeBetween(
                column="subject_id",
                min_value=1,
                row_condition=(Column("label") == label) & (Column("split") == split),
                meta=note("both classes are needed on every side", aspect=f"{name} in {split}"),
            )
            for split in SPLITS
        ]
    return expectations
