"""Put the classifier into the model registry, as challenger, with all that is known of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import PositiveInt

from spira_tasks import scratch
from spira_tasks.config import StageConfig, StageSpec
from spira_tasks.contract.record import Outcome
from spira_tasks.contract.verdict import Number, Verdict

if TYPE_CHECKING:
    from spira_tasks.artifacts import Directory, Store
    from spira_tasks.package import Golden
    from spira_tasks.tracking import Registered, Tracker
    from spira_tasks.work import PlatformWork

SPEC = StageSpec(outside=True)  # it changes the registry

# Tag of a version that passed the checks of this step.  One that failed them is checked again when
# the step is, or it would pass as known.
SERVABLE = "spira.servable"


@dataclass(frozen=True)
class Inputs:
    recordings: Directory  # recordings.parquet with the column ``split``
    model: Directory  # training.json, history.json
    classifier: Directory  # weights.safetensors, classifier.json
    report: Directory  # evaluation.json, predictions.parquet, *.png


@dataclass(frozen=True)
class Outputs:
    registration: Path  # registration.json: name, version, digest of the classifier


class Config(StageConfig):
    """``n_parity_recordings``: how many are scored again by the model that the registry returns."""

    n_parity_recordings: PositiveInt = 5


def run(inputs: Inputs, config: Config, outputs: Outputs, work: PlatformWork) -> Outcome:
    from expectations import requirements
    from spira_tasks import costs, package
    from spira_tasks.tracking import MODEL, Tracker

    tracker = Tracker(work.store.tracking_uri)
    digest = inputs.classifier.digest
    known = tracker.find_version(digest)
    registered = known or register(inputs, tracker, work.store)
    place = tracker.place(registered.run_id)

    record = {"name": MODEL, "version": registered.version, "classifier": digest}
    (outputs.registration / "registration.json").write_text(json.dumps(record, sort_keys=True))
    metrics = {"version": int(registered.version)}
    if known and known.tags.get(SERVABLE) == "true":
        package.check(known, tracker, work.store)
        return Outcome(metrics, changed=False, mlflow_run=place)
    with scratch.folder() as folder:
        model = package.load(registered, tracker, work.store, folder)
        parity = serving_parity(inputs, config, model, package.golden(folder), work)
        affordable = requirements.verdicts(costs.measure(folder), requirements.read())
    verdicts = (parity, *affordable)
    if not any(verdict.stops for verdict in verdicts):
        tracker.tag(registered.version, {SERVABLE: "true"})
    return Outcome(metrics, verdicts, mlflow_run=place)


def register(inputs: Inputs, tracker: Tracker, store: Store) -> Registered:
    """Log and register; nothing is half-registered, for the version is made last."""
    from spira_tasks import package, tracking

    report = json.loads(inputs.report.path("evaluation.json").read_text())
    run_id = tracker.run_of(inputs.model.digest, name=f"model {inputs.model.digest[7:19]}")
    pictures = [name for name in inputs.report.names if name.endswith(".png")]
    clean = report["conditions"]["clean"]
    with scratch.folder() as folder:
        # MLflow shows a file by its name, and the store's is a digest
        inputs.report.copy_to(folder)
        tracker.describe(
            run_id,
            params=json.loads(inputs.model.path("training.json").read_text()),
            # MLflow takes no other value of a parameter: one model may be evaluated in two ways
            metrics={"operating_point": report["operating_point"]}
            | {
                f"test_{name}{suffix}": estimate[part]
                for name, estimate in clean.items()
                for suffix, part in (("", "value"), ("_low", "low"), ("_high", "high"))
            },
            tags={
                "spira.recordings": inputs.recordings.digest,
                "spira.output.model": inputs.model.digest,
                "spira.output.classifier": inputs.classifier.digest,
                "spira.output.report": inputs.report.digest,
                "spira.synthetic": str(report["synthetic"]).lower(),
            },
            history=json.loads(inputs.model.path("history.json").read_text()),
            files=[folder / name for name in [*pictures, "evaluation.json"]],
        )
    with scratch.folder() as folder:
        write_package(folder, inputs.classifier)
        tags = {
            tracking.CLASSIFIER: inputs.classifier.digest,
            "spira.task": json.loads(inputs.classifier.path("classifier.json").read_text())["task"],
            "spira.synthetic": str(report["synthetic"]).lower(),
            **package.tags_of(inputs.classifier.digest, store.put_directory(folder / "model")),
        }
        return tracker.register(run_id, folder / "model", tags)


def write_package(folder: Path, classifier: Directory) -> None:
    """Write ``folder / "model"``: what MLflow loads, with the golden clips and their answers."""
    from spira_tasks import package, tracking
    from spira_tasks.speech.pyfunc import VERSION

    data = folder / package.DATA.name
    classifier.copy_to(data)
    (data / VERSION).write_text(classifier.digest)
    write_golden(data)
    source, more = copy_source(folder), package.requirements(data)
    tracking.write_model(folder / "model", data, source, example(), more)


def write_golden(data: Path) -> None:
    """Write clips beside a classifier, with what it says of them and what it may cost."""
    import pandas as pd

    from expectations import requirements
    from spira_tasks.package import GOLDEN, GOLDEN_FILE
    from spira_tasks.speech import golden, pyfunc

    clips = golden.clips()
    contents = pd.DataFrame({"audio": [clip.content for clip in clips]})
    answers = pyfunc.load(data).predict(contents).to_dict("records")
    (data / GOLDEN).mkdir()
    for clip in clips:
        (data / GOLDEN / clip.name).write_bytes(clip.content)
    found = [
        {"name": clip.name, "audio_seconds": clip.seconds, "answer": answer}
        for clip, answer in zip(clips, answers, strict=True)
    ]
    limits = {name: one.limit for name, one in requirements.read().items()}
    content = {"clips": found, "limits": limits}
    (data / GOLDEN / GOLDEN_FILE).write_text(json.dumps(content, indent=1, sort_keys=True))


def example() -> bytes:
    """A file that every model answers, to show the form: tones and pauses in noise, no voice."""
    import numpy as np

    from spira_tasks.speech.audio import FULL_SCALE, SAMPLE_RATE_HZ, encode_wav

    seconds = np.arange(4 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    noise = np.random.default_rng(0).standard_normal(seconds.size)
    tone = np.sin(2 * np.pi * 200 * seconds) * (seconds % 1 < 0.7)
    return encode_wav(np.rint((0.1 * tone + 0.003 * noise) * FULL_SCALE).astype(np.int16))


def copy_source(folder: Path) -> Path:
    """Write the package that loads a classifier: ``spira_tasks``, cut down and renamed.

    Its name holds the digest of its content.  So a model always runs the code it was trained with,
    even beside another version of it, or inside this project.
    """
    from spira_tasks.provenance import code_digest, project_sources

    loader = "spira_tasks.speech.pyfunc"
    package = folder / f"spira_classifier_{code_digest(loader)[:12]}"
    sources = project_sources(loader)
    for module, source in {"spira_tasks": b"", **sources}.items():
        place = folder.joinpath(package.name, *module.split(".")[1:])
        is_package = any(name.startswith(f"{module}.") for name in sources)
        file = place / "__init__.py" if is_package else place.with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(source.replace(b"spira_tasks", package.name.encode()))
    return package


def serving_parity(
    inputs: Inputs, config: Config, model: Any, golden: Golden, work: PlatformWork
) -> Verdict:
    """Whether the model that the registry returns answers as the evaluated one did."""
    import pandas as pd

    from spira_tasks import package

    recordings = pd.read_parquet(inputs.recordings.path("recordings.parquet"))
    predictions = pd.read_parquet(inputs.report.path("predictions.parquet"))
    sample = predictions[predictions["split"] == "test"].head(config.n_parity_recordings)
    sample = sample.merge(recordings[["record_id", "waveform"]], on="record_id")
    served = [
        package.score(model, work.blobs.read(digest))["probability"].iloc[0]
        for digest in sample["waveform"]
    ]
    # a recording that a person released may be one that no model answers
    differences = (sample["clean"] - served).abs().dropna()
    difference = float(differences.max())
    clips = pd.DataFrame({"audio": [clip.content for clip in golden.clips]})
    n_other = len({name for name, _ in golden.differences(model.predict(clips).to_dict("records"))})
    return Verdict(
        "serving_parity",
        "pass" if difference <= package.TOLERANCE and not n_other else "block",
        observed=Number(difference),
        threshold=package.TOLERANCE,
        n=len(differences),
        n_unit="recordings",
        numbers={"golden_differing": Number(n_other, "items")},
    )
