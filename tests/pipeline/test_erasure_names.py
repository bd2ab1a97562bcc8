"""Erasure finds names where they are names, and leaves alone what only looks like one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from erasing import erase, fill, filled, is_marked, register, store, subject, table
from folders import Cohort

from spira_tasks.artifacts import Store
from spira_tasks.contract.run import StepRecord
from spira_tasks.errors import ServiceUnavailable
from spira_tasks.governance import decisions, erasure, inventory
from spira_tasks.tracking import Tracker

__all__ = ["filled", "store", "subject"]  # the fixtures


def test_a_short_or_numeric_name_counts_only_where_a_field_says_that_it_is_one(
    tmp_path: Path,
) -> None:
    """A session called 3 is no version 3, and a day is not every mention of that day."""
    cohort = Cohort(tmp_path / "data", n_rows=8)
    for number, (record, session) in enumerate([("1", "3"), ("20", "2026-03-04")]):
        cohort.rows[number] |= {"record_id": record, "session_id": session}
    store = Store(str(tmp_path / "store"))
    fill(store, cohort.write())
    subject = str(table(store, "recordings")["subject_id"].iloc[0])
    texts = {
        "registration.json": json.dumps({"name": "spira", "version": "3"}),
        "page.html": "<table><td>3</td><td>1</td></table><p>of '3', \"20\", 2026-03-04</p>",
        "report.json": json.dumps({"version": "3", "n_recordings": 1, "day": "2026-03-04"}),
        "names.json": json.dumps({"failed": [{"record_id": "1"}]}),
        "names.csv": "number,session_id\n7,3\n",
        "day.json": json.dumps({"session_id": ["2026-03-04"]}),
    }
    folder = tmp_path / "report"
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text)
    digests = store.files(store.put_directory(folder))
    decisions.decide(store, "releases", {"record": "20", "reason": "clipped"}, "I have listened")
    words: dict[str, Any] = {"config": {"as_of": "2026-03-04"}, "provenance": {"version": "3"}}
    store.runs.write("r", StepRecord("other", "other", "done", "2026", 0.0, **words))
    other = {"tag": "ab" * 16, "model_versions": [{"version": "3"}], "finished": {"at": "2026"}}
    store.documents.write(erasure.certificate_name(str(other["tag"])), other)

    assert erase(store, subject)[1] is True

    left = {name for name, digest in digests.items() if store.blobs.exists(digest)}
    assert left == {"registration.json", "page.html", "report.json"}
    assert decisions.known(store, "releases") == []
    assert erasure.unfinished(store) == []


def test_a_long_name_is_found_anywhere_in_a_text() -> None:
    quotes = inventory.quoting({"recording-r001"})
    assert quotes is not None
    assert quotes(b"<p>of recording-r001, which")
    assert not quotes(b"recording-r0011")
    assert inventory.quoting(set()) is None


def test_a_model_is_marked_and_no_longer_previous_even_where_the_erasure_finds_no_end(
    store: Store, subject: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = table(store, "recordings", "split")
    task = rows.loc[(rows["subject_id"] == subject) & (rows["split"] != "test"), "task"].iloc[0]
    split = store.runs.step("r", "split")
    assert split is not None
    version = register(store, split.outputs["recordings"], tmp_path, task)
    Tracker(store.tracking_uri).assign(None, version)
    monkeypatch.setattr(erasure, "left_over", lambda *_: ["runs/r/being-written.json"])
    with pytest.raises(ServiceUnavailable, match="still holds something"):
        erase(store, subject)
    assert is_marked(store)
    assert Tracker(store.tracking_uri).aliases() == {}  # nothing is rolled back to it
