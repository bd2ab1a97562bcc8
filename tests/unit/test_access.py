"""One table says who gets which key; compose, the bootstrap and the docs agree with it."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from spira_tasks.contract.access import (
    CONNECTIONS,
    DATABASES,
    GRANTS,
    RESERVED,
    RESERVED_PARTS,
    SECRET_FILES,
    STEP_ACCESS,
    may_act_on,
    variables,
)
from spira_tasks.contract.pipelines import PIPELINES
from spira_tasks.provenance import ROOT

ALL_STEPS = [step for pipeline in PIPELINES.values() for step in pipeline.all_steps]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())
SHOWN_BY_CODE = re.compile(r"`([^`]+)`")


def rows(document: str) -> list[list[list[str]]]:
    """The code words of each cell, of each row of the tables of a document."""
    lines = (ROOT / "docs" / document).read_text().splitlines()
    cells = [line.strip("|").split("|") for line in lines if line.startswith("| `")]
    return [[SHOWN_BY_CODE.findall(cell) for cell in row] for row in cells]


def steps_with(*accesses: str) -> set[str]:
    return {step.name for step in ALL_STEPS if step.resources.access in accesses}


def test_every_access_names_a_user_and_services_that_exist() -> None:
    for access in STEP_ACCESS.values():
        assert access.s3_user in GRANTS
        assert set(access.services) <= set(CONNECTIONS)
    assert {step.resources.access for step in ALL_STEPS} <= set(STEP_ACCESS)


@pytest.mark.parametrize(
    ("dag", "method", "roles", "may"),
    [
        ("spira_model_decision", "POST", ["User", "Steward"], False),
        ("spira_model_decision", "POST", ["User", "Clinician"], True),
        ("spira_data_decision", "POST", ["User", "Clinician"], False),
        ("spira_data_decision", "POST", ["User", "Steward"], True),
        ("spira_erasure", "POST", ["User"], False),
        ("spira_erasure", "PUT", ["Viewer", "User", "Op"], False),
        ("spira_erasure", "DELETE", [], False),
        ("spira_erasure", "GET", ["User"], True),
        ("spira_rollback", "POST", ["User", "Op"], False),
        ("spira_erasure", "POST", ["User", "Governance"], True),
        ("spira_erasure", "POST", ["Admin"], True),
        ("spira_continuous_training", "POST", ["User"], True),
        (None, "GET", ["User"], True),
    ],
)
def test_a_reserved_dag_is_for_its_roles(
    dag: str | None, method: str, roles: list[str], may: bool
) -> None:
    """Airflow's own answer besides: tests/platform asks it."""
    assert may_act_on(dag, method, roles) is may
    assert {*RESERVED, *(dag for dag, _ in RESERVED_PARTS)} <= {
        file.stem for file in (ROOT / "dags").glob("*.py")
    }


@pytest.mark.parametrize(
    ("part", "method", "roles", "may"),
    [
        ("HITL_DETAIL", "PUT", ["User"], False),
        ("HITL_DETAIL", "PUT", ["User", "Clinician"], True),
        ("HITL_DETAIL", "GET", ["User"], True),
        ("XCOM", "PUT", ["User", "Clinician"], False),  # where the answer is on its way
        ("RUN", "POST", ["User"], True),
    ],
)
def test_the_question_of_a_run_is_for_the_clinician_lead(
    part: str, method: str, roles: list[str], may: bool
) -> None:
    assert may_act_on("spira_continuous_training", method, roles, part) is may


def test_every_file_that_a_server_reads_is_made_and_mounted(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "docker/bootstrap.py"), "secrets", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    for folder, names in SECRET_FILES.items():
        for name in names:
            assert (tmp_path / folder / name).read_text()


@pytest.mark.parametrize("service", COMPOSE["services"])
def test_compose_reads_no_secret_that_the_table_lacks(service: str) -> None:
    """Profiles besides: their servers need not run."""
    text = yaml.safe_dump(COMPOSE["services"][service]).replace("\n", " ")
    for place, folder in mounted(service).items():
        if folder not in ("redis", "tls"):
            # the profiles' own, and what the settings of all of Airflow name
            others = {"broker_url", "result_backend", "connections.json"}
            read = set(re.findall(rf"/run/{place}/([\w.]+)", text)) - others
            assert read <= set(SECRET_FILES[folder])


