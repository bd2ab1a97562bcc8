"""Write what was accepted and labelled as a snapshot, and wake a training when enough is new.

The rule is `expectations/retraining.toml`.  Where it is not reached, the task `wake` is skipped and
says what is missing.  Nothing new gives the same snapshot again.
"""

from __future__ import annotations

import os

from airflow.sdk import DAG, Param

from spira.launch import COMMON, add_steps, cron
from spira.waking import WakeOperator
from spira_tasks.contract.pipelines import SNAPSHOT

with DAG(
    dag_id="spira_snapshot",
    description="Writes the recordings that were accepted and have a label for a training to read, "
    "and wakes one when enough is new. Changes no recording and no label",
    doc_md=__doc__,
    schedule=cron(os.environ.get("SPIRA_SNAPSHOT_SCHEDULE", "")),  # empty: on demand only
    params={
        "snapshots": Param(
            os.environ.get("SPIRA_SNAPSHOTS", ".spira/snapshots"),
            type="string",
            title="Snapshots",
            description="Folder, or s3://bucket/prefix, that holds the snapshots",
        ),
        "settings": Param(
            {},
            type="object",
            title="Other settings",
            description='Any setting of the step, such as {"snapshot.rule": {…}}, which takes the '
            "place of the file's",
        ),
    },
    **COMMON,
) as dag:
    add_steps(SNAPSHOT)
    dag.get_task("snapshot") >> WakeOperator(task_id="wake", step="snapshot")
