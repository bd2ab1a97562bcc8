"""Build a registered model again from its record, and compare what comes out, bit by bit.

Each step is computed anew from what its record says that it read.  What one step read is what the
one before left, or what a gate handed on of it, by digest: where every step comes to the same
digests, so does the whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from spira_tasks import provenance, runner
from spira_tasks.artifacts import Store
from spira_tasks.contract.run import Run, StepRecord
from spira_tasks.contract.step import Step
from spira_tasks.errors import ConfigError
from spira_tasks.governance.approval import find_version

STEPS = ("materialize", "train", "evaluate")


@dataclass(frozen=True)
class Rebuilt:
    """A step that was computed anew."""

    run: str
    step: str
    recorded: Mapping[str, str]  # output to digest
    rebuilt: Mapping[str, str]
    # Files of those outputs that differ, ``"<output>/<file>"``.
    differing: tuple[str, ...]
    # What runs today and is other than what ran then: "code", "packages".
    changed: tuple[str, ...]
    used_gpu: bool  # then: a processor of another kind gives other last digits

    @property
    def is_same(self) -> bool:
        return dict(self.recorded) == dict(self.rebuilt)


def reproduce(store: Store, version: str) -> Iterator[Rebuilt]:
    """Compute the steps that made a version again, one after the other.

    No record and no result is written; artifacts that differ are kept, to be compared.

    Raises
    ------
    ConfigError
        When there is no such version, or no record says how it was made.
    ArtifactCorrupt
        When what it was made of is gone.
    """
    classifier = find_version(store, version).registered.classifier
    run = _run_of(store, classifier)
    for name in STEPS:
        record = run.steps.get(name)
        if record is None or not record.outputs:
            raise ConfigError(
                f"no record of run {run.run_id} says how its step {name} came to its result: "
                "restore runs/ of the store from a backup"
            )
        yield _rebuild(store, run, record)


def _run_of(store: Store, classifier: str) -> Run:
    """The run that measured a classifier and has a record of all of its steps, the first one."""
    for run in store.runs:
        outputs = run.steps["evaluate"].outputs if set(STEPS) <= set(run.steps) else {}
        if outputs.get("classifier") == classifier:
            return run
    raise ConfigError(
        f"no record says how the classifier {classifier} was made: restore runs/ of the store from "
        "a backup, or train again"
    )


def _rebuild(store: Store, run: Run, record: StepRecord) -> Rebuilt:
    step = Step(record.step, record.stage, run.inputs(record.step), record.config)
    outputs = runner.rebuild(step, store)
    differing = []
    for name, digest in outputs.items():
        recorded = record.outputs.get(name, "")
        if digest != recorded:
            before, now = (store.files(one) if one else {} for one in (recorded, digest))
            files = sorted(file for file in {*before, *now} if before.get(file) != now.get(file))
            differing += [f"{name}/{file}" for file in files]
    return Rebuilt(
        run.run_id,
        record.step,
        dict(record.outputs),
        outputs,
        tuple(differing),
        tuple(_changed(record)),
        record.gpu_seconds > 0,
    )


def _changed(record: StepRecord) -> Iterator[str]:
    module = runner.load(record.stage).__name__
    today = {"code": provenance.code_digest(module), "packages": provenance.packages_digest(module)}
    for name, digest in today.items():
        if record.provenance.get(name) != digest:
            yield name
