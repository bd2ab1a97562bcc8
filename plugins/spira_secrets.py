"""The keys of a step: from Airflow's connections into the step's environment, and nowhere else.

======================  ============================================================
connection              what it holds
======================  ============================================================
``spira_s3``            host: URL of the S3 service; login, password: its keys;
                        extra ``region``, where the service wants one
``spira_s3_store``      the same with keys that open the store only
``spira_s3_data``       … the store and the recordings; for ``ingest``
``spira_s3_models``     … the store and MLflow's artifacts; for ``train``, ``register``,
                        ``promote``, ``check_drift``, ``erase``, ``report``
``spira_mlflow``        host: URL of the MLflow server; login, password
``spira_pseudonyms``    password: the key that makes pseudonyms; for ``ingest``
                        extra ``map``: after a rotation of the key, the file of its map on
                        the engine's host, readable by the containers' user alone
``spira_signing``       password: the key that signs certificates; for ``erase``, ``report``
======================  ============================================================

The three with a suffix are optional: where one is missing, ``spira_s3`` stands in for it.
"""

from __future__ import annotations

from collections.abc import Iterable

from airflow.sdk import BaseHook, Connection
from airflow.sdk.exceptions import AirflowFailException, AirflowNotFoundException
from airflow.sdk.log import mask_secret

from spira_tasks.contract.step import Resources


def secrets_of(resources: Resources) -> dict[str, str]:
    """The variables by which a step with these resources reaches its services.

    Raises
    ------
    AirflowFailException
        When a connection that it needs does not exist.
    """
    reaches_models = resources.access in {"models", "governance"}
    keys = "models" if reaches_models else resources.access
    s3 = _connection(f"spira_s3_{keys}", "spira_s3")
    if s3 is None:
        raise AirflowFailException(
            "there is no Airflow connection spira_s3: add it (Admin, Connections), with the URL of "
            "the S3 service as host and its keys as login and password"
        )
    variables = {
        "SPIRA_S3_ENDPOINT": s3.host,
        "SPIRA_S3_ACCESS_KEY": s3.login,
        "SPIRA_S3_SECRET_KEY": s3.password,
        "SPIRA_S3_REGION": s3.extra_dejson.get("region"),
    }
    if reaches_models and (mlflow := _connection("spira_mlflow")):
        variables |= {
            "MLFLOW_TRACKING_URI": mlflow.host,
            "MLFLOW_TRACKING_USERNAME": mlflow.login,
            "MLFLOW_TRACKING_PASSWORD": mlflow.password,
        }
    if resources.access == "governance" and (key := _connection("spira_signing")):
        variables["SPIRA_SIGNING_KEY"] = key.password
    if resources.access == "data" and (key := _connection("spira_pseudonyms")):
        variables["SPIRA_PSEUDONYM_KEY"] = key.password
        variables["SPIRA_PSEUDONYM_MAP"] = key.extra_dejson.get("map")
    for name, value in variables.items():
        if value and name.endswith(("_KEY", "_PASSWORD")):
            mask_secret(value)
    return {name: str(value) for name, value in variables.items() if value}


def hidden(text: str, secrets: Iterable[str]) -> str:
    """``text`` without the secrets: Airflow masks its logs, but not those of ``dags test``."""
    for secret in sorted(secrets, key=len, reverse=True):  # one may be the beginning of another
        text = text.replace(secret, "***")
    return text


def _connection(*names: str) -> Connection | None:
    for name in names:
        try:
            return BaseHook.get_connection(name)
        except AirflowNotFoundException:
            continue
    return None
