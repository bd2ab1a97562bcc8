"""Buttons of a task in Airflow's page: what its gate said, the governance site, MLflow."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import attrs
from airflow.sdk import BaseOperatorLink
from airflow.sdk.configuration import conf
from airflow.sdk.execution_time.xcom import XCom
from spira_records import summary
from spira_site_files import Damaged, site_files

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

log = logging.getLogger("spira.step")


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


def _run_page(ti_key: TaskInstanceKey) -> str:
    """Where the run of a task is in Airflow's page, whatever name or port that has today."""
    root = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")
    return f"{root}/dags/{quote(ti_key.dag_id)}/runs/{quote(ti_key.run_id, safe='')}"


def _verdict(ti_key: TaskInstanceKey) -> str:
    """What the gate said; of one that refused, Airflow has nothing and the store has the record."""
    record: Any = XCom.get_value(ti_key=ti_key, key="return_value")
    if not isinstance(record, dict):
        try:
            record = site_files().record(ti_key.run_id, ti_key.task_id)
        except (OSError, Damaged) as error:
            log.warning("no button for the verdict: %s", error)
            return ""
    return str(summary(record or {}).get("verdict", ""))


@attrs.define()
class GovernanceLink(BaseOperatorLink):  # type: ignore[misc]
    name = "Governance"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        return f"{_run_page(ti_key)}/plugin/governance_run"


class VerdictLink(BaseOperatorLink):  # type: ignore[misc]
    """A button that a task shows when its gate said ``verdict``.

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
