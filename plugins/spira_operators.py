"""Turn a step into an Airflow operator; the command line is the same in every runtime."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from tempfile import TemporaryFile
from typing import Any

from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from spira_tasks.contract import EXIT_CONFIG, EXIT_REJECTED, Step
from spira_tasks.pipelines import from_params

RUNTIMES = ("process",)

log = logging.getLogger("spira.step")


def step_operator(step: Step, pipeline: tuple[Step, ...], runtime: str) -> BaseOperator:
    """The operator that runs ``step`` of ``pipeline`` under ``SPIRA_RUNTIME``."""
    if runtime == "process":
        return ProcessStepOperator(task_id=step.name, pipeline=pipeline)
    raise ValueError(f"SPIRA_RUNTIME is {runtime!r}; it must be one of {', '.join(RUNTIMES)}")


def command_line(python: str, step: Step, run_id: str) -> list[str]:
    """What starts a step, wherever it runs.  The store's address travels in the environment."""
    return [python, "-m", "spira_tasks", "run", "--run-id", run_id, step.to_json()]


class ProcessStepOperator(BaseOperator):  # type: ignore[misc]
    """Run a step as a process of this machine: no container, no service.

    The step leaves its result in the store; Airflow's page gets its key, metrics and verdicts, a
    few hundred bytes, to show.  A step that a gate refused (65) or whose configuration is wrong
    (78) fails for good; anything else is retried as the DAG says.
    """

    ui_color = "#d7e8f4"

    def __init__(self, *, pipeline: tuple[Step, ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pipeline = pipeline
        self.process: subprocess.Popen[str] | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        step = configured(self.task_id, self.pipeline, context["params"])
        python = os.environ.get("SPIRA_PYTHON", sys.executable)
        last_lines: deque[str] = deque(maxlen=12)
        with TemporaryFile("w+") as stdout:
            self.process = subprocess.Popen(
                command_line(python, step, context["run_id"]),
                stdout=stdout,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,  # so that a kill reaches what the step started
            )
            assert self.process.stderr is not None  # noqa: S101  (it is a pipe)
            for line in self.process.stderr:
                log.info("%s", line.rstrip())
                last_lines.append(line)
            status = self.process.wait()
            stdout.seek(0)
            if status == 0:
                result = json.loads(stdout.read())
                return {name: result[name] for name in ("key", "metrics", "verdicts")}
        reason = f"step {step.name!r} ended with status {status}\n{''.join(last_lines)}"
        if status in {EXIT_REJECTED, EXIT_CONFIG}:
            raise AirflowFailException(reason)
        raise AirflowException(reason)

    def on_kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)


def configured(name: str, pipeline: tuple[Step, ...], params: Mapping[str, Any]) -> Step:
    """The step of this name as the parameters of the DAG run want it."""
    try:
        steps = from_params(pipeline, dict(params))
    except ValueError as error:
        raise AirflowFailException(str(error)) from None
    return next(step for step in steps if step.name == name)
