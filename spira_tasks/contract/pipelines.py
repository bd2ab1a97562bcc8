"""The pipelines, as data: Airflow schedules them, ``python -m spira_tasks pipeline`` runs them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from spira_tasks.contract.step import Resources, Step

# A gate hands its input on, without the rows that went into quarantine.  Later steps read the
# gate's output and never what came before it (a test forbids it), so data flow alone puts every
# step behind its gate.
TRAINING = (
    Step(
        "ingest",
        "ingest",
        inputs={"data": "folder:."},
        resources=Resources(access="data", scratch_mib=2048, memory_mib=(4096,)),
    ),
    Step(
        "check_recordings",
        "validate",
        inputs={"table": "ingest.recordings", "source": "ingest.report"},
        config={"suite": "recordings"},
    ),
    Step(
        "check_ward_noise",
        "validate",
        inputs={"table": "ingest.ward_noise", "source": "check_recordings.table"},
        config={"suite": "ward_noise"},
    ),
    Step("split", "split", inputs={"recordings": "check_recordings.table"}),
    Step(
        "check_training_set",
        "validate",
        inputs={"table": "split.recordings", "source": "check_recordings.table"},
        config={"suite": "training_set"},
    ),
    Step("materialize", "materialize", inputs={"recordings": "check_training_set.table"}),
    Step(
        "check_features",
        "validate",
        inputs={"table": "materialize.features", "source": "check_training_set.table"},
        config={"suite": "features"},
    ),
    Step(
        "check_drift",
        "drift",
        inputs={"recordings": "check_training_set.table", "features": "check_features.table"},
        resources=Resources(access="models"),  # the champion's training set is the reference
    ),
    Step(
        "train",
        "train",
        inputs={
            "recordings": "check_drift.recordings",
            "features": "check_features.table",
            "ward_noise": "check_ward_noise.table",
        },
        resources=Resources(
            access="models",  # its epochs are shown in MLflow while they come
            n_gpus=1,
            gpu_optional=True,
            memory_mib=(4096, 8192),
            shm_mib=256,
            minutes=24 * 60,
        ),
    ),
    Step(
        "evaluate",
        "evaluate",
        inputs={
            "recordings": "check_drift.recordings",
            "features": "check_features.table",
            "ward_noise": "check_ward_noise.table",
            "model": "train.model",
        },
    ),
    Step(
        "register",
        "register",
        inputs={
            "recordings": "check_drift.recordings",
            "model": "train.model",
            "classifier": "evaluate.classifier",
            "report": "evaluate.report",
        },
        resources=Resources(access="models"),
    ),
    Step(
        "promote",
        "promote",
        inputs={
            "recordings": "check_drift.recordings",
            "registration": "register.registration",
            "report": "evaluate.report",
        },
        resources=Resources(access="models"),
    ),
)

ERASURE = (Step("erase", "erase", resources=Resources(access="governance", memory_mib=(2048,))),)

# Reports on a run whatever became of it, so it reads no output and waits for none.
REPORT = (Step("report", "report", resources=Resources(access="governance", memory_mib=(2048,))),)

FIXED = ("suite",)  # of the configuration: which gate a step is

PIPELINES = {"training": TRAINING}
ALL_STEPS = (*TRAINING, *ERASURE, *REPORT)  # what a site file may speak of

# What the form of a DAG asks for by a short name; everything else is a setting.
OPTIONS = {
    "epochs": "train.epochs",
    "seed": "train.seed",
    "model": "train.model",
    "feature": "materialize.feature",
    "sites": "ingest.sites",
    "subject": "erase.subject",
    "reason": "erase.reason",
    "run": "report.run",
}


def configure(
    steps: tuple[Step, ...], *, data: str | None = None, settings: Mapping[str, Any] | None = None
) -> tuple[Step, ...]:
    """The steps of a pipeline for one run.

    Parameters
    ----------
    steps : tuple of Step
    data : str, optional
        Where the recordings are: a folder, or ``s3://bucket/prefix``.
    settings : mapping of str to JSON value, optional
        ``"<step>.<key>"`` to the value that this key of the step's configuration takes.

    Raises
    ------
    ValueError
        When a setting does not name a step of the pipeline, or would make another gate of one.
    """
    by_name = {step.name: step for step in steps}
    if data is not None:
        by_name["ingest"] = with_data(by_name["ingest"], data)
    for target, value in (settings or {}).items():
        name, dot, key = target.partition(".")
        if not dot or name not in by_name:
            raise ValueError(
                f"setting {target!r}: write <step>.<key>=<value>, with a step of "
                f"{', '.join(by_name)}"
            )
        step = by_name[name]
        if step.config.get(key, value) != value and key in FIXED:
            raise ValueError(
                f"setting {target!r}: the pipeline sets {key}; another would leave a gate out"
            )
        by_name[name] = dataclasses.replace(step, config={**step.config, key: value})
    return tuple(by_name.values())


def from_params(steps: tuple[Step, ...], params: Mapping[str, Any]) -> tuple[Step, ...]:
    """The steps of a pipeline as the parameters of a DAG run want them.

    ``params`` holds ``data``, any of ``OPTIONS``, and ``settings`` as in ``configure``; one that
    is None leaves the stage's own default.

    Raises
    ------
    ValueError
        When a parameter or a setting is not known.
    """
    names = {step.name for step in steps}
    options = {name: to for name, to in OPTIONS.items() if to.partition(".")[0] in names}
    taken = [*(["data"] if "ingest" in names else []), *options, "settings"]
    unknown = sorted(set(params) - set(taken))
    if unknown:
        raise ValueError(
            f"unknown parameters {', '.join(unknown)}; the DAG takes {', '.join(taken)}"
        )
    short = {target: params.get(name) for name, target in options.items()}
    settings = {target: value for target, value in short.items() if value is not None}
    return configure(
        steps, data=params.get("data"), settings={**settings, **(params.get("settings") or {})}
    )


def configured(name: str, steps: tuple[Step, ...], params: Mapping[str, Any]) -> Step:
    """The step of this name, as ``from_params`` makes it."""
    return next(step for step in from_params(steps, params) if step.name == name)


def with_data(step: Step, data: str) -> Step:
    """The step reading its ``data`` from a folder or an ``s3://`` prefix."""
    reference = data if data.startswith(("s3://", "folder:")) else f"folder:{data}"
    return dataclasses.replace(step, inputs={**step.inputs, "data": reference})
