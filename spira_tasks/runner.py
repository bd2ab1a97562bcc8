"""Run one step: resolve its inputs, look for its result, call the stage, store what it made."""

from __future__ import annotations

import dataclasses
import errno
import importlib
import json
import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from hashlib import sha256
from tempfile import gettempdir
from typing import Any, Protocol, cast

from pydantic import ValidationError

from spira_tasks import errors, provenance, scratch
from spira_tasks.artifacts import Checkpoint, Directory, Store, open_source
from spira_tasks.artifacts.blobs import canonical_json
from spira_tasks.config import StageConfig, StageSpec
from spira_tasks.contract.record import Outcome, Result
from spira_tasks.contract.run import State, StepRecord
from spira_tasks.contract.step import STAGES, Step
from spira_tasks.governance import audit, decisions
from spira_tasks.work import LiveMetrics, PlatformWork, Record, Work

log = logging.getLogger(__name__)


class Stage(Protocol):
    """What every module of ``STAGES`` offers; ``SPEC`` where it is not the default."""

    __name__: str
    Inputs: type[Any]  # dataclass of Directory: files to read
    Outputs: type[Any]  # dataclass of Path: empty folders to fill
    Config: type[StageConfig]

    def run(self, inputs: Any, config: Any, outputs: Any, work: Any) -> Outcome: ...


def run_step(step: Step, run_id: str, store: Store) -> Result:
    """Bring ``step`` to its result.  Calling it again finds the result, and is recorded.

    A stage that acts on the outside is called each time.

    Raises
    ------
    GateRejected
        When a verdict of the result ends the run; the result is stored all the same.
    """
    started = time.monotonic()
    known: dict[str, Any] = {}  # fields of the record, as far as they are known

    def close(state: State, **fields: Any) -> None:
        record = StepRecord(
            step=step.record,
            stage=step.stage,
            state=state,
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - started, 3),
            inputs=dict(step.inputs),
            **known,
            **fields,
        )
        store.runs.write(run_id, record)

    try:
        result, found = _find_or_compute(step, run_id, store, known)
        if step.shard:
            close("done", found=found, metrics={} if found else result.metrics)
            return result
    except BaseException as error:
        if isinstance(error, errors.ArtifactCorrupt):
            _forget(run_id, store)
        error = _named(error)
        message = str(error) if isinstance(error, errors.SpiraError) else ""
        try:
            # before there was anything to give verdicts on
            if isinstance(error, errors.GateRejected):
                refused = {"run": run_id, "step": step.name, "state": "refused"}
                known["audit"] = audit.record(store, spec_of(step.stage).audit or "gate", refused)
            stopped = isinstance(error, SystemExit | KeyboardInterrupt)
            kind = "Stopped" if stopped else type(error).__name__
            close("failed", error=kind, message=message)
        except errors.ServiceUnavailable as lost:
            log.warning("%s: its record could not be written: %s", step.name, lost)
        raise error
    state: State = "blocked" if result.stopping else "done"
    if action := spec_of(step.stage).audit:
        event = _event(run_id, step.name, state, found, result)
        known["audit"] = audit.record(store, action, event)
    close(
        state,
        found=found,
        outputs=result.outputs,
        metrics=result.metrics,
        verdicts=result.verdicts,
        seconds_computing=result.seconds,
        cpu_seconds=result.cpu_seconds,
        gpu_seconds=result.gpu_seconds,
        provenance=result.provenance,
    )
    if result.stopping:
        from expectations.words.verdicts import sentence

        listing = "".join(f"\n  - {one.id}: {sentence(one, 'en')}" for one in result.stopping)
        raise errors.GateRejected(f"step {step.name!r} blocks the run:{listing}")
    return result


def _event(run_id: str, step: str, state: State, found: bool, result: Result) -> Record:
    """What the audit log keeps of a step: counts, digests and names."""
    return {
        "run": run_id,
        "step": step,
        "state": state,
        "found": found,
        "n_passed": sum(verdict.status == "pass" for verdict in result.verdicts),
        "warnings": [one.id for one in result.verdicts if one.status != "pass" and not one.stops],
        **audit.details_of(result),
    }


