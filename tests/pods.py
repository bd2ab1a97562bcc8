"""The pods of steps as they would be sent, and Kubernetes' schemas to hold them against.

Who imports the fixture ``connections`` has them around every test of the module.
"""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import kubernetes_validate
import pytest
from kubernetes.client import ApiClient

from spira.kubernetes import StepPodOperator
from spira.launch import step_operator
from spira_tasks.contract.access import STEP_ACCESS
from spira_tasks.contract.pipelines import TRAINING

VERSIONS = [f"1.{minor}" for minor in range(30, 38)]
RUN_ID = "scheduled__2026-11-21T03:00:00+00:00"
PARAMS = {
    "data": "s3://spira-data/recordings",
    "settings": {"train.note": "$(SPIRA_S3_SECRET_KEY)"},
}
VALUES = {
    name: f"value-of-{name.lower()}" for access in STEP_ACCESS.values() for name in access.variables
}


@pytest.fixture(autouse=True)
def connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's connections with the values above, the store, and no site file."""
    s3 = {
        "conn_type": "aws",
        "host": VALUES["SPIRA_S3_ENDPOINT"],
        "login": VALUES["SPIRA_S3_ACCESS_KEY"],
        "password": VALUES["SPIRA_S3_SECRET_KEY"],
        "extra": {"region": VALUES["SPIRA_S3_REGION"]},
    }
    mlflow = {
        "conn_type": "http",
        "host": VALUES["MLFLOW_TRACKING_URI"],
        "login": VALUES["MLFLOW_TRACKING_USERNAME"],
        "password": VALUES["MLFLOW_TRACKING_PASSWORD"],
    }
    pseudonyms = {
        "conn_type": "generic",
        "password": VALUES["SPIRA_PSEUDONYM_KEY"],
        "extra": {"map": VALUES["SPIRA_PSEUDONYM_MAP"]},
    }
    monkeypatch.setenv("AIRFLOW_CONN_SPIRA_S3", json.dumps(s3))
    monkeypatch.setenv("AIRFLOW_CONN_SPIRA_MLFLOW", json.dumps(mlflow))
    monkeypatch.setenv("AIRFLOW_CONN_SPIRA_PSEUDONYMS", json.dumps(pseudonyms))
    services = {
        "conn_type": "generic",
        "host": VALUES["SPIRA_SERVICES_DATABASE"],
        "password": VALUES["PGPASSWORD"],
        "extra": {"audio": VALUES["SPIRA_COLLECTION_AUDIO"]},
    }
    monkeypatch.setenv("AIRFLOW_CONN_SPIRA_SERVICES", json.dumps(services))
    for service in ("signing", "sealing", "linkage"):
        key = {"conn_type": "generic", "password": VALUES[f"SPIRA_{service.upper()}_KEY"]}
        monkeypatch.setenv(f"AIRFLOW_CONN_SPIRA_{service.upper()}", json.dumps(key))
    monkeypatch.setenv("SPIRA_STORE", "s3://spira-store/v1")
    monkeypatch.delenv("SPIRA_SITE", raising=False)


class Notes(dict[str, Any]):
    """What a try leaves for the next one, as Airflow's task_state_store."""

    def set(self, name: str, value: Any) -> None:
        self[name] = value


def context_of(task: str, *, attempt: int = 1, notes: Notes | None = None) -> dict[str, Any]:
    ti = SimpleNamespace(
        dag_id="spira_continuous_training",
        task_id=task,
        run_id=RUN_ID,
        map_index=-1,
        try_number=attempt,
        pushed={},
    )
    ti.xcom_push = lambda key, value: ti.pushed.update({key: value})
    return {
        "ti": ti,
        "run_id": RUN_ID,
        "params": PARAMS,
        "dag": SimpleNamespace(dag_id="spira_continuous_training", params=PARAMS),
        "task_state_store": Notes() if notes is None else notes,
    }


def operator_of(task: str) -> StepPodOperator:
    step = TRAINING.step(task)
    operator = step_operator(step, TRAINING, "kubernetes")
    assert isinstance(operator, StepPodOperator)
    return operator


def pod_of(task: str) -> dict[str, Any]:
    """The pod of a step as it would be sent."""
    pod = operator_of(task).build_pod_request_obj(context_of(task), dry_run=True)
    sent: dict[str, Any] = ApiClient().sanitize_for_serialization(pod)
    return sent


def hold_against_schema(resource: dict[str, Any]) -> None:
    for version in VERSIONS:
        kubernetes_validate.validate(resource, version, strict=True)
