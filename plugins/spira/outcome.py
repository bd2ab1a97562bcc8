"""How every runtime starts a step, and what its exit status means for Airflow."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowRuntimeError,
    AirflowSkipException,
)

from spira.store import ANSWER, StoreReader, explanation, shown
from spira.waking import waking_event
from spira_tasks.contract.exits import EXIT_BUG, EXIT_CONFIG, EXIT_REJECTED, EXIT_UNAVAILABLE
from spira_tasks.contract.pipelines import Pipeline
from spira_tasks.contract.run import EXPERIMENT, TRIAL
from spira_tasks.contract.step import Shard, Step

ASK = "ask"  # the task that asks a person
N_LAST_LINES = 12  # of a failed step's log in the message
STOP_SECONDS = 60.0  # for a step to save its state after SIGTERM
FINAL = {
    EXIT_REJECTED: "a gate refused the data or the model",
    EXIT_CONFIG: "its configuration is wrong",
    EXIT_BUG: "an error ended it that a retry does not correct",
}
TRANSIENT = {
    EXIT_UNAVAILABLE: "a service did not answer",
    128 + 9: "it was killed from outside (SIGKILL)",
    128 + 15: "it was stopped from outside (SIGTERM)",
}

log = logging.getLogger("spira.step")


def configured_step(
    name: str,
    pipeline: Pipeline,
    context: Mapping[str, Any],
    number: int | None = None,
    shard: Mapping[str, int] | None = None,
) -> Step:
    """The step of this name, or a part of it, as the parameters of the DAG run configure it.

    A run that an event woke reads the recordings that the event names.  Each ``number`` or
    ``shard`` of a mapped step leaves a record of its own.

    Raises
    ------
    AirflowFailException
        When a parameter or a setting is not known, or the DAG's form does not have it: Airflow
        takes any.  When an event woke the run that is not of a snapshot, or its id is that of an
        experiment.
    """
    answer = given_answer(context)
    params = dict(answer["params"] if answer else context["params"])
    dag = context.get("dag")
    if not answer and dag is not None and (unasked := sorted(set(params) - set(dag.params))):
        raise AirflowFailException(
            f"unknown parameters {', '.join(unasked)}: the form of {dag.dag_id} asks for "
            + (", ".join(dag.params) or "nothing")
        )
    if str(context.get("run_id", "")).startswith((EXPERIMENT, TRIAL)):
        raise AirflowFailException(
            f"a run whose id begins with {EXPERIMENT} or {TRIAL} is taken for an experiment's, "
            "which no overview and no ledger of the test people has: give it another id"
        )
    if pipeline.entry and (event := waking_event(context)):
        params["data"] = event["data"]
    try:
        step = pipeline.from_params(params).step(name)
    except ValueError as error:
        raise AirflowFailException(str(error)) from None
    if number is not None:
        step = replace(step, name=f"{name}-{number}", config={**step.config, "number": number})
    return replace(step, shard=Shard(**shard)) if shard else step


def given_answer(context: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The answer that the task before got, where the task is to write it; None in any other task.

    Raises
    ------
    AirflowSkipException
        When the decision is in the store already.
    """
    ti = context.get("ti")
    if ti is None or ti.task_id != ANSWER:
        return None
    answer = ti.xcom_pull(task_ids=ASK)
    if not answer:
        raise AirflowFailException("nobody answered: clear the task ask, which asks again")
    if answer["decided"]:
        raise AirflowSkipException("the decision is in the store already")
    return dict(answer)


def command_line(python: str, step: Step, run_id: str) -> list[str]:
    """The command that starts a step in every runtime.  SPIRA_STORE is in the environment."""
    return [python, "-m", "spira_tasks", "run", "--run-id", run_id, step.to_json()]


def actor(context: Mapping[str, Any]) -> str:
    """Who acts, for the audit log: who answered or started the run, an event, or Airflow itself."""
    if answer := given_answer(context):
        return f"airflow:{answer['by']}"
    user = getattr(context.get("dag_run"), "triggering_user_name", None)
    if not user and (event := waking_event(context)):
        return f"event:{event['decision']}"
    return f"airflow:{user or 'scheduler'}"


def failure(step: str, status: int, reason: str) -> AirflowException:
    """The exception to raise for a step that ended with ``status``.

    After 65, 78 and 1 a retry cannot help: it is an ``AirflowFailException``, and the task fails
    for good.  After any other status Airflow retries, as the DAG says.
    """
    status = 128 - status if status < 0 else status  # of a process that a signal ended
    what = FINAL.get(status) or TRANSIENT.get(status) or "for no reason that is known here"
    message = f"step {step!r} ended with status {status}: {what}"
    if status == EXIT_UNAVAILABLE:
        # The last line of a step names the service; those before may blame one that needs it.
        reason = reason.rstrip().rpartition("\n")[2]
    if reason:
        message += f"\n{reason}"
        log.error("%s", message)  # Airflow puts the trace of the exception below it
    return AirflowFailException(message) if status in FINAL else AirflowException(message)


def result_of(store: str, run_id: str, step: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """What Airflow's page shows of a finished step: a few hundred bytes of its record."""
    try:
        record = StoreReader(store, environment).record(run_id, step)
    except OSError as error:
        raise AirflowException(f"step {step!r} is done, but {error}") from None
    if record is None:
        raise AirflowException(f"step {step!r} left no record in {store}")
    return shown(record)


def reason_of(store: str, run_id: str, step: str, environment: Mapping[str, str]) -> str:
    """Why a step failed, by its record; empty when the store has none or does not answer."""
    try:
        record = StoreReader(store, environment).record(run_id, step)
        return explanation(record) if record else ""
    except OSError as error:
        log.warning("the reason is taken from the last lines of the log: %s", error)
        return ""


def leave_note(notes: Any, name: str, value: Any) -> None:
    """Leave a note for the next try; without it that try repeats log lines or a memory limit."""
    try:
        notes.set(name, value)
    except AirflowRuntimeError as error:
        log.warning("Airflow did not store the note %s: %s", name, error)


def memory_limit(limits: Sequence[int], n_times: int) -> int:
    """The limit, in MiB, of a step that has run out of memory ``n_times``."""
    return limits[min(n_times, len(limits) - 1)]


def out_of_memory(
    step: str, limits: Sequence[int], n_times: int, seen: str = "", *, is_trial: bool = False
) -> AirflowException:
    """The exception to raise when a step has run out of memory for the ``n_times``-th time.

    ``seen`` is what the runtime can add, such as the peak that it saw.  A trial of an experiment is
    tried again in any case: it finds that it was killed before, and leaves that as what it came to.
    """
    limit, larger = memory_limit(limits, n_times - 1), memory_limit(limits, n_times)
    message = f"step {step!r} ran out of memory: its limit is {limit} MiB{seen and ', ' + seen}"
    if larger > limit:
        return AirflowException(f"{message}; the next try has {larger} MiB")
    message += f"; give it more by memory_mib under [steps.{step}] in the site file"
    return AirflowException(message) if is_trial else AirflowFailException(message)
