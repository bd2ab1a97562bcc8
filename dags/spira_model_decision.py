"""Decide about a version of the model: approve it, refuse it, or waive a check.  On demand.

The governance page starts it in the name of who decides; it is the same act as the commands
`model approve`, `model refuse` and `waive check`.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param

from spira.launch import COMMON, add_steps, reason
from spira_tasks.contract.pipelines import MODEL_DECISION

with DAG(
    dag_id="spira_model_decision",
    description="Writes what a person decided about a version of the model: approved, refused, or "
    "a check waived. On demand",
    doc_md=__doc__,
    schedule=None,
    params={
        "act": Param(
            type="string",
            enum=["approve", "refuse", "waive"],
            title="What",
            description="Approve or refuse a version, or waive a check",
        ),
        "version": Param(
            "",
            type="string",
            pattern="^[0-9]*$",
            title="Version",
            description="Number of the version to approve or refuse",
        ),
        "classifier": Param(
            "",
            type="string",
            pattern="^(sha256:[0-9a-f]{64})?$",
            title="Classifier",
            description="Digest of the model that was read; empty for the one that has the number "
            "now",
        ),
        "asked": Param(
            "",
            type="string",
            pattern="^[0-9a-f]*$",
            title="Question",
            description="What was open when the model was read; the page Decide fills it in",
        ),
        "suite": Param(
            "",
            type="string",
            title="Suite",
            description="Of the check to waive; promotion for a gate of promotion",
        ),
        "check": Param("", type="string", title="Check", description="Name of the check to waive"),
        "run": Param(
            "",
            type="string",
            title="Run",
            description="That the check held back; empty for the newest",
        ),
        "reason": reason(),
    },
    **COMMON | {"max_active_runs": 16},
) as dag:
    add_steps(MODEL_DECISION)
