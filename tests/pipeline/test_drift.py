"""New people beside those of the champion's training set: real drift is reported, chance is not."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from in_use import put_into_use
from suites import Table, recordings, split

from expectations.suites import drift as drift_suite
from spira_tasks import drift_rows, quality
from spira_tasks.artifacts import Store
from spira_tasks.contract.record import Result
from spira_tasks.contract.step import Step
from spira_tasks.contract.verdict import Number
from spira_tasks.runner import run_step
from spira_tasks.speech.classifier import Classifier, ClassifierSpec
from spira_tasks.speech.features import FeatureSpec
from spira_tasks.tracking import Tracker

N_PEOPLE = 120
SPEC = FeatureSpec(n_mels=8, n_mfcc=8)
GIVEN = ["features"]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty one: MLflow takes seconds to make its database."""
    store = Store(str(tmp_path_factory.mktemp("registry")))
    assert Tracker(store.tracking_uri).champion() is None
    return store.folder / "mlflow"


@pytest.fixture
def store(registry: Path, tmp_path: Path) -> Store:
    shutil.copytree(registry, tmp_path / "store" / "mlflow")
    return Store(str(tmp_path / "store"))


def others(n_people: int = N_PEOPLE, seed: int = 1) -> Table:
    """People whom nobody has met, like those of ``suites.recordings``."""
    rng = np.random.default_rng(seed)
    table = split(recordings(2 * N_PEOPLE)).drop(columns="erased")
    people = rng.choice(N_PEOPLE, n_people, replace=n_people > N_PEOPLE)
    picked = table.iloc[np.stack([2 * people, 2 * people + 1], axis=1).ravel()]
    number = np.arange(n_people).repeat(2)
    return picked.reset_index(drop=True).assign(
        record_id=[f"n{seed}-{row}" for row in range(2 * n_people)],
        subject_id=[f"{seed:04x}{one:060x}" for one in number],
    )


def put(store: Store, folder: Path, table: Table, name: str = "recordings") -> str:
    folder.mkdir(parents=True)
    table.to_parquet(folder / f"{name}.parquet", index=False)
    return store.put_directory(folder)


def promoted(
    store: Store, recordings_digest: str, folder: Path, classifier: str = "", report: str = ""
) -> None:
    """Make a champion of which nothing matters but its training set, and how it answers."""
    tracker = Tracker(store.tracking_uri)
    run_id = tracker.run_of("sha256:" + "1" * 64, "model")
    tracker.describe(
        run_id,
        params={},
        metrics={},
        tags={"spira.recordings": recordings_digest, "spira.output.report": report},
        history=[],
        files=[],
    )
    tracker.client.create_registered_model("spira")
    made = tracker.client.create_model_version(
        "spira", folder.as_uri(), run_id, {"spira.classifier": classifier}
    )
    put_into_use(tracker, made.version)


def compare(
    store: Store, table: Table, folder: Path, run_id: str = "r", spec: FeatureSpec = SPEC
) -> Result:
    features = table[table["task"] == "SENTENCE"][["record_id", *table.columns.intersection(GIVEN)]]
    made = folder / "features"
    made.mkdir(parents=True)
    (made / "features.json").write_text(spec.to_json())
    features.to_parquet(made / "features.parquet", index=False)
    inputs = {
        "recordings": put(store, folder / "recordings", table.drop(columns=GIVEN, errors="ignore")),
        "features": store.put_directory(made),
    }
    return run_step(Step("check_drift", "drift", inputs), run_id, store)


def reported(result: Result) -> dict[str, str]:
    return {
        v.id: ", ".join(v.names.get("state", ())) for v in result.verdicts if v.status == "warn"
    }


def content(store: Store, result: Result) -> dict[str, Any]:
    return dict(json.loads(store.directory(result.outputs["report"]).read("drift.json")))


@pytest.fixture
def champion(store: Store, tmp_path: Path) -> Table:
    table = split(recordings(2 * N_PEOPLE)).drop(columns="erased")
    promoted(store, put(store, tmp_path / "reference", table), tmp_path)
    return table


