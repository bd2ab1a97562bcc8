"""What is in the images, and what is not."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from production import docker, why_not
from test_versions import VERSION

pytestmark = pytest.mark.docker

ROOT = Path(__file__).resolve().parents[2]
TASKS, AIRFLOW = f"spira-tasks:{VERSION}", f"spira-airflow:{VERSION}"
SEARCH = """
import importlib.util, json, os, shutil
names = ("airflow", "torch", "mlflow", "docker")
print(json.dumps({
    "packages": [name for name in names if importlib.util.find_spec(name)],
    "tools": [t for t in ("gcc", "cc", "make", "git", "curl") if shutil.which(t)],
    "user": [os.getuid(), os.getgid()],
    "files": sorted(os.listdir("/opt/spira")),
    "environment": sorted(name for name in os.environ
                   if any(part in name for part in ("KEY", "SECRET", "PASSWORD", "TOKEN"))),
    "writable": [d for d in ("/opt/spira", "/usr/local/lib", "/etc") if os.access(d, os.W_OK)],
}))
"""


@pytest.fixture(scope="module", autouse=True)
def images() -> None:
    if reason := why_not():
        pytest.skip(reason)


def look(image: str) -> dict[str, list[object]]:
    process = docker("run", "--rm", "--network=none", "--read-only", image, "python", "-c", SEARCH)
    return dict(json.loads(process.stdout))


def test_the_tasks_image_holds_what_steps_import_and_no_airflow() -> None:
    found = look(TASKS)
    assert set(found["packages"]) >= {"torch", "mlflow"}
    assert "airflow" not in found["packages"]


def test_the_airflow_image_holds_no_torch() -> None:
    found = look(AIRFLOW)
    assert set(found["packages"]) == {"airflow", "docker"}


@pytest.mark.parametrize("image", [TASKS, AIRFLOW])
def test_an_image_has_no_compiler_no_cache_and_nothing_its_user_may_change(image: str) -> None:
    found = look(image)
    assert found["tools"] == found["writable"] == []
    assert set(found["files"]) <= {
        "spira_tasks",
        "spira_services",
        "expectations",
        "docs",
        "docker",
        "dags",
        "plugins",
    }
    assert found["environment"] == ["GPG_KEY"] * (
        "GPG_KEY" in found["environment"]
    )  # Python's public image has it
    assert found["user"][0] == 10001
    left = ["find", "/root/.cache", "/tmp", "-type", "f"]
    command = ["run", "--rm", "--network=none", "--user=0", image, *left]
    assert docker(*command, check=False).stdout == ""


@pytest.mark.parametrize("image", [TASKS, AIRFLOW])
def test_an_image_says_its_version_and_revision(image: str) -> None:
    labels = json.loads(docker("image", "inspect", image).stdout)[0]["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == VERSION
    assert labels["org.opencontainers.image.revision"]
    if image == TASKS:
        lock = hashlib.sha256((ROOT / "docker/tasks.txt").read_bytes()).hexdigest()
        assert labels["spira.lock"] == lock
