"""The plan for changes is read strictly, knows every setting, and a model outside it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from expectations import plan
from expectations.gates.plan import within_plan
from expectations.words import texts
from expectations.words.verdicts import gates, sentence
from spira_tasks.contract.run import StepRecord
from spira_tasks.errors import ConfigError
from spira_tasks.governance.gates import settings_of
from spira_tasks.stages import evaluate, materialize, split, train

STAGES = {"split": split, "materialize": materialize, "train": train, "evaluate": evaluate}


def defaults() -> list[tuple[str, dict[str, Any]]]:
    return [(name, stage.Config().model_dump(mode="json")) for name, stage in STAGES.items()]


def test_the_defaults_of_every_setting_are_within_the_plan() -> None:
    assert plan.read().plan.outside(defaults()) == []


def test_every_rule_is_about_a_setting_that_there_is() -> None:
    known = {f"{stage}.{key}" for stage, config in defaults() for key in config}
    assert {name for name, _ in plan.read().plan.rules()} <= known


@pytest.mark.parametrize(
    ("stage", "key", "value"),
    [
        ("train", "model", "spiraconv_v1"),
        ("train", "epochs", 5000),
        ("train", "invented", 1),
        ("materialize", "tasks", ["VOWEL"]),
        ("evaluate", "threshold", 0.5),
        ("evaluate", "seed", 1),
        ("evaluate", "n_noises", 2),
        ("split", "salt", "another"),
        ("split", "test_fraction", 0.3),
    ],
)
def test_another_network_number_or_setting_needs_a_new_submission(
    stage: str, key: str, value: Any
) -> None:
    settings = [(name, {**config, key: value} if name == stage else config)
                for name, config in defaults()]  # fmt: skip
    verdict = within_plan(plan.read().plan.outside(settings))
    assert verdict.status == "block"
    assert verdict.stops
    said = sentence(verdict, "en")
    assert f"{stage}.{key}" in said
    assert "needs a new submission" in said


def test_what_the_plan_allows_passes() -> None:
    within = [("train", {"epochs": 4, "seed": 7, "max_noises": 3}), ("ingest", {"anything": 1})]
    assert within_plan(plan.read().plan.outside(within)).status == "pass"


def test_a_change_names_gates_that_there_are_and_has_its_texts() -> None:
    for name, change in plan.read().plan.changes.items():
        assert set(change.evidence) <= set(gates()), name
        assert f"plan.{name}" in texts()
        assert f"plan.rollback.{change.rollback}" in texts()


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("rollback:", "rolback:", "rolback"),
        ("  weights:", "  weights:\n    why: x", "why"),
        ("      train.seed: any", "      train.seed: any\n      train.task: any", "train.task"),
        (
            "      train.seed: any",
            "      train.seed: any\n      train.seed: [1]",
            "train.seed is there",
        ),
    ],
)
def test_an_unknown_key_and_a_second_rule_are_refused(
    tmp_path: Path, old: str, new: str, problem: str
) -> None:
    file = tmp_path / "pccp.yaml"
    file.write_text(plan.FILE.read_text().replace(old, new, 1))
    with pytest.raises(ConfigError, match=problem):
        plan.read(file)


def test_the_settings_of_a_model_are_those_of_every_step_behind_it() -> None:
    def made(stage: str, inputs: str, output: str, **config: Any) -> Any:
        record = StepRecord(stage, stage, "done", "", 0.0, config=config, outputs={"o": output})
        return record, {"i": inputs}

    steps = [
        made("materialize", "rows", "features", n_mels=40),
        made("validate", "features", "checked"),
        made("train", "checked", "model", epochs=4),
        made("evaluate", "model", "classifier", seed=0),
        made("train", "checked", "other", epochs=9),
    ]
    found = settings_of(steps, "classifier")
    assert sorted(stage for stage, _ in found) == ["evaluate", "materialize", "train", "validate"]
    assert ("train", {"epochs": 4}) in found