def _named(error: BaseException) -> BaseException:
    """A full disk as an error that says what to do; any other error as it is."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        named = errors.ServiceUnavailable(
            f"no space is left for temporary files in {gettempdir()}: free some, or, where steps "
            "run in containers, give the step more scratch_mib in the site file"
        )
        named.__cause__ = error
        return named
    return error


def check(step: Step) -> None:
    """Raise ConfigError when the stage or its configuration is wrong, before anything runs."""
    _configure(load(step.stage), step)


def resolve(reference: str, run_id: str, store: Store) -> str:
    """Turn ``"<step>.<output>"`` into the digest that step produced in this run."""
    name, _, output = reference.partition(".")
    record = store.runs.step(run_id, name)
    if record is None or record.state == "failed":
        raise errors.ConfigError(
            f"input {reference!r}: step {name!r} has not finished in run {run_id!r}; run it first"
        )
    if record.state == "blocked":
        raise errors.GateRejected(f"input {reference!r}: step {name!r} blocked run {run_id!r}")
    if output not in record.outputs:
        raise errors.ConfigError(f"input {reference!r}: {name!r} has only {sorted(record.outputs)}")
    return record.outputs[output]


def _forget(run_id: str, store: Store) -> None:
    """Forget the results of a run in which something stored was found damaged.

    A table may name the damaged blob, so its own step has to run again; what every recording is
    remembered by makes that cheap.
    """
    try:
        for record in store.runs.read(run_id).steps.values():
            if record.key:
                store.forget_result(record.key)
    except errors.SpiraError as error:  # of the damage, which is the first error, the run tells
        log.warning("run %s: not all of its results are forgotten: %s", run_id, error)


def _find_or_compute(
    step: Step, run_id: str, store: Store, known: dict[str, Any]
) -> tuple[Result, bool]:
    stage, spec = load(step.stage), spec_of(step.stage)
    config = _configure(stage, step)
    known["config"] = config.model_dump(mode="json")
    inputs = {name: _open(ref, run_id, store) for name, ref in step.inputs.items()}
    _check_names(stage, spec, step, inputs)
    applied: dict[str, Directory] = {
        kind: decisions.in_force(store, kind) for kind in spec.decisions
    }
    inputs |= applied
    # by name, for afterwards: a decision that is withdrawn later is then still known
    known["decisions"] = {
        kind: tuple(name.removesuffix(".json") for name in directory.names)
        for kind, directory in applied.items()
    }

    code = provenance.code_digest(stage.__name__)
    packages = provenance.packages_digest(stage.__name__)
    if step.shard and any(ref.startswith("folder:") for ref in step.inputs.values()):
        # the key needs all of the folder read, and a shard reads its own part
        work = _work(step, run_id, store, step.record, code + packages)
        return _work_ahead(step, stage, inputs, config, work), False
    digests = {name: directory.digest for name, directory in inputs.items()}
    key = provenance.result_key(step.stage, code, packages, digests, known["config"])
    known["key"] = key

    result = None if spec.outside else store.find_result(key)
    if result is not None:
        log.info("%s: found %s", step.name, key[:12])
        return result, True

    if step.shard:
        work = _work(step, run_id, store, step.record, code + packages)
        return _work_ahead(step, stage, inputs, config, work), False
    log.info("%s: computing %s", step.name, key[:12])
    started, cpu_started = time.monotonic(), _cpu_seconds()
    work = _work(step, run_id, store, key, code + packages)
    try:
        with _assistants(config, step, run_id, store, key):
            outcome, outputs = _execute(stage, inputs, config, work, store)
    finally:  # what is finished is kept, whatever stopped the rest
        store.blobs.flush()
    seconds = round(time.monotonic() - started, 3)
    result = Result(
        stage=step.stage,
        key=key,
        outputs=outputs,
        metrics=dict(outcome.metrics),
        verdicts=outcome.verdicts,
        seconds=seconds,
        cpu_seconds=round(_cpu_seconds() - cpu_started, 3),
        gpu_seconds=seconds if _used_gpu() else 0.0,
        provenance={
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "code": code,
            "packages": packages,
            "lock": provenance.lock_digest(),
            "git": provenance.git_revision(),
            "image": os.environ.get("SPIRA_IMAGE", ""),  # name and digest, where there is one
            "python": platform.python_version(),
            "host": platform.node(),
            "mlflow_run": outcome.mlflow_run or work.track.mlflow_run,
        },
    )
    if not spec.outside:
        store.save_result(result)
        _delete(work.checkpoint, step)
        result = store.find_result(key) or result  # another process may have been first
    work.track.finish(outputs)
    log.info("%s: done in %.1f s", step.name, result.seconds)
    return result, not outcome.changed


def _cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _used_gpu() -> bool:
    """Whether this process has had memory of a GPU since it was last asked."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return False
    used: bool = torch.cuda.max_memory_allocated() > 0
    torch.cuda.reset_peak_memory_stats()
    return used


def _work_ahead(
    step: Step, stage: Stage, inputs: Mapping[str, Directory], config: StageConfig, work: Work
) -> Result:
    """Do a shard's part of the work of a step: what it leaves is remembered, and no output."""
    run_shard = getattr(stage, "run_shard", None)
    if run_shard is None:
        raise errors.ConfigError(f"stage {step.stage!r} does not work in shards")
    log.info("%s: working ahead", step.record)
    started = time.monotonic()
    try:
        outcome = run_shard(stage.Inputs(**inputs), config, work, step.shard)
    finally:
        work.blobs.flush()
    seconds = round(time.monotonic() - started, 3)
    return Result(step.stage, "", {}, metrics=dict(outcome.metrics), seconds=seconds)


def _assistants(
    config: StageConfig, step: Step, run_id: str, store: Store, key: str
) -> AbstractContextManager[None]:
    """The other processes that compute with this one, where the configuration has several."""
    n_processes = getattr(config, "n_processes", 1)
    if n_processes == 1:
        return nullcontext()
    from spira_tasks.speech import parallel

    command = [sys.executable, "-m", "spira_tasks", "run", "--assist", key, "--store", store.url]
    return parallel.assistants([*command, "--run-id", run_id, step.to_json()], n_processes)


