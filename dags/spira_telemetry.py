"""Export the days of serving that are over, and have a sample of them labelled.

`expectations/telemetry.toml` says how many recordings are labelled, and how long what is kept;
what is past its time is deleted.
"""

from __future__ import annotations

import os

from airflow.sdk import DAG, Param

from spira.launch import COMMON, add_steps, cron
from spira_tasks.contract.pipelines import TELEMETRY

with DAG(
    dag_id="spira_telemetry",
    description="Exports what was asked and answered, without a person; deletes audio and rows "
    "that are past their time",
    doc_md=__doc__,
    schedule=cron(os.environ.get("SPIRA_TELEMETRY_SCHEDULE", "")),  # empty: on demand only
    params={
        "telemetry": Param(
            os.environ.get("SPIRA_TELEMETRY", ".spira/telemetry"),
            type="string",
            title="Telemetry",
            description="Folder, or s3://bucket/prefix, of the exported days",
        )
    },
    **COMMON,
) as dag:
    add_steps(TELEMETRY)
