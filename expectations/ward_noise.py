"""S8: what must hold of the bank of ward noises."""

from __future__ import annotations

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.expectations.expectation import Expectation

from expectations.audio import DIGEST_REGEX
from expectations.limits import MIN_NOISE_PEAK, SPEECH_LIKE_DB
from expectations.notes import QUARANTINE, note

VERSION = "2026-11-21"


def template() -> pd.DataFrame:
    """What ``catalogue`` shows the suite for; all of it holds for any table."""
    return pd.DataFrame()


def suite(frame: pd.DataFrame) -> gx.ExpectationSuite:
    """The suite for a ward-noise table with ``longest_recording_seconds`` as the gate adds it."""
    expectations: list[Expectation] = [
        gxe.ExpectTableRowCountToBeBetween(
            min_value=1,
            severity="warning",
            meta=note("without ward noise nobody knows whether a model hears the ward"),
        ),
        gxe.ExpectColumnValuesToNotBeNull(column="noise_id", meta=note("the key of a noise")),
        gxe.ExpectColumnValuesToBeUnique(
            column="noise_id", meta=note("a noise in both pools makes the evaluation too easy")
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="pool",
            value_set=["train", "evaluation"],
            meta=note("training and evaluation share no noise"),
        ),
        gxe.ExpectColumnValuesToMatchRegex(
            column="waveform",
            regex=DIGEST_REGEX,
            meta=note("where the stored waveform is", action=QUARANTINE),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="peak",
            min_value=MIN_NOISE_PEAK,
            meta=note("silence is no noise, and cannot be brought to a level", action=QUARANTINE),
        ),
        gxe.ExpectColumnPairValuesAToBeGreaterThanB(
            column_A="duration_seconds",
            column_B="longest_recording_seconds",
            ignore_row_if="either_value_is_missing",
            severity="warning",
            meta=note("a noise shorter than a recording is heard twice in it"),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="syllabic_modulation_db",
            max_value=SPEECH_LIKE_DB,
            severity="warning",
            meta=note(
                "swings as a voice does: listen whether somebody can be understood, for nobody "
                "consented to that",
                "data protection officer",
            ),
        ),
        gxe.ExpectColumnValuesToNotBeNull(
            column="hospital_id",
            severity="info",
            meta=note("of which ward it is: a model tested on a site's own noise is not"),
        ),
    ]
    return gx.ExpectationSuite(
        name="ward_noise", expectations=expectations, meta={"version": VERSION}
    )
