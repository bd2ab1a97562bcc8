"""The ledger of quarantine: what was refused, who lifted it, and what comes of that."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from conftest import Run

from spira_tasks.artifacts import Store
from spira_tasks.cli import main
from spira_tasks.cohort import write_cohort
from spira_tasks.contract.record import Result
from spira_tasks.contract.step import Step
from spira_tasks.errors import ConfigError
from spira_tasks.governance import audit, decisions, quarantine
from spira_tasks.intake.pseudonyms import tombstone_tag
from spira_tasks.runner import run_step

WHY = "listened to it: the whole sentence is there"
LIMIT = {"max_quarantine_fraction": 1.0, "max_site_quarantine_fraction": 1.0}


@pytest.fixture(scope="module")
def six_people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their recordings, and a store that remembers what these sound like."""
    folder = tmp_path_factory.mktemp("refused")
    write_cohort(folder / "c", subjects=6, seed=5, workers=1)
    step = Step("ingest", "ingest", {"data": f"folder:{folder / 'c'}"}, LIMIT)
    run_step(step, "r", Store(str(folder / "store")))
    return folder / "c"


class Ward:
    """A cohort that is taken in again and again, with a store of its own.

    Its recordings were converted before: no test here looks at how.
    """

    def __init__(self, cohort: Path, place: Path) -> None:
        self.data = place / "data"
        for name in ("blobs", "memo"):
            known = cohort.with_name("store") / name
            shutil.copytree(known, place / "store" / name, copy_function=os.link)
        self.store = Store(str(place / "store"))
        shutil.copytree(cohort, self.data)
        self.rows = pd.read_csv(cohort / "recordings.csv", dtype=str, keep_default_na=False)

    def ingest(self, run_id: str, **config: object) -> Result:
        self.rows.to_csv(self.data / "recordings.csv", index=False)
        data = f"folder:{self.data}"
        step = Step("ingest", "ingest", {"data": data}, {**LIMIT, **config})
        return run_step(step, run_id, self.store)

    def records(self, result: Result) -> set[str]:
        directory = self.store.directory(result.outputs["recordings"])
        return set(pd.read_parquet(directory.path("recordings.parquet"))["record_id"])

    def quarantine(self, result: Result) -> pd.DataFrame:
        directory = self.store.directory(result.outputs["quarantine"])
        return pd.read_parquet(directory.path("quarantine.parquet"))


@pytest.fixture
def ward(six_people: Path, tmp_path: Path) -> Ward:
    return Ward(six_people, tmp_path)


def test_a_refused_recording_stands_in_the_ledger_since_it_was_first_seen(ward: Ward) -> None:
    first, second = ward.rows["record_id"][:2]
    ward.rows.loc[0, "spo2"] = "0.93"
    ward.ingest("r1")
    ward.rows.loc[1, "ri_clinical"] = "perhaps"
    ward.ingest("r2")
    found = {entry.record: entry for entry in quarantine.ledger(ward.store)}
    assert set(found) == {first, second}
    assert (found[first].reason, found[first].n_runs) == ("bad_value", 2)
    assert found[first].detail == "spo2: not a whole number"
    assert (found[second].reason, found[second].n_runs) == ("bad_value", 1)
    assert {entry.state for entry in found.values()} == {"open"}


