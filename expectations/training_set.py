"""S3: what must hold of a table that a model is trained and tested on."""

from __future__ import annotations

import math

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.row_conditions import Column

from expectations.custom import ExpectAssociationWithLabelToBeWeak, ExpectOneValuePerGroup
from expectations.limits import (
    CLASS_SHARE_LIMIT,
    CLASS_SHARE_TYPICAL,
    MIN_SUBJECTS_PER_CLASS,
    WEAK_ASSOCIATION,
)
from expectations.notes import filled, note

SPLITS = ("train", "validation", "test")

# Not the voice, yet a network hears or guesses it: who, where, with what, under which mask.
CONFOUNDS = (
    *("sex", "age", "mask_type", "unit", "hospital_id", "collector_pid"),
    *("app", "app_version", "prompt_version", "device_model", "os"),
    *("capture_ns", "capture_agc", "capture_aec"),
    *("codec_original", "codec", "native_sample_rate_hz"),
)


def suite(frame: pd.DataFrame) -> gx.ExpectationSuite:
    """The suite for a recordings table with the column ``split``."""
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
        gxe.ExpectColumnValuesToNotBeInSet(
            column="sample_type", value_set=["TEST"], meta=note("trials of the app")
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="label", value_set=[0, 1], meta=note("insufficiency, or none")
        ),
        *_classes(n_subjects),
    ]
    if "consent_status" in present:
        expectations.append(
            gxe.ExpectColumnValuesToBeInSet(
                column="consent_status",
                value_set=["granted"],
                meta=note("no consent, no use", "data protection officer"),
            )
        )
    if "label_version" in present:
        expectations.append(
            gxe.ExpectColumnUniqueValueCountToBeBetween(
                column="label_version",
                max_value=1,
                severity="warning",
                meta=note("labels of two versions follow two definitions"),
            )
        )
    expectations += [
        ExpectAssociationWithLabelToBeWeak(
            column=column,
            max_value=WEAK_ASSOCIATION,
            severity="warning",
            meta=note("goes with the label: a network may learn it instead of the illness"),
        )
        for column in CONFOUNDS
        if column in present
    ]
    return gx.ExpectationSuite(name="training_set", expectations=expectations)


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
