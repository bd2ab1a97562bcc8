"""A DAG with a step that has shards from nine rows on, for ``test_shards``."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from airflow.sdk import DAG, Param

from spira.launch import RETRIES, add_steps
from spira_tasks.contract.pipelines import TRAINING, Pipeline
from spira_tasks.contract.step import Resources

FEW = Resources(access="data", rows_per_shard=8)
SHARDED = Pipeline(
    "sharded",
    (
        replace(TRAINING.step("ingest"), resources=Resources(access="data")),
        replace(
            TRAINING.step("materialize"), inputs={"recordings": "ingest.recordings"}, resources=FEW
        ),
    ),
    entry="ingest.data",
)

with DAG(
    dag_id="spira_sharded",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    default_args=RETRIES,
    params={"data": Param("", type="string"), "settings": Param({}, type="object")},
) as dag:
    add_steps(SHARDED)
