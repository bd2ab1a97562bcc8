"""Read the governance site of a run from the store.

A name in a URL is looked up in the list of the site's files and goes nowhere else; every file is
held against its SHA-256 before it is handed on.  Standard library and the S3 client only: Airflow's
image has nothing more.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from spira_records import read_file

RUN_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:+=@~-]{0,199}")  # of a run or step, as the store's
DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
PACK = re.compile(r"spira-report-[A-Za-z0-9._-]+\.zip")
REPORT = "report"  # the step whose output ``site`` is the site


class Damaged(Exception):
    """A file of the store is not what its name promises, or is gone."""


class SiteFiles:
    """The sites of all runs of a store.

    Parameters
    ----------
    store : str
        A folder, or ``s3://bucket/prefix``.
    environment : mapping of str to str
        The keys of the bucket, as for ``spira_records.read_file``.

    Every method raises OSError when the store does not answer, and Damaged.
    """

    def __init__(self, store: str, environment: Mapping[str, str]) -> None:
        self._store = store
        self._environment = environment

    def latest(self) -> str:
        """The run with the newest site; empty when there is none."""
        pointer = self._json("site/latest.json") or {}
        return str(pointer.get("run_id", ""))

    def names(self, run_id: str) -> dict[str, str] | None:
        """File name to SHA-256 (hex) of a run's newest site; None when the run has none."""
        if not RUN_ID.fullmatch(run_id):
            return None
        own = (self.record(run_id, REPORT) or {}).get("outputs")
        # another run may have built it again, such as one of spira_governance_report
        digest = (self._json(f"site/runs/{run_id}.json") or own or {}).get("site")
        if digest is None:
            return None
        match = DIGEST.fullmatch(str(digest))
        if match is None:
            raise Damaged(f"runs/{run_id}/{REPORT}.json names no artifact")
        tree = self._verified(f"trees/{match[1]}.json", match[1])
        return {name: file for name, file, _ in json.loads(tree)}

    def pack(self, run_id: str) -> str:
        """Name of the zip among the files of a run's newest site; empty when it has none."""
        return next(filter(PACK.fullmatch, self.names(run_id) or ()), "")

    def content(self, hexdigest: str) -> bytes:
        """A file by its SHA-256, as ``names`` has it."""
        return self._verified(f"blobs/{hexdigest[:2]}/{hexdigest}", hexdigest)

    def record(self, run_id: str, step: str) -> dict[str, Any] | None:
        """The record of a step of a run; None when there is none, or can be none of that name."""
        if not (RUN_ID.fullmatch(run_id) and RUN_ID.fullmatch(step)):
            return None
        return self._json(f"runs/{run_id}/{step}.json")

    def _json(self, name: str) -> dict[str, Any] | None:
        content = read_file(self._store, name, self._environment)
        try:
            return None if content is None else dict(json.loads(content))
        except ValueError:
            raise Damaged(f"{name} is not JSON") from None

    def _verified(self, name: str, hexdigest: str) -> bytes:
        content = read_file(self._store, name, self._environment)
        if content is None:
            raise Damaged(f"{name} is missing")
        if sha256(content).hexdigest() != hexdigest:
            raise Damaged(f"{name} does not have the content that its name promises")
        return content


def site_files() -> SiteFiles:
    """The sites of the store of SPIRA_STORE.

    A bucket's keys come from Airflow's connection ``spira_s3_store`` or ``spira_s3``.

    Raises
    ------
    OSError
        When it is not said where the store is, or no connection has its keys.
    """
    store = os.environ.get("SPIRA_STORE")
    if not store:
        raise OSError("SPIRA_STORE is not set where Airflow's api-server runs")
    if not store.startswith("s3://"):
        return SiteFiles(store, {})
    from airflow.sdk.exceptions import AirflowException
    from spira_secrets import secrets_of

    from spira_tasks.contract.step import Resources

    try:
        return SiteFiles(store, secrets_of(Resources(access="store")))
    except AirflowException as error:
        raise OSError(str(error)) from None
