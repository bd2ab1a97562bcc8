"""New people beside those of the champion's training set: real drift is told, chance is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from suites import Table, recordings, split

from expectations import drift as drift_suite
from spira_tasks import quality
from spira_tasks.artifacts import Store
from spira_tasks.contract import Result, Step
from spira_tasks.runner import run_step, tracking_uri
from spira_tasks.stages import drift
from spira_tasks.tracking import Tracker

N_PEOPLE = 120


@pytest.fixture
def store(tmp_path: Path) -> Store:
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


def promoted(store: Store, recordings_digest: str, folder: Path) -> None:
    """Make a champion of which nothing but its training set matters."""
    tracker = Tracker(tracking_uri(store))
    run_id = tracker.run_of("sha256:" + "1" * 64, "model")
    tracker.describe(
        run_id,
        params={},
        metrics={},
        tags={"spira.recordings": recordings_digest},
        history=[],
        files=[],
    )
    tracker.client.create_registered_model("spira")
    made = tracker.client.create_model_version("spira", folder.as_uri(), run_id)
    tracker.promote(made.version)


def compare(store: Store, table: Table, folder: Path, run_id: str = "r") -> Result:
    features = table[table["task"] == "SENTENCE"][["record_id"]]
    inputs = {
        "recordings": put(store, folder / "recordings", table),
        "features": put(store, folder / "features", features, "features"),
    }
    return run_step(Step("check_drift", "drift", inputs), run_id, store)


def told(result: Result) -> dict[str, str]:
    return {
        verdict.name: verdict.reason for verdict in result.verdicts if verdict.verdict != "pass"
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
    assert (verdict.verdict, verdict.reason) == (
        "pass",
        "there is no champion yet: nothing to compare with",
    )
    assert result.outputs["recordings"] == put(store, tmp_path / "again", others())
    table = store.directory(result.outputs["report"]).path("drift.parquet")
    assert len(pd.read_parquet(table)) == 0


def test_the_same_people_again_are_no_drift(store: Store, champion: Table, tmp_path: Path) -> None:
    result = compare(store, champion, tmp_path / "same")
    assert content(store, result)["state"] == "few"
    assert told(result) == {}


def test_more_people_of_the_same_kind_are_no_drift(
    store: Store, champion: Table, tmp_path: Path
) -> None:
    result = compare(store, pd.concat([champion, others()]), tmp_path / "more")
    assert content(store, result)["state"] == "compared"
    assert result.metrics["n_new_people"] == N_PEOPLE
    assert result.metrics["n_compared"] > 15
    assert told(result) == {}


def test_older_people_from_a_new_site_are_told_and_block_nothing(
    store: Store, champion: Table, tmp_path: Path
) -> None:
    new = others()
    new["age"] = new["age"] + 20
    new.loc[: N_PEOPLE - 1, "hospital_id"] = "Planted-Site"
    result = compare(store, pd.concat([champion, new]), tmp_path / "new")
    assert set(told(result)) == {
        "expect_feature_to_be_as_before(age)",
        "expect_feature_to_be_as_before(hospital_id)",
        "expect_no_new_categories(hospital_id)",
    }
    assert result.blocking == ()
    left = json.dumps(content(store, result)) + json.dumps(store.read_record("r", "check_drift"))
    assert "Planted" not in left
    (age,) = [row for row in content(store, result)["features"] if row["feature"] == "age"]
    assert age["significant"] is True
    assert age["effect"] > 0.2


def test_few_new_people_tell_nothing(store: Store, champion: Table, tmp_path: Path) -> None:
    new = others(20).assign(device_model="Other")
    new["age"] = new["age"] + 20
    result = compare(store, pd.concat([champion, new]), tmp_path / "few")
    assert told(result) == {}
    assert result.metrics["n_compared"] == 0
    assert "20 people are not in" in result.verdicts[0].reason


def test_a_reference_that_is_gone_is_told(store: Store, champion: Table, tmp_path: Path) -> None:
    for tree in (Path(store.url) / "trees").glob("*.json"):
        tree.unlink()
    result = compare(store, others(), tmp_path / "new")
    assert "was erased" in told(result)["drift_reference"]


def test_the_second_time_nothing_is_compared_and_the_bytes_are_the_same(
    store: Store, champion: Table, tmp_path: Path
) -> None:
    one = compare(store, others(), tmp_path / "one", "first")
    other = compare(store, others(), tmp_path / "other", "second")
    assert one.outputs == other.outputs
    found = [(store.read_record(run, "check_drift") or {})["found"] for run in ("first", "second")]
    assert found == [False, True]


def rows(new: Table, old: Table) -> list[dict[str, Any]]:
    config = drift.Config(n_resamples=200)
    numbers = [drift.number_row(new, old, name, config) for name in ("age", "snr_db")]
    drift.discover(numbers, config.false_discovery_rate)
    kinds = ("sex", "hospital_id", "device_model")
    return numbers + [drift.category_row(new, old, name, config) for name in kinds]


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
        alarms += sum(v.verdict == "warn" for v in report.verdicts)
        beyond_fixed += int((table["effect"][2:] > 0.1).sum())
        looks += 5
    assert alarms <= 5, f"{alarms} of {looks}"
    if n_people == 30:
        assert beyond_fixed > 20


def test_a_rare_quarter_is_not_told() -> None:
    assert drift.told(np.array([20, 30, 40, 10])) == "20,30,40,10"
    assert drift.told(np.array([40, 40, 16, 4])) == ""
    assert drift.told(np.array([50, 50, 0, 0])) == ""
