"""Who may do what with which bucket, where a service has users but keeps no rights of theirs."""

from __future__ import annotations

import importlib.util
import json
from io import BytesIO
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

import pytest
from minio import Minio
from minio.error import S3Error
from s3_servers import ceph, ceph_user, is_ceph_installed

from spira_tasks.provenance import ROOT

BUCKETS = ("spira-store", "spira-data", "spira-mlflow")
READERS = {
    "store": {"spira-store"},
    "data": {"spira-store", "spira-data"},
    "models": {"spira-store", "spira-mlflow"},
    "airflow": {"spira-store"},
    "mlflow": {"spira-mlflow"},
}
WRITERS = {"store": {"spira-store"}, "data": {"spira-store"}, "models": READERS["models"]}


def bootstrap() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "docker/bootstrap.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def is_denied(act: object) -> bool:
    try:
        act()  # type: ignore[operator]
    except S3Error as error:
        if error.code != "AccessDenied":
            raise
        return True
    return False


@pytest.mark.slow
@pytest.mark.skipif(
    not is_ceph_installed(),
    reason="Ceph is not installed: apt-get install radosgw ceph-mon ceph-osd ceph-common",
)
def test_policies_of_buckets_grant_what_the_identities_file_grants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_start = bootstrap()
    first_start.make_secrets(tmp_path / "secrets")
    file = tmp_path / "secrets/s3/identities.json"
    identities = json.loads(file.read_text())["identities"]
    keys = {one["name"]: one["credentials"][0] for one in identities}
    with ceph(tmp_path / "ceph") as server:
        for name, key in keys.items():
            ceph_user(tmp_path / "ceph", name, key["accessKey"], key["secretKey"])
        monkeypatch.setenv("SPIRA_S3_ENDPOINT", server.endpoint)
        monkeypatch.setenv("SPIRA_S3_GRANTS", "policy")
        for _ in range(2):  # a second start changes nothing
            first_start._make_buckets(tmp_path / "secrets")

        address = urlsplit(server.endpoint).netloc
        for name, readable in READERS.items():
            key = keys[name]
            client = Minio(address, key["accessKey"], key["secretKey"], secure=False)
            for bucket in BUCKETS:
                read = lambda b=bucket, c=client: list(c.list_objects(b))  # noqa: E731
                write = lambda b=bucket, c=client: c.put_object(b, "v1/x", BytesIO(b"1"), 1)  # noqa: E731
                assert is_denied(read) is (bucket not in readable), (name, bucket)
                assert is_denied(write) is (bucket not in WRITERS.get(name, ())), (name, bucket)
