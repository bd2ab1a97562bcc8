"""Build the governance report of a run again: its pages, and the same as one signed zip.

Every training builds one at its end.  Build it again after a release from quarantine, a waiver or
an erasure, or for a run that is older than the reports.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param

from spira.launch import COMMON, add_steps
from spira_tasks.contract.pipelines import REPORT

with DAG(
    dag_id="spira_governance_report",
    description="Makes the governance pages of a run again, after a decision about it. Changes no "
    "data and no model. On demand",
    doc_md=__doc__,
    schedule=None,
    params={
        "run": Param(
            "latest",
            type="string",
            title="Run",
            description="Id of a run of spira_continuous_training, or latest",
        )
    },
    **COMMON,
) as dag:
    add_steps(REPORT)
