"""Erase a person from collection, labels, snapshots and the store (LGPD art. 18), on demand.

The subject is named by its tag, which the command `pseudonyms tag` computes from the
hospital's number.  So Airflow holds neither the number nor the pseudonym.  Run it while no training
runs; a second run changes nothing.
"""

from __future__ import annotations

import os

from airflow.sdk import DAG, Param

from spira.launch import COMMON, add_steps, reason
from spira_tasks.contract.pipelines import ERASURE
from spira_tasks.contract.place import COMMAND

with DAG(
    dag_id="spira_erasure",
    description="Erases the data of a person who asked for it (LGPD art. 18) and signs a "
    "certificate. Cannot be undone. On demand",
    doc_md=__doc__,
    schedule=None,
    params={
        "subject": Param(
            type="string",
            pattern="^[0-9a-f]{32}$",
            title="Subject",
            description=f"Tag: 32 hex digits, from `{COMMAND} pseudonyms tag`",
        ),
        "snapshots": Param(
            os.environ.get("SPIRA_SNAPSHOTS", ".spira/snapshots"),
            type="string",
            title="Snapshots",
            description="Folder, or s3://bucket/prefix, that holds the snapshots",
        ),
        "reason": reason(),
    },
    **COMMON,
) as dag:
    add_steps(ERASURE)