def test_without_a_champion_there_is_nothing_to_compare_with(store: Store, tmp_path: Path) -> None:
    result = compare(store, others(), tmp_path / "new")
    (verdict,) = result.verdicts
    assert (verdict.status, verdict.names["state"]) == ("pass", ("no champion",))
    assert result.outputs["recordings"] == put(store, tmp_path / "again", others())
    table = store.directory(result.outputs["report"]).path("drift.parquet")
    assert len(pd.read_parquet(table)) == 0


def test_the_same_people_again_are_no_drift(store: Store, champion: Table, tmp_path: Path) -> None:
    result = compare(store, champion, tmp_path / "same")
    assert content(store, result)["state"] == "few"
    assert reported(result) == {}


def test_more_people_of_the_same_kind_are_no_drift(
    store: Store, champion: Table, tmp_path: Path
) -> None:
    result = compare(store, pd.concat([champion, others()]), tmp_path / "more")
    assert content(store, result)["state"] == "compared"
    assert result.metrics["n_new_people"] == N_PEOPLE
    assert result.metrics["n_compared"] > 15
    assert reported(result) == {}


def test_older_people_from_a_new_site_are_reported_and_block_nothing(
    store: Store, champion: Table, tmp_path: Path
) -> None:
    new = others()
    new["age"] = new["age"] + 20
    new.loc[: N_PEOPLE - 1, "hospital_id"] = "Planted-Site"
    result = compare(store, pd.concat([champion, new]), tmp_path / "new")
    assert set(reported(result)) == {
        "expect_feature_to_be_as_before(age)",
        "expect_feature_to_be_as_before(hospital_id)",
        "expect_no_new_categories(hospital_id)",
    }
    assert result.stopping == ()
    left = json.dumps(content(store, result)) + store.runs.read("r").steps["check_drift"].to_json()
    assert "Planted" not in left
    (age,) = [row for row in content(store, result)["features"] if row["feature"] == "age"]
    assert age["significant"] is True
    assert age["effect"] > 0.2


def test_few_new_people_tell_nothing(store: Store, champion: Table, tmp_path: Path) -> None:
    new = others(20).assign(device_model="Other")
    new["age"] = new["age"] + 20
    result = compare(store, pd.concat([champion, new]), tmp_path / "few")
    assert reported(result) == {}
    assert result.metrics["n_compared"] == 0
    assert result.verdicts[0].status == "insufficient"
    assert result.verdicts[0].observed == Number(20, "people")


def test_a_missing_reference_is_reported(store: Store, champion: Table, tmp_path: Path) -> None:
    for tree in (Path(store.url) / "trees").glob("*.json"):
        tree.unlink()
    result = compare(store, others(), tmp_path / "new")
    assert reported(result) == {"drift_reference": "no reference"}


def test_the_second_time_nothing_is_compared_and_the_bytes_are_the_same(
    store: Store, champion: Table, tmp_path: Path
) -> None:
    one = compare(store, others(), tmp_path / "one", "first")
    other = compare(store, others(), tmp_path / "other", "second")
    assert one.outputs == other.outputs
    found = [store.runs.read(run).steps["check_drift"].found for run in ("first", "second")]
    assert found == [False, True]


def rows(new: Table, old: Table) -> list[dict[str, Any]]:
    numbers = [drift_rows.number_row(new, old, name, 30) for name in ("age", "snr_db")]
    drift_rows.discover(numbers, 0.05)
    kinds = ("sex", "hospital_id", "device_model")
    return numbers + [
        drift_rows.category_row(new, old, name, 30, n_resamples=200, seed=0) for name in kinds
    ]


@pytest.mark.parametrize("n_people", [30, 100])
def test_chance_seldom_looks_like_drift(n_people: int) -> None:
    """A fixed threshold of 0.1 for the index would alarm in most of these samples."""
    rng = np.random.default_rng(n_people)
    alarms = looks = beyond_fixed = 0
    for _ in range(20):
        tables = []
        for n in (n_people, 300):
            tables.append(
                pd.DataFrame(
                    {
                        "subject_id": [f"s{number}" for number in range(n)],
                        "age": rng.normal(50, 15, n),
                        "snr_db": rng.normal(20, 5, n),
                        "sex": rng.choice(["F", "M"], n),
                        "hospital_id": rng.choice([*"abcdefgh"], n),
                        "device_model": rng.choice([*"abcdefghij"], n),
                    }
                )
            )
        table = pd.DataFrame(rows(*tables))
        report = quality.check(table, drift_suite.suite(table))
        alarms += sum(v.status == "warn" for v in report.verdicts)
        beyond_fixed += int((table["effect"][2:] > 0.1).sum())
        looks += 5
    assert alarms <= 5, f"{alarms} of {looks}"
    if n_people == 30:
        assert beyond_fixed > 20