def test_a_recording_that_was_mended_belongs_to_the_past(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    ward.rows.loc[0, "spo2"] = "300"
    ward.ingest("r1")
    dated(ward.store, "r1", 1)
    ward.rows.loc[0, "spo2"] = "97"
    ward.ingest("r2")
    (entry,) = quarantine.ledger(ward.store)
    assert (entry.state, entry.last_seen) == ("past", "2026-01-01T00:00:00+00:00")


def dated(store: Store, run_id: str, day: int) -> None:
    """Let a run have been on this day: nothing distinguishes two of one second."""
    for record in store.runs.read(run_id).steps.values():
        at = f"2026-01-{day:02}T00:00:00+00:00"
        store.runs.write(run_id, replace(record, finished_at=at))


def test_another_hospital_s_data_say_nothing_of_what_was_refused(ward: Ward) -> None:
    rows = ward.rows
    ward.rows = rows[rows.index % 2 == 0].reset_index(drop=True)
    ward.rows.loc[0, "spo2"] = "300"
    ward.ingest("a")
    dated(ward.store, "a", 1)
    ward.rows = rows[rows.index % 2 == 1].reset_index(drop=True)
    ward.ingest("b")
    dated(ward.store, "b", 2)
    (entry,) = quarantine.ledger(ward.store)
    assert (entry.record, entry.state) == (rows.loc[0, "record_id"], "open")
    ward.rows = rows  # both hospitals, and what was refused is mended
    ward.ingest("both")
    dated(ward.store, "both", 3)
    (entry,) = quarantine.ledger(ward.store)
    assert entry.state == "past"
    assert entry.last_seen.startswith("2026-01-01")


def test_what_is_refused_for_something_else_now_is_past_for_the_first_reason(ward: Ward) -> None:
    ward.rows.loc[0, "spo2"] = "300"
    ward.ingest("r1")
    dated(ward.store, "r1", 1)
    ward.rows.loc[0, ["spo2", "age"]] = ["97", "old"]
    ward.ingest("r2")
    dated(ward.store, "r2", 2)
    states = {entry.reason: entry.state for entry in quarantine.ledger(ward.store)}
    assert states == {"impossible_value": "past", "bad_value": "open"}


def test_a_row_without_a_name_is_known_by_where_its_data_came_from(ward: Ward) -> None:
    ward.rows["x_note"] = ""
    ward.rows.loc[0, "x_note"] = "ana@example.org"
    first, ward.data = ward.data, ward.data.with_name("other")
    shutil.copytree(first, ward.data)
    ward.ingest("other")
    dated(ward.store, "other", 1)
    ward.data = first
    ward.ingest("first")
    dated(ward.store, "first", 2)
    ward.rows.loc[0, "x_note"] = ""
    ward.ingest("mended")
    dated(ward.store, "mended", 3)
    found = quarantine.ledger(ward.store)
    assert {entry.record for entry in found} == {"row 1"}
    states = {Path(entry.source).name: entry.state for entry in found}
    assert states == {"other": "open", "data": "past"}


@pytest.mark.slow
def test_the_ledger_tells_by_which_version_a_gate_refused_and_when_it_takes_again(
    ward: Ward, capsys: pytest.CaptureFixture[str]
) -> None:
    def checked(run_id: str, day: int) -> None:
        ward.ingest(run_id)
        inputs = {"table": "ingest.recordings", "source": "ingest.report"}
        config = {"gate": "recordings", **LIMIT}
        run_step(Step("check_recordings", "validate", inputs, config), run_id, ward.store)
        dated(ward.store, run_id, day)

    rows = ward.rows.copy()
    ward.rows.loc[0, "ingested_at"] = "2019-03-04T10:20:30-03:00"  # before it was spoken
    checked("r1", 1)
    (entry,) = quarantine.ledger(ward.store)
    assert (entry.record, entry.step) == (rows.loc[0, "record_id"], "check_recordings")
    report = ward.store.runs.step("r1", "check_recordings")
    assert report is not None
    directory = ward.store.directory(report.outputs["report"])
    versions = {p["suite"]: p["version"] for p in json.loads(directory.read("validation.json"))}
    assert entry.suite_version == versions[entry.suite] != ""
    assert main(["quarantine", "list", "--store", ward.store.url]) == 0
    assert f"{entry.suite} {entry.suite_version}" in capsys.readouterr().out
    ward.rows = rows.drop(index=0)
    checked("r2", 2)
    assert [one.state for one in quarantine.ledger(ward.store)] == ["open"]
    ward.rows = rows
    checked("r3", 3)
    assert [one.state for one in quarantine.ledger(ward.store)] == ["past"]


def test_the_ledger_tells_by_which_code_ingest_refused(ward: Ward) -> None:
    ward.rows.loc[0, "spo2"] = "300"
    result = ward.ingest("r1")
    (entry,) = quarantine.ledger(ward.store)
    assert entry.suite_version == result.provenance["code"][:12]


def test_a_released_recording_is_taken_without_the_impossible_value(ward: Ward) -> None:
    ward.rows.loc[0, "spo2"] = "300"
    name = ward.rows.loc[0, "record_id"]
    before = ward.ingest("r1")
    assert name not in ward.records(before)
    quarantine.release(ward.store, name, None, WHY)
    after = ward.ingest("r2")
    assert after.key != before.key
    assert name in ward.records(after)
    table = ward.store.directory(after.outputs["recordings"]).path("recordings.parquet")
    rows = pd.read_parquet(table).set_index("record_id")
    assert pd.isna(rows.loc[name, "spo2"])
    (entry,) = quarantine.ledger(ward.store)
    assert (entry.state, entry.why) == ("released", WHY)
    again, _ = quarantine.release(ward.store, name, None, "once more, to be sure of it")
    assert again == entry
    assert [event.action for event in audit.events(ward.store)] == ["ingest", "release", "ingest"]

    quarantine.withdraw(ward.store, name, None, "it was the wrong recording")
    assert ward.ingest("r3").outputs == before.outputs


def test_a_released_recording_with_a_second_fault_stays_in_quarantine(ward: Ward) -> None:
    ward.rows.loc[0, "spo2"] = "300"
    ward.rows.loc[0, "collected_at"] = "2024-05-01T10:00:00"
    name = ward.rows.loc[0, "record_id"]
    decisions.decide(ward.store, "releases", {"record": name, "reason": "impossible_value"}, WHY)
    result = ward.ingest("r1")
    assert name not in ward.records(result)
    assert set(ward.quarantine(result)["reason"]) == {"naive_timestamp"}


def test_a_value_that_must_be_there_is_not_left_out(ward: Ward) -> None:
    ward.rows.loc[0, "age"] = "140"
    name = ward.rows.loc[0, "record_id"]
    ward.ingest("r1")
    quarantine.release(ward.store, name, None, WHY)
    assert name not in ward.records(ward.ingest("r2"))


def test_a_recording_that_is_too_short_is_taken_once_somebody_listened(ward: Ward) -> None:
    refused = ward.ingest("r1", min_duration_seconds=12.0)
    name = str(ward.quarantine(refused)["record_id"].iloc[0])
    quarantine.release(ward.store, name, "too_short", WHY)
    taken = ward.ingest("r2", min_duration_seconds=12.0)
    assert ward.records(taken) == ward.records(refused) | {name}


@pytest.mark.parametrize(
    ("column", "value"), [("consent_status", "withdrawn"), ("x_note", "ana@example.org")]
)
def test_what_nobody_may_lift_is_said(ward: Ward, column: str, value: str) -> None:
    ward.rows["x_note"] = ""
    ward.rows.loc[0, column] = value
    ward.ingest("r1")
    (entry,) = quarantine.ledger(ward.store)
    with pytest.raises(ConfigError, match="which nobody may lift"):
        quarantine.release(ward.store, entry.record, None, WHY)
    about = {"record": str(ward.rows.loc[0, "record_id"]), "reason": entry.reason}
    decisions.decide(ward.store, "releases", about, WHY)  # by somebody who goes round the command
    assert about["record"] not in ward.records(ward.ingest("r2"))


@pytest.mark.parametrize(
    ("reason", "may"),
    [
        ("expect_column_values_to_be_between:duration_seconds", True),
        ("expect_column_pair_values_a_to_be_greater_than_b:ingested_at+collected_at", True),
        ("expect_column_values_to_be_in_set:consent_status", False),
        ("expect_column_values_to_match_regex:subject_id", False),
        ("expect_column_values_to_hold_no_personal_data:x_of_a_hospital", False),
    ],
)
def test_what_a_gate_would_not_apply_cannot_be_released(reason: str, may: bool) -> None:
    assert (quarantine.releasable(reason) is not None) == may


def test_an_erased_subject_is_refused_without_details_of_the_recordings(ward: Ward) -> None:
    before = ward.ingest("r1")
    directory = ward.store.directory(before.outputs["recordings"])
    table = pd.read_parquet(directory.path("recordings.parquet"))
    subject = str(table["subject_id"].iloc[0])
    names = set(table["record_id"][table["subject_id"] == subject])
    ward.rows.loc[ward.rows["record_id"].isin(names), "spo2"] = "300"
    decisions.decide(ward.store, "erasures", {"tag": tombstone_tag(subject)}, "asked by the person")
    after = ward.ingest("r2")
    assert ward.records(after) == ward.records(before) - names
    refused = ward.quarantine(after)
    assert list(refused["reason"]) == ["erased"] * len(names)
    assert refused[["record_id", "hospital_id"]].isna().all(axis=None)
    content = (Path(ward.store.url) / "runs/r2/ingest.json").read_text()
    assert not [name for name in {*names, subject} if name in content]


def test_an_erased_voice_of_the_published_layout_is_not_even_converted(
    six_people: Path, tmp_path: Path
) -> None:
    files = sorted((six_people / "audio").rglob("*.wav"))[:6]
    data = tmp_path / "published"
    data.mkdir()
    for number, file in enumerate(files):
        shutil.copyfile(file, data / f"{number}.wav")
    lines = ["file_path,class", *(f"{number}.wav,{number % 2}" for number in range(len(files)))]
    for name in ("metadata_train.csv", "metadata_eval.csv", "metadata_test.csv"):
        (data / name).write_text("\n".join(lines[:1] + (lines[1:] if "train" in name else [])))
    step = Step("ingest", "ingest", {"data": f"folder:{data}"}, LIMIT)
    other = Store(str(tmp_path / "other"))
    first = run_step(step, "r", other).outputs["recordings"]
    table = pd.read_parquet(other.directory(first).path("recordings.parquet"))
    subject, waveform = table.loc[0, ["subject_id", "waveform"]]

    store = Store(str(tmp_path / "store"))
    decisions.decide(store, "erasures", {"tag": tombstone_tag(subject)}, "asked by the person")
    run_step(step, "r", store)
    assert not store.blobs.exists(waveform)
    assert store.blobs.exists(table.loc[1, "waveform"])


@pytest.mark.slow
def test_the_commands_list_release_and_run_again(
    ward: Ward, capsys: pytest.CaptureFixture[str]
) -> None:
    ward.rows.loc[0, "spo2"] = "300"
    name = ward.rows.loc[0, "record_id"]
    ward.ingest("r1")
    where = ["--store", ward.store.url]
    assert main(["quarantine", "list", *where]) == 0
    assert name in capsys.readouterr().out
    assert main(["quarantine", "release", "nobody", "--why", WHY, *where]) == 78
    assert "there is no recording 'nobody'" in capsys.readouterr().err
    assert main(["quarantine", "release", name, "--why", WHY, *where]) == 0
    assert "without" not in capsys.readouterr().err
    assert main(["quarantine", "release", name, "--why", WHY, *where]) == 0
    assert f"{name} is released from impossible_value already, by cli:" in capsys.readouterr().out
    assert main(["quarantine", "list", "--json", "--state", "released", *where]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["record"], entry["why"]) == (name, WHY)
    assert main(["quarantine", "rerun", "r1", "--run-id", "r2", "--json", *where]) == 65
    shown = json.loads(capsys.readouterr().out)
    assert shown["steps"][0]["metrics"]["n_quarantined"] == 0
    ingested = ward.store.runs.step("r2", "ingest")
    assert ingested is not None
    assert ingested.config["max_quarantine_fraction"] == 1.0  # as in the run that is run again


def test_the_ledger_of_a_whole_run_holds_what_ingest_and_the_gates_refused(finished: Run) -> None:
    directory = finished.store.directory(finished.results["ingest"].outputs["quarantine"])
    refused = pd.read_parquet(directory.path("quarantine.parquet"))
    found = {entry.record: entry for entry in quarantine.ledger(finished.store)}
    assert len(refused) == finished.results["ingest"].metrics["n_quarantined"] > 0
    assert {found[record].reason for record in refused["record_id"]} == set(refused["reason"])
