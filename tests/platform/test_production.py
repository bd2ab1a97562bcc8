"""The platform as a hospital runs it: the compose file, a run through Airflow's REST API."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest
from faults import Reference
from planted import TOLERANT
from production import PORTS, Production, docker
from production import Run as DagRun
from small_run import SETTINGS

from spira_tasks.artifacts import Store
from spira_tasks.contract.pipelines import TRAINING
from spira_tasks.errors import GateRejected
from spira_tasks.governance import retention
from spira_tasks.runner import run_step

pytestmark = [pytest.mark.docker, pytest.mark.slow]

KEYS = (
    *("steps/pseudonym_key", "steps/signing_key", "steps/sealing_key", "airflow_admin/password"),
    *("airflow/fernet_key", "airflow/jwt_secret", "airflow/api_secret_key"),
)


def test_the_run_in_containers_leaves_the_digests_of_a_run_in_one_process(
    undisturbed: DagRun, readable_cohort: Path, tmp_path: Path
) -> None:
    store, steps = Store(str(tmp_path)), {}
    with suppress(GateRejected):
        for step in TRAINING.configure(data=str(readable_cohort), settings=SETTINGS | TOLERANT):
            steps[step.name] = run_step(step, "by-hand", store)
    records = undisturbed.records()
    assert set(records) == set(steps) | {"promote"}
    for name, result in steps.items():
        if name != "register":  # says which version it is, and that counts up
            assert records[name]["key"] == result.key, name
            assert records[name]["outputs"] == result.outputs, name


def test_a_refusal_is_reported_on_the_task_and_ends_the_run(undisturbed: DagRun) -> None:
    tasks = undisturbed.states
    assert undisturbed.state == "failed"
    assert tasks.pop("promote") == ("failed", 1)  # such a little model is refused, for good
    assert tasks.pop("outcome") == ("skipped", 1)  # after a crash it is failed
    mapped = [tasks.pop(f"{step}_shard")[0] for step in ("ingest", "materialize")]
    assert mapped == ["skipped", "skipped"]  # over no shard: so few recordings need none
    asked = [tasks.pop(name)[0] for name in ("report_asked", "ask", "answer", "promote_approved")]
    assert asked == ["upstream_failed"] * 4  # nobody is asked about a refused model
    assert {state for state, _ in tasks.values()} == {"success"}
    assert "enough_test_subjects" in undisturbed.log("promote")


def test_airflow_shows_the_small_record_of_a_step_and_links_to_mlflow(
    platform: Production, undisturbed: DagRun
) -> None:
    shown = undisturbed.shown("train")
    assert shown["key"] == undisturbed.records()["train"]["key"]
    assert shown["metrics"]["n_epochs"] == SETTINGS["train.epochs"]
    assert len(json.dumps(shown)) < 2000
    path = "dags/spira_continuous_training/dagRuns/undisturbed/taskInstances/register/links"
    links = platform.get(path)["extra_links"]
    assert "/runs/" in links["MLflow run"]
    assert links["Report"].endswith("/artifacts/report")


def test_the_model_is_in_the_registry_and_its_files_are_in_the_bucket(
    platform: Production, undisturbed: DagRun
) -> None:
    assert undisturbed.states["register"] == ("success", 1)
    path = "registered-models/alias?name=spira&alias=challenger"
    version = platform.mlflow(path)["model_version"]
    assert version["status"] == "READY"
    found = platform.s3.list_objects("spira-mlflow", "artifacts/", recursive=True)
    names = [str(one.object_name).rpartition("/")[2] for one in found]
    assert {"MLmodel", "weights.safetensors"} <= set(names)
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".pth"))]


def test_the_governance_pages_are_open_to_users_who_are_logged_in(
    platform: Production, undisturbed: DagRun
) -> None:
    assert undisturbed.states["report"] == ("success", 1)
    page = platform.page("/spira/runs/undisturbed/verdict.en.html")
    assert "Too few people to test on" in page
    assert "airflow:admin" in page  # who started it
    gate = platform.page("/spira/tasks/undisturbed/promote")
    assert "enough_test_subjects" in gate
    for path in ("", "runs/undisturbed/verdict.en.html", "runs/undisturbed/nothing.css"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{PORTS['AIRFLOW']}/spira/{path}", timeout=30)
        assert refused.value.code == 401


def test_a_person_on_the_host_has_the_command_line(
    platform: Production, undisturbed: DagRun, readable_cohort: Path, tmp_path: Path
) -> None:
    def said(*words: str) -> str:
        process = platform.spira(tmp_path, *words)
        assert process.returncode == 0, process.stderr
        return process.stdout

    assert "check_recordings" in said("show", "undisturbed", "--json")
    assert "the log is whole" in said("audit", "verify")
    assert "check_training_set" in said("trace", "undisturbed", "--json")
    assert "policy: of the package" in said("retention", "plan")
    refused = json.loads(said("quarantine", "list", "--json"))
    assert {entry["reason"] for entry in refused} >= {"truncated"}
    shutil.copy(retention.PACKAGED, tmp_path / "policy.toml")
    said("retention", "adopt", "policy.toml", "--why", "signed on paper, folder 12")
    last = json.loads(said("audit", "list", "--last", "1", "--json"))[-1]
    assert last["action"] == "policy"
    assert last["actor"].startswith("cli:")
    said("report", "undisturbed", "--zip", "pack.zip")
    assert (tmp_path / "pack.zip").stat().st_size > 10_000
    assert "whole" in said("report", "--verify", "pack.zip")
    assert "; 0 were there already" in said("data", "put", str(readable_cohort))
    assert platform.s3.stat_object("spira-data", "recordings/recordings.csv").size
    mistaken = platform.spira(tmp_path, "show", "nowhere")
    assert mistaken.returncode == 78
    assert "Traceback" not in mistaken.stderr


def test_a_container_can_do_next_to_nothing(reference: Reference) -> None:
    at_work = reference.at_work
    host, config = at_work.details["HostConfig"], at_work.details["Config"]
    assert config["User"] == "10001:10001"
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["ReadonlyRootfs"]
    assert not host["Privileged"]
    assert host["Memory"] == host["MemorySwap"] == 4096 << 20
    assert host["NanoCpus"] == 2_000_000_000
    assert host["PidsLimit"] == 512
    assert list(at_work.details["NetworkSettings"]["Networks"]) == ["spira-test_steps"]
    assert "CapEff:\t0000000000000000" in at_work.status
    assert "NoNewPrivs:\t1" in at_work.status
    # Not the parts of S3, which ask no key, nor Postgres, Airflow or another host.
    reached = {address for address, answered in at_work.reached.items() if answered}
    assert reached == {("s3", 8333), ("mlflow", 5000)}


def test_no_secret_reaches_a_log_or_a_page(platform: Production, undisturbed: DagRun) -> None:
    planted = [
        *(key["secretKey"] for key in platform.keys.values()),
        *(file.read_text() for file in platform.secrets.rglob("*password")),
        *((platform.secrets / name).read_text() for name in KEYS),
    ]
    seen = [undisturbed.log(task) for task in undisturbed.tasks]
    path = f"dags/spira_continuous_training/dagRuns/{undisturbed.run_id}/taskInstances"
    for task in undisturbed.tasks:
        seen.append(json.dumps(platform.get(f"{path}/{task}")))
        seen.append(json.dumps(platform.get(f"{path}/{task}/xcomEntries")))
    seen.append(platform.compose("logs").stdout)
    for text in seen:
        assert not [secret for secret in planted if secret in text]


def test_without_a_password_nothing_is_answered() -> None:
    for url in (
        f"http://127.0.0.1:{PORTS['AIRFLOW']}/api/v2/dags",
        f"http://127.0.0.1:{PORTS['MLFLOW']}/api/2.0/mlflow/experiments/search?max_results=1",
        f"http://127.0.0.1:{PORTS['S3']}/spira-store",
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(url, timeout=10)
        assert refused.value.code in (401, 403), url


def test_an_erasure_is_started_by_a_user_with_the_role_of_governance_and_by_no_other(
    platform: Production,
) -> None:
    """A reason that is too short is refused after the question whether the user may start it."""
    commands = [
        f"printf 'pw\\npw\\n' | airflow users create --role User --username {name}"
        f" --firstname {name} --lastname {name} --email {name}@example.org"
        for name in ("ana", "bia")
    ]
    commands += ["airflow users add-role --username bia --role Governance"]
    for command in commands:
        platform.compose("exec", "-T", "airflow-apiserver", "bash", "-euc", command)
    conf = {"subject": "ab" * 16, "reason": "short"}
    body = {"dag_run_id": "by-user", "logical_date": None, "conf": conf}
    answers = {}
    for name in ("ana", "bia"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            platform.as_user(name, "pw").call("POST", "dags/spira_erasure/dagRuns", body)
        answers[name] = refused.value.code
    assert answers == {"ana": 403, "bia": 400}
    assert platform.as_user("ana", "pw").get("dags/spira_erasure")["dag_id"] == "spira_erasure"


def test_the_keys_of_a_step_open_only_what_it_needs(platform: Production) -> None:
    from minio import Minio
    from minio.error import S3Error

    def client(name: str) -> Minio:
        key = platform.keys[name]
        address = f"127.0.0.1:{PORTS['S3']}"
        return Minio(address, key["accessKey"], key["secretKey"], secure=False)

    allowed = {
        "store": {"spira-store"},
        "data": {"spira-store", "spira-data"},
        "models": {"spira-store", "spira-mlflow"},
        "airflow": {"spira-store"},
        "mlflow": {"spira-mlflow"},
        "intake": {"spira-data"},
    }
    for name, buckets in allowed.items():
        for bucket in ("spira-store", "spira-data", "spira-mlflow"):
            if bucket in buckets:
                list(client(name).list_objects(bucket))
            else:
                with pytest.raises(S3Error, match="AccessDenied"):
                    list(client(name).list_objects(bucket))


def test_a_second_up_changes_nothing(platform: Production) -> None:
    before = {file: file.read_bytes() for file in platform.secrets.rglob("*") if file.is_file()}
    platform.compose("up", "-d", "--no-build")
    assert before == {f: f.read_bytes() for f in platform.secrets.rglob("*") if f.is_file()}


def test_only_loopback_addresses_are_published(platform: Production) -> None:
    ports = docker("ps", "--filter", f"label=com.docker.compose.project={platform.name}")
    published = [part for part in ports.stdout.split() if "->" in part]
    assert published
    assert all(part.startswith("127.0.0.1:") for part in published)
