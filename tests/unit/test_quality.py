"""Great Expectations answers with verdicts that say how many, never who."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd
import pytest
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.row_conditions import Column

from expectations.notes import QUARANTINE, note
from spira_tasks import quality
from spira_tasks.contract.verdict import Number, Verdict

FRAME = pd.DataFrame(
    {
        "age": pd.array([30, 40, 777, None], dtype="Int64"),
        "name": pd.Series(["a", "b", "Planted Patient", None], dtype="str"),
        "level": [-20.0, -21.0, -22.0, -23.0],
    }
)


def verdict_on(expectation: Expectation, frame: pd.DataFrame = FRAME) -> Verdict:
    suite = gx.ExpectationSuite(name="one", expectations=[expectation])
    (verdict,) = quality.check(frame, suite).verdicts
    return verdict


@pytest.mark.parametrize(
    ("severity", "expected"), [("critical", "block"), ("warning", "warn"), ("info", "pass")]
)
def test_severity_decides_what_failing_means(severity: str, expected: str) -> None:
    expectation = gxe.ExpectColumnValuesToBeBetween(
        column="age", max_value=110, severity=severity, meta=note("nobody is older")
    )
    verdict = verdict_on(expectation)
    assert verdict.status == expected
    assert verdict.id == "expect_column_values_to_be_between(age)"
    assert verdict.observed
    assert verdict.observed.value == pytest.approx(1 / 3)  # an empty cell is no value
    assert (verdict.n, verdict.threshold) == (3, 0)
    assert verdict.numbers == {"n_unexpected": Number(1, "rows")}
    assert (verdict.kind, verdict.columns) == ("expect_column_values_to_be_between", ("age",))


def test_what_holds_passes_whatever_its_severity() -> None:
    expectation = gxe.ExpectColumnValuesToBeBetween(column="level", max_value=0)
    assert verdict_on(expectation).status == "pass"


def test_a_share_may_be_tolerated() -> None:
    expectation = gxe.ExpectColumnValuesToBeBetween(column="age", max_value=110, mostly=0.6)
    verdict = verdict_on(expectation)
    assert verdict.status == "pass"
    assert verdict.threshold == pytest.approx(0.4)


def test_an_aggregate_is_held_against_its_bounds() -> None:
    expectation = gxe.ExpectColumnMeanToBeBetween(
        column="level", min_value=-20, max_value=0, meta=note("loud enough", aspect="mean")
    )
    verdict = verdict_on(expectation)
    assert verdict.status == "block"
    assert verdict.id == "expect_column_mean_to_be_between(level, mean)"
    assert verdict.observed
    assert verdict.observed.value == pytest.approx(-21.5)
    assert verdict.threshold == -20
    assert verdict.numbers == {"min": Number(-20.0), "max": Number(0.0)}
    assert (verdict.columns, verdict.aspect) == (("level",), "mean")


def test_no_value_of_a_patient_is_in_a_report() -> None:
    suite = gx.ExpectationSuite(
        name="all",
        expectations=[
            gxe.ExpectColumnValuesToBeInSet(column="name", value_set=["a"]),
            gxe.ExpectColumnValuesToMatchRegex(column="name", regex="^[ab]$"),
            gxe.ExpectColumnValuesToBeBetween(column="age", max_value=100),
            gxe.ExpectColumnDistinctValuesToBeInSet(column="name", value_set=["a"]),
            gxe.ExpectCompoundColumnsToBeUnique(column_list=["name", "age"]),
        ],
    )
    report = quality.check(pd.concat([FRAME, FRAME]), suite)
    assert {verdict.status for verdict in report.verdicts} == {"block"}
    text = json.dumps(asdict(report) | {"firm": sorted(report.firm)})
    assert "Planted" not in text
    assert "777" not in text


def aside(**how: object) -> gx.ExpectationSuite:
    """A suite that puts aside who is too old."""
    meta = note("nobody is older", action=QUARANTINE, **how)  # type: ignore[arg-type]
    return gx.ExpectationSuite(
        name="aside",
        expectations=[
            gxe.ExpectColumnValuesToBeBetween(column="age", max_value=110, meta=meta),
            gxe.ExpectColumnValuesToMatchRegex(
                column="name",
                regex="^[ab]$",
                row_condition=Column("level") < -20.5,
                meta=note("a letter", action=QUARANTINE),
            ),
        ],
        meta={"version": "2026-01-01"},
    )


def test_rows_at_fault_are_named_by_number_and_end_nothing() -> None:
    table = pd.concat([FRAME, FRAME]).set_index("level", drop=False)  # whatever the index says
    report = quality.check(table, aside())
    codes = ("expect_column_values_to_be_between:age", "expect_column_values_to_match_regex:name")
    assert report.faults == {2: codes, 6: codes}
    assert report.reasons[codes[0]] == "nobody is older"
    assert {(v.status, v.severity, v.suite) for v in report.verdicts} == {
        ("warn", "critical", "aside")
    }


def test_a_firm_expectation_is_marked_in_its_verdict_and_its_reason() -> None:
    assert quality.check(FRAME, aside()).firm == frozenset()
    report = quality.check(FRAME, aside(firm=True))
    assert report.firm == {"expect_column_values_to_be_between:age"}
    firm = {verdict.id for verdict in report.verdicts if verdict.firm}
    assert firm == {"expect_column_values_to_be_between(age)"}


def test_a_suite_says_its_version_and_its_digest_follows_what_it_demands() -> None:
    report = quality.check(FRAME, aside())
    assert report.version == "2026-01-01"
    assert report.digest == quality.check(FRAME.iloc[:2], aside()).digest
    assert report.digest != quality.check(FRAME, aside(aspect="other")).digest


def test_the_same_table_and_suite_give_the_same_bytes() -> None:
    one, other = (quality.check(FRAME, aside()) for _ in range(2))
    assert json.dumps(one.validation, sort_keys=True) == json.dumps(
        other.validation, sort_keys=True
    )


def test_what_is_kept_of_a_check_holds_no_value_of_the_table() -> None:
    kept = json.dumps(quality.check(FRAME, aside()).validation)
    assert '"unexpected_count": 1' in kept
    assert "Planted" not in kept
    assert "777" not in kept


def test_an_expectation_that_cannot_be_evaluated_is_no_fault_of_the_data() -> None:
    """Great Expectations would call it failed, and quote the cell that it stumbled over."""
    expectation = gxe.ExpectColumnValuesToBeBetween(column="name", min_value=1)
    with pytest.raises(RuntimeError, match=r"name\) could not be evaluated") as error:
        verdict_on(expectation)
    assert "Planted" not in str(error.value)


def test_two_expectations_of_one_name_are_a_bug() -> None:
    twice = [gxe.ExpectColumnValuesToBeBetween(column="age", min_value=n) for n in (1, 2)]
    with pytest.raises(RuntimeError, match="different aspects"):
        quality.check(FRAME, gx.ExpectationSuite(name="two", expectations=twice))


def test_checking_writes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    verdict_on(gxe.ExpectColumnToExist(column="age"))
    assert not any(tmp_path.iterdir())
