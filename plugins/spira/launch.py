"""Turn a step into an Airflow operator; the command line is the same in every runtime."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from airflow.sdk import (
    Asset,
    AssetOrTimeSchedule,
    BaseOperator,
    Context,
    CronTriggerTimetable,
    Param,
)
from airflow.sdk.exceptions import AirflowException

from spira import notify
from spira.access import secrets_of
from spira.ending import OutcomeOperator
from spira.links import LINKS
from spira.outcome import (
    ASK,
    N_LAST_LINES,
    actor,
    command_line,
    configured_step,
    failure,
    result_of,
)
from spira.site import Site, network_of, number_of
from spira.store import AGAIN, ANSWER, BEFORE, LAPTOP_STORE, RECORDS, StoreReader, n_files
from spira.waking import NEW_RECORDINGS
from spira_tasks.contract.pipelines import MODEL_DECISION, Pipeline
from spira_tasks.contract.step import Resources, Step

RUNTIMES = ("process", "docker", "kubernetes")
PROMOTE = RECORDS[AGAIN]
GPU_POOL = "spira_gpu"  # a slot is a GPU: a step waits for as many as it asks for
# Retries of a task.  What a gate refused, or a person must correct, is not retried (outcome.py).
RETRIES: dict[str, Any] = {
    "retries": 4,
    "retry_delay": timedelta(seconds=number_of("SPIRA_RETRY_SECONDS", 30, "seconds")),
    "retry_exponential_backoff": 2.0,  # the factor
    "max_retry_delay": timedelta(minutes=15),
}
# Of every DAG whose tasks are steps.
COMMON: dict[str, Any] = {
    "catchup": False,
    "max_active_runs": 1,  # two trainings would compare with the same champion
    "default_args": RETRIES,
    "on_failure_callback": notify.failed,
    "tags": ["spira"],
}

# A first run that is due may be this late: Airflow may read the DAG again before it starts the run.
LATE_START = timedelta(minutes=10)

log = logging.getLogger("spira.step")


def cron_or_event(expression: str) -> AssetOrTimeSchedule | Asset:
    """The schedule of a DAG that new recordings wake, with a cron expression beside it or without.

    Raises as ``cron``.
    """
    timetable = cron(expression)
    if timetable is None:
        return NEW_RECORDINGS
    return AssetOrTimeSchedule(timetable=timetable, assets=NEW_RECORDINGS)


def cron(expression: str) -> CronTriggerTimetable | None:
    """The schedule of a DAG (cron, UTC); None, on demand only, for an empty expression.

    The first run is the next one to come.  With a start date, or with the expression alone, Airflow
    starts a run for the time before it too, as soon as the DAG is unpaused.
    """
    if not expression:
        return None
    return CronTriggerTimetable(expression, timezone="UTC", run_immediately=LATE_START)


def step_operator(step: Step, pipeline: Pipeline, runtime: str = "") -> BaseOperator:
    """The operator that runs ``step`` of ``pipeline``; raises as ``operator_of``."""
    operator, settings = operator_of(step, pipeline, runtime)
    return operator(**settings)


def mapped_step(step: Step, pipeline: Pipeline, numbers: Any) -> Any:
    """The operator that runs ``step`` once for each number that an earlier task returns."""
    operator, settings = operator_of(step, pipeline)
    return operator.partial(**settings).expand(number=numbers)


def shard_operators(step: Step, pipeline: Pipeline) -> tuple[BaseOperator, Any]:
    """The task that says how many shards work ahead of a step, and the task mapped over them.

    Raises as ``operator_of``.
    """
    kind, arguments = operator_of(step, pipeline)
    site = Site.from_environment()
    limits = site.resources(step)
    if "place" in arguments:  # of an engine
        arguments["places"] = site.places(limits)
    counted = ShardsOperator(
        task_id=f"{step.name}_shards",
        pipeline=pipeline,
        step_name=step.name,
        limits=limits,
        execution_timeout=timedelta(minutes=10),
    )
    arguments |= {"task_id": f"{step.name}_shard", "step_name": step.name}
    shown = "shard {{ task.shard['number'] }} of {{ task.shard['of'] }}"
    shards = kind.partial(**arguments, map_index_template=shown).expand(shard=counted.output)
    return counted, shards


def operator_of(
    step: Step, pipeline: Pipeline, runtime: str = ""
) -> tuple[type[BaseOperator], dict[str, Any]]:
    """The operator class that runs ``step``, by default under ``SPIRA_RUNTIME``; its arguments.

    Raises
    ------
    ValueError
        When the runtime or the site file is wrong: Airflow shows it as the DAG's import error.
    """
    runtime = runtime or os.environ.get("SPIRA_RUNTIME", "process")
    site = Site.from_environment()
    resources = site.resources(step)
    common: dict[str, Any] = {"task_id": step.name, "pipeline": pipeline}
    if resources.queue:
        common["queue"] = resources.queue
    if runtime == "process":
        return ProcessStepOperator, common
    if runtime not in RUNTIMES:
        raise ValueError(f"SPIRA_RUNTIME is {runtime!r}; it must be one of {', '.join(RUNTIMES)}")
    common |= {
        "limits": resources,  # BaseOperator has a ``resources`` of its own
        "store": _bucket(),
        "image": os.environ.get("SPIRA_TASKS_IMAGE", "spira-tasks:0.2.0"),
        "execution_timeout": timedelta(minutes=resources.minutes),
    }
    if runtime == "kubernetes":
        from spira.kubernetes import StepPodOperator

        return StepPodOperator, common
    from spira.docker import StepDockerOperator

    n_lent = number_of("SPIRA_GPUS", 0, "GPUs")
    if resources.n_gpus and (n_lent or not resources.gpu_optional):
        common |= {"pool": GPU_POOL, "pool_slots": resources.n_gpus}
    common |= {
        "place": site.place(resources),
        "network": network_of(resources.access),
        "user": os.environ.get("SPIRA_CONTAINER_USER", "10001:10001"),
    }
    return StepDockerOperator, common


def add_steps(pipeline: Pipeline) -> None:
    """Make the steps of a pipeline the tasks of the DAG that is being defined, in their order.

    Where a step may have shards, a task counts them, and another, mapped, works ahead of the step;
    with few rows there is none, and Airflow skips the mapped task.

    A teardown runs after all others, also after a failure, and does not change the state of the
    run: a refused run stays failed, and a failed report does not make a run fail.
    """
    tasks = {step.name: step_operator(step, pipeline) for step in pipeline.all_steps}
    for step in pipeline:
        for upstream in step.upstream:
            tasks[upstream] >> tasks[step.name]
        if Site.from_environment().resources(step).rows_per_shard:
            counted, shards = shard_operators(step, pipeline)
            [tasks[upstream] for upstream in step.upstream] >> counted
            shards >> tasks[step.name]
            tasks[step.name].trigger_rule = "none_failed"  # shards may be skipped
    if pipeline.teardown:
        (last,) = (tasks[step.name] for step in pipeline.teardown)
        asked = add_question(pipeline, tasks[PROMOTE]) if PROMOTE in tasks else []
        [*(tasks[step.name] for step in pipeline), *asked] >> last.as_teardown(
            on_failure_fail_dagrun=False
        )
        add_outcome(pipeline, last, asked)


def add_question(pipeline: Pipeline, promote: BaseOperator) -> list[BaseOperator]:
    """Add the tasks that ask a person where promotion waits for that, and judge once more.

    The first makes the report, which the person reads, the second asks, the third writes the
    answer as its own decision, with the keys for that, and the fourth is the step ``promote``
    again.  Airflow skips them where nobody has to be asked.
    """
    from spira.asking import AskOperator, waiting

    (report,) = pipeline.teardown
    kind, arguments = operator_of(report, pipeline)
    names = {"task_id": BEFORE, "step_name": RECORDS[BEFORE]}
    shown = kind(**arguments | names, pre_execute=waiting)
    ask = AskOperator(task_id=ASK, execution_timeout=timedelta(minutes=10))
    kind, arguments = operator_of(MODEL_DECISION.step("decide"), MODEL_DECISION)
    answer = kind(**arguments | {"task_id": ANSWER, "step_name": RECORDS[ANSWER]})
    kind, arguments = operator_of(pipeline.step(PROMOTE), pipeline)
    names = {"task_id": AGAIN, "step_name": PROMOTE}
    again = kind(**arguments | names, trigger_rule="none_failed_min_one_success")
    promote >> shown >> ask >> [answer, again]
    answer >> again
    return [shown, ask, answer, again]


def reason() -> Param:
    """Of a form by which a person decides something."""
    return Param(
        type="string",
        minLength=10,
        maxLength=500,
        title="Reason",
        description="Kept for ever: write no name, number or address of a person",
    )


def add_outcome(pipeline: Pipeline, last: BaseOperator, asked: Sequence[BaseOperator] = ()) -> None:
    """Add the task that says how the run ended, after its last teardown."""
    outcome = OutcomeOperator(
        task_id="outcome",
        pipeline=pipeline,
        skippable=[task.task_id for task in asked],
        execution_timeout=timedelta(minutes=10),
    )
    last >> outcome.as_teardown(on_failure_fail_dagrun=True)


def _bucket() -> str:
    store = os.environ.get("SPIRA_STORE", "")
    if not store.startswith("s3://"):
        raise ValueError(
            f"SPIRA_STORE is {store!r}: containers share nothing but an S3 store, so it must be "
            "s3://bucket/prefix (or set SPIRA_RUNTIME=process)"
        )
    return store


class ShardsOperator(BaseOperator):  # type: ignore[misc]
    """Say which shards work ahead of a step: a short list, empty where the step does all alone.

    Rows are counted by the record of the step before; files, where data enters.  A folder that only
    a container sees counts as empty.
    """

    ui_color = "#e6e6e6"

    def __init__(
        self, *, pipeline: Pipeline, step_name: str, limits: Resources, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.pipeline, self.step_name, self.limits = pipeline, step_name, limits

    def execute(self, context: Context) -> list[dict[str, int]]:
        step = configured_step(self.step_name, self.pipeline, context)
        reference = next(iter(step.inputs.values()))
        is_process = os.environ.get("SPIRA_RUNTIME", "process") == "process"
        keys = os.environ if is_process else secrets_of(self.limits)  # as the step has them
        try:
            if ":" not in reference:
                store = StoreReader(os.environ.get("SPIRA_STORE") or LAPTOP_STORE, keys)
                record = store.record(context["run_id"], reference.partition(".")[0])
                n_rows = int(record.metrics.get("n_rows", 0)) if record else 0
            else:
                n_rows = n_files(reference, keys)
        except OSError as error:
            raise AirflowException(f"the rows cannot be counted: {error}") from None
        n = self.limits.n_shards(n_rows)
        log.info("%s: %s", step.name, f"{n} shards work ahead" if n else "no shards")
        return [{"number": number, "of": n} for number in range(1, n + 1)]


class ProcessStepOperator(BaseOperator):  # type: ignore[misc]
    """Run a step as a process of this machine: no container, no service."""

    operator_extra_links = LINKS
    ui_color = "#d7e8f4"

    def __init__(
        self,
        *,
        pipeline: Pipeline,
        step_name: str = "",
        number: int | None = None,
        shard: dict[str, int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.pipeline = pipeline
        self.step_name, self.number, self.shard = step_name or self.task_id, number, shard
        self.process: subprocess.Popen[str] | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        step = configured_step(
            self.step_name, self.pipeline, context, number=self.number, shard=self.shard
        )
        python = os.environ.get("SPIRA_PYTHON", sys.executable)
        last_lines: deque[str] = deque(maxlen=N_LAST_LINES)
        self.process = subprocess.Popen(
            command_line(python, step, context["run_id"]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "SPIRA_ACTOR": actor(context)},
            start_new_session=True,  # so that a kill reaches what the step started
        )
        assert self.process.stderr is not None  # noqa: S101  (it is a pipe)
        for line in self.process.stderr:
            log.info("%s", line.rstrip())
            last_lines.append(line)
        if status := self.process.wait():
            raise failure(step.record, status, "".join(last_lines))
        store = os.environ.get("SPIRA_STORE") or LAPTOP_STORE
        return result_of(store, context["run_id"], step.record, os.environ)

    def on_kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
