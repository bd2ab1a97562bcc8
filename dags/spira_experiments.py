"""Run an experiment that somebody declared: its missing trials, then the comparison.

A run plans the trials that have no result, runs them side by side, and compares the arms once none
is missing.  A search needs several rounds: while trials are missing, a run starts the next one.
Stop it at any time and start it again: what is finished is found.
"""

from __future__ import annotations

import os
from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, Param, task

from spira.launch import COMMON, mapped_step, step_operator
from spira_tasks.contract.pipelines import EXPERIMENT

with DAG(
    dag_id="spira_experiments",
    description="Trains and measures the models of a declared experiment, and compares them. "
    "Changes no model in use. On demand",
    doc_md=__doc__,
    schedule=None,
    params={
        "experiment": Param(
            "experiments/networks.toml",
            type="string",
            format="multiline",
            minLength=1,
            title="Experiment",
            description="The text of the TOML file that declares it; where steps are processes of "
            "this machine, also the name of the file",
        ),
        "data": Param(
            os.environ.get("SPIRA_DATA", ".spira/cohort"),
            type="string",
            title="Recordings",
            description="Folder, or s3://bucket/prefix, for an experiment that names none",
        ),
        "expired": Param(
            False,
            type="boolean",
            title="After its end",
            description="Run an experiment whose end has passed",
        ),
        "retry": Param(
            "",
            type="string",
            title="Try again",
            description="Trials that failed before this time, which has passed, such as "
            "2026-01-31T08:00Z, are tried again, after a lack of memory, a package or a key was "
            "mended. Empty: none",
        ),
    },
    **COMMON,
) as dag:

    @task
    def numbers(plan: dict[str, Any]) -> list[int]:
        return list(range(int(plan["metrics"]["n_trials"])))

    @task.short_circuit
    def is_missing(comparison: dict[str, Any]) -> bool:
        return bool(comparison["metrics"]["n_missing"])

    plan = step_operator(EXPERIMENT.step("plan"), EXPERIMENT)
    trial = mapped_step(EXPERIMENT.step("trial"), EXPERIMENT, numbers(plan.output))
    compare = step_operator(EXPERIMENT.step("compare"), EXPERIMENT)
    compare.trigger_rule = "none_failed"  # of a plan without trials the mapped task is skipped
    again = TriggerDagRunOperator(
        task_id="again", trigger_dag_id=dag.dag_id, conf="{{ params | tojson }}"
    )
    trial >> compare
    is_missing(compare.output) >> again
