"""Turn a step into an Airflow operator; the command line is the same in every runtime."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from spira_tasks.contract import EXIT_CONFIG, EXIT_REJECTED, Step
from spira_tasks.pipelines import from_params

RUNTIMES = ("process",)


def step_operator(step: Step, pipeline: tuple[Step, ...], runtime: str) -> BaseOperator:
    """The operator that runs ``step`` of ``pipeline`` under ``SPIRA_RUNTIME``."""
    if runtime == "process":
        return ProcessStepOperator(task_id=step.name, pipeline=pipeline)
    raise ValueError(f"SPIRA_RUNTIME is {runtime!r}; it must be one of {', '.join(RUNTIMES)}")


def command_line(python: str, step: Step, run_id: str) -> list[str]:
    """What starts a step, wherever it runs.  The store's address travels in the environment."""
    return [python, "-m", "spira_tasks", "run", "--run-id", run_id, step.to_json()]


class ProcessStepOperator(BaseOperator):
    """Run a step as a process of this machine: no container, no service.

    The step leaves its result in the store; Airflow's page gets its metrics and verdicts, a few
    hundred bytes, to show.  A step that a gate refused (65) or whose configuration is wrong (78)
    fails for good; anything else is retried as the DAG says.
    """

    ui_color = "#d7e8f4"

    def __init__(self, *, pipeline: tuple[Step, ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pipeline = pipeline
        self.process: subprocess.Popen[str] | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        step = self._step(context["params"])
        argv = command_line(os.environ.get("SPIRA_PYTHON", sys.executable), step, context["run_id"])
        self.process = subprocess.Popen(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
            start_new_session=True,  # so that a kill reaches what the step started
        )
        stdout: list[str] = []
        reader = threading.Thread(target=lambda: stdout.extend(self.process.stdout))  # type: ignore
        reader.start()
        stderr = [line.rstrip() for line in self._log_lines()]
        reader.join()
        status = self.process.wait()
        if status == 0:
            result = json.loads(stdout[-1])
            return {"key": result["key"], "metrics": result["metrics"]}
        reason = "\n".join(stderr[-12:]) or f"no message; exit status {status}"
        if status in {EXIT_REJECTED, EXIT_CONFIG}:
            raise AirflowFailException(f"exit status {status}: {reason}")
        raise AirflowException(f"exit status {status}: {reason}")

    def on_kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)

    def _step(self, params: Mapping[str, Any]) -> Step:
        try:
            steps = from_params(self.pipeline, dict(params))
        except ValueError as error:
            raise AirflowFailException(str(error)) from error
        return next(step for step in steps if step.name == self.task_id)

    def _log_lines(self) -> Any:
        for line in self.process.stderr:  # type: ignore[union-attr]
            self.log.info(line.rstrip())
            yield line
