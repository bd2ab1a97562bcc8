"""Turn a step into an Airflow operator; the command line is the same in every runtime."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections import deque
from datetime import timedelta
from typing import Any

from airflow.sdk import Asset, AssetOrTimeSchedule, BaseOperator, Context, CronTriggerTimetable

from spira import notify
from spira.ending import OutcomeOperator
from spira.links import LINKS
from spira.outcome import N_LAST_LINES, actor, command_line, configured_step, failure, result_of
from spira.site import Site, network_of, number_of
from spira.store import LAPTOP_STORE
from spira.waking import NEW_RECORDINGS
from spira_tasks.contract.pipelines import Pipeline
from spira_tasks.contract.step import Step

RUNTIMES = ("process", "docker", "kubernetes")
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

    A teardown runs after all others, also after a failure, and does not change the state of the
    run: a refused run stays failed, and a failed report does not make a run fail.
    """
    tasks = {step.name: step_operator(step, pipeline) for step in pipeline.all_steps}
    for step in pipeline:
        for upstream in step.upstream:
            tasks[upstream] >> tasks[step.name]
    if pipeline.teardown:
        (last,) = (tasks[step.name] for step in pipeline.teardown)
        [tasks[step.name] for step in pipeline] >> last.as_teardown(on_failure_fail_dagrun=False)
        add_outcome(pipeline, last)


def add_outcome(pipeline: Pipeline, last: BaseOperator) -> None:
    """Add the task that says how the run ended, after its last teardown."""
    limit = timedelta(minutes=10)
    outcome = OutcomeOperator(task_id="outcome", pipeline=pipeline, execution_timeout=limit)
    last >> outcome.as_teardown(on_failure_fail_dagrun=True)


def _bucket() -> str:
    store = os.environ.get("SPIRA_STORE", "")
    if not store.startswith("s3://"):
        raise ValueError(
            f"SPIRA_STORE is {store!r}: containers share nothing but an S3 store, so it must be "
            "s3://bucket/prefix (or set SPIRA_RUNTIME=process)"
        )
    return store


class ProcessStepOperator(BaseOperator):  # type: ignore[misc]
    """Run a step as a process of this machine: no container, no service."""

    operator_extra_links = LINKS
    ui_color = "#d7e8f4"

    def __init__(self, *, pipeline: Pipeline, number: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pipeline = pipeline
        self.number = number
        self.process: subprocess.Popen[str] | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        step = configured_step(self.task_id, self.pipeline, context, self.number)
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
            raise failure(step.name, status, "".join(last_lines))
        store = os.environ.get("SPIRA_STORE") or LAPTOP_STORE
        return result_of(store, context["run_id"], step.name, os.environ)

    def on_kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
