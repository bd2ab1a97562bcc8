"""S2: what must hold of the audio, measured on every recording."""

from __future__ import annotations

from typing import Any

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.row_conditions import Column

from expectations.duplicates import ExpectNoNearDuplicates
from expectations.limits import (
    ATYPICAL_FRACTION,
    AUDIO,
    NATIVE_RATES_HZ,
    SAME_RECORDING,
    AudioLimit,
)
from expectations.notes import QUARANTINE, mostly, note

VERSION = "2026-11-21"

DIGEST_REGEX = r"^sha256:[0-9a-f]{64}$"


def suite(frame: pd.DataFrame) -> gx.ExpectationSuite:
    """The suite for a recordings table.

    A limit is met by two expectations: a useless recording goes into quarantine (critical), and
    most are typical (warning).
    """
    expectations: list[Expectation] = [
        gxe.ExpectColumnValuesToMatchRegex(
            column="waveform",
            regex=DIGEST_REGEX,
            meta=note("where the stored waveform is", action=QUARANTINE),
        ),
        gxe.ExpectColumnValuesToNotBeNull(
            column="waveform", meta=note("no audio, no recording", action=QUARANTINE)
        ),
        gxe.ExpectColumnValuesToBeUnique(
            column="audio_sha256",
            meta=note("the same audio twice weighs double, and leaks", action=QUARANTINE),
        ),
        ExpectNoNearDuplicates(
            column_list=["fingerprint", "duration_seconds"],
            min_cosine=SAME_RECORDING,
            severity="warning",
            meta=note("sounds like another recording of the same length: sent twice?"),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="native_sample_rate_hz",
            min_value=16_000,
            meta=note("what was never recorded cannot be resampled into being", action=QUARANTINE),
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="native_sample_rate_hz",
            value_set=[*NATIVE_RATES_HZ],
            severity="info",
            meta=note("telephones record at these: another rate was converted on the way"),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="n_channels",
            min_value=1,
            max_value=2,
            meta=note("one microphone, or two", action=QUARANTINE),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="n_channels",
            max_value=1,
            severity="warning",
            meta=note("two channels were mixed into one", aspect="one"),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="peak", min_value=1e-3, severity="warning", meta=note("as good as silent")
        ),
    ]
    for limit in AUDIO:
        expectations += _limit(frame, limit)
    return gx.ExpectationSuite(name="audio", expectations=expectations, meta={"version": VERSION})


def _limit(frame: pd.DataFrame, limit: AudioLimit) -> list[Expectation]:
    about = frame[frame["task"].isin(limit.tasks)] if limit.tasks else frame
    n = int(about[limit.column].notna().sum())
    if n == 0:
        return []
    condition = Column("task").is_in(list(limit.tasks)) if limit.tasks else None
    where = f"{'+'.join(limit.tasks)} " if limit.tasks else ""

    def between(
        bounds: tuple[float | None, float | None], share: float, aspect: str, **how: Any
    ) -> Expectation:
        return gxe.ExpectColumnValuesToBeBetween(
            column=limit.column,
            min_value=bounds[0],
            max_value=bounds[1],
            mostly=share,
            row_condition=condition,
            severity=how.pop("severity", "critical"),
            meta=note(limit.rationale, aspect=where + aspect, **how),
        )

    return [
        between(limit.limit, 1.0, "usable", action=QUARANTINE),
        between(limit.typical, mostly(n, ATYPICAL_FRACTION), "typical", severity="warning"),
    ]
