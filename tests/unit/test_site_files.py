"""Reading a governance site from the store, as Airflow does: without the platform's own code."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from spira.store import Damaged, StoreReader, summary
from spira_tasks.artifacts import Store
from spira_tasks.artifacts.sealed import sealed
from spira_tasks.contract.run import StepRecord
from spira_tasks.contract.verdict import Status, Verdict
from spira_tasks.reports.site import point_to

RECORD = StepRecord("ingest", "ingest", "done", "2026-11-21T12:00:00+00:00", 1.0)


@pytest.fixture
def site(place: str, tmp_path: Path) -> StoreReader:
    """The site of one run, ``first``, in a folder and in a bucket."""
    folder = tmp_path / "site"
    (folder / "parts").mkdir(parents=True)
    (folder / "verdict.en.html").write_text("blocked")
    (folder / "parts" / "index.html").write_text("docs")
    store = Store(place)
    point_to(store, "first", store.put_directory(folder))
    store.runs.write("first", RECORD)
    return StoreReader(place, os.environ)


def test_every_file_of_the_newest_site_is_found(site: StoreReader) -> None:
    assert site.latest() == "first"
    names = site.names("first")
    assert names is not None
    assert sorted(names) == ["parts/index.html", "verdict.en.html"]
    assert site.content(names["verdict.en.html"]) == b"blocked"
    assert site.record("first", "ingest") == RECORD


def test_the_pack_is_the_zip_at_the_root_of_the_site(
    place: str, site: StoreReader, tmp_path: Path
) -> None:
    assert site.pack("first") == site.pack("second") == site.pack("../first") == ""
    folder = tmp_path / "with-a-pack"
    (folder / "parts").mkdir(parents=True)
    for name in ("parts/spira-report-x.zip", "other.zip", "spira-report-first.zip"):
        (folder / name).write_bytes(b"PK")
    store = Store(place)
    point_to(store, "first", store.put_directory(folder))
    assert site.pack("first") == "spira-report-first.zip"


@pytest.mark.parametrize("run_id", ["second", "", "..", "../first", ".first", "first/", "a\0", "/"])
def test_there_is_no_other_run(site: StoreReader, run_id: str) -> None:
    assert site.names(run_id) is None
    assert site.record(run_id, "ingest") is None
    assert site.record("first", f"../first/{run_id}") is None


def test_what_is_missing_is_not_handed_on(site: StoreReader) -> None:
    with pytest.raises(Damaged, match="missing"):
        site.content("0" * 64)


def test_what_is_damaged_is_not_handed_on(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    digest = store.blobs.put(b"what was signed")
    file = store.blobs.path(digest)
    file.chmod(0o644)
    file.write_text("what was forged")
    with pytest.raises(Damaged, match="does not have the content"):
        StoreReader(store.url, {}).content(digest.removeprefix("sha256:"))


PLACE = "runs/first/ingest.json"
WRONG_FIELDS: tuple[dict[str, object], ...] = (
    {"state": "odd"},
    {"seconds": "long"},
    {"outputs": ["sha256:0"]},
    {"metrics": {"auc": "high"}},
    {"config": 1},
    {"audit": {"number": 1}},
    {"verdicts": 5},
    {"verdicts": ["pass"]},
    {"verdicts": [{"id": "auc"}]},
    {"verdicts": [{"id": "auc", "status": "pass", "numbers": []}]},
)


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"5", b"[]", b'"text"', sealed(PLACE, {})]
    + [sealed(PLACE, asdict(RECORD) | wrong) for wrong in WRONG_FIELDS],
)
def test_a_file_that_is_no_record_is_damaged_for_the_pages_and_none_for_the_store(
    content: bytes, tmp_path: Path
) -> None:
    (tmp_path / PLACE).parent.mkdir(parents=True)
    (tmp_path / PLACE).write_bytes(content)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "latest.json").write_bytes(content[:2])
    reader, store = StoreReader(str(tmp_path), {}), Store(str(tmp_path))
    with pytest.raises(Damaged, match=r"ingest\.json is no record of a step"):
        reader.record("first", "ingest")
    with pytest.raises(Damaged, match=r"latest\.json is no JSON object"):
        reader.latest()
    assert store.runs.step("first", "ingest") is None
    assert (tmp_path / "corrupt" / PLACE).read_bytes() == content


@pytest.mark.parametrize(
    ("verdicts", "verdict"),
    [(["pass", "warn", "block"], "block"), (["pass", "warn"], "warn"), (["pass"], "pass")],
)
def test_the_verdict_of_a_gate_is_its_worst(verdicts: list[Status], verdict: str) -> None:
    some = tuple(Verdict(f"check_{status}", status) for status in verdicts)
    found = summary(replace(RECORD, verdicts=some))
    assert found["verdict"] == verdict
    assert found["n_blocked"] + found["n_warnings"] + found["n_passed"] == len(verdicts)


def test_a_step_that_judges_nothing_has_no_verdict() -> None:
    assert summary(RECORD) == summary(replace(RECORD, state="failed")) == {}
