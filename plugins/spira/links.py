"""Buttons of a task in Airflow's page: its gate's verdict, the governance site, MLflow."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import attrs
from airflow.sdk import BaseOperatorLink
from airflow.sdk.configuration import conf
from airflow.sdk.execution_time.xcom import XCom

from spira.store import RECORDS, own_store, summary

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

log = logging.getLogger("spira.step")


@attrs.frozen
class Link(BaseOperatorLink):  # type: ignore[misc]
    """A button with a name and an address.

    Airflow fixes the names of buttons when it reads the DAG, and hides those without an address.
    """

    name: str
    address: Callable[[TaskInstanceKey], str]

    @property
    def xcom_key(self) -> str:
        return "_link_" + re.sub(r"\W+", "_", self.name)  # part of a URL of Airflow's API

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        return self.address(ti_key)


def _result(ti_key: TaskInstanceKey) -> dict[str, Any] | None:
    """What the task returned to Airflow; None when it did not succeed."""
    found = XCom.get_value(ti_key=ti_key, key="return_value")
    return found if isinstance(found, dict) else None


def _mlflow(end: str, ti_key: TaskInstanceKey) -> str:
    """Address of the MLflow run that the step's record names; empty when it names none."""
    run = (_result(ti_key) or {}).get("mlflow_run")
    if not run:
        return ""
    experiment, _, run_id = run.partition("/")
    server = os.environ.get("SPIRA_MLFLOW_PAGE", "http://127.0.0.1:5000").rstrip("/")
    return f"{server}/#/experiments/{experiment}/runs/{run_id}{end}"


def _run_page(end: str, ti_key: TaskInstanceKey) -> str:
    """Path of a page of a task's run in Airflow, without the host."""
    root = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")
    return f"{root}/dags/{quote(ti_key.dag_id)}/runs/{quote(ti_key.run_id, safe='')}/{end}"


def _verdict(wanted: str, ti_key: TaskInstanceKey) -> str:
    """Path of the page of a gate's verdict; empty when the verdict is another one.

    The verdict is read from Airflow, or from the store for a gate that refused.
    """
    shown = _result(ti_key)
    if shown is None:
        try:
            record = own_store().record(ti_key.run_id, RECORDS.get(ti_key.task_id, ti_key.task_id))
        except OSError as error:
            log.warning("no button for the verdict: %s", error)
            return ""
        shown = summary(record) if record else {}
    if shown.get("verdict") != wanted:
        return ""
    return _run_page(f"tasks/{quote(ti_key.task_id)}/plugin/verdict", ti_key)


LINKS = (
    Link("Verdict: passed", partial(_verdict, "pass")),
    Link("Verdict: warnings", partial(_verdict, "warn")),
    Link("Verdict: blocked", partial(_verdict, "block")),
    Link("Governance", partial(_run_page, "plugin/governance_run")),
    Link("MLflow run", partial(_mlflow, "")),
    Link("Report", partial(_mlflow, "/artifacts/report")),
)
