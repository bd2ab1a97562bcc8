"""The gate of confounds, as the runner does it, on noise of which one class has more."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from expectations import policy
from expectations.words.verdicts import sentence
from spira_tasks.artifacts import Store
from spira_tasks.cli import main
from spira_tasks.contract.record import Result
from spira_tasks.contract.step import Step
from spira_tasks.errors import GateRejected
from spira_tasks.runner import run_step
from spira_tasks.speech.audio import encode_wav
from spira_tasks.stages import confounds

N = 40
WHY = "the controls of the ward come next month"


def recorded(store: Store, louder_db: float, tasks: tuple[str, ...]) -> pd.DataFrame:
    """Everybody with half a second of noise a task, that of patients louder."""
    rng = np.random.default_rng(7)
    rows = []
    for number in range(N):
        label = number % 2
        for task in tasks:
            level_db = 40 + 3 * rng.standard_normal() + louder_db * label
            noise = 10 ** (level_db / 20) * rng.standard_normal(8000)
            features = io.BytesIO()
            np.save(features, rng.standard_normal((1, 20, 6)).astype(np.float32))
            rows.append(
                {
                    "record_id": f"{number}-{task}",
                    "subject_id": f"{number:064x}",
                    "task": task,
                    "label": label,
                    "split": "test" if number % 5 < 2 else "train",
                    "sex": "FM"[number // 2 % 2],
                    "waveform": store.blobs.add(encode_wav(np.round(noise).astype(np.int16))),
                    "features": store.blobs.add(features.getvalue()),
                }
            )
    return pd.DataFrame(rows)


def check(
    store: Store,
    folder: Path,
    louder_db: float = 0.0,
    tasks: tuple[str, ...] = ("AMBIENT", "SENTENCE"),
    run_id: str = "r",
    ambient_of: tuple[int, ...] = (0, 1),
) -> Result:
    table = recorded(store, louder_db, tasks)
    table = table[table["task"].ne("AMBIENT") | table["label"].isin(ambient_of)]
    store.blobs.flush()
    features = table[table["task"] == "SENTENCE"][["record_id", "features"]]
    inputs = {}
    for name, frame in (("recordings", table.drop(columns="features")), ("features", features)):
        (folder / run_id / name).mkdir(parents=True)
        frame.to_parquet(folder / run_id / name / f"{name}.parquet", index=False)
        inputs[name] = store.put_directory(folder / run_id / name)
    result = run_step(Step("check_confounds", "confounds", inputs), run_id, store)
    assert result.outputs["recordings"] == inputs["recordings"]
    return result


def test_noise_of_one_class_stops_a_run_until_a_person_answers_for_it(
    store: Store, tmp_path: Path
) -> None:
    with pytest.raises(GateRejected, match=r"noise_only_control: The noise of the ward or room"):
        check(store, tmp_path, louder_db=8)
    command = ["waive", "check", "confounds", "noise_only_control", "--why", WHY]
    assert main([*command, "--store", store.url]) == 0
    waived = {
        verdict.id: verdict for verdict in check(store, tmp_path, 8, run_id="again").verdicts
    }["noise_only_control"]
    assert (waived.status, waived.severity) == ("warn", "critical")
    assert waived.waiver is not None
    assert waived.waiver.why == WHY


def test_the_same_noise_for_everybody_hands_the_recordings_on(store: Store, tmp_path: Path) -> None:
    result = check(store, tmp_path)
    assert "block" not in {verdict.status for verdict in result.verdicts}
    assert result.metrics["n_subjects"] == N
    left: dict[str, Any] = json.loads(
        store.directory(result.outputs["report"]).read("confounds.json")
    )
    assert set(left["probes"]) == {"ambient", "edges", "channel", "metadata"}


def test_without_ambient_tracks_the_edges_are_heard(store: Store, tmp_path: Path) -> None:
    """As in the published layout."""
    with pytest.raises(GateRejected, match=r"first and last moments"):
        check(store, tmp_path, louder_db=8, tasks=("SENTENCE",))


def test_ambient_tracks_of_one_class_only_are_left_open(store: Store, tmp_path: Path) -> None:
    """Who has one tells the label, whatever is heard in it."""
    result = check(store, tmp_path, ambient_of=(1,))
    found = {verdict.id: verdict for verdict in result.verdicts}["noise_only_control"]
    assert (found.status, found.names["heard_in"]) == ("insufficient", ("ambient",))
    assert "in the ambient tracks" in sentence(found, "en")


def test_another_policy_judges_anew_what_was_measured_once(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(store, tmp_path)
    monkeypatch.delattr(confounds, "measured")
    check(store, tmp_path, run_id="again")
    assert store.runs.read("again").steps["check_confounds"].found
    rules = policy.read().rules
    for changed, status in (({"max_low": 1.0}, "pass"), ({"min_per_class": N}, "insufficient")):
        rule = rules.channel_heard.model_copy(update=changed)
        other = policy.Policy(rules.model_copy(update={"channel_heard": rule}), "0" * 64)
        monkeypatch.setattr(policy, "read", lambda other=other: other)
        judged = check(store, tmp_path, run_id=status)
        assert {one.id: one.status for one in judged.verdicts}["channel_heard"] == status
