"""Remove what is no longer needed from the store, by the retention policy that was adopted.

Until a person adopts a policy it removes nothing: it counts what the policy of the package would
remove.  It starts while no training is scheduled; docs/retention.md says what happens beside one.
"""

from __future__ import annotations

import os

from airflow.sdk import DAG

from spira.launch import COMMON, add_steps, cron
from spira_tasks.contract.pipelines import RETENTION

with DAG(
    dag_id="spira_retention",
    description="Remove what is no longer needed, by the adopted policy; without one, count it",
    doc_md=__doc__,
    schedule=cron(os.environ.get("SPIRA_RETENTION_SCHEDULE", "0 5 * * 0")),  # empty: on demand only
    **COMMON,
) as dag:
    add_steps(RETENTION)