def mounted(service: str) -> dict[str, str]:
    """The folders of secrets that a service mounts, by the place under /run."""
    volumes = [str(volume) for volume in COMPOSE["services"][service].get("volumes", ())]
    found = [re.search(r"/(\w+):/run/(secrets|keys):ro$", volume) for volume in volumes]
    return {one[2]: one[1] for one in found if one}


def test_each_server_mounts_the_keys_that_it_needs_and_no_others() -> None:
    airflow = {name: mounted(f"airflow-{name}") for name in ("apiserver", "dag-processor", "init")}
    assert airflow == {
        "apiserver": {"secrets": "airflow", "keys": "pages"},
        "dag-processor": {"secrets": "airflow", "keys": "pages"},
        "init": {"secrets": "airflow", "keys": "airflow_admin"},
    }
    for name in ("airflow-scheduler", "airflow-worker"):
        assert mounted(name) == {"secrets": "airflow", "keys": "steps"}
    assert mounted("cli") == {"keys": "steps"}


def test_the_mlflow_server_reads_no_secret_that_the_table_lacks() -> None:
    text = (ROOT / "docker/serve_mlflow.py").read_text()
    assert set(re.findall(r'secrets / "([\w.]+)"', text)) == set(SECRET_FILES["mlflow"])


def test_the_document_of_production_says_who_gets_which_key() -> None:
    found = {row[0][0]: set(row[1]) for row in rows("production.md") if len(row) == 3}
    assert found["spira_s3_data"] == steps_with("data")
    assert found["spira_s3_models"] == steps_with("models", "governance")
    assert found["spira_s3_store"] == set()  # all others
    files = {row[0][0] for row in rows("production.md") if len(row) == 2}
    for folder in SECRET_FILES:
        assert any(name.startswith(f"{folder}/") for name in files)
    for role in DATABASES:
        assert f"`bootstrap/{role}_password`" in (ROOT / "docs/production.md").read_text()


def test_the_document_of_kubernetes_says_who_gets_which_key() -> None:
    found = {row[0][0]: row[1:] for row in rows("kubernetes.md") if len(row) == 3}
    assert set(found) == {f"spira-{access}" for access in STEP_ACCESS}
    named: list[str] = []
    for name, access in STEP_ACCESS.items():
        steps, keys = found[f"spira-{name}"]
        assert set(steps) == (set() if name == "store" else steps_with(name))  # most steps
        named += keys  # a row says "the same as", and what is added
        assert set(access.variables) <= {*named, "SPIRA_PSEUDONYM_MAP"}


def test_the_command_line_of_production_gets_its_keys_and_no_others() -> None:
    connections = {
        name: {"host": f"{name} host", "login": f"{name} login", "password": f"{name} password"}
        for name in ("spira_s3", "spira_s3_data", "spira_s3_models", "spira_mlflow")
    }
    connections["spira_s3_models"]["extra"] = {"region": "eu-1"}  # type: ignore[assignment]
    connections["spira_pseudonyms"] = {"password": "p", "extra": {"map": "/m"}}  # type: ignore[dict-item]
    connections["spira_signing"] = {"password": "s"}
    connections["spira_sealing"] = {"password": "k"}
    environment = runpy.run_path(str(ROOT / "docker/command_line.py"))["environment"]
    assert environment(connections) == {
        "SPIRA_S3_ENDPOINT": "spira_s3_models host",
        "SPIRA_S3_ACCESS_KEY": "spira_s3_models login",
        "SPIRA_S3_SECRET_KEY": "spira_s3_models password",
        "SPIRA_S3_REGION": "eu-1",
        "MLFLOW_TRACKING_URI": "spira_mlflow host",
        "MLFLOW_TRACKING_USERNAME": "spira_mlflow login",
        "MLFLOW_TRACKING_PASSWORD": "spira_mlflow password",
        "SPIRA_PSEUDONYM_KEY": "p",
        "SPIRA_SIGNING_KEY": "s",
        "SPIRA_SEALING_KEY": "k",
    }
    connections["spira_s3_intake"] = {"host": "h", "login": "l", "password": "of the intake"}
    found = environment(connections, "data", "put")
    assert found["SPIRA_S3_SECRET_KEY"] == "of the intake"
    assert not {"SPIRA_PSEUDONYM_KEY", "SPIRA_SIGNING_KEY", "MLFLOW_TRACKING_URI"} & set(found)


def test_without_a_connection_for_s3_nothing_is_handed_on() -> None:
    def none(_: str) -> dict[str, Any] | None:
        return None

    with pytest.raises(LookupError, match="no Airflow connection spira_s3"):
        variables(STEP_ACCESS["store"], none)
