"""The doctor says what is wrong, each with what to do about it, and shows no secret."""

from __future__ import annotations

import json
import os
import re
import runpy
import socket
import subprocess
import sys
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from stack import Stack
from started import free_port

from scripts.deployment import ROOT, Answer, Docker, Settings, SettingsError, parse_env
from scripts.doctor import checks
from scripts.doctor.checks import fail, ok, shown, status, warn
from spira_tasks.contract.access import SECRET_FILES

IMAGE = "spira-tasks:0.2.0"


def examined(env_file: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "scripts/doctor", "--env-file", env_file],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    """Settings of a platform that was never started."""
    file = tmp_path / "env"
    own = {
        "COMPOSE_PROJECT_NAME": "spira-nobody",
        "SPIRA_SECRETS": tmp_path / "secrets",
        "SPIRA_NETWORK": "spira-nobody_steps",
        **{f"SPIRA_{name}_PORT": free_port() for name in ("S3", "MLFLOW", "AIRFLOW")},
    }
    file.write_text("".join(f"{name}={value}\n" for name, value in own.items()))
    return file


@pytest.fixture
def engine() -> None:
    docker = Docker()
    if not docker("version").good:
        pytest.skip("no Docker engine")
    if not docker("image", "inspect", IMAGE).good:
        pytest.skip(f"no image {IMAGE}")


# -- without an engine -----------------------------------------------------------------------


def test_an_env_file_is_read_as_compose_reads_it() -> None:
    text = """
    # a comment
    A=one
    export B = two words   # and a comment
    C='# no comment'
    D="x=y"
    E=
    F=#nothing
    G=http://s3:8333/#part
    """
    assert parse_env(text) == {
        "A": "one",
        "B": "two words",
        "C": "# no comment",
        "D": "x=y",
        "E": "",
        "F": "",
        "G": "http://s3:8333/#part",
    }


def test_a_line_that_is_no_setting_is_named() -> None:
    with pytest.raises(SettingsError, match=r"\.env, line 2"):
        parse_env("A=1\nnonsense\n")


def test_defaults_are_those_of_the_compose_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "env"
    file.write_text("SPIRA_S3_PORT=\nSPIRA_GPUS=2\nSPIRA_MLFLOW_PORT=1\n")
    monkeypatch.setenv("SPIRA_MLFLOW_PORT", "7000")
    settings = Settings.read(file)
    assert settings["SPIRA_S3_PORT"] == "8333"
    assert settings["SPIRA_GPUS"] == "2"
    assert settings["SPIRA_MLFLOW_PORT"] == "7000"
    assert settings.bucket("SPIRA_STORE_URL") == ("spira-store", "v1")
    assert settings.secrets == ROOT / "secrets"


def test_every_example_setting_is_one_that_compose_reads() -> None:
    example = parse_env((ROOT / ".env.example").read_text())
    of_compose = {name for name in example if name.startswith("COMPOSE_")}
    assert set(example) - of_compose <= set(Settings.read(ROOT / ".env.example").values)


def test_the_table_shows_verdicts_and_then_each_fix_once() -> None:
    findings = [
        ok("a", "good"),
        warn("b", "odd", "look"),
        fail("c", "bad", "mend"),
        fail("d", "x", "mend"),
    ]
    lines = shown(findings).splitlines()
    assert lines[0] == "ok    a  good"
    assert lines[2] == "FAIL  c  bad"
    assert lines[5:8] == ["What to do:", "  c, d: mend", "  b: look"]
    assert lines[-1] == "2 wrong, 1 to look at, 4 looked at"


