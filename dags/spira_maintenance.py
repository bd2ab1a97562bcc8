"""Remove old containers of steps from the Docker engines, and stop abandoned ones.

A failed container stays for SPIRA_KEEP_HOURS, so that a person can look at it.  A container is
abandoned when it runs past its time limit, or after the end of its DAG run.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param, task

from spira import notify
from spira.launch import cron
from spira.site import number_of

with DAG(
    dag_id="spira_maintenance",
    description="Removes containers that ended and stops those that nobody waits for. Touches no "
    "data. Every hour",
    doc_md=__doc__,
    schedule=cron("17 * * * *" if os.environ.get("SPIRA_RUNTIME") == "docker" else ""),
    catchup=False,
    max_active_runs=1,
    on_failure_callback=notify.failed,
    default_args={"execution_timeout": timedelta(minutes=10)},
    tags=["spira"],
    params={
        "keep_hours": Param(
            number_of("SPIRA_KEEP_HOURS", 48, "hours"),
            type="number",
            minimum=0,
            title="Hours to keep",
            description="How many hours a failed container is kept",
        )
    },
) as dag:

    @task
    def reap(params: Any = None, ti: Any = None) -> dict[str, int]:
        from spira.docker import reap_all

        return reap_all(keep_hours=float(params["keep_hours"]), state_of_run=ti.get_dagrun_state)

    reap()
