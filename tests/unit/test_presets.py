"""Published experiments: their settings are complete, and what departs from them is named."""

from __future__ import annotations

import json
from statistics import mean, median
from typing import Any

import pytest

from spira_tasks.cli import main
from spira_tasks.contract.pipelines import TRAINING, Pipeline
from spira_tasks.contract.presets import every, find
from spira_tasks.errors import ConfigError
from spira_tasks.runner import check
from spira_tasks.speech.networks import build
from spira_tasks.stages import evaluate, materialize, train

# What a run may choose beside a preset; the rest of both steps a preset sets.
FREE = {
    *("train.preset", "train.departures", "train.task", "train.seed", "train.device"),
    *("train.n_threads", "train.n_processes", "materialize.tasks", "materialize.parameters"),
}


def configured(name: str, **settings: Any) -> Pipeline:
    changed = {key.replace("__", "."): value for key, value in settings.items()}
    return TRAINING.configure(settings={"train.preset": name, **changed})


def test_the_eighteen_published_experiments_and_two_of_the_challenge_are_there() -> None:
    counts = {"1": 3, "2": 3, "3": 12}
    names = [f"acl2021-{a}.{b}" for a, n in counts.items() for b in range(1, n + 1)]
    assert list(every()) == [*names, "compare2021-speech-1", "compare2021-speech-2"]
    assert {name for name, one in every().items() if one.looks_at_labels} == {
        f"acl2021-{number}"
        for number in ("2.1", "2.2", "2.3", *(f"3.{n}" for n in range(2, 13, 2)))
    }


@pytest.mark.parametrize("name", every())
def test_a_preset_sets_everything_that_decides_what_is_trained_and_its_stages_take_it(
    name: str,
) -> None:
    steps = configured(name)
    for step in ("materialize", "train", "evaluate"):
        check(steps.step(step))
    config = train.Config.model_validate_json(json.dumps(dict(steps.step("train").config)))
    build(config.model, 301, 64, train.network_options(config))  # it knows these options
    decide = {
        f"{step}.{key}"
        for step, stage in (("materialize", materialize), ("train", train))
        for key in stage.Config.model_fields
        if not key.endswith("_code")
    }
    assert decide - FREE <= set(find(name).settings)
    assert set(find(name).settings) - decide <= {
        f"evaluate.{key}" for key in evaluate.Config.model_fields
    }


def test_experiment_3_5_is_what_the_paper_says() -> None:
    """Its headline, 91.66 %, is the median of its repetitions; later papers cite 87.04 %."""
    steps = configured("acl2021-3.5")
    made, trained = steps.step("materialize").config, steps.step("train").config
    assert (made["window_seconds"], made["step_seconds"], made["tail"]) == (4.0, 1.0, "drop")
    assert (trained["min_noises"], trained["max_noises"], trained["patient_noises"]) == (3, 3, None)
    assert (trained["epochs"], trained["batch_size"], trained["dropout"]) == (1000, 5, 0.7)
    rates = find("acl2021-3.5").rates()
    assert median(rates["test_clean_accuracy"]) == pytest.approx(99 / 108)
    assert mean(rates["test_noisy_accuracy"]) == pytest.approx(0.8704, abs=5e-5)
    assert mean(rates["test_clean_f1"]) == pytest.approx(0.9038, abs=5e-5)
    assert find("acl2021-2.3").settings["train.patient_noises"] == [0, 0]
    assert find("acl2021-1.1").settings["materialize.temporal"] == "padding"


def test_a_setting_beside_a_preset_goes_before_it_and_is_a_departure() -> None:
    steps = configured("acl2021-3.5", train__epochs=2, train__batch_size=5, train__seed=7)
    trained = steps.step("train").config
    assert (trained["epochs"], trained["seed"], trained["warmup_steps"]) == (2, 7, 1000)
    assert trained["departures"] == ["train.epochs"]
    check(steps.step("train"))
    again = {f"train.{key}": value for key, value in trained.items()}  # as a rerun gives them
    assert TRAINING.configure(settings=again).step("train").config == trained


def test_a_form_that_shows_its_defaults_does_not_depart_from_a_preset() -> None:
    params = {"epochs": 100, "seed": 7, "model": "spiraconv_v2", "feature": "mfcc"}
    settings = {"train.preset": "acl2021-3.5", "train.patience_epochs": 9}
    trained = TRAINING.from_params({**params, "settings": settings}).step("train").config
    assert (trained["epochs"], trained["seed"]) == (1000, 7)
    assert trained["departures"] == ["train.patience_epochs"]


def test_a_step_that_is_run_by_hand_cannot_name_a_preset_that_it_does_not_keep() -> None:
    config = dict(configured("acl2021-3.5").step("train").config)
    train.Config.model_validate_json(json.dumps(config))
    with pytest.raises(ValueError, match=r"epochs is 3, and 1000 in the preset acl2021-3\.5"):
        train.Config.model_validate_json(json.dumps(config | {"epochs": 3}))


def test_an_unknown_preset_names_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("acl2021-3.13", "spira"):
        with pytest.raises(ValueError, match=r"Known are: acl2021-1\.1, .*compare2021-speech-2"):
            configured(name)
    assert main(["presets", "acl2021-3.13"]) == ConfigError.exit_status
    assert "Known are: acl2021-1.1" in capsys.readouterr().err


def test_the_command_line_lists_presets_and_shows_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "0.904" in lines["acl2021-3.5"]
    assert "never promoted" in lines["acl2021-2.3"]
    assert main(["presets", "acl2021-2.3"]) == 0
    said = capsys.readouterr().out
    assert "no run promotes a model of it" in said
    (line,) = (line for line in said.splitlines() if "train.patient_noises" in line)
    assert "[0, 0]" in line
    assert "the published split is by file" in said
