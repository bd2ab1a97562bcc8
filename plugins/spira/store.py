"""Read what steps left in the store: their records, and the governance site of a run.

The store is the only messenger between a step and Airflow.  Nothing is taken from a container's
output, and nothing is ever unpickled.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from spira_tasks.contract.decision import OF_VERSIONS, decision_id
from spira_tasks.contract.run import StepRecord
from spira_tasks.contract.typed import typed
from spira_tasks.contract.verdict import Verdict, shown_metrics, suppress

SHOWN = ("key", "state", "found", "seconds")
RUN_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:+=@~-]{0,199}")  # of a run or step, as the store's
DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
PACK = re.compile(r"spira-report-[A-Za-z0-9._-]+\.zip")
LAPTOP_STORE = ".spira/store"  # of steps that are processes, where SPIRA_STORE is not set
# Tasks that are not called as their step: what writes a person's answer, and promotion after it.
BEFORE, ANSWER, AGAIN = "report_asked", "answer", "promote_approved"
# To the name of the record that they leave.
RECORDS = {BEFORE: "report", ANSWER: "decide", AGAIN: "promote"}
REPORT = "report"  # the step whose output ``site`` is the site


class Damaged(OSError):
    """A file of the store is missing, or does not have the content that its name promises."""


class StoreReader:
    """The records and the sites of all runs of a store: a folder, or ``s3://bucket/prefix``.

    ``environment`` holds SPIRA_S3_ENDPOINT and the keys, where the store is in a bucket.  Every
    method raises OSError when the store does not answer, and Damaged.
    """

    def __init__(self, store: str, environment: Mapping[str, str]) -> None:
        self._store = store
        self._environment = environment

    def latest(self) -> str:
        """The run with the newest site; empty when there is none."""
        pointer = self._json("site/latest.json") or {}
        return str(pointer.get("run_id", ""))

    def names(self, run_id: str) -> dict[str, str] | None:
        """File name to SHA-256 (hex) of a run's newest site; None when the run has none.

        A name in a URL is looked up here, and in no folder.
        """
        if not RUN_ID.fullmatch(run_id):
            return None
        report = self.record(run_id, REPORT)
        # another run, such as one of spira_governance_report, may have built it again
        pointer = self._json(f"site/runs/{run_id}.json") or (report.outputs if report else {})
        digest = pointer.get("site")
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

    def output(self, run_id: str, step: str, output: str, file: str) -> bytes:
        """A file of an output of a step; Damaged where the run has none."""
        record = self.record(run_id, step)
        match = DIGEST.fullmatch(record.outputs.get(output, "")) if record else None
        if match is None:
            raise Damaged(f"runs/{run_id}/{step}.json names no {output}")
        tree = json.loads(self._verified(f"trees/{match[1]}.json", match[1]))
        return self.content({name: file for name, file, _ in tree}[file])

    def decided(self, run_id: str, asked: str) -> str:
        """What a person decided of the version that a run registered: approve, refuse or empty.

        Only an approval of what was ``asked``, as the verdict that waits names it, is the answer.
        """
        content = self.output(run_id, "register", "registration", "registration.json")
        about = {name: str(json.loads(content)[name]) for name in ("version", "classifier")}
        found = []
        for act, kind in OF_VERSIONS.items():
            of = about | ({"asked": asked} if asked and act == "approve" else {})
            if self._json(f"decisions/{kind}/{decision_id(kind, of)}.json"):
                found.append(act)
        return found[-1] if found else ""  # while one replaces the other, the refusal wins

    def record(self, run_id: str, step: str) -> StepRecord | None:
        """The record of a step of a run; None when there is none, or the name cannot have one."""
        if not (RUN_ID.fullmatch(run_id) and RUN_ID.fullmatch(step)):
            return None
        name = f"runs/{run_id}/{step}.json"
        content = self._read(name)
        try:
            return None if content is None else StepRecord.from_json(content)
        except ValueError as error:
            raise Damaged(f"{name} is no record of a step: {error}") from None

    def _json(self, name: str) -> dict[str, Any] | None:
        content = self._read(name)
        try:
            return None if content is None else dict(typed(json.loads(content), Mapping[str, Any]))
        except ValueError:
            raise Damaged(f"{name} is no JSON object") from None

    def _verified(self, name: str, hexdigest: str) -> bytes:
        content = self._read(name)
        if content is None:
            raise Damaged(f"{name} is missing")
        if sha256(content).hexdigest() != hexdigest:
            raise Damaged(f"{name} does not have the content that its name promises")
        return content

    def _read(self, name: str) -> bytes | None:
        """The content of a file, or None; ``name`` must never be what a browser sent."""
        if not self._store.startswith("s3://"):
            file = Path(self._store) / name
            return file.read_bytes() if file.is_file() else None
        from minio.error import MinioException, S3Error
        from urllib3.exceptions import HTTPError

        from spira_tasks.s3_client import Service

        place = urlsplit(self._store)
        path = f"{place.path.strip('/')}/{name}".lstrip("/")
        try:
            service = Service.from_environment(self._environment)
            client = service.client(n_retries=5, backoff_seconds=0.5)
            with client.get_object(place.netloc, path) as response:
                return bytes(response.read())
        except S3Error as error:
            if error.code == "NoSuchKey":
                return None
            raise OSError(f"S3 refused to read {self._store}: {error.code}") from None
        except (MinioException, HTTPError) as error:
            raise OSError(f"S3 does not answer: {type(error).__name__}") from None
        except ValueError as error:  # of the environment
            raise OSError(str(error)) from None


def n_files(reference: str, environment: Mapping[str, str]) -> int:
    """How many files there are where data enters; 0 for a folder that this machine does not have.

    Raises OSError when the bucket does not answer.
    """
    if not reference.startswith("s3://"):
        return sum(len(files) for *_, files in os.walk(reference.removeprefix("folder:")))
    from minio.error import MinioException
    from urllib3.exceptions import HTTPError

    from spira_tasks.s3_client import Service

    place = urlsplit(reference)
    prefix = f"{place.path.strip('/')}/".lstrip("/")
    try:
        client = Service.from_environment(environment).client(n_retries=5, backoff_seconds=0.5)
        return sum(1 for _ in client.list_objects(place.netloc, prefix=prefix, recursive=True))
    except (MinioException, HTTPError) as error:
        raise OSError(f"S3 does not list {reference}: {type(error).__name__}") from None
    except ValueError as error:  # of the environment
        raise OSError(str(error)) from None


def own_store(default: str = "") -> StoreReader:
    """The store of SPIRA_STORE, or ``default``; a bucket's keys come from Airflow's connections.

    Raises
    ------
    OSError
        When there is neither, or no connection has its keys.
    """
    store = os.environ.get("SPIRA_STORE") or default
    if not store:
        raise OSError("SPIRA_STORE is not set where Airflow's api-server runs")
    if not store.startswith("s3://"):
        return StoreReader(store, {})
    from airflow.sdk.exceptions import AirflowException

    from spira.access import secrets_of
    from spira_tasks.contract.step import Resources

    try:
        return StoreReader(store, secrets_of(Resources(access="store")))
    except AirflowException as error:
        raise OSError(str(error)) from None


def waits_for(record: StepRecord | None) -> Verdict | None:
    """The verdict of promotion that lacks the approval of a person and nothing else; or None."""
    verdicts = record.verdicts if record else ()
    lacking = {one.id: one for one in verdicts if one.status in ("warn", "block")}
    others = {"better_than_champion", "rolled_back_by_a_person"}
    if any(one.stops for one in verdicts) or not others.isdisjoint(lacking):
        return None
    return lacking.get("approved_by_a_person")


def asked_about(verdict: Verdict | None) -> dict[str, str]:
    """What an approval that a promotion asks for is about: version, classifier, what is open."""
    names = verdict.names if verdict else {}
    return {name: "".join(names.get(name, ())) for name in ("version", "classifier", "asked")}


def shown(record: StepRecord) -> dict[str, Any]:
    """What Airflow's page shows of a record: a few hundred bytes, the verdict first."""
    fields = summary(record) | {
        **{name: getattr(record, name) for name in SHOWN},
        "metrics": shown_metrics(record.metrics),
        "verdicts": [suppress(verdict).to_dict() for verdict in record.verdicts],
        "mlflow_run": record.provenance.get("mlflow_run", ""),
    }
    # without tuples, which Airflow stores in its own way
    return dict(json.loads(json.dumps(fields)))


def summary(record: StepRecord) -> dict[str, Any]:
    """The verdict of a gate and its counts; empty for a step that is no gate."""
    if not record.verdicts:
        return {}
    n_blocked = len(record.stopping)
    n_passed = sum(verdict.status == "pass" for verdict in record.verdicts)
    n_warnings = len(record.verdicts) - n_blocked - n_passed
    return {
        "verdict": "block" if n_blocked else "warn" if n_warnings else "pass",
        "n_blocked": n_blocked,
        "n_warnings": n_warnings,
        "n_passed": n_passed,
    }


def explanation(record: StepRecord) -> str:
    """Why a step failed or refused; empty when it did neither."""
    from expectations.words.verdicts import sentence

    refused = [f"- {verdict.id}: {sentence(verdict, 'en')}" for verdict in record.stopping]
    return record.message or "\n".join(refused)
