"""DAGs of a test: promotion and what follows it, and the question alone."""

from __future__ import annotations

from dataclasses import replace

from airflow.sdk import DAG

from spira.asking import AskOperator
from spira.launch import RETRIES, add_outcome, add_question, step_operator
from spira_tasks.contract.pipelines import TRAINING

PROMOTE = TRAINING.step("promote")

with DAG("spira_continuous_training", schedule=None, default_args=RETRIES):
    asked = add_question(TRAINING, step_operator(PROMOTE, TRAINING))
    add_outcome(replace(TRAINING, steps=(PROMOTE,), teardown=()), asked[-1], asked)

with DAG("asks", schedule=None, default_args=RETRIES):
    AskOperator(task_id="ask")
