"""Take the champion out of use, and put an earlier version of the model in its place, on demand.

Every server follows within seconds.  No training promotes again what was rolled back.  The same
run again, with the same reason, changes nothing.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param

from spira.launch import COMMON, add_steps, reason
from spira_tasks.contract.pipelines import ROLLBACK

with DAG(
    dag_id="spira_rollback",
    description="Puts an earlier version of the model in place of the champion. On demand",
    doc_md=__doc__,
    schedule=None,
    params={
        "to": Param(
            "",
            type="string",
            pattern="^[0-9]*$",
            title="Version",
            description="Number of the version that is to serve; empty for the one before",
        ),
        "reason": reason(),
    },
    **COMMON,
) as dag:
    add_steps(ROLLBACK)
