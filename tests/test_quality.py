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

from expectations.notes import note
from spira_tasks import quality
from spira_tasks.artifacts import Store
from spira_tasks.contract import Step, Verdict
from spira_tasks.errors import ConfigError, GateRejected
from spira_tasks.runner import run_step

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
    assert verdict.verdict == expected
    assert verdict.name == "expect_column_values_to_be_between(age)"
    assert verdict.statistic == pytest.approx(1 / 3)  # an empty cell is no value
    assert (verdict.n, verdict.threshold) == (3, 0)
    assert verdict.reason == "1 of 3 rows are unexpected in age (nobody is older)"


def test_what_holds_passes_whatever_its_severity() -> None:
    expectation = gxe.ExpectColumnValuesToBeBetween(column="level", max_value=0)
    assert verdict_on(expectation).verdict == "pass"


def test_a_share_may_be_tolerated() -> None:
    expectation = gxe.ExpectColumnValuesToBeBetween(column="age", max_value=110, mostly=0.6)
    verdict = verdict_on(expectation)
    assert verdict.verdict == "pass"
    assert verdict.threshold == pytest.approx(0.4)


def test_an_aggregate_is_held_against_its_bounds() -> None:
    expectation = gxe.ExpectColumnMeanToBeBetween(
        column="level", min_value=-20, max_value=0, meta=note("loud enough", aspect="mean")
    )
    verdict = verdict_on(expectation)
    assert verdict.verdict == "block"
    assert verdict.name == "expect_column_mean_to_be_between(level, mean)"
    assert verdict.statistic == pytest.approx(-21.5)
    assert verdict.threshold == -20
    assert verdict.reason == "-21.5 observed, at least -20 and at most 0 expected (loud enough)"


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
    assert {verdict.verdict for verdict in report.verdicts} == {"block"}
    text = json.dumps(asdict(report))
    assert "Planted" not in text
    assert "777" not in text


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


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def features(tmp_path: Path, store: Store, **changes: object) -> str:
    """An artifact with a features table; returns its digest."""
    folder = tmp_path / "features"
    folder.mkdir()
    frame = pd.DataFrame(
        {
            "record_id": ["r0", "r1"],
            "features": ["sha256:" + "0" * 64, "sha256:" + "1" * 64],
            "n_windows": [3, 4],
            "n_frames": 401,
            "n_bins": 40,
            "finite": [True, True],
            "mean": [0.0, 0.1],
            "std": [1.0, 1.1],
            "min": [-3.0, -4.0],
            "max": [3.0, 4.0],
            "schema": "abc",
        }
    ).assign(**changes)
    frame.to_parquet(folder / "features.parquet")
    (folder / "features.json").write_text("{}")
    return store.put_directory(folder)


def gate(digest: str, suite: str = "features") -> Step:
    return Step("check", "validate", {"table": digest}, {"suite": suite})


def test_the_gate_hands_on_exactly_what_came(tmp_path: Path, store: Store) -> None:
    digest = features(tmp_path, store)
    result = run_step(gate(digest), "r", store)
    assert result.outputs["table"] == digest
    report = json.loads(
        store.directory(result.outputs["report"]).path("validation.json").read_text()
    )
    assert [part["suite"] for part in report] == ["features"]
    assert report[0]["n_rows"] == 2
    assert result.metrics["n_expectations"] == len(report[0]["verdicts"]) == len(result.verdicts)
    assert (result.metrics["n_warnings"], result.metrics["n_blocked"]) == (0, 0)


def test_the_gate_reports_why_it_blocks(tmp_path: Path, store: Store) -> None:
    digest = features(tmp_path, store, finite=[True, False])
    with pytest.raises(GateRejected, match=r"in_set\(finite\): 1 of 2 rows are unexpected"):
        run_step(gate(digest), "r", store)
    record = store.read_record("r", "check")
    assert record is not None
    assert record["metrics"]["n_blocked"] == 1
    report = store.directory(record["outputs"]["report"]).path("validation.json").read_text()
    assert "one NaN in a batch" in report


def test_the_gate_takes_one_table(tmp_path: Path, store: Store) -> None:
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "notes.txt").write_text("no table")
    with pytest.raises(ConfigError, match="0 parquet files"):
        run_step(gate(store.put_directory(tmp_path / "features")), "r", store)
