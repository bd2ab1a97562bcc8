"""Buttons of a task in Airflow's page: its gate's verdict, the governance site, MLflow."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import attrs
from airflow.sdk import BaseOperatorLink
from airflow.sdk.configuration import conf
from airflow.sdk.execution_time.xcom import XCom

from spira.store import own_store, summary

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

log = logging.getLogger("spira.step")


def _page(ti_key: TaskInstanceKey, end: str = "") -> str:
    """Address of the MLflow run that the step's record names; empty when it names none."""
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


def _run_page(ti_key: TaskInstanceKey) -> str:
    """Path of a task's run in Airflow's page, without the host."""
    root = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")
    return f"{root}/dags/{quote(ti_key.dag_id)}/runs/{quote(ti_key.run_id, safe='')}"


def _verdict(ti_key: TaskInstanceKey) -> str:
    """A gate's verdict: from Airflow, or from the store for a gate that refused."""
    shown: Any = XCom.get_value(ti_key=ti_key, key="return_value")
    if not isinstance(shown, dict):
        try:
            record = own_store().record(ti_key.run_id, ti_key.task_id)
        except OSError as error:
            log.warning("no button for the verdict: %s", error)
            return ""
        shown = summary(record) if record else {}
    return str(shown.get("verdict", ""))


@attrs.define()
class GovernanceLink(BaseOperatorLink):  # type: ignore[misc]
    name = "Governance"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        return f"{_run_page(ti_key)}/plugin/governance_run"


class VerdictLink(BaseOperatorLink):  # type: ignore[misc]
    """A button that a task shows when its gate's verdict is ``verdict``.

    Airflow fixes the names of buttons when it reads the DAG, and hides those without an address.
    """

    verdict = ""

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        if _verdict(ti_key) != self.verdict:
            return ""
        return f"{_run_page(ti_key)}/tasks/{quote(ti_key.task_id)}/plugin/verdict"


@attrs.define()
class PassedLink(VerdictLink):
    name = "Verdict: passed"
    verdict = "pass"


@attrs.define()
class WarningsLink(VerdictLink):
    name = "Verdict: warnings"
    verdict = "warn"


@attrs.define()
class BlockedLink(VerdictLink):
    name = "Verdict: blocked"
    verdict = "block"


LINKS = (PassedLink(), WarningsLink(), BlockedLink(), GovernanceLink(), RunLink(), ReportLink())
