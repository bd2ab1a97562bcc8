"""S8: what must hold of the bank of ward noises."""

from __future__ import annotations

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd

from expectations.limits import MIN_NOISE_PEAK, PRIVACY, SPEECH_LIKE_DB
from expectations.notes import QUARANTINE, note
from expectations.suites.common import (
    DIGEST_REGEX,
    between,
    in_set,
    matches,
    not_empty,
    not_null,
    unique,
)

VERSION = "2026-11-21"


def template(_: pd.DataFrame) -> pd.DataFrame:
    """A table to show the suite for, from the recordings table; all of it holds for any table."""
    return pd.DataFrame()


def suite(_: pd.DataFrame) -> gx.ExpectationSuite:
    """The suite for a ward-noise table with ``longest_recording_seconds`` as the gate adds it."""
    expectations = [
        not_empty(
            "without ward noise nobody knows whether a model hears the ward", severity="warning"
        ),
        not_null("noise_id", "the key of a noise"),
        unique("noise_id", "a noise in both pools makes the evaluation too easy"),
        in_set("pool", "training and evaluation share no noise", value_set=["train", "evaluation"]),
        matches("waveform", "where the stored waveform is", action=QUARANTINE, regex=DIGEST_REGEX),
        between(
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
        between(
            "syllabic_modulation_db",
            "swings as a voice does: listen whether somebody can be understood, for nobody "
            "consented to that",
            PRIVACY,
            severity="warning",
            max_value=SPEECH_LIKE_DB,
        ),
        not_null(
            "hospital_id",
            "of which ward it is: a model tested on a site's own noise is not",
            severity="info",
        ),
    ]
    return gx.ExpectationSuite(
        name="ward_noise", expectations=expectations, meta={"version": VERSION}
    )
