"""Read what a step left in the store: its record, a few kilobytes of JSON.

The store is the only messenger between a step and Airflow.  Nothing is taken from a container's
output, and nothing is ever unpickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error

from spira_tasks.contract.record import verdicts_of
from spira_tasks.contract.verdict import explain, suppress

SHOWN = ("key", "state", "found", "seconds", "metrics")


def read_file(store: str, name: str, environment: Mapping[str, str]) -> bytes | None:
    """The content of a file of the store, or None when the store has none of this name.

    Parameters
    ----------
    store : str
        A folder, or ``s3://bucket/prefix``.
    name : str
        Such as ``"runs/first/train.json"``.  Never what a browser sent: it is not checked here.
    environment : mapping of str to str
        SPIRA_S3_ENDPOINT and the keys, where the store is in a bucket.

    Raises
    ------
    OSError
        When the store does not answer.
    """
    if not store.startswith("s3://"):
        file = Path(store) / name
        return file.read_bytes() if file.is_file() else None
    place = urlsplit(store)
    client = _client(environment)
    try:
        response = client.get_object(place.netloc, f"{place.path.strip('/')}/{name}".lstrip("/"))
    except S3Error as error:
        if error.code == "NoSuchKey":
            return None
        raise OSError(f"S3 refused to read {store}: {error.code}") from None
    except (MinioException, urllib3.exceptions.HTTPError) as error:
        raise OSError(f"S3 does not answer: {type(error).__name__}") from None
    try:
        return bytes(response.read())
    finally:
        response.close()
        response.release_conn()


def read_record(
    store: str, run_id: str, step: str, environment: Mapping[str, str]
) -> dict[str, Any] | None:
    """The record of a step of a run, or None when the store has none; else as ``read_file``."""
    content = read_file(store, f"runs/{run_id}/{step}.json", environment)
    return None if content is None else dict(json.loads(content))


def shown(record: Mapping[str, Any]) -> dict[str, Any]:
    """What Airflow's page shows of a record: a few hundred bytes, the verdict first."""
    fields = {name: record[name] for name in SHOWN if name in record}
    mlflow_run = record.get("provenance", {}).get("mlflow_run", "")
    verdicts = [suppress(verdict).to_dict() for verdict in verdicts_of(record)]
    return summary(record) | fields | {"verdicts": verdicts, "mlflow_run": mlflow_run}


def summary(record: Mapping[str, Any]) -> dict[str, Any]:
    """The verdict of a gate and its counts; empty for a step that judges nothing."""
    verdicts = verdicts_of(record)
    if not verdicts:
        return {}
    counts = {
        "block": sum(verdict.stops for verdict in verdicts),
        "warn": sum(verdict.status != "pass" and not verdict.stops for verdict in verdicts),
        "pass": sum(verdict.status == "pass" for verdict in verdicts),
    }
    return {
        "verdict": next(word for word, count in counts.items() if count),
        "n_blocked": counts["block"],
        "n_warnings": counts["warn"],
        "n_passed": counts["pass"],
    }


def explanation(record: Mapping[str, Any]) -> str:
    """Why a step failed or refused; empty when it did neither."""
    if record.get("message"):
        return str(record["message"])
    return "\n".join(f"- {explain(verdict)}" for verdict in verdicts_of(record) if verdict.stops)


def _client(environment: Mapping[str, str]) -> Minio:
    endpoint = urlsplit(environment["SPIRA_S3_ENDPOINT"])
    pool = urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=5, read=30),
        retries=urllib3.Retry(5, backoff_factor=0.5, status_forcelist=(500, 502, 503, 504)),
        cert_reqs="CERT_REQUIRED",
        ca_certs=os.environ.get("SSL_CERT_FILE") or None,
    )
    return Minio(
        endpoint.netloc,
        environment["SPIRA_S3_ACCESS_KEY"],
        environment["SPIRA_S3_SECRET_KEY"],
        secure=endpoint.scheme == "https",
        region=environment.get("SPIRA_S3_REGION") or None,
        http_client=pool,
    )
