"""The pipelines, as data: Airflow schedules them, ``python -m spira_tasks pipeline`` runs them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from spira_tasks.contract import presets
from spira_tasks.contract.step import Resources, Step

HANDED_ON = {"validate": "table", "drift": "recordings", "confounds": "recordings"}
"""Stages that are gates: the input that a gate hands on, as its output of the same name."""

FIXED = ("gate", "acts")
"""Keys of a configuration that no run may change: which gate a step is, what a DAG may decide."""


@dataclass(frozen=True)
class Pipeline:
    """Steps that belong together, and what a person may choose when starting them."""

    name: str
    steps: tuple[Step, ...]  # in an order in which they can run
    # Run after all others, whatever became of them; they read no output of the others.
    teardown: tuple[Step, ...] = ()
    # What a form asks for by a short name, to the setting ``"<step>.<key>"``.
    options: Mapping[str, str] = field(default_factory=dict)
    # Setting to the lists that hold its value alone, unless they are set themselves.
    followed_by: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    entry: str = ""  # where data enters, ``"<step>.<input>"``; empty where none does

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    @property
    def all_steps(self) -> tuple[Step, ...]:
        return (*self.steps, *self.teardown)

    @property
    def gates(self) -> tuple[Step, ...]:
        """The steps that hand their input on only when it may be used."""
        return tuple(step for step in self.steps if step.stage in HANDED_ON)

    def step(self, name: str) -> Step:
        return next(step for step in self.all_steps if step.name == name)

    def order(self, name: str) -> int:
        """Place of a step; a step of another pipeline comes last."""
        names = [step.name for step in self.all_steps]
        return names.index(name) if name in names else len(names)

    def gates_behind(self, reference: str) -> list[tuple[Step, str]]:
        """The gates that a table came through, the last first.

        Parameters
        ----------
        reference : str
            ``"<step>.<output>"``, what a step reads.

        Returns
        -------
        list of (Step, str)
            The gate, and the input of it that the gate before handed on: the table itself, or the
            ``source`` that the table was made from.
        """
        gate = self.step(reference.partition(".")[0])
        if gate not in self.gates:
            return []
        for name in (HANDED_ON[gate.stage], "source"):
            if earlier := self.gates_behind(gate.inputs.get(name, reference.partition(".")[0])):
                return [(gate, name), *earlier]
        return [(gate, HANDED_ON[gate.stage])]

    def configure(
        self, *, data: str | None = None, settings: Mapping[str, Any] | None = None
    ) -> Pipeline:
        """The pipeline for one run.

        Parameters
        ----------
        data : str, optional
            Where the recordings are: a folder, or ``s3://bucket/prefix``.
        settings : mapping of str to JSON value, optional
            ``"<step>.<key>"`` to the value that this key of the step's configuration takes.  Those
            of a preset (``train.preset``) lie under them.

        Raises
        ------
        ValueError
            When a setting does not name a step of the pipeline, or would make another gate of one,
            or there is no such preset.
        """
        by_name = {step.name: step for step in self.all_steps}
        if data is not None and self.entry:
            name, _, key = self.entry.partition(".")
            place = data if data.startswith(("s3://", "folder:")) else f"folder:{data}"
            by_name[name] = replace(by_name[name], inputs={**by_name[name].inputs, key: place})
        given = presets.laid_under(settings or {}, by_name)
        implied = {
            other: [given[target]]
            for target, others in self.followed_by.items()
            if target in given
            for other in others
        }
        for target, value in {**implied, **given}.items():
            name, dot, key = target.partition(".")
            if not dot or name not in by_name:
                raise ValueError(
                    f"setting {target!r}: write <step>.<key>=<value>, with a step of "
                    f"{', '.join(by_name)}"
                )
            step = by_name[name]
            if step.config.get(key, value) != value and key in FIXED:
                raise ValueError(
                    f"setting {target!r}: the pipeline sets {key}; another value would leave a "
                    "gate out, or let a person decide what is not theirs"
                )
            by_name[name] = replace(step, config={**step.config, key: value})
        return replace(
            self,
            steps=tuple(by_name[step.name] for step in self.steps),
            teardown=tuple(by_name[step.name] for step in self.teardown),
        )

    def from_params(self, params: Mapping[str, Any]) -> Pipeline:
        """The pipeline as the parameters of a DAG run want it.

        ``params`` holds ``data`` where data enters, any of ``options``, and ``settings`` as in
        ``configure``; one that is None leaves the stage's own default.  A form shows a value for
        every option, so an option lies under a preset that the settings name.

        Raises
        ------
        ValueError
            When a parameter or a setting is not known.
        """
        names = [*(["data"] if self.entry else []), *self.options, "settings"]
        if unknown := sorted(set(params) - set(names)):
            raise ValueError(
                f"unknown parameters {', '.join(unknown)}; the DAG takes {', '.join(names)}"
            )
        short = {target: params.get(name) for name, target in self.options.items()}
        explicit = params.get("settings") or {}
        name = explicit.get(presets.SETTING)
        taken = presets.find(name).settings if name else {}
        chosen = {
            target: value
            for target, value in short.items()
            if value is not None and target not in taken
        }
        return self.configure(data=params.get("data"), settings={**chosen, **explicit})


# Reports on a run whatever became of it, so it reads no output and waits for none.
_REPORT = Step("report", "report", resources=Resources(access="governance", memory_mib=(2048,)))

# Every step reads what the gate before it handed on, and never what came before the gate: data
# flow alone puts every step behind its gate (a test checks it).
TRAINING = Pipeline(
    "training",
    (
        Step(
            "ingest",
            "ingest",
            inputs={"data": "folder:."},
            resources=Resources(
                access="data", scratch_mib=2048, memory_mib=(4096,), rows_per_shard=2000
            ),
        ),
        Step(
            "check_recordings",
            "validate",
            inputs={"table": "ingest.recordings", "source": "ingest.report"},
            config={"gate": "recordings"},
        ),
        Step(
            "check_ward_noise",
            "validate",
            inputs={"table": "ingest.ward_noise", "source": "check_recordings.table"},
            config={"gate": "ward_noise"},
        ),
        Step("split", "split", inputs={"recordings": "check_recordings.table"}),
        Step(
            "check_training_set",
            "validate",
            inputs={"table": "split.recordings", "source": "check_recordings.table"},
            config={"gate": "training_set"},
        ),
        Step(
            "materialize",
            "materialize",
            inputs={"recordings": "check_training_set.table"},
            resources=Resources(rows_per_shard=2000),
        ),
        Step(
            "check_features",
            "validate",
            inputs={"table": "materialize.features", "source": "check_training_set.table"},
            config={"gate": "features"},
        ),
        Step(
            "check_drift",
            "drift",
            inputs={"recordings": "check_training_set.table", "features": "check_features.table"},
            resources=Resources(access="models"),  # the champion's training set is the reference
        ),
        Step(
            "check_confounds",
            "confounds",
            inputs={"recordings": "check_drift.recordings", "features": "check_features.table"},
        ),
        Step(
            "train",
            "train",
            inputs={
                "recordings": "check_confounds.recordings",
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
                "recordings": "check_confounds.recordings",
                "features": "check_features.table",
                "ward_noise": "check_ward_noise.table",
                "model": "train.model",
            },
        ),
        Step(
            "register",
            "register",
            inputs={
                "recordings": "check_confounds.recordings",
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
                "recordings": "check_confounds.recordings",
                "registration": "register.registration",
                "report": "evaluate.report",
            },
            resources=Resources(access="models"),
        ),
    ),
    teardown=(_REPORT,),
    options={
        "epochs": "train.epochs",
        "seed": "train.seed",
        "model": "train.model",
        "feature": "materialize.feature",
        "sites": "ingest.sites",
    },
    followed_by={"train.task": ("check_training_set.tasks", "materialize.tasks")},
    entry="ingest.data",
)

ERASURE = Pipeline(
    "erasure",
    (
        Step("forget", "forget", resources=Resources(access="services")),  # collection and labels
        Step(
            "erase",
            "erase",
            inputs={"forgotten": "forget.forgotten"},
            resources=Resources(access="governance", memory_mib=(2048,)),
        ),
    ),
    options={
        "subject": "forget.subject",
        "snapshots": "forget.snapshots",
        "reason": "erase.reason",
    },
)

REPORT = Pipeline("report", (_REPORT,), options={"run": "report.run"})

# The registry says which artifacts a version of the model came from: these stay.
RETENTION = Pipeline("retention", (Step("retain", "retain", resources=Resources(access="models")),))

ROLLBACK = Pipeline(
    "rollback",
    (Step("rollback", "rollback", resources=Resources(access="models")),),
    options={"to": "rollback.to", "reason": "rollback.reason"},
)

# What a person decides on a page; the same acts as the commands of these names.
_DECISIONS = Step("decide", "decide", resources=Resources(access="models"))
MODEL_DECISION = Pipeline(
    "model_decision",
    (replace(_DECISIONS, config={"acts": ["approve", "refuse", "waive", "sign"]}),),
    options={
        name: f"decide.{name}"
        for name in (
            *("act", "version", "classifier", "asked", "suite", "check", "run", "part", "digest"),
            "reason",
        )
    },
)
DATA_DECISION = Pipeline(
    "data_decision",
    (replace(_DECISIONS, config={"acts": ["release", "hold"]}),),
    options={name: f"decide.{name}" for name in ("act", "record", "code", "reason")},
)

# The step ``trial`` is mapped: each number is one trial of the plan, a ``TRIAL`` in one process.
EXPERIMENT = Pipeline(
    "experiment",
    (
        Step("plan", "plan", resources=TRAINING.step("ingest").resources),
        Step(
            "trial",
            "trial",
            inputs={"plan": "plan.plan"},
            resources=TRAINING.step("train").resources,
        ),
        Step(
            "compare", "compare", inputs={"plan": "plan.plan"}, resources=Resources(access="models")
        ),
    ),
    options={name: f"plan.{name}" for name in ("experiment", "data", "expired", "retry")},
)

# Of the services: what collection and labels hold becomes recordings that a training reads.
SNAPSHOT = Pipeline(
    "snapshot",
    (Step("snapshot", "snapshot", resources=Resources(access="services")),),
    options={"snapshots": "snapshot.under"},
)

HOSPITAL_SYNC = Pipeline(
    "hospital_sync",
    (
        Step(
            "sync",
            "hospital_sync",
            inputs={"hospitals": "folder:."},
            resources=Resources(access="services"),
        ),
    ),
    options={"sites": "sync.sites"},
    entry="sync.hospitals",
)

TELEMETRY = Pipeline(
    "telemetry",
    (Step("close_days", "telemetry", resources=Resources(access="services")),),
    options={"telemetry": "close_days.under"},
)

# One trial of an experiment.  Every step after ``fold`` reads only the recordings that it hands on:
# none of the sealed test set, in place of which ``evaluate`` measures on a fold.
BEFORE_FOLDS = ("ingest", "check_recordings", "check_ward_noise", "split", "check_training_set")
TRIAL = Pipeline(
    "trial",
    (
        *(TRAINING.step(name) for name in BEFORE_FOLDS),
        Step("fold", "fold", inputs={"recordings": "check_training_set.table"}),
        replace(TRAINING.step("materialize"), inputs={"recordings": "fold.development"}),
        replace(
            TRAINING.step("check_features"),
            inputs={"table": "materialize.features", "source": "fold.development"},
        ),
        replace(
            TRAINING.step("train"),
            inputs={**TRAINING.step("train").inputs, "recordings": "fold.recordings"},
        ),
        replace(
            TRAINING.step("evaluate"),
            inputs={**TRAINING.step("evaluate").inputs, "recordings": "fold.recordings"},
            config={"plots": False, "n_draws": 1},
        ),
    ),
    followed_by=TRAINING.followed_by,
    entry="ingest.data",
)

PIPELINES = {
    pipeline.name: pipeline
    for pipeline in (
        *(TRAINING, EXPERIMENT, ERASURE, REPORT, RETENTION, ROLLBACK),
        *(MODEL_DECISION, DATA_DECISION),
        *(SNAPSHOT, HOSPITAL_SYNC, TELEMETRY),
    )
}
