"""S8: what must hold of the bank of ward noises."""

from __future__ import annotations

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd

from expectations.limits import MIN_NOISE_PEAK, PRIVACY, SPEECH_LIKE_DB
from expectations.notes import QUARANTINE, note
from expectations.suites import common

VERSION = "2026-11-21"


def suite(_: pd.DataFrame) -> gx.ExpectationSuite:
    """The suite for a ward-noise table with ``longest_recording_seconds`` as the gate adds it."""
    expectations = [
        common.not_empty(
            "without ward noise nobody knows whether a model hears the ward", severity="warning"
        ),
        common.not_null("noise_id", "the key of a noise"),
        common.unique("noise_id", "a noise in both pools makes the evaluation too easy"),
        common.in_set(
            "pool", "training and evaluation share no noise", value_set=["train", "evaluation"]
        ),
        common.is_digest("waveform", "where the stored waveform is"),
        common.between(
            "peak",
            "silence is no noise, and cannot be brought to a level",
            action=QUARANTINE,
            min_value=MIN_NOISE_PEAK,
        ),
        gxe.ExpectColumnPairValuesAToBeGreaterThanB(
            column_A="duration_seconds",
            column_B="longest_recording_seconds",
            ignore_row_if="either_value_is_missing",
            severity="warning",
            meta=note("a noise shorter than a recording is heard twice in it"),
        ),
        common.between(
            "syllabic_modulation_db",
            "swings as a voice does: listen whether somebody can be understood, for nobody "
            "consented to that",
            PRIVACY,
            severity="warning",
            max_value=SPEECH_LIKE_DB,
        ),
        common.not_null(
            "hospital_id",
            "of which ward it is: a model tested on a site's own noise is not",
            severity="info",
        ),
    ]
    return gx.ExpectationSuite(
        name="ward_noise", expectations=expectations, meta={"version": VERSION}
    )
