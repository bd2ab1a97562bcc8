"""The files of a registered model: what somebody changed in MLflow is refused, and never run."""

from __future__ import annotations

import importlib.util
import json
import pickle
import py_compile
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optional
import pandas as pd
import pytest
import torch

from expectations import requirements
from spira_tasks import costs, onnx_export, package, tracking
from spira_tasks.artifacts import Directory, Store
from spira_tasks.cli import main
from spira_tasks.errors import ConfigError, SpiraError
from spira_tasks.governance import sealing
from spira_tasks.speech import pyfunc
from spira_tasks.speech.classifier import Classifier, ClassifierSpec
from spira_tasks.speech.features import FeatureSpec
from spira_tasks.stages import evaluate, register
from spira_tasks.tracking import Registered, Tracker


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store and a registry with one version of the model."""
    place = tmp_path_factory.mktemp("package") / "store"
    store, made = Store(str(place)), place.parent / "made"
    (made / "classifier").mkdir(parents=True)
    Classifier(ClassifierSpec(options={"n_hidden": 2})).save(made / "classifier")
    evaluate.policy("SENTENCE", None).save(made / "classifier")
    classifier = store.put_directory(made / "classifier")
    shutil.rmtree(made / "classifier")
    register.write_package(made, store.directory(classifier))
    tags = package.tags_of(classifier, store.put_directory(made / "model"))
    tracker = Tracker(store.tracking_uri)
    run_id = tracker.run_of("sha256:" + "a" * 64, "model")
    tracker.register(run_id, made / "model", {"spira.classifier": classifier, **tags})
    return place


@pytest.fixture
def attacked(registered: Path, tmp_path: Path) -> Store:
    shutil.copytree(registered, tmp_path / "store")
    return Store(str(tmp_path / "store"))


def the_version(store: Store) -> tuple[Registered, Tracker]:
    tracker = Tracker(store.tracking_uri)
    return tracker.versions()[0], tracker


def one(store: Store, name: str) -> Path:
    (file,) = (Path(store.url) / "mlflow/artifacts").rglob(name)
    return file


def change_a_byte_of_the_weights(store: Store, _: Path) -> None:
    file = one(store, "weights.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def edit_the_code(store: Store, trace: Path) -> None:
    file = one(store, "pyfunc.py")
    file.write_text(f"{file.read_text()}\nopen({str(trace)!r}, 'w').close()\n")


class Planted:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return open, (str(self.trace), "w")


def plant_a_pickle(store: Store, trace: Path) -> None:
    description = one(store, "MLmodel")
    (description.parent / "python_model.pkl").write_bytes(pickle.dumps(Planted(trace)))
    loader = "loader_module: mlflow.pyfunc.model\n    python_model: python_model.pkl\n    ignored"
    description.write_text(description.read_text().replace("loader_module", loader, 1))


def remove_a_file(store: Store, _: Path) -> None:
    one(store, "classifier.json").unlink()


def name_other_files_in_the_tag(store: Store, trace: Path) -> None:
    edit_the_code(store, trace)
    version, tracker = the_version(store)
    files = store.put_directory(one(store, "MLmodel").parent)
    tracker.tag(version.version, {package.PACKAGE: files})


def remove_the_seal(store: Store, trace: Path) -> None:
    edit_the_code(store, trace)
    version, tracker = the_version(store)
    tracker.client.delete_model_version_tag(tracking.MODEL, version.version, package.SEAL)


@pytest.mark.parametrize(
    ("attack", "said"),
    [
        (change_a_byte_of_the_weights, "weights.safetensors is not the file"),
        (edit_the_code, "pyfunc.py is not the file"),
        (plant_a_pickle, "MLmodel is not the file"),
        (remove_a_file, "lost its file data/classifier/classifier.json"),
        (name_other_files_in_the_tag, "the digest of its files in MLflow's tags is changed"),
        (remove_the_seal, "the digest of its files in MLflow's tags is not sealed"),
    ],
)
def test_a_model_whose_files_were_changed_is_refused_and_not_run(
    attack: Callable[[Store, Path], None], said: str, attacked: Store, tmp_path: Path
) -> None:
    trace = tmp_path / "executed"
    attack(attacked, trace)
    version, tracker = the_version(attacked)
    with pytest.raises(ConfigError, match=said) as refused:
        package.load(version, tracker, attacked, tmp_path / "loaded")
    assert "version 1 of the model is not loaded" in str(refused.value)
    assert "model refuse 1" in str(refused.value)
    assert not trace.exists()


def test_what_is_loaded_is_the_copy_of_the_store(attacked: Store, tmp_path: Path) -> None:
    version, tracker = the_version(attacked)
    assert hasattr(package.load(version, tracker, attacked, tmp_path / "loaded"), "predict")
    for name in attacked.files(version.tags[package.PACKAGE]):
        assert (tmp_path / "loaded" / name).is_file()


def test_what_python_compiled_beside_the_code_refuses_no_model_and_is_not_run(
    attacked: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    version, tracker = the_version(attacked)
    trace, code = tmp_path / "executed", one(attacked, "pyfunc.py")
    (tmp_path / "planted.py").write_text(f"open({str(trace)!r}, 'w').close()")
    compiled = Path(importlib.util.cache_from_source(str(code)))
    always = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(tmp_path / "planted.py"), str(compiled), invalidation_mode=always)
    assert hasattr(package.load(version, tracker, attacked, tmp_path / "loaded"), "predict")
    assert not trace.exists()
    assert "1 compiled files beside the code of version 1" in caplog.text
    assert package.adopt(version, tracker, attacked)
    assert not [
        name
        for name in attacked.files(the_version(attacked)[0].tags[package.PACKAGE])
        if name.endswith(".pyc")
    ]
    compiled.rename(compiled.with_name(f"other.{compiled.name.partition('.')[2]}"))
    with pytest.raises(ConfigError, match="a file that was not registered"):
        package.check(version, tracker, attacked)


def loaded(store: Store, folder: Path) -> Any:
    version, tracker = the_version(store)
    return package.load(version, tracker, store, folder)


def answers_of(model: Any, golden: package.Golden) -> list[dict[str, Any]]:
    clips = pd.DataFrame({"audio": [clip.content for clip in golden.clips]})
    answers: list[dict[str, Any]] = model.predict(clips).to_dict("records")
    return answers


def test_a_model_brings_clips_two_of_which_it_answers(registered: Path, tmp_path: Path) -> None:
    model = loaded(Store(str(registered)), tmp_path)
    golden = package.golden(tmp_path)
    expected = {clip.name: clip.answer for clip in golden.clips}
    for name in ("calm.wav", "breathless.flac"):
        assert 0 < expected[name]["probability"] < 1
        assert expected[name]["record_again"] == []
    assert expected["clipped.wav"]["record_again"] == ["clipping_fraction_high"]
    assert expected["cut_off.flac"]["record_again"] == ["undecodable"]
    assert golden.differences(answers_of(model, golden)) == []


def shifted(answer: dict[str, Any]) -> dict[str, Any]:
    return answer | {"probability": answer["probability"] and answer["probability"] + 1e-4}


def constant(answer: dict[str, Any]) -> dict[str, Any]:
    return answer | {"probability": answer["probability"] and 0.5}


def answering_everything(answer: dict[str, Any]) -> dict[str, Any]:
    return answer | {"probability": answer["probability"] or 0.5, "record_again": []}


def without_a_number(answer: dict[str, Any]) -> dict[str, Any]:
    return answer | {"probability": answer["probability"] and float("nan")}


def of_another_form(answer: dict[str, Any]) -> dict[str, Any]:
    return {"probability": str(answer["probability"])}


@pytest.mark.parametrize(
    ("fault", "n_clips"),
    [(shifted, 2), (constant, 2), (without_a_number, 2), (answering_everything, 2),
     (of_another_form, 4)],
)  # fmt: skip
def test_a_model_that_answers_otherwise_than_when_it_was_registered_is_found(
    fault: Callable[[dict[str, Any]], dict[str, Any]], n_clips: int, registered: Path
) -> None:
    (folder,) = (registered / "mlflow/artifacts").rglob("MLmodel")
    golden = package.golden(folder.parent)
    wrong = [fault(dict(clip.answer)) for clip in golden.clips]
    assert len({name for name, _ in golden.differences(wrong)}) == n_clips


def test_other_weights_are_found_and_the_last_digits_of_another_machine_are_not(
    registered: Path, tmp_path: Path
) -> None:
    (folder,) = (registered / "mlflow/artifacts").rglob("MLmodel")
    shutil.copytree(folder.parent, tmp_path / "other")
    golden = package.golden(tmp_path / "other")
    close = [shifted(dict(clip.answer)) for clip in golden.clips]
    for answer in close:
        answer["probability"] = answer["probability"] and answer["probability"] - 0.95e-4
    assert golden.differences(close) == []
    Classifier(ClassifierSpec(options={"n_hidden": 2})).save(tmp_path / "other" / package.DATA)
    model = pyfunc.load(tmp_path / "other" / package.DATA)
    differing = golden.differences(answers_of(model, golden))
    assert ("calm.wav", "probability") in differing
    assert {field for _, field in differing} <= {"probability", "window_scores", "decision"}


def test_a_model_is_measured_in_a_process_of_its_own_and_held_against_each_requirement(
    registered: Path,
) -> None:
    (file,) = (registered / "mlflow/artifacts").rglob("MLmodel")
    found, required = costs.measure(file.parent), requirements.read()
    assert package.golden(file.parent).limits == {n: one.limit for n, one in required.items()}
    assert [one.status for one in requirements.verdicts(found, required)] == ["pass"] * 3
    for gate, name in requirements.GATES.items():
        tight = required | {name: replace(required[name], limit=1e-9)}
        blocking = [v.id for v in requirements.verdicts(found, tight) if v.status == "block"]
        assert blocking == [gate]


def test_a_model_that_does_not_run_by_itself_is_no_cheap_one(
    registered: Path, tmp_path: Path
) -> None:
    (file,) = (registered / "mlflow/artifacts").rglob("MLmodel")
    shutil.copytree(file.parent, tmp_path / "broken")
    (tmp_path / "broken" / package.DATA / "weights.safetensors").write_bytes(b"no weights")
    with pytest.raises(RuntimeError, match="does not run by itself"):
        costs.measure(tmp_path / "broken")


def test_a_model_that_hangs_is_not_measured_for_ever(
    registered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file,) = (registered / "mlflow/artifacts").rglob("MLmodel")
    monkeypatch.setattr(costs, "MOST_SECONDS", 0.1)
    with pytest.raises(RuntimeError, match=r"has not answered its golden clips in 0\.1 s"):
        costs.measure(file.parent)


def test_one_slow_answer_of_a_measurement_blocks_no_model(registered: Path) -> None:
    (file,) = (registered / "mlflow/artifacts").rglob("MLmodel")
    n_answering = sum(not clip.answer["record_again"] for clip in package.golden(file.parent).clips)
    fast = [0.01] * (n_answering * costs.N_RUNS - 1)
    assert costs.percentile_95([*fast, 9.0]) == 0.01
    assert costs.percentile_95([]) is None


def test_a_model_without_clips_is_refused(registered: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no golden clips"):
        package.golden(tmp_path)


def test_a_version_older_than_seals_is_sealed_by_a_person_if_its_weights_are_the_stores(
    attacked: Store, tmp_path: Path
) -> None:
    version, tracker = the_version(attacked)
    tracker.client.delete_model_version_tag(tracking.MODEL, version.version, package.SEAL)
    content = one(attacked, "weights.safetensors").read_bytes()
    change_a_byte_of_the_weights(attacked, tmp_path)
    assert sealing.seal(attacked, "made before version 0.3") == {"n_versions_unknown": 1}
    assert not package.is_sealed(the_version(attacked)[0])

    one(attacked, "weights.safetensors").write_bytes(content)
    assert sealing.seal(attacked, "made before version 0.3") == {"n_versions": 1}
    package.check(the_version(attacked)[0], tracker, attacked)


def test_a_model_that_is_evaluated_in_another_way_is_registered_as_another_version(
    attacked: Store, tmp_path: Path
) -> None:
    """One run of MLflow shows both; it takes no second value of a parameter."""

    def stored(name: str, **files: object) -> Directory:
        (tmp_path / name).mkdir(exist_ok=True)
        for file, content in files.items():
            (tmp_path / name / f"{file}.json").write_text(json.dumps(content))
        return attacked.directory(attacked.put_directory(tmp_path / name))

    tracker, clean = Tracker(attacked.tracking_uri), {"auc": {"value": 1, "low": 1, "high": 1}}
    for point in (0.4, 0.6):
        (tmp_path / "classifier").mkdir(exist_ok=True)
        Classifier(ClassifierSpec(options={"n_hidden": 2}, operating_point=point)).save(
            tmp_path / "classifier"
        )
        evaluate.policy("SENTENCE", None).save(tmp_path / "classifier")
        evaluation = {"operating_point": point, "synthetic": True, "conditions": {"clean": clean}}
        inputs = register.Inputs(
            recordings=stored("recordings", any={}),
            model=stored("model", training={"epochs": 2}, history=[{"number": 1, "val_loss": 1}]),
            classifier=stored("classifier"),
            report=stored("report", evaluation=evaluation),
        )
        register.register(inputs, tracker, attacked)
    first, second = tracker.versions()[1:]
    assert first.run_id == second.run_id
    assert first.classifier != second.classifier


def test_an_export_without_its_packages_says_what_to_install(
    registered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["export", "spira@challenger", str(tmp_path / "m.onnx"), "--store", str(registered)]
    assert main(arguments) == 78
    assert "pip install -r requirements-onnx.txt" in capsys.readouterr().err


@pytest.mark.slow
def test_an_export_gives_the_probabilities_of_the_model_or_is_not_written(
    registered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, out = Store(str(registered)), tmp_path / "model.onnx"
    with optional.installed(onnx_export.REQUIREMENTS):
        import onnxruntime

        assert main(["export", "spira/1", str(out), "--store", store.url]) == 0
        session = onnxruntime.InferenceSession(out.read_bytes())
        model, golden = loaded(store, tmp_path / "loaded"), package.golden(tmp_path / "loaded")
        classifier = pyfunc.load(tmp_path / "loaded" / package.DATA).classifier
        noise = 0.1 * torch.randn(5, 64_000, generator=torch.Generator().manual_seed(1))
        (given,) = session.run(None, {"windows": noise.numpy()})
        expected = classifier.window_scores(classifier.extractor(noise)).numpy()
        assert np.abs(given - expected).max() < 1e-5
        known = session.get_modelmeta().custom_metadata_map
        assert known["spira.version"] == answers_of(model, golden)[0]["version"]
        assert json.loads(known["spira.features"])["step_seconds"] == 1.0

        Classifier(ClassifierSpec(options={"n_hidden": 2})).save(tmp_path / "loaded" / package.DATA)
        with pytest.raises(SpiraError, match="gives other probabilities than the model"):
            onnx_export.export(tmp_path / "loaded", tmp_path / "other.onnx")
        assert not (tmp_path / "other.onnx").exists()


SMALL = FeatureSpec(window_seconds=1.0, n_mels=16, n_mfcc=16)
NETWORK_OPTIONS: dict[str, dict[str, Any]] = {
    "cnn14": {"channels": [4, 8]},
    "mfcc_gram_transformer": {"n_channels": 16, "n_layers": 1},
    "logistic": {},
}


class Untraceable(torch.nn.Module):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        mean = features.mean(dim=(1, 2))
        return mean if float(mean[0]) > 0 else -mean


@pytest.mark.slow
def test_each_network_has_a_graph_of_the_same_probabilities_or_says_that_it_has_none() -> None:
    noise = 0.1 * torch.randn(3, 16_000, generator=torch.Generator().manual_seed(1))
    with optional.installed(onnx_export.REQUIREMENTS):
        import onnxruntime

        for name, options in NETWORK_OPTIONS.items():
            torch.manual_seed(1)
            spec = ClassifierSpec(features=SMALL, model=name, options=options)
            model = SimpleNamespace(classifier=Classifier(spec).eval(), version="1")
            session = onnxruntime.InferenceSession(onnx_export.graph(model))
            expected = model.classifier.window_scores(model.classifier.extractor(noise)).numpy()
            for n in (1, 3):
                (given,) = session.run(None, {"windows": noise[:n].numpy()})
                assert np.abs(given - expected[:n]).max() < 1e-6, name
        model.classifier.network[1] = Untraceable()
        with pytest.raises(
            ConfigError, match=r"the network logistic has no ONNX graph: .* \(\w+\)\."
        ):
            onnx_export.graph(model)


@pytest.mark.parametrize(
    "features",
    [
        FeatureSpec(name="markers", temporal="whole"),
        FeatureSpec(name="markers"),
        FeatureSpec(temporal="padding"),
    ],
)
def test_a_feature_that_is_no_spectrum_of_windows_is_not_exported(features: FeatureSpec) -> None:
    classifier = Classifier(ClassifierSpec(features=features, model="logistic"))
    with pytest.raises(ConfigError, match=f"{features.name} with temporal .* has no ONNX graph"):
        onnx_export.graph(SimpleNamespace(classifier=classifier, version="1"))
