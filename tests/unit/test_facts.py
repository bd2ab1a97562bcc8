"""The facts of a run for its report: of every outcome, and without any small count."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading_pages import read
from run_facts import rows

from expectations.words import Words
from spira_tasks import show
from spira_tasks.artifacts import Store
from spira_tasks.contract.pipelines import TRAINING
from spira_tasks.contract.run import StepRecord
from spira_tasks.contract.verdict import MIN_CELL, Number, Verdict, Waiver
from spira_tasks.errors import ConfigError
from spira_tasks.evaluation import slices
from spira_tasks.governance import audit, decisions
from spira_tasks.reports import pages, tables
from spira_tasks.reports.facts import Counts, RunFacts
from spira_tasks.reports.gather import gather, history, latest_run
from spira_tasks.reports.tables import one_way

WHY = "both raters agree after listening again"


def people(n: int = 40, **columns: Any) -> pd.DataFrame:
    """A table of recordings, one a person."""
    numbers = np.arange(n)
    return pd.DataFrame(
        {
            "record_id": [f"r{i}" for i in numbers],
            "subject_id": [f"s{i}" for i in numbers],
            "hospital_id": np.where(numbers % 2, "north", "south"),
            "task": "SENTENCE",
            "sex": np.where(numbers % 4 < 2, "F", "M"),
            "age": 20 + numbers,
            "device_model": "phone",
            "label": numbers % 2,
            "split": np.where(numbers < 20, "train", "test"),
            "x_synthetic": None,
            "snr_db": 20.0 + numbers / 10,
            **columns,
        }
    )


INGESTED: dict[str, Any] = {"n_by_site": {}, "n_by_reason": {"truncated": 3}}


@dataclass
class Book:
    """Writes records of runs into a store, as the runner does."""

    store: Store
    folder: Path
    n_outputs: int = field(default=0)

    def output(self, **files: pd.DataFrame | Mapping[str, Any]) -> str:
        self.n_outputs += 1
        folder = self.folder / str(self.n_outputs)
        folder.mkdir()
        for name, content in files.items():
            if isinstance(content, pd.DataFrame):
                content.to_parquet(folder / f"{name}.parquet")
            else:
                (folder / f"{name}.json").write_text(json.dumps(content))
        return self.store.put_directory(folder)

    def step(self, name: str, state: str = "done", run: str = "first", **more: Any) -> None:
        stage = next((step.stage for step in TRAINING if step.name == name), name)
        record = {"step": name, "stage": stage, "state": state, "seconds": 2.0}
        record |= {"finished_at": f"2026-11-21T03:00:{len(name):02d}+00:00"} | more
        self.store.runs.write(run, StepRecord.from_json(json.dumps(record)))

    def ingest(self, table: pd.DataFrame, refused: pd.DataFrame | None = None, **more: Any) -> None:
        refused = pd.DataFrame({"reason": [], "hospital_id": []}) if refused is None else refused
        counts: dict[str, float] = {"n_rows": len(table) + len(refused), "n_recordings": len(table)}
        counts |= {"n_subjects": len(table), "n_quarantined": len(refused), "n_excluded": 0}
        counts |= {"n_ward_noises": 2, "n_seconds_of_audio": 7200.0}
        outputs = {
            "recordings": self.output(recordings=table),
            "quarantine": self.output(quarantine=refused),
            "report": self.output(ingest=INGESTED | {"n_by_task": {"SENTENCE": len(table)}}),
        }
        self.step("ingest", metrics=counts, outputs=outputs, **more)


@pytest.fixture
def book(tmp_path: Path) -> Book:
    (tmp_path / "outputs").mkdir()
    return Book(Store(str(tmp_path / "store")), tmp_path / "outputs")


def facts_of(book: Book, run: str = "first") -> RunFacts:
    facts = gather(book.store, run)
    site = book.folder.parent / "site"
    site.mkdir(exist_ok=True)
    pages.render(facts, history(book.store), site)  # whatever is missing
    return facts


def page_of(book: Book, name: str) -> str:
    facts_of(book)
    return read(book.folder.parent / "site" / name).text


def table_of(facts: RunFacts, *by: str) -> Counts:
    return next(counts for counts in facts.composition if counts.by == by)


def test_a_run_that_was_just_begun_has_its_steps_waiting(book: Book) -> None:
    book.ingest(people())
    facts = facts_of(book)
    assert facts.outcome == "running"
    assert [step.state for step in facts.steps] == ["done"] + ["waiting"] * (
        len(TRAINING.steps) - 1
    )
    assert facts.started_at == "2026-11-21T03:00:04+00:00"
    assert table_of(facts, "sex").cells == ((20,), (20,))
    assert facts.dataset is None
    assert facts.evaluation is None
    assert facts.model is None


def test_a_failed_step_is_reported_with_its_reason(book: Book) -> None:
    book.step("ingest", "failed", error="ConfigError", message="there are no files")
    facts = facts_of(book)
    assert facts.outcome == "failed"
    assert (facts.steps[0].error, facts.steps[0].message) == ("ConfigError", "there are no files")
    assert facts.intake is None
    assert facts.missing == ()


def test_a_blocked_run_keeps_its_table_and_its_verdicts(book: Book) -> None:
    few = {"n_unexpected": Number(3, "rows")}
    verdict = Verdict("enough", "block", observed=Number(0.1, "share"), n=30, numbers=few)
    table = book.output(recordings=people())
    book.step(
        "check_training_set",
        "blocked",
        outputs={"table": table},
        verdicts=[verdict.to_dict()],
        config={"gate": "training_set"},
    )
    facts = facts_of(book)
    assert facts.outcome == "blocked"
    (found,) = facts.verdicts["check_training_set"]
    assert found.observed == Number(None, "share")  # times n it would be 3
    assert found.numbers == {"n_unexpected": Number(None, "rows")}
    assert facts.dataset is not None
    assert facts.dataset.digest == table
    page = page_of(book, "data.en.html")
    assert "Rows that differ: fewer than 5 of 30." in page


def test_a_run_that_came_to_its_end_waits_for_nothing(book: Book) -> None:
    book.step("promote", metrics={"promoted": True, "kept": False})
    facts = facts_of(book)
    assert facts.outcome == "promoted"
    assert facts.triggered_by == ""
    assert len(facts.steps) == 1


def test_what_was_erased_is_missing_and_holds_nothing_up(book: Book) -> None:
    book.ingest(people())
    digest = book.store.runs.read("first").digest("ingest.recordings")
    (blob,) = book.store.files(digest).values()
    book.store.delete(f"blobs/{blob[7:9]}/{blob[7:]}")
    facts = facts_of(book)
    assert facts.missing == ("ingest.recordings",)
    assert facts.composition == ()
    assert facts.synthetic is None
    assert facts.intake is not None
    assert facts.intake.n_recordings == 40


def test_the_registry_may_be_away(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    registration = {"name": "spira", "version": "3", "classifier": "sha256:" + "0" * 64}
    outputs = {"registration": book.output(registration=registration)}
    book.step("register", outputs=outputs)
    facts = gather(book.store, "first")
    assert facts.model is not None
    assert facts.model.aliases is None
    assert facts.missing == ("registry",)


def test_configured_sites_have_their_names_others_numbers_and_rare_ones_neither(book: Book) -> None:
    sites = ["north"] * 20 + ["<b>east</b>"] * 10 + ["south"] * 8 + ["typo"] * 2
    book.ingest(people(hospital_id=sites), config={"sites": ["north"]})
    facts = facts_of(book)
    assert table_of(facts, "site").rows == ("north (#2)", "#1", "#3", "other")
    assert table_of(facts, "site").cells == ((20,), (10,), (None,), (None,))
    assert "east" not in str(facts)


def test_a_number_of_a_site_is_the_same_hospital_on_the_pages_as_in_a_verdict() -> None:
    taken = pd.DataFrame({"hospital_id": ["east"] * 9 + ["north"] * 9 + ["south"] * 9})
    refused = {"ingest": pd.DataFrame({"hospital_id": ["alone"] * 9 + ["south"] * 9})}
    shown = tables.site_names(taken, refused, ["north"])
    names = pd.Series(["east", "north", "south"])
    of_gates = slices.numbered(names, taken["hospital_id"])
    assert dict(zip(names, of_gates, strict=True)) == {"east": "#1", "north": "#2", "south": "#3"}
    assert shown == {"east": "#1", "north": "north (#2)", "south": "#3", "alone": "#4"}


def test_only_categories_of_the_contract_and_bands_of_age_are_shown(book: Book) -> None:
    odd = people(sex="x7", age=[17.0, 90.0] + [40.0] * 38, label=None)
    book.ingest(odd)
    facts = facts_of(book)
    assert table_of(facts, "sex").rows == ("missing",)
    assert table_of(facts, "age").rows == ("<18", "30-44", "75+")
    assert table_of(facts, "label").rows == ("missing",)


def test_quarantine_of_ingest_and_of_the_gates_is_one(book: Book) -> None:
    bad = pd.DataFrame({"reason": ["truncated"] * 6, "hospital_id": ["north"] * 6})
    worse = pd.DataFrame({"reason": ["expect_x:snr_db"] * 5, "hospital_id": ["north"] * 5})
    book.ingest(people(), bad)
    book.step("check_recordings", outputs={"quarantine": book.output(quarantine=worse)})
    facts = facts_of(book)
    assert facts.quarantine is not None
    assert facts.quarantine.n_by_step == {"ingest": 6, "check_recordings": 5}
    assert facts.quarantine.by_reason == one_way(
        "reason", "recordings", {"truncated": 6, "expect_x:snr_db": 5}
    )


def test_quartiles_are_shown_of_five_people_at_least(book: Book) -> None:
    book.ingest(people(device_model=["a"] * 36 + ["b"] * 4))
    (many, few) = (q for q in facts_of(book).signal_quality if q.measure == "snr_db")
    assert (many.low, many.median, many.high) == (21.0, 22.0, 23.0)
    assert few.device == "other"
    assert few.n_subjects is few.low is few.median is few.high is None


def test_decisions_of_people_are_shown_without_the_person_they_concern(book: Book) -> None:
    book.ingest(people())
    decisions.decide(book.store, "releases", {"record": "r7", "reason": "snr"}, WHY)
    decisions.decide(book.store, "erasures", {"tag": "ab" * 16}, WHY)
    facts = facts_of(book)
    assert [(one.reason, one.why) for one in facts.releases] == [("snr", WHY)]
    assert facts.n_erasures is None  # one: suppressed
    assert facts.anchor.number == audit.head(book.store.documents).number == 2


def test_a_later_waiver_is_not_shown_with_a_run_and_one_withdrawn_since_still_is(
    book: Book,
) -> None:
    waiver = Waiver("cli:ana", "2026-11-21T02:00:00+00:00", WHY)
    applied = Verdict("weak", "warn", n=40, suite="training_set", waiver=waiver)
    other = Verdict("near", "warn", n=40, suite="training_set")
    book.step("check_training_set", verdicts=[applied.to_dict(), other.to_dict()])
    about = {"suite": "training_set", "expectation": "near"}
    decisions.decide(book.store, "waivers", about, WHY)
    facts = facts_of(book)
    assert str(facts).count(WHY) == 1
    assert [one.waiver for one in facts.checks] == [waiver, None]


def test_who_started_a_run_is_in_the_log(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIRA_ACTOR", "airflow:ana")
    anchor = audit.record(book.store, "ingest", {"run": "first"})
    book.ingest(people(), audit=asdict(anchor))
    assert facts_of(book).triggered_by == "airflow:ana"


def test_history_and_latest_are_of_training_runs_alone(book: Book) -> None:
    book.ingest(people())
    book.step("report", run="reporting")
    book.step("erase", run="erasing")
    assert latest_run(book.store) == "first"
    (only,) = history(book.store)
    assert (only.run_id, only.outcome, only.n_recordings) == ("first", "running", 40)
    with pytest.raises(ConfigError, match="no record of a training run 'reporting'"):
        gather(book.store, "reporting")


def test_a_model_is_not_validated_for_groups_with_too_few_test_subjects(book: Book) -> None:
    table = people(80, split="test", sex=["F"] * 60 + ["M"] * 20, age=50)
    predictions = table[["subject_id", "split", "label"]].assign(clean=table["label"] * 0.8)
    estimate = {"value": 1.0, "low": 0.9, "high": 1.0}
    names = ("n_recordings", "n_subjects", "n_patients", "n_controls")
    report: dict[str, Any] = dict.fromkeys(names, 40)
    report |= {"operating_point": 0.5, "brier_score": 0.1}
    report |= {"expected_calibration_error": 0.1, "drop_in_balanced_accuracy": {}}
    report |= {"conditions": {"clean": {"auc": estimate}}}
    kinds = ("true_positives", "false_negatives", "false_positives", "true_negatives")
    report["confusion"] = dict(zip(kinds, (38, 2, 0, 40), strict=True))
    book.ingest(table)
    book.step(
        "evaluate", outputs={"report": book.output(evaluation=report, predictions=predictions)}
    )
    facts = facts_of(book)
    assert facts.evaluation is not None
    women = next(one for one in facts.evaluation.slices if one.group == "F")
    assert women.sensitivity is not None
    assert (women.n_patients, women.sensitivity.value) == (30, 1.0)
    assert facts.evaluation.confusion is not None
    assert facts.evaluation.confusion.cells == ((38, 2), (0, 40))
    listed = " ".join(pages.not_validated_for(Words("en"), facts))
    assert "sex: Other" in listed
    assert "age: <18, 18-29, 30-44, 60-74, 75+" in listed


def evaluated(book: Book, labels: list[int], scores: list[float], sex: list[str]) -> RunFacts:
    """A run whose test subjects have these labels and scores; positive from 0.5 on."""
    table = people(len(labels), split="test", sex=sex, age=50, label=labels, hospital_id="north")
    predictions = table[["subject_id", "split", "label"]].assign(clean=scores)
    is_patient, is_positive = np.array(labels) == 1, np.array(scores) >= 0.5
    n_patients, n_controls = int(is_patient.sum()), int((~is_patient).sum())
    estimate = {"value": 0.875, "low": 0.75, "high": 0.9375}
    metrics = dict.fromkeys(("auc", "sensitivity", "specificity", "balanced_accuracy"), estimate)
    report = {
        "n_recordings": len(labels), "n_subjects": len(labels),
        "n_patients": n_patients, "n_controls": n_controls,
        "operating_point": 0.5, "brier_score": 0.0625, "expected_calibration_error": 0.03125,
        "conditions": {"clean": metrics, "noise_all": metrics},
        "drop_in_balanced_accuracy": {"noise_all": estimate},
        "confusion": {
            "true_positives": int((is_patient & is_positive).sum()),
            "false_negatives": int((is_patient & ~is_positive).sum()),
            "false_positives": int((~is_patient & is_positive).sum()),
            "true_negatives": int((~is_patient & ~is_positive).sum()),
        },
    }  # fmt: skip
    book.ingest(table)
    sizes = {"n_patients": n_patients, "n_controls": n_controls, "auc": 0.875}
    outputs = {"report": book.output(evaluation=report, predictions=predictions)}
    book.step("evaluate", outputs=outputs, metrics=sizes | {"auc_low": 0.75, "auc_high": 0.9375})
    return facts_of(book)


@given(
    counts=st.tuples(*[st.integers(0, 14)] * 6),
    wrong=st.lists(st.booleans(), min_size=6, max_size=6),
)
@settings(deadline=None, max_examples=25)
def test_a_rate_is_published_exactly_where_enough_people_are_behind_it_and_counted(
    counts: tuple[int, ...], wrong: list[bool]
) -> None:
    groups = [(sex, label) for sex in ("F", "M", "OTHER") for label in (0, 1)]
    people_of = {group: n for group, n in zip(groups, counts, strict=True)}
    labels = [label for (_, label), n in people_of.items() for _ in range(n)]
    sex = [sex for (sex, _), n in people_of.items() for _ in range(n)]
    if not labels:
        return
    table = pd.DataFrame(
        {
            "subject": [f"s{i}" for i in range(len(labels))], "sex": sex, "age": "45-59",
            "site": "#1", "device": "#1", "label": np.where(labels, "patients", "controls"),
        }
    )  # fmt: skip
    flips = dict(zip(groups, wrong, strict=True))
    scores = [float(label != flips[one, label]) for one, label in zip(sex, labels, strict=True)]
    predictions = pd.DataFrame(
        {"subject_id": table["subject"], "split": "test", "label": labels, "clean": scores}
    )
    for one in tables.slices(table, predictions, 0.5):
        for count, rate in ((one.n_patients, one.sensitivity), (one.n_controls, one.specificity)):
            assert (rate is not None) is (count is not None and count >= tables.MIN_SLICE)
            assert count is None or not 0 < count < MIN_CELL
        if one.by == "sex" and one.sensitivity is not None:
            assert one.n_patients == people_of[one.group, 1]
            assert one.sensitivity.value == float(not flips[one.group, 1])


def test_measures_are_published_where_both_classes_have_five_people(book: Book) -> None:
    facts = evaluated(book, [1] * 5 + [0] * 20, [0.9] * 4 + [0.1] * 21, ["F"] * 25)
    assert facts.evaluation is not None
    assert facts.evaluation.is_published
    assert facts.evaluation.confusion is not None
    assert facts.evaluation.confusion.cells == ((4, 1), (0, 20))
    assert history(book.store)[0].auc is not None


def test_no_measure_is_published_of_fewer_and_the_report_is_made_all_the_same(book: Book) -> None:
    """Eight recordings: no chart and no table fails on nothing."""
    facts = evaluated(book, [1] * 4 + [0] * 4, [0.9] * 3 + [0.1] * 5, ["F", "M"] * 4)
    assert facts.evaluation is not None
    assert not facts.evaluation.is_published
    assert facts.evaluation.confusion is None
    assert facts.evaluation.brier_score is None
    assert facts.evaluation.operating_point is None
    assert history(book.store)[0].auc is None
    for name in ("verdict.en.html", "model-card.en.html", "overview.en.html"):
        page = read(book.folder.parent / "site" / name).text
        numbers = {"0.88", "0.94", "87.5", "88", "0.062", "0.031", "0.500"}
        assert not numbers & set(re.findall(r"\d+(?:\.\d+)?", page)), name
    assert "fewer than 5 people of a class: no measure is shown" in page_of(book, "verdict.en.html")


def test_a_model_card_does_not_name_the_group_of_the_only_patient(book: Book) -> None:
    """Neither the table of groups nor the number of controls, which with all people gives one."""
    facts = evaluated(book, [1] + [0] * 20, [0.9] + [0.1] * 20, ["F"] + ["M"] * 20)
    assert facts.evaluation is not None
    assert facts.evaluation.slices == ()
    assert (facts.evaluation.n_subjects, facts.evaluation.n_controls) == (21, None)
    card = page_of(book, "model-card.en.html")
    assert "By group" not in card
    tested = card.partition("Evaluation data Test subjects")[2].partition("Training data")[0]
    assert "Patients hidden Controls hidden" in tested


def test_the_command_line_shows_no_more_of_few_people_than_the_pages(
    book: Book, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluated(book, [1] * 4 + [0] * 17, [0.9] * 3 + [0.1] * 18, ["F"] * 21)
    evaluate = show.describe("first", book.store)["steps"][-1]
    assert set(evaluate["metrics"].values()) == {None}
    show.render("first", book.store, [])
    shown = capsys.readouterr().out
    assert "fewer than 5 people of a class: no measure is shown" in shown
    assert "0.88" not in shown
    assert "fewer than 5  truncated" in shown


def test_the_card_has_what_the_checks_found_in_plain_words_with_numbers(book: Book) -> None:
    name = "expect_column_values_to_be_between(age, possible)"
    found = rows(name, "warn", 12, 61, suite="metadata")
    book.step("check_recordings", verdicts=[found.to_dict()])
    card = page_of(book, "model-card.en.html")
    assert "Check of the recordings" in card
    assert "This failed: In every recording, " in card
    assert "Rows that differ: 12 of 61." in card
    assert "Linhas que diferem: 12 de 61." in page_of(book, "model-card.pt.html")
    assert name not in card
