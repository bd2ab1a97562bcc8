"""The whole pipeline on a small cohort, in this process: no fakes."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Run, linked_copy
from small_run import COHORT, SETTINGS
from stores import remembered

from expectations import requirements
from spira_tasks import package, show
from spira_tasks.artifacts import Store
from spira_tasks.cohort import write_cohort
from spira_tasks.contract.pipelines import TRAINING
from spira_tasks.contract.step import Step
from spira_tasks.errors import ArtifactCorrupt, ConfigError, GateRejected
from spira_tasks.governance import audit
from spira_tasks.runner import run_step
from spira_tasks.speech.features import FeatureExtractor, FeatureSpec
from spira_tasks.stages.register import SERVABLE
from spira_tasks.tracking import MODEL, Tracker

NAMES = [step.name for step in TRAINING]


def run(
    store: Store, run_id: str, cohort: Path, until: str = "promote", **settings: object
) -> dict[str, bool]:
    """Run the steps up to ``until``; return which of them were found."""
    changed = {name.replace("__", "."): value for name, value in settings.items()}
    found = {}
    for step in TRAINING.configure(data=str(cohort), settings={**SETTINGS, **changed}):
        try:
            run_step(step, run_id, store)
        except GateRejected:
            assert step.name == "promote"
        record = store.runs.step(run_id, step.name)
        assert record is not None
        found[step.name] = record.found
        if step.name == until:
            break
    return found


def test_every_recording_ends_somewhere(finished: Run) -> None:
    metrics = finished.results["ingest"].metrics
    assert metrics["n_rows"] == 72
    assert metrics["n_recordings"] + metrics["n_quarantined"] + metrics["n_excluded"] == 72
    assert metrics["n_quarantined"] == 5
    assert metrics["n_subjects"] == 24


def test_features_are_materialized_once_per_recording_as_version_1_made_them(finished: Run) -> None:
    result = finished.results["materialize"]
    directory = finished.store.directory(result.outputs["features"])
    features = pd.read_parquet(directory.path("features.parquet"))
    spec = FeatureSpec.from_json(directory.path("features.json").read_text())
    assert len(features) == result.metrics["n_recordings"]
    row = features.iloc[0]
    matrix = np.load(io.BytesIO(finished.store.blobs.read(row["features"])))
    assert matrix.shape == (row["n_windows"], 401, 40)
    assert matrix.dtype == np.float32
    assert spec == FeatureSpec() == FeatureExtractor(spec).spec


def test_training_changes_the_weights_and_the_loss_falls(finished: Run) -> None:
    metrics = finished.results["train"].metrics
    assert metrics["n_parameters"] == 691_613
    assert metrics["n_train"] > 0
    assert metrics["n_validation"] > 0
    assert metrics["val_loss"] < 0.75


def test_evaluation_measures_every_condition_with_intervals(finished: Run) -> None:
    metrics = finished.results["evaluate"].metrics
    for condition in ("", "_noise_all", "_noise_controls", "_noise_patients"):
        for name in ("auc", "accuracy", "f1", "sensitivity", "specificity"):
            low, value, high = (metrics[f"{name}{condition}{end}"] for end in ("_low", "", "_high"))
            assert 0 <= value <= 1
            assert 0 <= low <= high <= 1
    directory = finished.store.directory(finished.results["evaluate"].outputs["report"])
    assert {"roc.png", "calibration.png", "confusion.png", "ward_noise.png"} <= set(directory.names)
    assert json.loads(directory.path("evaluation.json").read_text())["synthetic"] is True


def test_an_explained_recording_is_shown_without_a_name(finished: Run) -> None:
    directory = finished.store.directory(finished.results["evaluate"].outputs["report"])
    assert "explanations.png" in directory.names
    cells = pd.read_parquet(directory.path("explanations.parquet"))
    found = json.loads(directory.path("evaluation.json").read_text())["explanations"]
    assert cells["number"].nunique() == len(found["recordings"]) == 1
    assert not [name for name in cells if name.startswith(("record", "subject", "session"))]
    predictions = pd.read_parquet(directory.path("predictions.parquet"))
    ids = {*predictions["record_id"], *predictions["subject_id"]}
    assert not [one for one in ids if one in json.dumps(found)]


def test_test_subjects_are_nobody_who_was_trained_on(finished: Run) -> None:
    recordings = finished.store.directory(finished.results["split"].outputs["recordings"])
    table = pd.read_parquet(recordings.path("recordings.parquet"))
    assert table.groupby("subject_id")["split"].nunique().max() == 1
    assert set(table["split"]) == {"train", "validation", "test"}


def test_a_refused_model_is_registered_as_challenger_with_the_reason(finished: Run) -> None:
    tracker = Tracker(finished.store.tracking_uri)
    description = show.describe(finished.run_id, finished.store)
    assert "promote" in finished.refusal
    assert description["outcome"] == "blocked"
    assert description["model"] == {"name": "spira", "version": "1", "aliases": ["challenger"]}
    classifier = finished.results["evaluate"].outputs["classifier"]
    version = tracker.find_version(classifier)
    assert version is not None
    assert version.tags["spira.outcome"] == "blocked"
    assert "enough_test_subjects" in version.tags["spira.blocked_by"]
    assert tracker.champion() is None


def test_a_model_over_a_requirement_is_refused_also_when_it_is_registered_already(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = linked_copy(finished.store, tmp_path / "store")
    tracker = Tracker(store.tracking_uri)
    (version,) = tracker.versions()
    assert version.tags[SERVABLE] == "true"
    tracker.client.delete_model_version_tag(MODEL, version.version, SERVABLE)  # as if it failed
    tight = tmp_path / "requirements.yaml"
    tight.write_text(requirements.FILE.read_text().replace("limit: 64\n", "limit: 0.001\n"))
    monkeypatch.setattr(requirements, "FILE", tight)
    steps = TRAINING.configure(data=str(finished.cohort), settings=SETTINGS)
    (register,) = (step for step in steps if step.name == "register")
    with pytest.raises(GateRejected, match="too large to be served"):
        run_step(register, finished.run_id, store)
    assert SERVABLE not in tracker.versions()[0].tags
    record = store.runs.step(finished.run_id, "register")
    assert record is not None
    found = {one.id: one.status for one in record.verdicts}
    assert found == {
        "serving_parity": "pass",
        "serving_latency": "pass",
        "serving_memory": "pass",
        "serving_size": "block",
    }


def test_the_registered_model_says_what_the_evaluation_said(finished: Run, tmp_path: Path) -> None:
    report = finished.store.directory(finished.results["evaluate"].outputs["report"])
    predictions = pd.read_parquet(report.path("predictions.parquet"))
    recordings = finished.store.directory(finished.results["split"].outputs["recordings"])
    table = pd.read_parquet(recordings.path("recordings.parquet"))
    tracker = Tracker(finished.store.tracking_uri)
    model = package.load(tracker.versions()[0], tracker, finished.store, tmp_path)
    for row in predictions.merge(table[["record_id", "waveform"]], on="record_id").itertuples():
        answer = package.score(model, finished.store.blobs.read(row.waveform))
        assert answer["probability"].iloc[0] == pytest.approx(row.clean, abs=1e-5)
    metrics = finished.results["evaluate"].metrics
    assert answer["operating_point"].iloc[0] == metrics["operating_point"]


def test_the_report_in_mlflow_has_the_names_by_which_it_shows_pictures(finished: Run) -> None:
    logged = (Path(finished.store.url) / "mlflow" / "artifacts").glob("*/artifacts/report/*")
    assert {"roc.png", "evaluation.json"} <= {path.name for path in logged}


def test_the_model_in_the_registry_holds_no_pickle(finished: Run) -> None:
    artifacts = Path(finished.store.url) / "mlflow" / "artifacts"
    names = {path.name for path in artifacts.rglob("*") if path.is_file()}
    assert "weights.safetensors" in names
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".pt", ".pth"))]


def test_the_live_run_ends_up_with_epochs_parameters_and_test_metrics(finished: Run) -> None:
    tracker = Tracker(finished.store.tracking_uri)
    model = finished.results["train"].outputs["model"]
    run = tracker.client.get_run(tracker.run_of(model, name="not made"))
    assert run.info.run_name == "first/train"
    assert run.info.status == "FINISHED"
    assert run.data.tags["spira.outcome"] == "blocked"
    assert run.data.params["epochs"] == "2"
    assert run.data.metrics["test_auc"] == finished.results["evaluate"].metrics["auc"]
    epochs = tracker.client.get_metric_history(run.info.run_id, "val_loss")
    assert sorted({point.step for point in epochs}) == [1, 2]


def test_every_store_has_a_registry_of_its_own(finished: Run, tmp_path: Path) -> None:
    """MLflow leaves its address in the environment, where the next store would find it."""
    tracker = Tracker(finished.store.tracking_uri)
    tracker.download(tracker.versions()[0], tmp_path / "files")
    other = Store(str(tmp_path / "other"))
    assert other.tracking_uri == f"sqlite:///{tmp_path}/other/mlflow/mlflow.db"
    assert Tracker(other.tracking_uri).champion() is None


def test_a_second_run_computes_nothing(finished: Run) -> None:
    assert run(finished.store, "second", finished.cohort) == dict.fromkeys(NAMES, True)
    first, second = (show.describe(name, finished.store) for name in ("first", "second"))
    assert [step["outputs"] for step in first["steps"]] == [
        step["outputs"] for step in second["steps"]
    ]
    assert [step["key"] for step in first["steps"]] == [step["key"] for step in second["steps"]]


@pytest.fixture(scope="module")
def changed(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A copy for runs that compute something: another version of the model is not for all tests."""
    return linked_copy(finished.store, tmp_path_factory.mktemp("changed") / "store")


