"""DAGs of a test: promotion and what follows it, and the question alone."""

from __future__ import annotations

from airflow.sdk import DAG

from spira.asking import AskOperator
from spira.launch import add_question, step_operator
from spira_tasks.contract.pipelines import TRAINING

with DAG("spira_continuous_training", schedule=None):
    add_question(TRAINING, step_operator(TRAINING.step("promote"), TRAINING))

with DAG("asks", schedule=None):
    AskOperator(task_id="ask")
