"""What a run keeps of its steps: one typed record a step, in one order, with one outcome."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from spira_tasks.contract.pipelines import TRAINING
from spira_tasks.contract.typed import typed
from spira_tasks.contract.verdict import Verdict

# Runs with these names are parts of experiments: their steps are called as those of a training.
EXPERIMENT, TRIAL = "experiment@", "trial@"

State = Literal["done", "blocked", "failed"]
RunOutcome = Literal["promoted", "kept", "blocked", "failed", "running"]


@dataclass(frozen=True)
class Anchor:
    """An event of the audit log: its number and its hash."""

    number: int
    hash: str


@dataclass(frozen=True)
class StepRecord:
    """What a run keeps of one of its steps, whether it was computed, found, or failed."""

    step: str
    stage: str
    state: State  # ``blocked``: a verdict ended the run; the outputs are there all the same
    finished_at: str
    seconds: float  # what this run spent on the step
    inputs: Mapping[str, str] = field(default_factory=dict)  # references, as the step has them
    config: Mapping[str, Any] = field(default_factory=dict)  # after validation, with defaults
    # Kind of decision to the names of those that were applied.
    decisions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    key: str = ""  # of the result; empty when the step failed before it had one
    found: bool = False  # whether nothing had to be computed
    outputs: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()
    seconds_computing: float = 0.0  # how long the computation took, the first time
    cpu_seconds: float = 0.0  # as the result has them
    gpu_seconds: float = 0.0
    provenance: Mapping[str, str] = field(default_factory=dict)
    error: str = ""  # of a failed step: the kind of the error,
    message: str = ""  # and its message where it is meant for a reader
    audit: Anchor | None = None  # the event of the audit log, where the stage writes one

    @property
    def stopping(self) -> tuple[Verdict, ...]:
        return tuple(verdict for verdict in self.verdicts if verdict.stops)

    @property
    def refused(self) -> bool:
        """Whether a gate ended the run; ingest can, before there is anything to judge."""
        return self.state == "blocked" or self.error == "GateRejected"

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> StepRecord:
        """Read a stored record; fields that a newer version wrote are left out.

        Raises
        ------
        ValueError
            When the text is not JSON, or not the record of a step; says where.
        """
        record: StepRecord = typed(json.loads(text), cls, "the record")
        return record


@dataclass(frozen=True)
class Run:
    """What is recorded of one run of a pipeline."""

    run_id: str
    # In the order of the training pipeline; steps of another pipeline come last.
    steps: Mapping[str, StepRecord]
    # Step to the records of the shards that worked ahead of it.
    shards: Mapping[str, tuple[StepRecord, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, run_id: str, records: Mapping[str, StepRecord]) -> Run:
        ordered = sorted(
            records.items(), key=lambda item: (TRAINING.order(item[0]), item[1].finished_at)
        )
        shards: dict[str, tuple[StepRecord, ...]] = {}
        for name, record in sorted(records.items(), key=lambda item: (len(item[0]), item[0])):
            if "." in name:
                step = name.partition(".")[0]
                shards[step] = (*shards.get(step, ()), record)
        return cls(run_id, {name: one for name, one in ordered if "." not in name}, shards)

    @property
    def training(self) -> Run:
        """The run without steps that are not of the training pipeline, such as the report.

        Nothing is left of a part of an experiment.
        """
        if self.run_id.startswith((EXPERIMENT, TRIAL)):
            return Run(self.run_id, {})
        names = {step.name for step in TRAINING}
        steps = {name: one for name, one in self.steps.items() if name in names}
        return Run(self.run_id, steps, self.shards)

    @property
    def outcome(self) -> RunOutcome:
        states = {record.state for record in self.steps.values()}
        if "blocked" in states:
            return "blocked"
        if self.failed:
            return "failed"
        if "promote" not in self.steps:
            return "running"
        return "promoted" if self.steps["promote"].metrics["promoted"] else "kept"

    @property
    def failed(self) -> list[StepRecord]:
        """The steps that failed, and shards that failed where their step never came."""
        of_steps = [one for one in self.steps.values() if one.state == "failed"]
        waiting = [
            one for step, own in self.shards.items() if step not in self.steps for one in own
        ]
        return [*of_steps, *(one for one in waiting if one.state == "failed")]

    @property
    def finished_at(self) -> str:
        return max((record.finished_at for record in self.steps.values()), default="")

    def metrics(self, step: str) -> Mapping[str, float]:
        return self.steps[step].metrics if step in self.steps else {}

    def config(self, step: str) -> Mapping[str, Any]:
        return self.steps[step].config if step in self.steps else {}

    def digest(self, reference: str) -> str:
        """The digest of ``"<step>.<output>"``; empty where the run did not make it.

        A reference to something outside the run (``"sha256:…"``, ``"folder:…"``) is returned as
        it is.
        """
        if ":" in reference:
            return reference
        step, _, output = reference.partition(".")
        return self.steps[step].outputs.get(output, "") if step in self.steps else ""

    def inputs(self, step: str) -> dict[str, str]:
        """What a step read, by digest."""
        references = self.steps[step].inputs.items()
        return {name: self.digest(reference) for name, reference in references}