def test_other_epochs_are_computed_from_training_on(finished: Run, changed: Store) -> None:
    found = run(changed, "longer", finished.cohort, train__epochs=3)
    assert all(found[name] for name in NAMES[: NAMES.index("train")])
    assert not found["train"]
    assert not found["evaluate"]


def test_another_seed_gives_other_weights(finished: Run, changed: Store) -> None:
    run(changed, "reseeded", finished.cohort, until="train", train__seed=7)
    record = changed.runs.step("reseeded", "train")
    assert record is not None
    assert record.outputs != finished.results["train"].outputs


@pytest.mark.slow
def test_one_more_subject_materializes_that_subject_only(
    finished: Run, changed: Store, tmp_path: Path
) -> None:
    folder = tmp_path / "c"
    more = {**COHORT, "subjects": COHORT["subjects"] + 2}
    write_cohort(folder, **more, faults=["truncated", "zero_len"])  # type: ignore[arg-type]
    before = remembered(changed)
    found = run(changed, "grown", folder, until="materialize")
    assert not any(found.values())
    record = changed.runs.step("grown", "materialize")
    assert record is not None
    n_sentences = record.metrics["n_recordings"]
    n_new = n_sentences - finished.results["materialize"].metrics["n_recordings"]
    assert 1 <= n_new <= 2
    n_recordings = 2 * 3  # of two people
    assert len(remembered(changed) - before) == n_recordings + n_new


