"""Train the respiratory-insufficiency classifier again: every week, and on demand.

From a folder of recordings to a registered model: ingest, gates, split, features, training,
evaluation, and promotion if the model passes its gates and is better than the champion.  At the end
a report, also of a run that failed.
"""

from __future__ import annotations

import os
from typing import Any

from airflow.sdk import DAG, Param

from spira.launch import COMMON, step_operator
from spira_tasks.contract.pipelines import TRAINING


def optional(title: str, kind: str, description: str, **schema: Any) -> Param:
    """A parameter that is empty for the default of its stage."""
    text = f"{description}; empty for the default"
    return Param(None, type=["null", kind], title=title, description=text, **schema)


with DAG(
    dag_id="spira_continuous_training",
    description="From a folder of recordings to a registered model",
    doc_md=__doc__,
    schedule=os.environ.get("SPIRA_SCHEDULE", "0 3 * * 1") or None,  # UTC; empty: on demand only
    max_active_runs=1,  # two runs would compare with the same champion
    params={
        "data": Param(
            os.environ.get("SPIRA_DATA", ".spira/cohort"),
            type="string",
            title="Recordings",
            description="Folder, or s3://bucket/prefix, with recordings.csv or metadata_train.csv",
        ),
        "epochs": optional("Epochs", "integer", "Largest number of training epochs", minimum=1),
        "seed": optional(
            "Seed", "integer", "Seed of the random numbers of the training", minimum=0
        ),
        "model": optional(
            "Network",
            "string",
            "Neural network to train",
            enum=[None, "spiraconv_v1", "spiraconv_v2"],
        ),
        "feature": optional(
            "Feature",
            "string",
            "Feature that is computed from each window",
            enum=[None, "mfcc", "log_mel", "spectrogram"],
        ),
        "sites": Param(
            os.environ.get("SPIRA_SITES", "").replace(",", " ").split() or None,
            type=["null", "array"],
            items={"type": "string"},
            title="Sites",
            description="Known sites, by hospital_id; recordings of any other site give a warning",
        ),
        "settings": Param(
            {},
            type="object",
            title="Other settings",
            description='Settings of steps, for example {"train.learning_rate": 0.0005}',
        ),
    },
    **COMMON,
) as dag:
    tasks = {step.name: step_operator(step, TRAINING) for step in TRAINING}
    for step in TRAINING:
        for upstream in step.upstream:
            tasks[upstream] >> tasks[step.name]

    # The report runs last, also after a failure.  As a teardown it does not change the state of the
    # run: a refused run stays failed, and a failed report does not make a run fail.
    (report,) = (step_operator(step, TRAINING) for step in TRAINING.teardown)
    list(tasks.values()) >> report.as_teardown(on_failure_fail_dagrun=False)
