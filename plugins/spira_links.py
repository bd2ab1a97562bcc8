"""Buttons of a task in Airflow's page that lead to MLflow."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import attrs
from airflow.sdk import BaseOperatorLink
from airflow.sdk.execution_time.xcom import XCom

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


def _page(ti_key: TaskInstanceKey, end: str = "") -> str:
    """Address of the MLflow run that the step named in its record; empty when it named none."""
    record: Any = XCom.get_value(ti_key=ti_key, key="return_value")
    run = record.get("mlflow_run") if isinstance(record, dict) else None
    if not run:
        return ""
    experiment, _, run_id = run.partition("/")
    server = os.environ.get("SPIRA_MLFLOW_PAGE", "http://127.0.0.1:5000").rstrip("/")
    return f"{server}/#/experiments/{experiment}/runs/{run_id}{end}"


@attrs.define()
class RunLink(BaseOperatorLink):  # type: ignore[misc]
    name = "MLflow run"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        return _page(ti_key)


@attrs.define()
class ReportLink(BaseOperatorLink):  # type: ignore[misc]
    name = "Report"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        return _page(ti_key, "/artifacts/report")


LINKS = (RunLink(), ReportLink())
