"""How every runtime starts a step, and what its exit status means for Airflow."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from airflow.sdk.exceptions import AirflowException, AirflowFailException
from spira_records import explanation, read_record, shown

from spira_tasks.contract.exits import EXIT_BUG, EXIT_CONFIG, EXIT_REJECTED, EXIT_UNAVAILABLE
from spira_tasks.contract.step import Step

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

log = logging.getLogger("spira.step")


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


def result_of(store: str, run_id: str, step: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """What Airflow's page shows of a step that is done: a few hundred bytes of its record."""
    try:
        record = read_record(store, run_id, step, environment)
    except OSError as error:
        raise AirflowException(f"step {step!r} is done, but {error}") from None
    if record is None:
        raise AirflowException(f"step {step!r} left no record in {store}")
    return shown(record)


def reason_of(store: str, run_id: str, step: str, environment: Mapping[str, str]) -> str:
    """Why a step failed, by its record; empty when the store has none or does not answer."""
    try:
        return explanation(read_record(store, run_id, step, environment) or {})
    except OSError as error:
        log.warning("%s: the last lines have to tell the reason", error)
        return ""


def memory_limit(limits: Sequence[int], n_times: int) -> int:
    """The limit, in MiB, of a step that has run out of memory ``n_times``."""
    return limits[min(n_times, len(limits) - 1)]


def out_of_memory(
    step: str, limits: Sequence[int], n_times: int, seen: str = ""
) -> AirflowException:
    """The exception to raise when a step has run out of memory for the ``n_times``-th time.

    ``seen`` is what the runtime can add, such as the most that it saw in use.
    """
    limit, larger = memory_limit(limits, n_times - 1), memory_limit(limits, n_times)
    message = f"step {step!r} ran out of memory: its limit is {limit} MiB{seen and ', ' + seen}"
    if larger > limit:
        return AirflowException(f"{message}; the next try has {larger} MiB")
    return AirflowFailException(
        f"{message}; give it more by memory_mib under [steps.{step}] in the site file"
    )