@pytest.mark.parametrize(
    ("row", "level", "text"),
    [
        ("training|f|2026-11-30 03:00:00+00|2026-11-23 03:00:01.5+00|failed", "ok",
         "last run 2026-11-23 03:00 UTC, failed; next 2026-11-30 03:00 UTC"),
        ("training|f|2026-11-30 03:00:00+00||", "ok", "no run yet; next 2026-11-30 03:00 UTC"),
        ("training|f|2026-11-28 03:00:00+00|2026-11-28 03:00:01.5+00|running", "ok",
         "last run 2026-11-28 03:00 UTC, running"),
        ("training|f|||", "ok", "no run yet; next when an event wakes it"),
        ("training|t|2026-11-30 03:00:00+00||", "warn", "it is paused; no run yet"),
        ("training|f|2026-11-28 03:00:00+00||", "FAIL",
         "no run yet; next 2026-11-28 03:00 UTC: it did not start"),
    ],
)  # fmt: skip
def test_the_last_and_the_next_run_of_a_schedule(row: str, level: str, text: str) -> None:
    found = checks.schedule(row.split("|"), datetime(2026, 11, 29, tzinfo=UTC))
    assert (found.level, found.what, found.detail) == (level, "schedule of training", text)


def test_answers_that_are_kept_for_ever_are_named(env_file: Path) -> None:
    for profiles, schedule, named in (
        ("collection,serving", "", True),
        ("serving", "0 2 * * *", False),
    ):
        values = {"COMPOSE_PROFILES": profiles, "SPIRA_TELEMETRY_SCHEDULE": schedule}
        found = checks.env_file(Settings({**values, "COMPOSE_PROJECT_NAME": "spira"}, env_file))
        assert ("retention of answers" in {one.what for one in found}) is named


def test_only_what_fails_makes_the_exit_status() -> None:
    assert status([ok("a", ""), warn("b", "")]) == 0
    assert status([ok("a", ""), fail("b", "", "")]) == 1


def test_no_secret_is_shown() -> None:
    text = shown([fail("a", "postgresql://airflow:p4ss@db/x said S3CRET", "b")], ["S3CRET"])
    assert "p4ss" not in text
    assert "S3CRET" not in text


@pytest.mark.parametrize(
    ("error", "level", "text"),
    [
        ('could not select device driver "" with capabilities: [[gpu]]', "warn", "CPU"),
        ("nvidia-container-cli: initialization error: driver not loaded", "FAIL", "driver not"),
        ("something else", "warn", "could not be tried"),
    ],
)
def test_three_ways_to_have_no_gpu(error: str, level: str, text: str) -> None:
    finding = checks._no_gpu("GPU", Answer(125, "", error))
    assert finding.level == level
    assert text in finding.detail


@pytest.mark.parametrize(
    ("answer", "text", "fix"),
    [
        (Answer(127, "", "there is no program docker"), "no program", "install"),
        (Answer(1, "", "permission denied while trying to connect"), "may not", "usermod"),
        (Answer(1, "", "Cannot connect to the Docker daemon"), "no engine answers", "start it"),
        (Answer(124, "", "no answer within 20 s"), "no answer", "restart"),
        (Answer(1, "", "remote error: tls: bad certificate"), "tls", "ca.pem"),
    ],
)
def test_each_way_in_which_an_engine_does_not_answer(answer: Answer, text: str, fix: str) -> None:
    finding = checks._no_answer("Docker engine", answer, "unix:///x")
    assert finding.level == "FAIL"
    assert text in finding.detail
    assert fix in finding.fix


@pytest.mark.parametrize(
    ("mode", "missing", "containers", "level", "text"),
    [
        (0o700, None, {}, "ok", "complete"),
        (0o750, None, {}, "FAIL", "open to others"),
        (0o700, "airflow/fernet_key", {}, "FAIL", "lacks airflow/fernet_key"),
        (None, None, {}, "ok", "will be made"),
        (None, None, {"s3": {}}, "FAIL", "is gone"),
    ],
)
def test_the_folder_of_secrets(
    tmp_path: Path,
    mode: int | None,
    missing: str | None,
    containers: dict[str, object],
    level: str,
    text: str,
) -> None:
    folder = tmp_path / "secrets"
    if mode is not None:
        files = {f"{of}/{name}" for of, names in SECRET_FILES.items() for name in names}
        for name in files - {missing}:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("x")
            (folder / name).chmod(0o444)
        folder.chmod(mode)
    (tmp_path / "env").write_text(f"SPIRA_SECRETS={folder}\n")
    (finding,) = checks.secrets(Settings.read(tmp_path / "env"), containers)
    assert finding.level == level
    assert text in finding.detail


