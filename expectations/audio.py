"""S2: what must hold of the audio, measured on every recording."""

from __future__ import annotations

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.row_conditions import Column

from expectations.limits import ATYPICAL_FRACTION, AUDIO, USELESS_FRACTION, AudioLimit
from expectations.notes import mostly, note

DIGEST_REGEX = r"^sha256:[0-9a-f]{64}$"


def suite(frame: pd.DataFrame) -> gx.ExpectationSuite:
    """The suite for a recordings table.

    A limit is met by three expectations: not too many useless recordings (critical), every useless
    one is reported (warning), and most are typical (warning).
    """
    expectations: list[Expectation] = [
        gxe.ExpectColumnValuesToMatchRegex(
            column="waveform", regex=DIGEST_REGEX, meta=note("where the stored waveform is")
        ),
        gxe.ExpectColumnValuesToNotBeNull(column="waveform", meta=note("no audio, no recording")),
        gxe.ExpectColumnValuesToBeUnique(
            column="audio_sha256", meta=note("the same audio twice weighs double, and leaks")
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="native_sample_rate_hz",
            min_value=16_000,
            meta=note("what was never recorded cannot be resampled into being"),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="n_channels", min_value=1, max_value=2, meta=note("one microphone, or two")
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="peak", min_value=1e-3, severity="warning", meta=note("as good as silent")
        ),
    ]
    for limit in AUDIO:
        expectations += _limit(frame, limit)
    return gx.ExpectationSuite(name="audio", expectations=expectations)


def _limit(frame: pd.DataFrame, limit: AudioLimit) -> list[Expectation]:
    about = frame[frame["task"].isin(limit.tasks)] if limit.tasks else frame
    n = int(about[limit.column].notna().sum())
    if n == 0:
        return []
    condition = Column("task").is_in(list(limit.tasks)) if limit.tasks else None
    where = f"{'+'.join(limit.tasks)} " if limit.tasks else ""

    def between(
        bounds: tuple[float | None, float | None], share: float, severity: str, aspect: str
    ) -> Expectation:
        return gxe.ExpectColumnValuesToBeBetween(
            column=limit.column,
            min_value=bounds[0],
            max_value=bounds[1],
            mostly=share,
            row_condition=condition,
            severity=severity,
            meta=note(limit.rationale, aspect=where + aspect),
        )

    return [
        between(limit.limit, mostly(n, USELESS_FRACTION), "critical", "few useless"),
        between(limit.limit, 1.0, "warning", "none useless"),
        between(limit.typical, mostly(n, ATYPICAL_FRACTION), "warning", "typical"),
    ]
