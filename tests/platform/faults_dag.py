"""The part of the training that faults are injected into, on the data of an earlier run.

Mounted into the containers of Airflow as a DAG file.  The digests of that run are in a file, which
the tests write once it has ended; every try of a task reads this module anew.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Param

from spira.launch import RETRIES, add_outcome, add_steps
from spira_tasks.contract.pipelines import TRAINING, Pipeline
from spira_tasks.contract.step import Step

NAMES = ("split", "materialize", "train", "evaluate", "register")
# Between these steps stand gates, which are left out: what they would hand on is taken before them.
INSTEAD = {
    "check_training_set.table": "split.recordings",
    "check_confounds.recordings": "split.recordings",
    "check_features.table": "materialize.features",
}
NOTHING = f"sha256:{'0' * 64}"

given = Path(os.environ.get("SPIRA_TEST_GIVEN", "/opt/spira/given")) / "digests.json"
digests = json.loads(given.read_text()) if given.exists() else {}


def source(reference: str) -> str:
    reference = INSTEAD.get(reference, reference)
    return reference if reference.startswith(NAMES) else digests.get(reference, NOTHING)


def step(name: str) -> Step:
    whole = TRAINING.step(name)
    inputs = {key: source(ref) for key, ref in whole.inputs.items()}
    return replace(whole, inputs=inputs, resources=replace(whole.resources, rows_per_shard=0))


FAULTS = Pipeline("faults", tuple(step(name) for name in NAMES))

with DAG(
    dag_id="spira_faults",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    default_args=RETRIES,
    params={"settings": Param({}, type="object")},
) as dag:
    add_steps(FAULTS)
    end = EmptyOperator(task_id="end").as_teardown(on_failure_fail_dagrun=False)
    dag.task_dict["register"] >> end
    add_outcome(FAULTS, end)