@pytest.mark.slow
def test_a_bucket_holds_the_same_digests_as_a_folder(
    finished: Run, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    store = Store(bucket)
    assert not any(run(store, "r", finished.cohort, until="evaluate").values())
    for name in NAMES[: NAMES.index("register")]:
        record = store.runs.step("r", name)
        assert record is not None
        assert record.key == finished.results[name].key
        assert record.outputs == finished.results[name].outputs


@pytest.mark.slow
def test_the_published_dataset_runs_through_the_same_pipeline(cohort: Path, tmp_path: Path) -> None:
    """Its split is kept; ``noise_data.csv`` has no header, and loses no row to that."""
    folder = tmp_path / "published"
    (folder / "audio").mkdir(parents=True)
    rows = pd.read_csv(cohort / "recordings.csv", dtype=str)
    rows = rows[(rows["task"] == "SENTENCE")].sort_values("ri_clinical").reset_index(drop=True)
    names = np.array(["train", "train", "eval", "test"])[np.arange(len(rows)) % 4]
    for name in ("train", "eval", "test"):
        lines = ["file_path,class,sexo,idade"]
        for row in rows[names == name].itertuples():
            source = cohort / row.audio_uri
            if source.stat().st_size > 100:  # not the damaged ones
                (folder / "audio" / source.name).write_bytes(source.read_bytes())
                lines.append(f"audio/{source.name},{row.ri_clinical},{row.sex},{row.age}")
        (folder / f"metadata_{name}.csv").write_text("\n".join(lines) + "\n")
    noises = sorted((cohort / "ward_noise").glob("*"))[:6]
    for noise in noises:
        (folder / noise.name).write_bytes(noise.read_bytes())
    (folder / "noise_data.csv").write_text("".join(f"{noise.name}\n" for noise in noises))

    store = Store(str(tmp_path / "store"))
    found = run(store, "r", folder)
    assert list(found) == NAMES
    ingest, split = (store.runs.step("r", name) for name in ("ingest", "split"))
    assert ingest is not None
    assert split is not None
    assert ingest.metrics["n_ward_noises"] == 6
    given = {name: split.metrics[f"n_subjects_{name}"] for name in ("train", "validation", "test")}
    assert given["train"] >= 10
    assert min(given.values()) >= 4


@pytest.mark.slow
def test_a_gate_that_refuses_is_found_again_and_lets_nobody_past(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    write_cohort(folder, subjects=2, seed=1)
    store = Store(str(tmp_path / "store"))
    steps = {step.name: step for step in TRAINING.configure(data=str(folder))}
    for name in ("ingest", "check_recordings", "split"):
        run_step(steps[name], "r", store)
    for _ in range(2):
        with pytest.raises(GateRejected, match="'check_training_set' blocks the run"):
            run_step(steps["check_training_set"], "r", store)
    record = store.runs.step("r", "check_training_set")
    assert record is not None
    assert record.state == "blocked"
    assert record.found is True
    with pytest.raises(GateRejected, match="'check_training_set' blocked run 'r'"):
        run_step(steps["materialize"], "r", store)
    assert show.describe("r", store)["outcome"] == "blocked"


def test_a_step_whose_input_is_not_there_says_what_to_run(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with pytest.raises(ConfigError, match="'ingest' has not finished in run 'r'; run it first"):
        run_step(TRAINING.step("check_recordings"), "r", store)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (Step("x", "nothing"), "there is no stage 'nothing'"),
        (Step("x", "split", {"recordings": "sha256:0"}, {"salty": 1}), "salty: Extra inputs"),
        (Step("x", "train", config={"epochs": "5"}), "epochs: Input should be a valid integer"),
        (Step("x", "split"), r"takes the inputs \['recordings'\], not \[\]"),
    ],
)
def test_a_wrong_step_is_refused_with_what_is_wrong(
    step: Step, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        run_step(step, "r", Store(str(tmp_path)))


@pytest.mark.slow
def test_what_was_damaged_is_never_used_and_is_made_again(finished: Run, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    run(store, "r", finished.cohort, until="check_features")
    record = store.runs.step("r", "materialize")
    assert record is not None
    features = store.directory(record.outputs["features"])
    split = store.runs.step("r", "split")
    assert split is not None
    recordings = store.directory(split.outputs["recordings"]).path("recordings.parquet")
    table = pd.read_parquet(features.path("features.parquet")).merge(
        pd.read_parquet(recordings, columns=["record_id", "split"]), on="record_id"
    )
    digest = table[table["split"] == "test"]["features"].iloc[0]
    assert store.blobs.read(digest)
    pack, offset, size = store.blobs._places[digest]
    blob = store.blobs.path(pack)
    blob.chmod(0o644)
    content = bytearray(blob.read_bytes())
    content[offset + size - 1] ^= 1
    blob.write_bytes(content)
    with pytest.raises(ArtifactCorrupt):
        run(store, "r", finished.cohort)
    assert run(store, "r", finished.cohort)["materialize"] is False
    assert store.blobs.read(digest)


def test_the_description_of_a_run_is_what_its_documentation_promises(finished: Run) -> None:
    description = json.loads(json.dumps(show.describe(finished.run_id, finished.store)))
    assert list(description) == ["run_id", "data", "outcome", "steps", "model"]
    assert description["run_id"] == "first"
    assert description["data"] == str(finished.cohort)
    assert [step["name"] for step in description["steps"]] == NAMES
    for step in description["steps"]:
        assert set(step) == {
            *("name", "stage", "key", "found", "seconds", "n_shards", "outputs", "metrics"),
            "verdicts",
        }
        for verdict in step["verdicts"]:
            assert set(verdict) == {
                *("name", "verdict", "statistic", "low", "high", "threshold", "n", "reason"),
                *("severity", "suite", "waiver"),
            }
            assert verdict["verdict"] in {"pass", "warn", "block", "insufficient"}


def test_reports_are_copied_where_people_look(finished: Run, tmp_path: Path) -> None:
    files = show.export_reports(finished.run_id, finished.store, tmp_path)
    assert tmp_path / "first" / "evaluate" / "roc.png" in files
    assert tmp_path / "first" / "promote" / "decision.json" in files
    assert not [file for file in files if file.suffix == ".parquet"]  # a row for every recording
    assert [*audit.events(finished.store)][-1].action == "report"


def test_a_result_remembers_what_made_it(finished: Run) -> None:
    for result in finished.results.values():
        assert set(result.provenance) == {
            *("at", "code", "packages", "lock", "git", "image", "python", "host", "mlflow_run")
        }
        assert result.seconds >= 0
