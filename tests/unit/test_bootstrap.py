"""What a first start makes: secrets, each once, closed to all but the servers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from spira_tasks.provenance import ROOT


def made(folder: Path, *before: str) -> subprocess.CompletedProcess[str]:
    command = [*before, sys.executable, ROOT / "docker/bootstrap.py", "secrets", folder]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


def state(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(file): (file.read_bytes(), file.stat().st_mode & 0o777) for file in files}


def test_secrets_are_made_once_and_never_alike(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert made(first).returncode == made(second).returncode == 0
    assert first.stat().st_mode & 0o777 == 0o700
    found = state(first)
    assert {mode for _, mode in found.values()} == {0o444}
    alike = {content for content, _ in found.values()} & {c for c, _ in state(second).values()}
    assert alike == {(first / "alertmanager/alertmanager.yaml").read_bytes()}  # nobody is notified
    assert made(first).stdout == ""
    assert state(first) == found


def test_what_a_person_brought_is_kept_and_can_be_read_by_the_servers(tmp_path: Path) -> None:
    brought = {"postgres/password": "of our own", "tls/key.pem": "a key", "tls/cert.pem": "public"}
    for name, content in brought.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o600)
    assert made(tmp_path).returncode == 0
    for name, content in brought.items():
        assert (tmp_path / name).read_text() == content
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o444


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv"
)
def test_a_folder_of_another_user_is_reported_without_a_trace(tmp_path: Path) -> None:
    """As in the container: root without a capability."""
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o755)
    os.chown(folder, 12345, 12345)
    done = made(folder, "setpriv", "--bounding-set=-all", "--inh-caps=-all", "--")
    assert done.returncode == 1
    assert "must belong to root" in done.stderr
    assert "Traceback" not in done.stderr


def test_files_of_an_older_version_move_to_where_fewer_servers_mount_them(tmp_path: Path) -> None:
    assert made(tmp_path).returncode == 0
    names = ("connections.json", "pseudonym_key", "signing_key", "sealing_key")
    old = {name: (tmp_path / "steps" / name).read_text() for name in names}
    identities = json.loads((tmp_path / "s3/identities.json").read_text())["identities"]
    for name in names:
        (tmp_path / "steps" / name).rename(tmp_path / "airflow" / name)
    users = [one for one in identities if one["name"] != "intake"]
    (tmp_path / "s3/identities.json").write_text(json.dumps({"identities": users}))
    assert "moved airflow/connections.json to steps/connections.json" in made(tmp_path).stdout
    assert {name: (tmp_path / "steps" / name).read_text() for name in names} == old
    assert not [name for name in names if (tmp_path / "airflow" / name).exists()]
    now = json.loads((tmp_path / "s3/identities.json").read_text())["identities"]
    assert [one for one in now if one["name"] != "intake"] == users
    assert len(now) == len(users) + 1


def test_the_collection_server_gets_its_own_keys_and_none_that_steps_trust(tmp_path: Path) -> None:
    assert made(tmp_path).returncode == 0
    given = json.loads((tmp_path / "collection/environment.json").read_text())
    users = json.loads((tmp_path / "s3/identities.json").read_text())["identities"]
    (key,) = (one["credentials"][0] for one in users if one["name"] == "collection")
    assert given["SPIRA_S3_ACCESS_KEY"] == key["accessKey"]
    assert given["PGPASSWORD"] == (tmp_path / "bootstrap/services_password").read_text()
    assert given["PGPASSWORD"] not in given["SPIRA_SERVICES_DATABASE"]
    assert not {"SPIRA_SEALING_KEY", "SPIRA_SIGNING_KEY", "MLFLOW_TRACKING_PASSWORD"} & set(given)


def test_a_worker_may_read_models_and_audio_and_cannot_tell_who_somebody_is(tmp_path: Path) -> None:
    assert made(tmp_path).returncode == 0
    given = json.loads((tmp_path / "worker/environment.json").read_text())
    users = json.loads((tmp_path / "s3/identities.json").read_text())["identities"]
    (user,) = (one for one in users if one["name"] == "worker")
    assert given["SPIRA_S3_ACCESS_KEY"] == user["credentials"][0]["accessKey"]
    assert {action.partition(":")[0] for action in user["actions"]} == {"Read", "List"}
    assert not {"SPIRA_PSEUDONYM_KEY", "SPIRA_LINKAGE_KEY", "SPIRA_SIGNING_KEY"} & set(given)
