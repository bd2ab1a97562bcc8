"""From a model to every recording, and from a recording to every model it is in."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from conftest import Run
from folders import AS_OF, Cohort

from spira_tasks.artifacts import Store
from spira_tasks.cli import main
from spira_tasks.contract.step import Step
from spira_tasks.errors import ConfigError
from spira_tasks.governance import decisions, quarantine
from spira_tasks.governance.trace import Lineage, draw
from spira_tasks.runner import run_step


@pytest.fixture(scope="module")
def lineage(finished: Run) -> Lineage:
    return Lineage(finished.store)


@pytest.fixture(scope="module")
def table(finished: Run) -> pd.DataFrame:
    """The training set, as the split left it."""
    directory = finished.store.directory(finished.results["split"].outputs["recordings"])
    return pd.read_parquet(directory.path("recordings.parquet"))


def roles(trace: object) -> dict[str, str]:
    return {one["record_id"]: one["role"] for one in trace.recordings}  # type: ignore[attr-defined]


def test_a_model_leads_to_every_step_and_every_recording(
    lineage: Lineage, table: pd.DataFrame, finished: Run
) -> None:
    found = lineage.trace("spira/1")
    assert {node.step for node in found.nodes} == set(finished.results) | {"promote"}
    spoken = table[table["task"] == "SENTENCE"].set_index("record_id")["split"]
    reported = roles(found)
    words = {"train": "trained on", "validation": "validated on", "test": "tested on"}
    assert {record: reported[record] for record in spoken.index} == spoken.map(words).to_dict()
    assert set(reported.values()) == {
        "trained on",
        "validated on",
        "tested on",
        "taken in",
        "refused",
    }
    (model,) = found.models
    assert (model["version"], model["outcome"]) == ("1", "blocked")
    assert "first" in model["runs"]  # and runs of other tests that found the same model
    assert {decision["outcome"] for decision in found.decisions} == {"blocked"}
    assert {event["action"] for event in found.events} >= {"ingest", "gate", "promotion"}
    node = next(node for node in found.nodes if node.step == "train")
    assert node.config["epochs"] == 2
    assert node.provenance["code"]


def test_a_recording_leads_to_the_models_it_was_used_for(
    lineage: Lineage, table: pd.DataFrame
) -> None:
    chosen = table[(table["split"] == "test") & (table["task"] == "SENTENCE")].iloc[0]
    found = lineage.trace(chosen["record_id"])
    assert [model["version"] for model in found.models] == ["1"]
    assert roles(found) == {chosen["record_id"]: "tested on"}
    assert lineage.trace(chosen["waveform"]).recordings == found.recordings


def test_a_subject_leads_to_all_recordings_of_the_subject_and_no_other(
    lineage: Lineage, table: pd.DataFrame
) -> None:
    subject = table.loc[table["split"] == "train", "subject_id"].iloc[0]
    found = lineage.trace(subject)
    assert set(roles(found)) == set(table.loc[table["subject_id"] == subject, "record_id"])
    assert "trained on" in roles(found).values()


def test_an_artifact_leads_up_and_down_and_not_sideways(lineage: Lineage, finished: Run) -> None:
    found = lineage.trace(finished.results["materialize"].outputs["features"])
    steps = {node.step for node in found.nodes}
    assert {"ingest", "split", "materialize", "train", "promote"} <= steps
    model = lineage.trace(finished.results["train"].outputs["model"])
    readers = {reader[1] for maker, reader, what in model.edges if what == "model"}
    assert readers == {"evaluate", "register"}


def test_what_is_not_known_is_said(lineage: Lineage) -> None:
    with pytest.raises(ConfigError, match="has no model 'spira/7'; known are: spira/1"):
        lineage.trace("spira/7")
    with pytest.raises(ConfigError, match="is no run, artifact, model, subject or recording"):
        lineage.trace("nobody")
    with pytest.raises(ConfigError, match=r"nothing in .* has the digest"):
        lineage.trace(f"sha256:{'0' * 64}")


def test_the_picture_is_whole_and_holds_no_pseudonym(lineage: Lineage, table: pd.DataFrame) -> None:
    picture = draw(lineage.trace("first"))
    root = ElementTree.fromstring(picture)
    words = " ".join(root.itertext())
    assert all(step in words for step in ("ingest", "check_features", "promote"))
    assert not [one for one in [*table["subject_id"], *table["record_id"]] if one in picture]


def test_the_command_prints_text_json_and_a_picture(
    finished: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--store", finished.store.url]
    picture = tmp_path / "pictures" / "model.svg"
    assert main(["trace", "spira/1", *where, "--picture", str(picture)]) == 0
    out = capsys.readouterr().out
    assert "trained on" in out
    assert str(picture) in out
    assert picture.read_text().startswith("<svg")
    assert main(["trace", "spira/1", *where, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert {"kind", "nodes", "edges", "recordings", "models", "decisions"} <= set(content)
    assert main(["trace", "nobody", *where]) == 78


def test_looking_for_something_in_no_store_makes_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = tmp_path / "typed" / "wrong"
    for name in ("spira@champion", "nobody"):
        assert main(["trace", name, "--store", str(nowhere)]) == 78
        assert str(nowhere) in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_decisions_that_a_run_applied_are_shown_although_they_were_withdrawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort = Cohort(tmp_path / "data")
    cohort.rows[0] |= {"record_id": "recording-one", "spo2": 300}
    limit = {"as_of": AS_OF, "max_quarantine_fraction": 1.0, "max_site_quarantine_fraction": 1.0}
    step = Step("ingest", "ingest", {"data": cohort.write()}, limit)
    store = Store(str(tmp_path / "store"))
    run_step(step, "before", store)
    quarantine.release(store, "recording-one", None, "heard it twice: the sentence is whole")
    run_step(step, "applying", store)
    quarantine.withdraw(store, "recording-one", None, "it was another recording")
    run_step(step, "after", store)
    quarantine.release(store, "recording-one", None, "said for the second time, by another")
    (release,) = decisions.known(store, "releases")

    def reported(run_id: str) -> list[dict[str, object]]:
        assert main(["trace", run_id, "--json", "--store", store.url]) == 0
        found = json.loads(capsys.readouterr().out)
        (node,) = found["nodes"]
        assert node["decisions"] == {
            "releases": [release.id] if run_id == "applying" else [],
            "erasures": [],
        }
        return list(found["by_persons"])

    assert reported("before") == reported("after") == []
    (one,) = reported("applying")
    assert (one["action"], one["about"]) == ("release", {"reason": "impossible_value"})
    assert one["why"] == "heard it twice: the sentence is whole"
    assert one["by"] == release.by
    assert "it was another recording" in str(one["withdrawn"])
    assert one["steps"] == ["applying/ingest"]

    picture = tmp_path / "run.svg"
    assert main(["trace", "applying", "--picture", str(picture), "--store", store.url]) == 0
    text = " ".join(capsys.readouterr().out.split())
    drawn = " ".join(ElementTree.fromstring(picture.read_text()).itertext())
    for words in (text, drawn):
        assert "heard it twice" in words
        assert "impossible_value" in words
        assert "withdrawn" in words
    assert "recording-one" not in drawn
