"""What changed from one run to the next, on the page of provenance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reading_pages import read
from run_facts import AT, facts, history, summary

from spira_tasks.artifacts import Store
from spira_tasks.contract.run import StepRecord
from spira_tasks.reports import pages
from spira_tasks.reports.facts import Change
from spira_tasks.reports.gather import compare

RUNS = [summary("old", n_recordings=50), summary("new", n_quarantined=None)]


def leave(store: Store, run: str, step: str, **fields: Any) -> None:
    made_with = {"at": AT, "code": "c" * 64, "lock": "d" * 64, "git": "0123456789ab"}
    known: dict[str, Any] = {
        "state": "done",
        "finished_at": AT,
        "seconds": 1.0,
        "provenance": made_with,
    }
    store.runs.write(run, StepRecord(step, step, **known | fields))


def test_a_run_is_compared_with_the_one_that_ended_before_it(store: Store) -> None:
    for run, digest, epochs, code in (("old", "a", 4, "1"), ("new", "b", 6, "2")):
        leave(store, run, "ingest", outputs={"recordings": "sha256:" + digest * 64})
        provenance = {"at": AT, "code": code * 64, "lock": "e" * 64, "git": "0123456789ab"}
        config = {"epochs": epochs, "seed": 1}
        leave(store, run, "train", config=config, provenance=provenance)
    leave(store, "new", "evaluate", config={"seed": 9})  # the other did not come so far
    found = compare(store, "new", RUNS)
    assert found is not None
    assert found.run_id == "old"
    changes = {(one.what, one.name): (one.before, one.now) for one in found.changes}
    assert changes == {
        ("recordings", ""): ("a" * 13, "b" * 13),
        ("n_recordings", ""): (50, 61),
        ("n_subjects", ""): (61, 61),
        ("n_quarantined", ""): (13, None),
        ("git", ""): ("0123456789ab", "0123456789ab"),
        ("lock", ""): ("d" * 13, "d" * 13),
        ("code", "train"): ("1" * 13, "2" * 13),
        ("setting", "train.epochs"): ("4", "6"),
    }


def test_the_first_run_and_one_that_is_not_known_have_none_before_them(store: Store) -> None:
    assert compare(store, "old", RUNS) is None
    assert compare(store, "another", RUNS) is None


def test_a_run_whose_records_are_bare_or_gone_is_compared_by_what_is_left(store: Store) -> None:
    leave(store, "new", "ingest", state="failed", provenance={})
    found = compare(store, "new", RUNS)
    assert found is not None
    assert Change("git", "", "", "") in found.changes


def test_the_page_says_what_is_the_same_and_never_that_of_two_hidden_counts(tmp_path: Path) -> None:
    pages.render(facts(), history(), tmp_path, built_at=AT)
    page = read(tmp_path / "provenance.en.html").text
    assert "The run that ended before this one is run-1." in page
    assert f"Versions of the libraries (lock file) {'c8' * 6} the same" in page
    assert "In quarantine <5 <5" in page
    assert "Code of the step: Training" in page
    assert "Setting train.epochs 6 4" in page
    pages.render(facts(since=None), history(), tmp_path)
    assert "Since the run before" not in read(tmp_path / "provenance.en.html").text
