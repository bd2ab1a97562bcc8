"""A feature and a network of another package: computed, trained, registered, and missed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import Run, linked_copy
from packages import install
from small_run import SETTINGS

from spira_tasks import model_process, package, registry
from spira_tasks.artifacts import Store
from spira_tasks.contract.pipelines import TRAINING
from spira_tasks.contract.step import Step
from spira_tasks.errors import ConfigError
from spira_tasks.runner import check, run_step
from spira_tasks.speech.classifier import Classifier, ClassifierSpec
from spira_tasks.speech.features import FeatureExtractor, FeatureSpec
from spira_tasks.speech.networks import build
from spira_tasks.stages import evaluate, register
from spira_tasks.tracking import CLASSIFIER, Tracker

STRATEGY = """
from torch import nn


class Levels(nn.Module):
    def __init__(self, length):
        super().__init__()
        self.length = length

    def forward(self, windows):
        frames = windows.unfold(1, self.length, self.length)
        return frames.square().mean(dim=2, keepdim=True).sqrt()


def n_bins(spec):
    return 1


def n_frames(spec):
    return spec.n_window_samples // spec.parameters["length"]


def extractor(spec):
    return Levels(spec.parameters["length"])
"""
NETWORK = """
from torch import nn


class Tiny(nn.Module):
    def __init__(self, n_frames, n_bins, n_hidden=3):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(n_frames * n_bins, n_hidden), nn.Tanh(), nn.Linear(n_hidden, 1)
        )

    def forward(self, features):
        return self.layers(features).squeeze(1)
"""
POINTS = {
    "spira.features": {"levels": "spira_levels.levels"},
    "spira.networks": {"tiny": "spira_levels.tiny:Tiny"},
}
CHOSEN = {
    "materialize.feature": "levels",
    "materialize.parameters": {"length": 800},
    "train.model": "tiny",
    "train.options": {"n_hidden": 4},
}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages, with one that adds a feature and a network."""
    folder = tmp_path / "site"
    install(folder, "spira_levels", {"levels.py": STRATEGY, "tiny.py": NETWORK}, POINTS)
    monkeypatch.syspath_prepend(folder)
    registry._digest.cache_clear()
    return folder


def steps(store: Store, run_id: str, cohort: Path, until: str) -> dict[str, bool]:
    """Run the steps up to one; return which of them were found."""
    found = {}
    for step in TRAINING.configure(data=str(cohort), settings={**SETTINGS, **CHOSEN}):
        run_step(step, run_id, store)
        record = store.runs.step(run_id, step.name)
        assert record is not None
        found[step.name] = record.found
        if step.name == until:
            break
    return found


def test_a_feature_and_a_network_of_a_package_are_in_the_key_of_what_they_make(
    site: Path, finished: Run, tmp_path: Path
) -> None:
    store = linked_copy(finished.store, tmp_path / "store")
    first = steps(store, "first-levels", finished.cohort, "train")
    assert first["split"]
    assert not first["materialize"]
    record = store.runs.step("first-levels", "materialize")
    assert record is not None
    features = store.directory(record.outputs["features"])
    table = pd.read_parquet(features.path("features.parquet"))
    assert {*table["n_frames"]} == {80}
    assert {*table["n_bins"]} == {1}
    code = json.loads(features.path("features.json").read_text())["implementation"]
    assert code.startswith("spira_levels 1.0 ")
    trained = store.runs.step("first-levels", "train")
    assert trained is not None
    model = store.directory(trained.outputs["model"])
    spec = json.loads(model.path("classifier.json").read_text())
    assert (spec["model"], spec["implementation"]) == ("tiny", code)
    assert trained.metrics["n_parameters"] == 80 * 4 + 4 + 4 + 1

    assert all(steps(store, "again", finished.cohort, "train").values())
    with (site / "spira_levels" / "tiny.py").open("a") as file:
        file.write("# edited\n")
    registry._digest.cache_clear()
    edited = steps(store, "edited", finished.cohort, "train")
    assert edited["split"]
    assert not any(edited[name] for name in ("materialize", "check_features", "train"))