def rebuild(step: Step, store: Store) -> dict[str, str]:
    """Compute a step anew, whatever the store has of it; return its outputs by digest.

    It writes no record and no result, and goes on from no checkpoint.
    """
    stage, key = load(step.stage), "0" * 64  # no result has this key
    config = _configure(stage, step)
    work = Work(
        key,
        store.blobs,
        lambda parts, make: dict(json.loads(canonical_json(make()))),  # noqa: ARG005
        store.checkpoint(key, read_only=True),
        LiveMetrics("", key, step.name, is_off=True),
    )
    inputs = {name: _open(reference, "", store) for name, reference in step.inputs.items()}
    _check_names(stage, spec_of(step.stage), step, inputs)
    try:
        return _execute(stage, inputs, config, work, store)[1]
    finally:
        store.blobs.flush()


def assist(step: Step, run_id: str, store: Store, key: str) -> None:
    """Compute with the process that computes the result ``key``; only that one writes."""
    from spira_tasks.speech import parallel

    log.setLevel(logging.WARNING)  # the first process says how far it is
    logging.getLogger("spira_tasks.stages").setLevel(logging.WARNING)
    stage = load(step.stage)
    config = _configure(stage, step)
    inputs = {name: _open(ref, run_id, store) for name, ref in step.inputs.items()}
    work = dataclasses.replace(
        _work(step, run_id, store, key, ""),
        checkpoint=store.checkpoint(key, read_only=True),
        track=LiveMetrics("", key, step.name, is_off=True),
    )
    parallel.join()
    with scratch.folder() as place:
        folders = {field.name: place / field.name for field in dataclasses.fields(stage.Outputs)}
        for folder in folders.values():
            folder.mkdir()
        stage.run(stage.Inputs(**inputs), config, stage.Outputs(**folders), work)


def _delete(checkpoint: Checkpoint, step: Step) -> None:
    try:
        checkpoint.delete()
    except errors.SpiraError as error:  # the result is there: what is left over harms nobody
        log.warning("%s: its checkpoint could not be deleted: %s", step.name, error)


def _execute(
    stage: Stage, inputs: Mapping[str, Directory], config: StageConfig, work: Work, store: Store
) -> tuple[Outcome, dict[str, str]]:
    """Give the stage files to read and folders to fill; keep only what it left in the latter."""
    with scratch.folder() as place:
        names = [field.name for field in dataclasses.fields(stage.Outputs)]
        folders = {name: place / name for name in names}
        for folder in folders.values():
            folder.mkdir()
        outcome = stage.run(stage.Inputs(**inputs), config, stage.Outputs(**folders), work)
        return outcome, {name: store.put_directory(folder) for name, folder in folders.items()}


def _work(step: Step, run_id: str, store: Store, key: str, runs: str) -> Work:
    def remember(parts: Mapping[str, Any], make: Callable[[], Record]) -> Record:
        content = json.dumps([step.stage, runs, dict(parts)], sort_keys=True).encode()
        memo = sha256(b"spira.memo/2\0" + content).hexdigest()
        record = store.blobs.recall(memo)
        if record is None:
            record = json.loads(canonical_json(make()))  # as it is recalled: a table has its order
            store.blobs.memorize(memo, record)
        return record

    track = LiveMetrics(store.tracking_uri, key, f"{run_id}/{step.name}")
    common = (key, store.blobs, remember, store.checkpoint(key), track)
    if spec_of(step.stage).outside:
        return PlatformWork(*common, run_id=run_id, store=store)
    return Work(*common)


def _open(reference: str, run_id: str, store: Store) -> Directory:
    if reference.startswith("sha256:"):
        return store.directory(reference)
    if ":" in reference:
        return open_source(reference)
    return store.directory(resolve(reference, run_id, store))


def load(stage: str) -> Stage:
    for package in STAGES:
        module = f"{package}.{stage}"
        try:
            return cast(Stage, importlib.import_module(module))
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
    raise errors.ConfigError(f"there is no stage {stage!r}")


def spec_of(stage: str) -> StageSpec:
    spec: StageSpec = getattr(load(stage), "SPEC", StageSpec())
    return spec


def _configure(stage: Stage, step: Step) -> StageConfig:
    try:
        return stage.Config.model_validate_json(json.dumps(dict(step.config)))
    except ValidationError as error:
        problems = "".join(
            f"\n  - {'.'.join(map(str, problem['loc'])) or 'all of it'}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False)
        )
        known = ", ".join(stage.Config.model_fields)
        raise errors.ConfigError(
            f"step {step.name!r}: its configuration is wrong:{problems}\nIts keys are: {known}"
        ) from None


def _check_names(
    stage: Stage, spec: StageSpec, step: Step, inputs: Mapping[str, Directory]
) -> None:
    wanted = {field.name for field in dataclasses.fields(stage.Inputs)} - set(spec.decisions)
    if wanted != set(inputs):
        raise errors.ConfigError(
            f"step {step.name!r}: stage {step.stage!r} takes the inputs {sorted(wanted)}, "
            f"not {sorted(inputs)}"
        )
