"""The pipelines as data: wired through their gates, configured by names that exist."""

from __future__ import annotations

import dataclasses

import pytest

from spira_tasks.config import StageSpec
from spira_tasks.contract.pipelines import HANDED_ON, PIPELINES, TRAINING
from spira_tasks.contract.record import Result
from spira_tasks.contract.run import Anchor, StepRecord
from spira_tasks.contract.step import Step
from spira_tasks.contract.verdict import Number, Verdict, Waiver
from spira_tasks.runner import load
from spira_tasks.work import Work

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
        stage = load(step.stage)
        decisions = set(getattr(stage, "SPEC", StageSpec()).decisions)
        names = {field.name for field in dataclasses.fields(stage.Inputs)}
        assert names - decisions == set(step.inputs)
        for reference in step.inputs.values():
            if ":" not in reference:
                name, _, output = reference.partition(".")
                assert output in earlier[name]
        earlier[step.name] = {field.name for field in dataclasses.fields(stage.Outputs)}


def test_every_default_configuration_is_valid_and_every_option_exists() -> None:
    for step in TRAINING:
        config = load(step.stage).Config
        config.model_validate(dict(step.config))
    for pipeline in PIPELINES.values():
        for target in pipeline.options.values():
            name, _, key = target.partition(".")
            stage = pipeline.step(name).stage
            config = load(stage).Config
            assert key in config.model_fields


def test_gates_are_the_steps_whose_stage_hands_its_input_on() -> None:
    assert [step.name for step in TRAINING.gates] == [
        *("check_recordings", "check_ward_noise", "check_training_set"),
        *("check_features", "check_drift", "check_confounds"),
    ]
    for gate in TRAINING.gates:
        stage = load(gate.stage)
        for fields in (stage.Inputs, stage.Outputs):
            assert HANDED_ON[gate.stage] in {field.name for field in dataclasses.fields(fields)}


def test_the_gates_behind_an_input_are_derived_from_the_wiring() -> None:
    def behind(step: str, name: str) -> list[tuple[str, str]]:
        gates = TRAINING.gates_behind(TRAINING.step(step).inputs[name])
        return [(gate.name, link) for gate, link in gates]

    assert behind("train", "recordings") == [
        ("check_confounds", "recordings"),
        ("check_drift", "recordings"),
        ("check_training_set", "source"),
        ("check_recordings", "table"),
    ]
    assert behind("train", "features")[0] == ("check_features", "source")
    assert behind("evaluate", "ward_noise")[0] == ("check_ward_noise", "source")
    assert behind("evaluate", "model") == []


def test_a_run_is_configured_by_short_names_and_by_settings() -> None:
    params = {"data": "/d", "epochs": 5, "seed": None, "settings": {"train.batch_size": 8}}
    steps = {step.name: step for step in TRAINING.from_params(params)}
    assert steps["ingest"].inputs["data"] == "folder:/d"
    assert steps["train"].config == {"epochs": 5, "batch_size": 8}


def test_the_trained_task_is_also_counted_and_computed_unless_another_is_named() -> None:
    alone = TRAINING.configure(settings={"train.task": "VOWEL"})
    assert alone.step("check_training_set").config["tasks"] == ["VOWEL"]
    assert alone.step("materialize").config == {"tasks": ["VOWEL"]}
    settings = {"materialize.tasks": ["VOWEL", "RHYME"], "train.task": "VOWEL"}
    both = TRAINING.configure(settings=settings)
    assert both.step("materialize").config == {"tasks": ["VOWEL", "RHYME"]}


def test_a_name_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown parameters epoch; the DAG takes data, epochs"):
        TRAINING.from_params({"epoch": 5})
    with pytest.raises(ValueError, match=r"'training\.epochs': write <step>.<key>=<value>"):
        TRAINING.configure(settings={"training.epochs": 5})


def test_a_setting_cannot_make_another_gate_of_a_gate() -> None:
    with pytest.raises(ValueError, match="would leave a gate out"):
        TRAINING.configure(settings={"check_training_set.gate": "recordings"})
    TRAINING.configure(settings={"check_training_set.gate": "training_set"})  # of an earlier run


def test_a_bucket_is_data_as_well_as_a_folder() -> None:
    assert TRAINING.configure(data="s3://b/p").step("ingest").inputs["data"] == "s3://b/p"


def test_records_survive_the_trip_through_json() -> None:
    for step in TRAINING:
        assert Step.from_json(step.to_json()) == step
    verdict = Verdict(
        "v",
        "warn",
        observed=Number(0.7, "rate", 0.5, 0.9),
        numbers={"n_refused": Number(3, "rows")},
        names={"reasons": ("bad_value",)},
        columns=("age",),
        waiver=Waiver("cli:ana", "2026-11-21", "a written reason", "2026-12-31"),
    )
    result = Result("s", "k", {"o": "sha256:0"}, {"m": 1.0}, (verdict,), 2.0)
    assert Result.from_json(result.to_json()) == result
    record = StepRecord(
        "train", "train", "done", "2026-11-21T00:00:00+00:00", 1.0, audit=Anchor(3, "a")
    )
    assert StepRecord.from_json(record.to_json()) == record


def test_only_stages_that_act_outside_are_given_the_run_and_the_store() -> None:
    outside = set()
    for step in (step for pipeline in PIPELINES.values() for step in pipeline.all_steps):
        stage = load(step.stage)
        if getattr(stage, "SPEC", StageSpec()).outside:
            outside.add(step.stage)
    assert outside == {
        "drift",
        "confounds",
        "register",
        "promote",
        "rollback",
        "decide",
        "erase",
        "report",
        "retain",
        "snapshot",
        "forget",
        "hospital_sync",
        "telemetry",
        *("plan", "trial", "compare"),
    }
    assert {field.name for field in dataclasses.fields(Work)} == {
        *("key", "blobs", "remember", "checkpoint", "track")
    }
