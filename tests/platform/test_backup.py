"""A backup is whole or not there; what is restored from it is what was backed up."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest
from stack import Stack

from scripts import backup
from scripts.backup import OWNERS, Refused
from scripts.backup_store import is_safe
from scripts.deployment import ROOT

FILL = """
s3 = client("store")
for name in ("results/abc", "runs/r+1:0/train", "trees/t", "blobs/ab/abcd", "memo/ab/x"):
    s3.put_object("spira-store", f"v1/{name}.json", BytesIO(name.encode()), len(name))
large = bytes(range(256)) * 40_000
s3.put_object("spira-store", "v1/blobs/cd/large", BytesIO(large), len(large))
client("models").put_object("spira-mlflow", "artifacts/1/model.pt", BytesIO(b"weights"), 7)
"""
READ = """
import hashlib
found = {}
for bucket in ("spira-store", "spira-mlflow"):
    s3 = client("models")
    for one in s3.list_objects(bucket, recursive=True):
        content = s3.get_object(bucket, one.object_name).read()
        found[f"{bucket}/{one.object_name}"] = hashlib.sha256(content).hexdigest()
print(json.dumps(found))
"""
DAGS = """
SET ROLE airflow;
CREATE TABLE dag (dag_id text, is_paused bool);
INSERT INTO dag VALUES ('training', false), ('erasure', true);
"""
TABLE = "CREATE TABLE notes (id serial PRIMARY KEY, text text); INSERT INTO notes (text) VALUES"


@pytest.mark.docker
@pytest.mark.slow
def test_what_is_restored_is_what_was_backed_up(stack: Stack, tmp_path: Path) -> None:
    stack.wait()
    platform = stack.platform
    for database, role in OWNERS.items():
        platform.sql(f"SET ROLE {role}; {TABLE} ('{database}')", database)
    platform.sql(DAGS, "airflow")
    stack.python(FILL)
    objects = json.loads(stack.python(READ))
    assert len(objects) == 7
    target = tmp_path / "b"

    done = stack.run("scripts/backup.py", "--everything", target)
    assert done.returncode == 0, done.stderr
    assert "secrets are not in it" in done.stdout
    manifest = backup.read_manifest(target)
    assert manifest["counts"]["store/blobs"] == 2
    assert not list(tmp_path.glob("*.part"))
    assert target.stat().st_mode & 0o077 == 0
    passwords = [p for p in stack.settings.known_secrets() if len(p) > 30]
    texts = b"".join(file.read_bytes() for file in target.rglob("*.json"))
    assert not any(secret.encode() in texts for secret in passwords)

    again = stack.run("scripts/backup.py", target)
    assert again.returncode == 1
    assert "exists already" in again.stderr

    refused = stack.run("scripts/restore.py", target)
    assert refused.returncode == 1
    assert "not empty: database airflow" in refused.stderr

    stack.compose("down", "-v")
    stack.start()
    assert json.loads(stack.python(READ)) == {}
    one = target / "store/results/abc.json"
    one.write_bytes(b"Results/abc")
    refused = stack.run("scripts/restore.py", target)
    assert refused.returncode == 1
    assert "store/results/abc.json was changed" in refused.stderr
    assert json.loads(stack.python(READ)) == {}
    one.write_bytes(b"results/abc")

    for force in ([], ["--force"], ["--force"]):  # a second time changes nothing
        done = stack.run("scripts/restore.py", *force, target)
        assert done.returncode == 0, done.stderr
        assert "paused: training." in done.stdout
        assert json.loads(stack.python(READ)) == objects
        platform = stack.platform
        for database, role in OWNERS.items():
            question = "SELECT text, tableowner FROM notes, pg_tables WHERE tablename = 'notes'"
            assert platform.sql(question, database) == f"{database}|{role}"
        assert platform.sql("SELECT count(*) FROM dag WHERE NOT is_paused", "airflow") == "0"
        access = "SELECT has_database_privilege('mlflow', 'airflow', 'CONNECT')"
        assert platform.sql(access) == "f"
        names = platform.sql("SELECT count(*) FROM pg_database WHERE datname ~ '_(rest|bef)or'")
        assert names == "0"
    # whose it was may go on writing it
    platform.sql("SET ROLE airflow; INSERT INTO notes (text) VALUES ('more')", "airflow")


@pytest.mark.docker
@pytest.mark.slow
def test_a_killed_backup_leaves_nothing_that_looks_whole(stack: Stack, tmp_path: Path) -> None:
    target = tmp_path / "b"
    script = ROOT / "scripts/backup.py"
    command: list[str | Path] = [sys.executable, script, "--env-file", stack.env_file, target]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert b"database airflow" in process.stdout.readline()  # type: ignore[union-attr]
        process.send_signal(signal.SIGKILL)
    assert not target.exists()
    assert (tmp_path / "b.part").exists()
    done = stack.run("scripts/backup.py", target)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "b.part").exists()
    backup.read_manifest(target)


@pytest.mark.docker
@pytest.mark.slow
def test_a_backup_says_what_to_start(stack: Stack, tmp_path: Path) -> None:
    stack.compose("stop", "s3")
    done = stack.run("scripts/backup.py", tmp_path / "b")
    stack.compose("start", "s3")
    assert done.returncode == 1
    assert "s3 of project" in done.stderr
    assert "scripts/compose.sh up -d bootstrap" in done.stderr
    assert not any(tmp_path.iterdir())


# -- without an engine -----------------------------------------------------------------------


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A folder that is a whole backup, with no database in it."""
    folder = tmp_path / "b"
    file = folder / "store/runs/a.json"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"{}")
    files = {"store/runs/a.json": backup.hashed(BytesIO(b"{}"))}
    content = json.dumps({"format": 1, "files": files}).encode()
    (folder / "manifest.json").write_bytes(content)
    seal = backup.hashed(BytesIO(content))["sha256"]
    (folder / "manifest.sha256").write_text(f"{seal}  manifest.json\n")
    return folder


def append(file: Path, content: bytes) -> None:
    file.write_bytes(file.read_bytes() + content)


def test_a_whole_backup_is_read(written: Path) -> None:
    assert list(backup.read_manifest(written)["files"]) == ["store/runs/a.json"]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda f: (f / "store/runs/a.json").write_bytes(b"[]"), "a.json was changed"),
        (lambda f: (f / "store/runs/a.json").unlink(), "a.json is missing"),
        (lambda f: (f / "store/runs/b.json").write_bytes(b""), "b.json is too much"),
        (lambda f: append(f / "manifest.json", b" "), "not to be trusted"),
        (lambda f: (f / "manifest.json").unlink(), "no whole backup"),
        (shutil.rmtree, "no folder"),
    ],
)
def test_a_damaged_backup_is_refused(written: Path, damage: object, reason: str) -> None:
    damage(written)  # type: ignore[operator]
    with pytest.raises(Refused, match=reason):
        backup.read_manifest(written)


def test_two_backups_do_not_work_on_one_folder(tmp_path: Path) -> None:
    with (
        backup.set_up(tmp_path / "b") as aside,
        pytest.raises(Refused, match="another backup"),
        backup.set_up(tmp_path / "b"),
    ):
        pass
    assert not aside.exists()
    assert (tmp_path / "b").is_dir()


def test_a_backup_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(aside: Path) -> None:
        (aside / "half").write_text("half")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"), backup.set_up(tmp_path / "b") as aside:
        fail(aside)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["/etc/passwd", "store/../../x", "store//x", "./x", "store/x/"])
def test_a_name_that_leaves_the_folder_is_not_written(name: str) -> None:
    assert not is_safe(name)
