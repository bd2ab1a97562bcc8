"""A step that is run by hand takes any artifact; what no gate handed on does not get to serve."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from conftest import Run
from small_run import SETTINGS

from spira_tasks.artifacts import Store
from spira_tasks.contract.pipelines import TRAINING
from spira_tasks.governance import gates
from spira_tasks.runner import run_step


def test_a_model_that_the_pipeline_made_came_through_every_gate(finished: Run) -> None:
    classifier = finished.results["evaluate"].outputs["classifier"]
    records = gates.made_by(finished.store)
    assert gates.missed_by(records, classifier) == []
    assert gates.label_in_noise(records, classifier) == (False, set())
    assert "behind_its_gates" not in finished.refusal


@pytest.mark.slow
def test_a_model_trained_by_hand_on_what_no_gate_handed_on_is_known(
    finished: Run, tmp_path: Path
) -> None:
    store = Store(str(shutil.copytree(finished.store.url, tmp_path / "store")))
    split = store.directory(finished.results["split"].outputs["recordings"])
    rows = pd.read_parquet(split.path("recordings.parquet"))
    learned = rows.index[(rows["split"] == "train") & (rows["task"] == "SENTENCE")]
    (tmp_path / "own").mkdir()
    rows.drop(learned[:1]).to_parquet(tmp_path / "own/recordings.parquet")
    own = store.put_directory(tmp_path / "own")
    made = {name: result.outputs for name, result in finished.results.items()}
    settings = {"train.patient_noises": [0, 0], "evaluate.averaged_stripes": 2}
    for step in TRAINING.configure(settings=SETTINGS | settings):
        if step.name in {"train", "evaluate"}:
            references = {name: ref.split(".") for name, ref in step.inputs.items()}
            inputs = {name: made[of][output] for name, (of, output) in references.items()}
            by_hand = replace(step, inputs=inputs | {"recordings": own})
            made[step.name] = run_step(by_hand, "by-hand", store).outputs
    records, classifier = gates.made_by(store), made["evaluate"]["classifier"]
    missed = gates.missed_by(records, classifier)
    assert missed == [*("check_recordings", "check_training_set", "check_drift", "check_confounds")]
    # and its ward noise was for controls only
    assert gates.label_in_noise(records, classifier) == (True, set())
    # the mean over copies behind stripes is a condition of its own, which no check looks at
    report = json.loads(store.directory(made["evaluate"]["report"]).read("evaluation.json"))
    assert set(report["conditions"]) - set(report["drop_in_balanced_accuracy"]) == {
        "clean",
        "averaged",
    }
    predictions = pd.read_parquet(
        store.directory(made["evaluate"]["report"]).path("predictions.parquet")
    )
    assert 0 < (predictions["averaged"] - predictions["clean"]).abs().max() < 0.5
