"""The last task of a run says how the run ended.

In Airflow's grid a run that a gate refused and one that crashed are both failed, and a run that a
person marked as failed became a success, because what did not run counts as skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from spira.store import LAPTOP_STORE, RECORDS, own_store
from spira_tasks.contract.pipelines import Pipeline


class OutcomeOperator(BaseOperator):  # type: ignore[misc]
    """Succeeds after a whole run, is skipped after a refusal, and fails after anything else.

    It must be a teardown with ``on_failure_fail_dagrun``, after another teardown: then it runs
    after every end, and the last step still decides on the state of a refused run.
    """

    ui_color = "#e6e6e6"

    def __init__(self, *, pipeline: Pipeline, skippable: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pipeline, self.skippable = pipeline, list(skippable)

    def execute(self, context: Context) -> None:
        ti, run_id = context["ti"], context["run_id"]
        names = [step.name for step in self.pipeline]
        tasks = [*names, *self.skippable]
        found = ti.get_task_states(dag_id=ti.dag_id, task_ids=tasks, run_ids=[run_id])
        states = {name: str(found.get(run_id, {}).get(name)) for name in tasks}
        states = {
            name: state
            for name, state in states.items()
            if name in names or state not in ("success", "skipped", "None")
        }
        if set(states.values()) == {"success"}:
            return
        try:
            store = own_store(LAPTOP_STORE)
            failed = [name for name in states if states[name] == "failed"]
            records = {name: store.record(run_id, RECORDS.get(name, name)) for name in failed}
        except OSError as error:
            raise AirflowException(f"how the run ended is not known yet: {error}") from None
        for name, record in records.items():
            if record is not None and record.refused:
                raise AirflowSkipException(f"{name} refused the data or the model; see its log")
        if "skipped" in states.values():  # a step is never skipped but by a person
            raise AirflowFailException(
                "a person marked the run, or a task of it, as failed or skipped; "
                "Audit Log in Airflow's page of the run names the person"
            )
        raise AirflowFailException(f"{', '.join(failed) or 'a step'} failed; its log says why")
