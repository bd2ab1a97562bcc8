"""S2: what must hold of the audio, measured on every recording."""

from __future__ import annotations

import great_expectations as gx
import pandas as pd
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.row_conditions import Column

from expectations import limits
from expectations.notes import QUARANTINE, note
from expectations.suites import common
from expectations.suites.custom import ExpectNoNearDuplicates

VERSION = "2026-11-21"


def suite(frame: pd.DataFrame) -> gx.ExpectationSuite:
    """The suite for a recordings table.

    A limit makes two expectations: a useless recording goes into quarantine (critical), and most
    are typical (warning).
    """
    expectations = [
        common.is_digest("waveform", "where the stored waveform is"),
        common.not_null("waveform", "no audio, no recording", action=QUARANTINE),
        common.unique(
            "audio_sha256", "the same audio twice weighs double, and leaks", action=QUARANTINE
        ),
        ExpectNoNearDuplicates(
            column_list=["fingerprint", "duration_seconds"],
            min_cosine=limits.SAME_RECORDING,
            severity="warning",
            meta=note("sounds like another recording of the same length: sent twice?"),
        ),
        common.between(
            "native_sample_rate_hz",
            "what was never recorded cannot be resampled into being",
            action=QUARANTINE,
            min_value=16_000,
        ),
        common.in_set(
            "native_sample_rate_hz",
            "telephones record at these: another rate was converted on the way",
            severity="info",
            value_set=[*limits.NATIVE_RATES_HZ],
        ),
        common.between(
            "n_channels", "one microphone, or two", action=QUARANTINE, min_value=1, max_value=2
        ),
        common.between(
            "n_channels",
            "two channels were mixed into one",
            aspect="one",
            severity="warning",
            max_value=1,
        ),
        common.between("peak", "as good as silent", severity="warning", min_value=1e-3),
    ]
    for limit in limits.AUDIO:
        expectations += _limit(frame, limit)
    return gx.ExpectationSuite(name="audio", expectations=expectations, meta={"version": VERSION})


def _limit(frame: pd.DataFrame, limit: limits.AudioLimit) -> list[Expectation]:
    about = frame[frame["task"].isin(limit.tasks)] if limit.tasks else frame
    n = int(about[limit.column].notna().sum())
    if n == 0:
        return []
    where = f"{'+'.join(limit.tasks)} " if limit.tasks else ""
    condition = Column("task").is_in(list(limit.tasks)) if limit.tasks else None
    return [
        common.between(
            limit.column,
            limit.rationale,
            aspect=f"{where}usable",
            action=QUARANTINE,
            min_value=limit.limit[0],
            max_value=limit.limit[1],
            row_condition=condition,
        ),
        common.between(
            limit.column,
            limit.rationale,
            aspect=f"{where}typical",
            severity="warning",
            min_value=limit.typical[0],
            max_value=limit.typical[1],
            mostly=common.mostly(n, limits.ATYPICAL_FRACTION),
            row_condition=condition,
        ),
    ]
