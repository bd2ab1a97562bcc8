"""Airflow's users and roles, with one rule more: who may start which reserved DAG.

Airflow's role User may start every DAG, and no permission takes one DAG out.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.fab.auth_manager.fab_auth_manager import FabAuthManager

from spira_tasks.contract.access import may_act_on


class AuthManager(FabAuthManager):  # type: ignore[misc]
    def is_authorized_dag(
        self, *, method: str, user: Any, access_entity: Any = None, details: Any = None
    ) -> bool:
        """Whether a user may act on a DAG, or read it; Airflow asks it at every request."""
        dag_id = details.id if details else None
        part = access_entity.value if access_entity else ""
        return may_act_on(dag_id, method, [role.name for role in user.roles], part) and bool(
            super().is_authorized_dag(
                method=method, user=user, access_entity=access_entity, details=details
            )
        )