class Careless:
    """An S3 service that does not look at conditions, as some do not."""

    def __init__(self) -> None:
        self.content = b""

    def put_object(self, _bucket: str, _name: str, body: BytesIO, _size: int) -> None:
        self.content = body.read()

    def get_object(self, _bucket: str, _name: str) -> SimpleNamespace:
        return SimpleNamespace(data=self.content)

    def remove_object(self, _bucket: str, _name: str) -> None:
        self.content = b""

    def _execute(self, _method: str, _bucket: str, _name: str, body: bytes, _: object) -> None:
        self.content = body


def test_a_service_without_conditional_put_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"SPIRA_S3_ENDPOINT": "http://s3:1", "STORE": "b/v1", "DATA": ""}.items():
        monkeypatch.setenv(name, value)
    inside = runpy.run_path(str(ROOT / "scripts/doctor/inside.py"))
    assert not inside["use"](Careless(), "S3")
    reported = json.loads(capsys.readouterr().out)
    assert reported["level"] == "FAIL"
    assert "no conditional put; results could be overwritten" in reported["detail"]


def test_an_engine_that_nobody_serves(env_file: Path) -> None:
    done = examined(env_file, DOCKER_HOST="tcp://127.0.0.1:1")
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert "FAIL  Docker engine" in done.stdout
    assert "Docker engine: " in done.stdout.split("What to do:")[1]


def test_no_docker_client_at_all(env_file: Path) -> None:
    done = examined(env_file, DOCKER="/nowhere/docker")
    assert done.returncode == 1
    assert "there is no program /nowhere/docker" in done.stdout
    assert "install Docker's client" in done.stdout


def test_an_env_file_that_is_not_there(tmp_path: Path) -> None:
    done = examined(tmp_path / "none")
    assert done.returncode == 1
    assert "there is no file" in done.stdout


def test_the_site_file_is_read_as_airflow_reads_it(tmp_path: Path, env_file: Path) -> None:
    site = tmp_path / "site.toml"
    site.write_text('[steps.train]\nengine = "gpu"\n')
    env_file.write_text(f"SPIRA_SITE_FILE={site}\n")
    (finding,) = checks.site(Docker(), Settings.read(env_file))
    assert finding.level == "FAIL"
    assert "there is no [engines.gpu]" in finding.detail


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="Linux lists its ports")
def test_ports_that_are_open_to_others_are_known() -> None:
    with socket.create_server(("127.0.0.1", 0)) as own, socket.create_server(("", 0)) as to_all:
        found = checks.listening()
        assert to_all.getsockname()[1] in found
        assert own.getsockname()[1] not in found


# -- with an engine --------------------------------------------------------------------------


@pytest.mark.docker
@pytest.mark.usefixtures("engine")
def test_a_platform_that_was_never_started_has_nothing_wrong(env_file: Path) -> None:
    group = Path("/var/run/docker.sock").stat().st_gid
    done = examined(env_file, DOCKER_GID=str(group))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "none is up" in done.stdout
    assert "will be made at the first start" in done.stdout


