"""The keys of a step: from Airflow's connections into the step's environment, and nowhere else.

``spira_tasks.contract.access`` lists the connections and who gets them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowFailException, AirflowNotFoundException
from airflow.sdk.log import mask_secret

from spira_tasks.contract.access import STEP_ACCESS, secrets, variables
from spira_tasks.contract.step import Resources


def secrets_of(resources: Resources) -> dict[str, str]:
    """The variables by which a step with these resources reaches its services.

    Raises
    ------
    AirflowFailException
        When there is no connection for the S3 service.
    """
    try:
        found = variables(STEP_ACCESS[resources.access], _connection)
    except LookupError as error:
        raise AirflowFailException(str(error)) from None
    for secret in secrets(found):
        mask_secret(secret)
    return found


def hidden(text: str, environment: Mapping[str, str]) -> str:
    """``text`` without the secrets: Airflow masks its logs, but not those of ``dags test``."""
    for secret in sorted(secrets(environment), key=len, reverse=True):  # one may start another
        text = text.replace(secret, "***")
    return text


def _connection(name: str) -> dict[str, Any] | None:
    try:
        found = BaseHook.get_connection(name)
    except AirflowNotFoundException:
        return None
    own = {"host": found.host, "login": found.login, "password": found.password}
    return {**found.extra_dejson, **own}
