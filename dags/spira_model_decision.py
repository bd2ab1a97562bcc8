"""Decide about a version of the model: approve it, refuse it, waive a check, or sign limits.

On demand.  The governance page starts it in the name of who decides; it is the same act as the
commands `model approve`, `model refuse`, `waive check` and `policy sign`.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param

from spira.launch import COMMON, add_steps, reason
from spira_tasks.contract.pipelines import MODEL_DECISION

with DAG(
    dag_id="spira_model_decision",
    description="Writes what a person decided about a version of the model: approved, refused, "
    "a check waived, or limits signed. On demand",
    doc_md=__doc__,
    schedule=None,
    params={
        "act": Param(
            type="string",
            enum=["approve", "refuse", "waive", "sign"],
            title="What",
            description="Approve or refuse a version, waive a check, or sign limits",
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
        "part": Param(
            "",
            type="string",
            enum=["", "policy", "plan"],
            title="Limits",
            description="File of limits to sign: of promotion, or of a retraining",
        ),
        "digest": Param(
            "",
            type="string",
            pattern="^([0-9a-f]{64})?$",
            title="Digest of the file",
            description="SHA-256 of the limits that were read; the page Decide fills it in",
        ),
        "reason": reason(),
    },
    **COMMON | {"max_active_runs": 16},
) as dag:
    add_steps(MODEL_DECISION)
