"""The governance site in Airflow's web interface: its links, and the application that serves it.

Airflow loads this file, and no other of ours, in each of its processes.  So the pages are imported
only where they are served (``spira.governance_app``).
"""

from __future__ import annotations

from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

PREFIX = "/spira"


class GovernancePlugin(AirflowPlugin):  # type: ignore[misc]
    name = "spira_governance"

    @cached_property
    def fastapi_apps(self) -> list[dict[str, Any]]:
        from spira.governance_app import build

        return [{"app": build(), "url_prefix": PREFIX, "name": "SPIRA governance"}]

    @cached_property
    def external_views(self) -> list[dict[str, str]]:
        # Airflow may be below a path of its host, and these pages are below it too.
        root = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/") + PREFIX
        return [
            {
                "name": "Governance",
                "href": f"{root}/",
                "destination": "nav",
                "category": "browse",
                "url_route": "governance",
            },
            {
                "name": "Governance",
                "href": f"{root}/runs/{{RUN_ID}}/",
                "destination": "dag_run",
                "url_route": "governance_run",
            },
            {
                "name": "Verdict",
                "href": f"{root}/tasks/{{RUN_ID}}/{{TASK_ID}}",
                "destination": "task_instance",
                "url_route": "verdict",
            },
        ]