@pytest.mark.docker
@pytest.mark.usefixtures("engine")
def test_what_is_wrong_before_the_first_start(tmp_path: Path, env_file: Path) -> None:
    group = Path("/var/run/docker.sock").stat().st_gid
    site = tmp_path / "site.toml"
    site.write_text('[engines.far]\nurl = "tcp://127.0.0.1:1"\n')
    closed = tmp_path / "recordings"
    closed.mkdir(mode=0o700)
    with socket.socket() as other, env_file.open("a") as file:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        print(f"SPIRA_S3_PORT={port}", file=file)
        print(f"DOCKER_GID=54321\nSPIRA_SITE_FILE={site}", file=file)
        print(f"SPIRA_AIRFLOW_IMAGE=spira-airflow:none\nSPIRA_DATA_URL={closed}", file=file)
        file.flush()
        done = examined(env_file)
    assert done.returncode == 1
    wrong = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
    assert len(wrong) == 5, done.stdout
    assert f"port {port}" in done.stdout
    assert "another program holds it" in done.stdout
    assert f"write DOCKER_GID={group}" in done.stdout
    assert "image spira-airflow:none: make images" in done.stdout
    assert "no engine answers at tcp://127.0.0.1:1" in done.stdout
    assert f"steps may not read {closed}" in done.stdout


@pytest.mark.docker
@pytest.mark.slow
def test_what_breaks_in_a_platform_is_reported(stack: Stack) -> None:
    stack.wait()
    image, network = stack.settings["SPIRA_TASKS_IMAGE"], stack.settings["SPIRA_NETWORK"]
    own = ("--name=spira-test-ended", "--label=spira.step=train", f"--network={network}")
    with socket.create_server(("0.0.0.0", 0)) as of_the_host:
        port = of_the_host.getsockname()[1]
        stack.docker("run", *own, image, "true")
        done = examined(stack.env_file, SPIRA_KEEP_HOURS="-3")  # it has just ended
        stack.docker("rm", "--force", "spira-test-ended")
    assert done.returncode == 0, done.stdout
    (reached,) = re.findall(r"steps can reach port (.*) of the Docker host itself", done.stdout)
    assert str(port) in reached.split(", ")
    assert "1 are older than -3 hours, and each holds keys" in done.stdout
    assert "list, put, get, delete, put on a condition" in done.stdout
    assert "none: no internet, no Postgres" in done.stdout
    secrets = stack.settings.known_secrets()
    assert not any(secret in done.stdout for secret in secrets)

    def reported(*texts: str) -> None:
        done = examined(stack.env_file)
        assert done.returncode == 1, done.stdout
        assert "Traceback" not in done.stdout + done.stderr
        for text in texts:
            assert text in done.stdout

    stack.python(
        "s3 = client('admin')\n"
        "s3.set_bucket_policy('spira-data', json.dumps({'Version': '2012-10-17', 'Statement': [{"
        "'Effect': 'Allow', 'Principal': '*', 'Action': ['s3:GetObject', 's3:ListBucket'],"
        "'Resource': ['arn:aws:s3:::spira-data', 'arn:aws:s3:::spira-data/*']}]}))"
    )
    reported("bucket spira-data is open")
    stack.python("client('admin').remove_bucket('spira-data')")
    reported("s3://spira-data/recordings cannot be read (NoSuchBucket)")
    stack.python(  # with what the tests of the backup left there
        "s3 = client('admin')\n"
        "for one in s3.list_objects('spira-store', recursive=True):\n"
        "    s3.remove_object('spira-store', one.object_name)\n"
        "s3.remove_bucket('spira-store')"
    )
    reported("there is no bucket spira-store", "up -d --force-recreate bootstrap")

    stack.in_secrets(
        "import json, os\n"
        "from pathlib import Path\n"
        "file = Path('/secrets/s3/identities.json')\n"
        "users = json.loads(file.read_text())\n"
        "[one.update(credentials=[{'accessKey': 'x' * 20, 'secretKey': 'y' * 40}])"
        " for one in users['identities'] if one['name'] == 'store']\n"
        "other = file.with_suffix('.new')\n"
        "other.write_text(json.dumps(users))\n"
        "other.chmod(0o444)\n"
        "os.replace(other, file)\n"
        "Path('/secrets').chmod(0o755)"
    )
    reported("it does not know the key of the store", "is open to others: mode 0755")
    stack.compose("stop", "postgres")
    reported("service postgres", "does not run (exited)")
