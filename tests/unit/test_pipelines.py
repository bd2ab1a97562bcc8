"""The pipelines as data: wired through their gates, configured by names that exist."""

from __future__ import annotations

import dataclasses
import importlib
import re
from pathlib import Path

import pytest

from spira_tasks.contract.pipelines import ALL_STEPS, OPTIONS, TRAINING, configure, from_params
from spira_tasks.contract.record import Result
from spira_tasks.contract.step import Step
from spira_tasks.contract.verdict import Verdict

EVERY_STEP = {step.name: step for step in ALL_STEPS}
GATED = {
    step.inputs["table"]: f"{step.name}.table" for step in TRAINING if step.stage == "validate"
}


def test_nobody_reads_past_a_gate() -> None:
    for step in TRAINING:
        if step.stage != "validate":
            past = set(step.inputs.values()) & set(GATED)
            # splitting is what turns checked recordings into a training set to check
            assert not past, f"{step.name} reads {past}, which a gate stands in front of"


def test_every_input_is_an_output_of_an_earlier_step() -> None:
    earlier: dict[str, set[str]] = {}
    for step in TRAINING:
        stage = importlib.import_module(f"spira_tasks.stages.{step.stage}")
        heeded = set(getattr(stage, "HEEDS", ()))
        assert {field.name for field in dataclasses.fields(stage.Inputs)} - heeded == set(
            step.inputs
        )
        for reference in step.inputs.values():
            if ":" not in reference:
                name, _, output = reference.partition(".")
                assert output in earlier[name]
        earlier[step.name] = {field.name for field in dataclasses.fields(stage.Outputs)}


def test_every_default_configuration_is_valid_and_every_option_exists() -> None:
    for step in TRAINING:
        config = importlib.import_module(f"spira_tasks.stages.{step.stage}").Config
        config.model_validate(dict(step.config))
    for target in OPTIONS.values():
        name, _, key = target.partition(".")
        config = importlib.import_module(f"spira_tasks.stages.{EVERY_STEP[name].stage}").Config
        assert key in config.model_fields


def test_a_run_is_configured_by_short_names_and_by_settings() -> None:
    params = {"data": "/d", "epochs": 5, "seed": None, "settings": {"train.batch_size": 8}}
    steps = {step.name: step for step in from_params(TRAINING, params)}
    assert steps["ingest"].inputs["data"] == "folder:/d"
    assert steps["train"].config == {"epochs": 5, "batch_size": 8}


def test_a_name_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown parameters epoch; the DAG takes data, epochs"):
        from_params(TRAINING, {"epoch": 5})
    with pytest.raises(ValueError, match=r"'training\.epochs': write <step>.<key>=<value>"):
        configure(TRAINING, settings={"training.epochs": 5})


def test_a_setting_cannot_make_another_gate_of_a_gate() -> None:
    with pytest.raises(ValueError, match="would leave a gate out"):
        configure(TRAINING, settings={"check_training_set.suite": "recordings"})
    configure(TRAINING, settings={"check_training_set.suite": "training_set"})  # of an earlier run


def test_a_bucket_is_data_as_well_as_a_folder() -> None:
    assert configure(TRAINING, data="s3://b/p")[0].inputs["data"] == "s3://b/p"


def test_records_survive_the_trip_through_json() -> None:
    for step in TRAINING:
        assert Step.from_json(step.to_json()) == step
    result = Result("s", "k", {"o": "sha256:0"}, {"m": 1.0}, (Verdict("v", "warn", low=0.5),), 2.0)
    assert Result.from_json(result.to_json()) == result


def test_only_stages_of_governance_know_the_run_or_the_store() -> None:
    stages = Path(importlib.import_module("spira_tasks.stages").__file__ or "").parent
    knowing = {
        file.stem
        for file in stages.glob("*.py")
        if {"work.run_id", "work.store"} & set(re.findall(r"work\.\w+", file.read_text()))
    }
    assert knowing == {"drift", "erase", "report"}
