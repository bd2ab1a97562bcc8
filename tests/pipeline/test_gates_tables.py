"""The gates as steps: what they hand on, put aside, block, and let people decide."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from gating import HOT, Gate, few_expectations, gate
from suites import Table, recordings, split

from spira_tasks.artifacts import Store
from spira_tasks.contract.step import Step
from spira_tasks.errors import ConfigError, GateRejected
from spira_tasks.governance.decisions import decide
from spira_tasks.runner import run_step

REASON = "expect_column_values_to_be_between:temp"
WHY = "the thermometer of that ward was calibrated afterwards"
__all__ = ["few_expectations", "gate"]  # the fixtures


def made(store: Store, output: str) -> dict[str, Any]:
    """All of an output of the step, files by name."""
    record = store.runs.step("r", "check")
    assert record is not None
    directory = store.directory(record.outputs[output])
    return {
        name: pd.read_parquet(directory.path(name))
        if name.endswith(".parquet")
        else directory.read(name).decode()
        for name in directory.names
    }


def hot(rows: int, temp: float = 48.375) -> Table:
    table = recordings()
    table.loc[table.index[:rows], "temp"] = temp
    return table


def test_a_sound_table_is_handed_on_byte_by_byte(store: Store, gate: Gate) -> None:
    result = gate(recordings())
    assert result.outputs["table"] == store.put_directory(Path(store.url).parent / "table")
    assert result.metrics["n_quarantined"] == result.metrics["n_blocked"] == 0
    aside = made(store, "quarantine")["quarantine.parquet"]
    assert len(aside) == 0
    assert list(aside) == [
        *("row", "record_id", "reason", "detail", "hospital_id", "task"),
        *("subject_id", "suite", "suite_digest"),
    ]
    parts = json.loads(made(store, "report")["validation.json"])
    assert [part["suite"] for part in parts] == ["metadata", "audio", "recordings_gate"]
    assert all(part["version"] and part["digest"] for part in parts[:2])
    assert set(json.loads(made(store, "report")["gx.json"])) == {"metadata", "audio"}


@pytest.mark.usefixtures("few_expectations")
def test_rows_at_fault_are_put_aside_and_the_others_go_on(store: Store, gate: Gate) -> None:
    table = hot(2)
    result = gate(table)
    assert result.metrics["n_quarantined"] == 2
    assert result.metrics["n_blocked"] == 0
    aside = made(store, "quarantine")["quarantine.parquet"]
    assert list(aside["row"]) == [1, 2]
    assert list(aside["record_id"]) == ["r00000", "r00001"]
    assert set(aside["reason"]) == {REASON}
    assert set(aside["suite"]) == {"metadata"}
    kept = made(store, "table")["recordings.parquet"]
    pd.testing.assert_frame_equal(kept, table.iloc[2:].reset_index(drop=True))
    verdict = next(v for v in result.verdicts if v.id == HOT)
    assert (verdict.status, verdict.severity, verdict.suite) == ("warn", "critical", "metadata")


@pytest.mark.slow
def test_the_same_table_gives_the_same_bytes_anywhere(
    gate: Gate, store: Store, tmp_path: Path
) -> None:
    first = gate(hot(2))
    other = Store(str(tmp_path / "other"))
    digests = {n: other.put_directory(tmp_path / n) for n in ("table", "source")}
    again = run_step(Step("check", "validate", digests, {"gate": "recordings"}), "r", other)
    assert again.outputs == first.outputs
    assert again.key == first.key


def counts(store: Store, name: str) -> dict[str, float | None]:
    """The numbers of a verdict, with those that readers are not shown."""
    verdicts = store.runs.read("r").steps["check"].verdicts
    (verdict,) = [verdict for verdict in verdicts if verdict.id == name]
    return {key: number.value for key, number in verdict.numbers.items()}


@pytest.mark.usefixtures("few_expectations")
def test_too_many_rows_at_fault_block(store: Store, gate: Gate) -> None:
    with pytest.raises(GateRejected, match=r"quarantine_share: .* 40 of 240; 18 are tolerated"):
        gate(hot(40))
    assert counts(store, "quarantine_share") == {"n_refused": 40, "n_tolerated": 18, "n_left": 200}


@pytest.mark.usefixtures("few_expectations")
def test_a_site_with_too_many_rows_at_fault_blocks(gate: Gate) -> None:
    table = recordings()
    table["hospital_id"] = ["site-b"] * 20 + ["site-a"] * 220
    table.loc[:11, "temp"] = 48.375
    with pytest.raises(GateRejected, match=r"quarantine_share_by_site: .* 1 of 2\."):
        gate(table)


@pytest.mark.usefixtures("few_expectations")
def test_nothing_left_blocks_however_few_rows_there_were(gate: Gate) -> None:
    with pytest.raises(GateRejected, match="Nothing is left to work with"):
        gate(hot(1).iloc[:1])


@pytest.mark.usefixtures("few_expectations")
def test_a_record_that_was_lost_or_came_from_nowhere_blocks(store: Store, gate: Gate) -> None:
    table = split(recordings()).drop(columns="erased")
    assert gate(table, "training_set").metrics["n_blocked"] == 0
    with pytest.raises(GateRejected, match="rows_conserved"):
        gate(table.iloc[2:], "training_set", source=table)
    assert counts(store, "rows_conserved") == {"n_lost": 2, "n_new": 0, "n_leaked": 0}
    with pytest.raises(GateRejected, match="rows_conserved"):
        gate(table, "training_set", source=table.iloc[2:])
    assert counts(store, "rows_conserved") == {"n_lost": 0, "n_new": 2, "n_leaked": 0}


@pytest.mark.usefixtures("few_expectations")
def test_a_released_row_stays_for_the_reason_that_was_released(store: Store, gate: Gate) -> None:
    decide(store, "releases", {"record": "r00001", "reason": REASON}, WHY)
    decide(store, "releases", {"record": "r00000", "reason": "another"}, WHY)
    result = gate(hot(2))
    assert list(made(store, "quarantine")["quarantine.parquet"]["record_id"]) == ["r00000"]
    assert "r00001" in set(made(store, "table")["recordings.parquet"]["record_id"])
    assert (result.metrics["n_quarantined"], result.metrics["n_released"]) == (1, 1)


@pytest.mark.usefixtures("few_expectations")
def test_nobody_releases_a_row_without_consent(store: Store, gate: Gate) -> None:
    table = recordings()
    table.loc[0, "consent_status"] = "pending"
    reason = "expect_column_values_to_be_in_set:consent_status"
    decide(store, "releases", {"record": "r00000", "reason": reason}, WHY)
    assert gate(table).metrics["n_quarantined"] == 1


def test_what_a_gate_leaves_holds_no_value_of_a_patient(store: Store, gate: Gate) -> None:
    table = recordings().assign(x_note="")
    table.loc[0, ["temp", "bp_sys", "age"]] = [48.375, 4837.5, 483]
    table.loc[1, "device_model"] = "Planted 529.982.247-25"
    table.loc[2, ["hospital_id", "x_note"]] = ["Planted", "planted@example.org"]
    table.loc[3, "task"] = "PLANTED"
    table.loc[4, "subject_id"] = "Planted"
    table.loc[5, "record_id"] = "Planted/Patient"
    table.loc[5, "temp"] = 48.375
    gate(table)
    left = str(made(store, "report")) + made(store, "quarantine")["quarantine.parquet"].to_json()
    left += store.runs.read("r").steps["check"].to_json()
    left = re.sub(r"\b[0-9a-f]{64}\b", "", left)  # digests hold any digits
    aside = made(store, "quarantine")["quarantine.parquet"]
    assert len(aside) == 6
    for planted in ("lanted", "LANTED", "48.375", "4837", "247-25"):
        assert planted not in left, planted


def test_a_gate_takes_one_table(store: Store, tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "notes.txt").write_text("no table")
    digest = store.put_directory(tmp_path / "t")
    step = Step("check", "validate", {"table": digest, "source": digest}, {"gate": "features"})
    with pytest.raises(ConfigError, match="0 parquet files"):
        run_step(step, "r", store)
