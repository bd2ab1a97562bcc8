"""A verdict is data, and leaves the store without small counts."""

from __future__ import annotations

import re

import pytest

from expectations.words.verdicts import sentence
from spira_tasks.contract.verdict import Number, Verdict, suppress


@pytest.mark.parametrize("unit", ["people", "recordings", "rows"])
@pytest.mark.parametrize(("count", "is_shown"), [(0, True), (1, False), (4, False), (5, True)])
def test_a_count_of_one_to_four_is_suppressed(unit: str, count: int, is_shown: bool) -> None:
    number = Number(count, unit)  # type: ignore[arg-type]
    shown = suppress(Verdict("erased", "block", number, n=80, numbers={"again": number}))
    expected = number if is_shown else Number(None, unit)  # type: ignore[arg-type]
    assert shown.observed == expected
    assert shown.numbers == {"again": expected}


def test_a_count_of_sites_or_versions_is_shown() -> None:
    verdict = Verdict("sites", "warn", Number(1, "sites"), numbers={"n": Number(2, "items")})
    assert suppress(verdict) == verdict


def test_a_share_that_reveals_a_small_count_is_suppressed() -> None:
    assert suppress(Verdict("s", "warn", Number(3 / 80, "share"), n=80)).observed == Number(
        None, "share"
    )
    assert suppress(Verdict("s", "warn", Number(8 / 80, "share"), n=80)).observed == Number(
        0.1, "share"
    )
    assert suppress(Verdict("s", "warn", Number(0.0, "share"), n=80)).observed == Number(
        0.0, "share"
    )


def test_nothing_is_shown_of_a_measurement_that_rests_on_four_people() -> None:
    verdict = Verdict(
        "sensitivity_floor",
        "insufficient",
        Number(0.75, "rate", 0.2, 0.99),
        threshold=0.8,
        n=4,
        n_unit="people",
        numbers={"n_patients": Number(4, "people")},
    )
    shown = suppress(verdict)
    assert (shown.observed, shown.n) == (Number(None, "rate"), None)
    assert shown.numbers == {"n_patients": Number(None, "people")}
    assert shown.threshold == 0.8
    assert not {"0.75", "75", "4"} & set(re.findall(r"[\d.]+", sentence(verdict, "en")))


def test_a_critical_question_without_an_answer_ends_the_run() -> None:
    assert Verdict("v", "insufficient", severity="critical").stops
    assert not Verdict("v", "insufficient", severity="warning").stops
    assert Verdict("v", "block").stops
