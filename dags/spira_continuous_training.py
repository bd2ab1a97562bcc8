"""Train the respiratory-insufficiency classifier again: every week, when enough is new, on demand.

From a folder of recordings to a registered model: ingest, gates, split, features, training,
evaluation, and promotion if the model passes its gates and is better than the champion.  At the end
a report, also of a run that failed.  The last task, `outcome`, succeeds after a whole run, is
skipped where a gate refused, and fails where a step crashed or a person stopped the run.

A run that spira_snapshot woke reads the snapshot that its event names, whatever the form says.
"""

from __future__ import annotations

import os

from airflow.sdk import DAG, Param

from spira import notify
from spira.launch import COMMON, add_steps, cron_or_event
from spira_tasks.contract.pipelines import TRAINING

with DAG(
    dag_id="spira_continuous_training",
    description="Checks the recordings, trains and tests a model, and puts it into use if it "
    "is better than the one in use. Every week, when enough is new, and on demand",
    doc_md=__doc__,
    schedule=cron_or_event(os.environ.get("SPIRA_SCHEDULE", "0 3 * * 1")),  # empty: no cron
    on_success_callback=notify.succeeded,
    deadline=notify.deadline(),
    params={
        "data": Param(
            os.environ.get("SPIRA_DATA", ".spira/cohort"),
            type="string",
            title="Recordings",
            description="Folder, or s3://bucket/prefix, with recordings.csv or metadata_train.csv",
        ),
        # The defaults of the stages, so that a person sees them; a test compares them.
        "epochs": Param(
            100,
            type="integer",
            minimum=1,
            title="Epochs",
            description="Largest number of training epochs",
        ),
        "seed": Param(
            42,
            type="integer",
            minimum=0,
            title="Seed",
            description="Seed of the random numbers of the training",
        ),
        "model": Param(
            "spiraconv_v2",
            type="string",
            examples=[
                *("spiraconv_v1", "spiraconv_v2", "spiraconv_v4"),
                *("cnn14", "mfcc_gram_transformer", "logistic"),
            ],
            title="Network",
            description="Network to train; installed packages may add others",
        ),
        "feature": Param(
            "mfcc",
            type="string",
            examples=["mfcc", "log_mel", "mel", "spectrogram", "markers"],
            title="Feature",
            description="Feature that is computed from each window; installed packages may add "
            "others",
        ),
        "sites": Param(
            os.environ.get("SPIRA_SITES", "").replace(",", " ").split(),
            type="array",
            items={"type": "string"},
            title="Sites",
            description="Known sites by hospital_id, one a line; recordings of another site give "
            "a warning. Without any, no site is known and none is warned of",
        ),
        "settings": Param(
            {},
            type="object",
            title="Other settings",
            description='Any setting of a step, such as {"train.learning_rate": 0.0005}; it goes '
            "before the fields above",
        ),
    },
    **COMMON,
) as dag:
    add_steps(TRAINING)
