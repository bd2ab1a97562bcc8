"""How every runtime starts a step, and what its exit status means for Airflow."""

from __future__ import annotations

from airflow.sdk.exceptions import AirflowException, AirflowFailException

from spira_tasks.contract import (
    EXIT_BUG,
    EXIT_CONFIG,
    EXIT_REJECTED,
    EXIT_UNAVAILABLE,
    Step,
)

FINAL = {
    EXIT_REJECTED: "a gate refused the data or the model",
    EXIT_CONFIG: "its configuration is wrong",
    EXIT_BUG: "it ended by an error that trying again does not mend",
}
TRANSIENT = {
    EXIT_UNAVAILABLE: "a service did not answer",
    128 + 9: "it was killed from outside (SIGKILL)",
    128 + 15: "it was stopped from outside (SIGTERM)",
}


def command_line(python: str, step: Step, run_id: str) -> list[str]:
    """What starts a step, wherever it runs.  The store's address travels in the environment."""
    return [python, "-m", "spira_tasks", "run", "--run-id", run_id, step.to_json()]


def failure(step: str, status: int, reason: str) -> AirflowException:
    """The exception to raise for a step that ended with ``status``.

    What was refused or is wrong stays so: after 65, 78 and 1 it is an ``AirflowFailException``, and
    the task has failed for good.  After anything else Airflow tries again, as the DAG says.
    """
    what = FINAL.get(status) or TRANSIENT.get(status) or "for no reason that is known here"
    message = f"step {step!r} ended with status {status}: {what}"
    if reason:
        message += f"\n{reason}"
    return AirflowFailException(message) if status in FINAL else AirflowException(message)