def classifier_of(package_name: str) -> Classifier:
    code = registry.Registry("networks", {}).implementation(package_name)
    torch.manual_seed(1)
    features = FeatureSpec(
        name="levels", parameters={"length": 800}, implementation=code, window_seconds=2.0
    )
    return Classifier(ClassifierSpec(features=features, model="tiny", implementation=code))


def test_a_registered_model_names_the_package_that_it_needs_and_is_refused_without_it(
    site: Path, tmp_path: Path
) -> None:
    store = Store(str(tmp_path / "store"))
    (tmp_path / "parts").mkdir()
    classifier_of("tiny").save(tmp_path / "parts")
    evaluate.policy("SENTENCE", None).save(tmp_path / "parts")
    classifier = store.put_directory(tmp_path / "parts")
    register.write_package(tmp_path, store.directory(classifier))
    model = tmp_path / "model"
    assert "spira_levels==1.0" in (model / "requirements.txt").read_text().splitlines()
    tags = package.tags_of(classifier, store.put_directory(model))
    tracker = Tracker(store.tracking_uri)
    run_id = tracker.run_of(f"sha256:{1:064x}", "model")
    version = tracker.register(run_id, model, {CLASSIFIER: classifier, **tags})

    package.fetch(version, tracker, store, tmp_path / "fetched")
    golden = package.golden(tmp_path / "fetched")
    clips = pd.DataFrame({"audio": [clip.content for clip in golden.clips]})
    answers = model_process.load(tmp_path / "fetched").predict(clips).to_dict("records")
    assert golden.differences(answers) == []

    gone(site)
    with pytest.raises(package.Refused, match=r"is not loaded: .*`pip install spira_levels==1\.0`"):
        package.fetch(version, tracker, store, tmp_path / "again")


def gone(site: Path) -> None:
    shutil.rmtree(site / "spira_levels")
    shutil.rmtree(site / "spira_levels-1.0.dist-info")
    registry._digest.cache_clear()
    registry._installed.cache_clear()


def newer(site: Path) -> None:
    gone(site)
    install(site, "spira_levels", {"levels.py": STRATEGY, "tiny.py": NETWORK}, POINTS, "2.0")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (gone, r"is not installed here, .*`pip install spira_levels==1\.0`, or run the step"),
        (newer, r"is spira_levels 2\.0 \w{12} here, and what was made with spira_levels 1\.0 "),
    ],
)
def test_a_model_whose_package_is_not_the_one_that_trained_it_is_refused(
    change: Callable[[Path], None], message: str, site: Path, tmp_path: Path
) -> None:
    classifier_of("tiny").save(tmp_path)
    change(site)
    with pytest.raises(ConfigError, match=message):
        Classifier.load(tmp_path / "weights.safetensors", tmp_path / "classifier.json")


def test_a_strategy_that_does_not_do_what_it_announces_is_named(site: Path) -> None:
    code = registry.Registry("features", {}).implementation("levels")
    wrong = FeatureSpec(name="levels", parameters={"length": 7}, implementation=code)
    extractor = FeatureExtractor(wrong)
    extractor.strategy.length = 8  # type: ignore[assignment]
    with pytest.raises(ConfigError, match=r"shape \(8000, 1\) and announces \(9142, 1\)"):
        extractor(torch.zeros(1, wrong.n_window_samples))
    with pytest.raises(ConfigError, match=r"the feature levels cannot be computed .*'length'"):
        FeatureExtractor(FeatureSpec(name="levels", implementation=code))


def test_what_no_package_adds_is_refused_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match=r"feature: Value error, there is no 'levels' among"):
        check(Step("materialize", "materialize", config={"feature": "levels"}))
    with pytest.raises(ConfigError, match="there is no 'tiny' among the networks"):
        build("tiny", 80, 1, {})