def test_a_small_quarter_is_suppressed() -> None:
    assert drift_rows.quarters(np.array([20, 30, 40, 10])) == "20,30,40,10"
    assert drift_rows.quarters(np.array([40, 40, 16, 4])) == ""
    assert drift_rows.quarters(np.array([50, 50, 0, 0])) == ""


def with_features(store: Store, table: Table, shift: float, seed: int) -> Table:
    """Every recording with one window of noise; the third bin of 8 is ``shift`` away from 1."""
    rng = np.random.default_rng(seed)
    digests = []
    for _ in range(len(table)):
        matrix = rng.normal(1, 1, (1, SPEC.n_frames, SPEC.n_bins)).astype(np.float32)
        matrix[..., 2] += shift
        content = io.BytesIO()
        np.save(content, matrix, allow_pickle=False)
        digests.append(store.blobs.put(content.getvalue()))
    return table.assign(features=digests)


@pytest.fixture
def answering_champion(store: Store, tmp_path: Path) -> Table:
    """A champion with a network that knows its features, and that called half of 60 positive."""
    torch.manual_seed(1)
    classifier = Classifier(ClassifierSpec(features=SPEC, options={"n_hidden": 4, "dropout": 0.1}))
    table = split(recordings(2 * N_PEOPLE)).drop(columns="erased")
    known = with_features(store, table.head(40), shift=0, seed=1)["features"]
    matrices = [torch.from_numpy(np.load(io.BytesIO(store.blobs.read(d)))) for d in known]
    classifier.standardize.fit(matrices)
    scores = sorted(classifier.score(matrix) for matrix in matrices)
    folder = tmp_path / "classifier"
    folder.mkdir()
    classifier.with_operating_point(float(np.median(scores))).save(folder)
    answers = pd.DataFrame(
        {
            "subject_id": [f"t{number}" for number in range(60)],
            "split": "test",
            "clean": [0.0, 1.0] * 30,
        }
    )
    promoted(
        store,
        put(store, tmp_path / "reference", table),
        tmp_path,
        store.put_directory(folder),
        put(store, tmp_path / "report", answers, "predictions"),
    )
    return table


def test_new_people_whom_the_champion_hears_and_answers_as_before_are_no_drift(
    store: Store, answering_champion: Table, tmp_path: Path
) -> None:
    result = compare(store, with_features(store, others(), shift=0, seed=2), tmp_path / "new")
    found = {row["feature"]: row for row in content(store, result)["features"]}
    assert found["coefficients"]["effect"] < 1
    assert found["positive_rate"]["effect"] < 3
    assert not {"expect_coefficients_to_be_as_before(coefficients)"} & set(reported(result))


def test_features_unlike_the_champions_are_reported_with_its_answers(
    store: Store, answering_champion: Table, tmp_path: Path
) -> None:
    result = compare(store, with_features(store, others(), shift=40, seed=2), tmp_path / "new")
    found = {row["feature"]: row for row in content(store, result)["features"]}
    assert found["coefficients"]["effect"] == pytest.approx(40, rel=0.1)
    assert set(reported(result)) == {
        "expect_coefficients_to_be_as_before(coefficients)",
        "expect_positive_rate_to_be_as_before(positive_rate)",
    }
    assert result.stopping == ()


def test_a_champion_that_takes_other_features_is_not_asked(
    store: Store, answering_champion: Table, tmp_path: Path
) -> None:
    table = with_features(store, others(), shift=40, seed=2)
    other = dataclasses.replace(SPEC, hop_length=200)
    result = compare(store, table, tmp_path / "new", spec=other)
    assert {row["kind"] for row in content(store, result)["features"]} == {"number", "category"}
