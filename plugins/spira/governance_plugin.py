"""What we add to Airflow's API server: the governance site, its links, a limit on wrong passwords.

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
    def fastapi_root_middlewares(self) -> list[dict[str, Any]]:
        from spira.token_limit import TokenLimit

        return [{"middleware": TokenLimit, "args": [], "kwargs": {}, "name": "SPIRA token limit"}]

    @cached_property
    def external_views(self) -> list[dict[str, str]]:
        # Airflow may be below a path of its host, and these pages are below it too.
        root = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/") + PREFIX
        views = (
            ("Governance", "/", "nav", "governance"),
            ("Governance", "/runs/{RUN_ID}/", "dag_run", "governance_run"),
            ("Verdict", "/tasks/{RUN_ID}/{TASK_ID}", "task_instance", "verdict"),
        )
        return [
            {
                "name": name,
                "href": root + path,
                "destination": destination,
                "url_route": route,
                **({"category": "browse"} if destination == "nav" else {}),
            }
            for name, path, destination, route in views
        ]
