"""Train the respiratory-insufficiency classifier again: every week, and on demand.

From a folder of recordings to a registered model: ingest, gates, split, features, training,
evaluation, and promotion if the model is sound and better than the champion.  At the end, whatever
the outcome, a report of the run.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime

from airflow.sdk import DAG, Param
from spira_operators import OUTAGES, step_operator

from spira_tasks.contract.pipelines import TRAINING

with DAG(
    dag_id="spira_continuous_training",
    description="From a folder of recordings to a registered model",
    doc_md=__doc__,
    schedule=os.environ.get("SPIRA_SCHEDULE", "0 3 * * 1") or None,  # UTC; empty: on demand only
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,  # two runs would compare with the same champion
    default_args=OUTAGES,
    tags=["spira"],
    params={
        "data": Param(
            os.environ.get("SPIRA_DATA", ".spira/cohort"),
            type="string",
            title="Recordings",
            description="Folder, or s3://bucket/prefix, with recordings.csv or metadata_train.csv",
        ),
        "epochs": Param(None, type=["null", "integer"], minimum=1, description="At most so many"),
        "seed": Param(None, type=["null", "integer"], minimum=0, description="Of the training"),
        "model": Param(None, type=["null", "string"], enum=[None, "spiraconv_v1", "spiraconv_v2"]),
        "feature": Param(
            None, type=["null", "string"], enum=[None, "mfcc", "log_mel", "spectrogram"]
        ),
        "sites": Param(
            os.environ.get("SPIRA_SITES", "").replace(",", " ").split() or None,
            type=["null", "array"],
            items={"type": "string"},
            description="Sites that are set up; recordings of another are warned of",
        ),
        "settings": Param(
            {},
            type="object",
            description='Anything else, for example {"train.learning_rate": 0.0005}',
        ),
    },
) as dag:
    runtime = os.environ.get("SPIRA_RUNTIME", "process")
    tasks = {step.name: step_operator(step, TRAINING, runtime) for step in TRAINING}
    for step in TRAINING:
        for upstream in step.upstream:
            tasks[upstream] >> tasks[step.name]

    # The report comes after all of them, whatever became of them.  As a teardown it has no say in
    # the state of the run: a refused run stays failed, and a report that fails takes nothing away.
    (report,) = (step_operator(step, TRAINING, runtime) for step in TRAINING.teardown)
    list(tasks.values()) >> report.as_teardown(on_failure_fail_dagrun=False)
