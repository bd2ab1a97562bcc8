"""Ask hospitals about the participants, keep what is new, and write what it says of labels.

The folder holds `hospitals.toml`, which says how each hospital is read, and the secrets and
deliveries that it names; docs/collection.md describes it.  The log of the task has the alerts.
"""

from __future__ import annotations

import os

from airflow.sdk import DAG, Param

from spira.launch import COMMON, add_steps, cron
from spira_tasks.contract.pipelines import HOSPITAL_SYNC

with DAG(
    dag_id="spira_hospital_sync",
    description="Reads what hospitals recorded of participants (FHIR, HL7, CSV), and labels by it. "
    "Changes nothing at a hospital",
    doc_md=__doc__,
    schedule=cron(os.environ.get("SPIRA_HOSPITAL_SCHEDULE", "")),  # empty: on demand only
    params={
        "data": Param(
            os.environ.get("SPIRA_HOSPITALS_FOLDER", ".spira/hospitals"),
            type="string",
            title="Hospitals",
            description="Folder with hospitals.toml, where the steps run",
        ),
        "sites": Param(
            [],
            type="array",
            items={"type": "string"},
            title="Sites",
            description="Which hospitals of the file, one a line; without any, all",
        ),
    },
    **COMMON,
) as dag:
    add_steps(HOSPITAL_SYNC)
