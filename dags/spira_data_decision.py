"""Decide about a recording in quarantine: release it, or hold it there again.  On demand.

The governance page starts it in the name of who decides; it is the same act as the commands
`quarantine release` and `quarantine withdraw`.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param

from spira.launch import COMMON, add_steps, reason
from spira_tasks.contract.pipelines import DATA_DECISION

with DAG(
    dag_id="spira_data_decision",
    description="Writes what a person decided about a refused recording: released, or held in "
    "quarantine again. On demand",
    doc_md=__doc__,
    schedule=None,
    params={
        "act": Param(
            type="string",
            enum=["release", "hold"],
            title="What",
            description="Release the recording, or take a release back",
        ),
        "record": Param(
            type="string",
            pattern="^[A-Za-z0-9_. -]{1,120}$",
            title="Recording",
            description="Its record_id, as quarantine list shows it",
        ),
        "code": Param(
            "",
            type="string",
            title="Refused for",
            description="Code of the reason, where there are several",
        ),
        "reason": reason(),
    },
    **COMMON | {"max_active_runs": 16},
) as dag:
    add_steps(DATA_DECISION)
