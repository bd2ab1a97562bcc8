"""What a site may change, which keys a step gets, and what is said when one of them is wrong."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from spira.access import hidden, secrets_of
from spira.docker import StepDockerOperator
from spira.launch import GPU_POOL, ProcessStepOperator, operator_of, step_operator
from spira.outcome import failure, memory_limit, out_of_memory, reason_of, result_of
from spira.site import LOCAL_ENGINE, Place, Site, number_of
from spira.store import StoreReader, explanation, shown
from spira_tasks.artifacts import Store
from spira_tasks.contract.pipelines import TRAINING
from spira_tasks.contract.run import StepRecord
from spira_tasks.contract.step import Resources, Step
from spira_tasks.contract.verdict import Number, Verdict

TRAIN = TRAINING.step("train")
PLAIN = next(step for step in TRAINING if not step.resources.n_gpus)


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SITE", "DOCKER_URL", "DOCKER_TLS", "NETWORK", "TASKS_IMAGE", "CONTAINER_USER"):
        monkeypatch.delenv(f"SPIRA_{name}", raising=False)
    monkeypatch.setenv("SPIRA_STORE", "s3://spira-store/v1")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "site.toml"
    monkeypatch.setenv("SPIRA_SITE", str(place))
    return place


# -- the site file ---------------------------------------------------------------------------


def test_without_a_file_every_step_keeps_its_resources_and_runs_here() -> None:
    site = Site.from_environment()
    assert site.place(Resources()) == Place(LOCAL_ENGINE)
    assert all(site.resources(step) == step.resources for step in TRAINING)


def test_variables_say_where_the_engine_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIRA_DOCKER_URL", "tcp://engine:2376")
    monkeypatch.setenv("SPIRA_DOCKER_TLS", "/run/secrets/engine")
    place = Site.from_environment().place(Resources())
    assert place == Place("tcp://engine:2376", "/run/secrets/engine")


def test_the_file_changes_what_it_names_and_nothing_else(file: Path) -> None:
    file.write_text("""
[engines.gpu]
url = "tcp://gpu-1.example.org:2376"
tls = "/run/secrets/gpu-1"
hosts = {s3 = "10.0.0.5"}

[steps.train]
engine = "gpu"
memory_mib = [16384, 32768]
cpus = 8
queue = "near_the_gpu"

[steps.ingest]
memory_mib = 512
""")
    site = Site.from_environment()
    by_name = {step.name: site.resources(step) for step in TRAINING}
    train, ingest = by_name.pop("train"), by_name.pop("ingest")
    assert train.memory_mib == (16384, 32768)
    assert (train.cpus, train.queue) == (8, "near_the_gpu")
    assert train.minutes == TRAIN.resources.minutes
    url, tls = "tcp://gpu-1.example.org:2376", "/run/secrets/gpu-1"
    assert site.place(train) == Place(url, tls, {"s3": "10.0.0.5"})
    assert ingest.memory_mib == (512,)
    assert site.place(ingest) == Place(LOCAL_ENGINE)
    assert by_name == {s.name: s.resources for s in TRAINING if s.name in by_name}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[steps", "at the end of a table declaration"),
        ("[machines.gpu]", "machines is not known; there are engines, steps"),
        ("engines = 5", r"write \[engines.<name>\]"),
        ("[steps]\ntrain = 5", r"write \[steps.<name>\]"),
        ('[engines.gpu]\nuri = "x"', "engines.gpu: uri is not known"),
        ('[engines.gpu]\ntls = "x"', "engines.gpu: it has no url"),
        ("[engines.gpu]\nurl = 5", "engines.gpu: it has no url"),
        ('[engines.gpu]\nurl = "x"\nhosts = "s3"', "engines.gpu: write hosts = {s3"),
        ('[engines.gpu]\nurl = "x"\nhosts = {s3 = 5}', "engines.gpu: write hosts = {s3"),
        ('[steps.train]\nengine = "gpu"', r"steps.train: there is no \[engines.gpu\]"),
        ("[steps.train]\nmemory = 5", "steps.train: memory is not known; there are cpus, mem"),
        ('[steps.train]\nmemory_mib = "16g"', "steps.train: memory_mib = '16g'"),
        ("[steps.train]\nmemory_mib = []", "steps.train: memory_mib"),
        ("[steps.train]\nmemory_mib = [1, 0]", "steps.train: memory_mib"),
        ("[steps.train]\nmemory_mib = 0.5", "steps.train: memory_mib"),
        ("[steps.train]\nn_gpus = true", "steps.train: n_gpus = True"),
        ("[steps.train]\ngpu_optional = 1", "steps.train: gpu_optional = 1"),
        ("[steps.train]\ncpus = 0", "steps.train: cpus = 0"),
        ("[steps.train]\nminutes = -5", "steps.train: minutes = -5"),
        ('[steps.train]\naccess = "all"', "steps.train: access = 'all'"),
        ("[steps.trian]\ncpus = 1", "steps: trian is not known; there are ingest"),
    ],
)
def test_a_mistake_in_the_file_is_reported_with_its_place(
    file: Path, content: str, words: str
) -> None:
    file.write_text(content)
    with pytest.raises(ValueError, match=words) as raised:
        step_operator(TRAIN, TRAINING, "docker")
    assert str(file) in str(raised.value)


def test_values_at_the_edge_are_taken(file: Path) -> None:
    file.write_text("[steps.train]\nn_gpus = 0\ncpus = 0.5\ngpu_optional = true\n")
    resources = Site.from_environment().resources(TRAIN)
    assert (resources.n_gpus, resources.cpus, resources.gpu_optional) == (0, 0.5, True)


def test_a_file_that_is_missing_is_named(file: Path) -> None:
    with pytest.raises(ValueError, match="No such file") as raised:
        Site.from_environment()
    assert f"SPIRA_SITE={file}" in str(raised.value)


# -- the operator of a step ------------------------------------------------------------------


def test_a_step_becomes_a_container_on_the_engine_of_the_site(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPIRA_NETWORK", "a_network")
    monkeypatch.setenv("SPIRA_TASKS_IMAGE", "registry.example.org/spira-tasks:7")
    file.write_text("""
[engines.gpu]
url = "tcp://gpu:2376"
[steps.train]
engine = "gpu"
n_gpus = 2
gpu_optional = false
minutes = 90
queue = "gpu"
""")
    operator = step_operator(TRAIN, TRAINING, "docker")
    assert isinstance(operator, StepDockerOperator)
    assert (operator.task_id, operator.place) == ("train", Place("tcp://gpu:2376"))
    assert (operator.pool, operator.pool_slots, operator.queue) == (GPU_POOL, 2, "gpu")
    assert operator.execution_timeout == timedelta(minutes=90)
    assert operator.network == "a_network"
    assert operator.image == "registry.example.org/spira-tasks:7"
    assert operator.user == "10001:10001"
    assert operator.store == "s3://spira-store/v1"


def test_shards_take_turns_on_the_engines_of_their_step(file: Path) -> None:
    file.write_text("""
[engines.one]
url = "tcp://one:2376"
[engines.two]
url = "tcp://two:2376"
[steps.materialize]
engine = "one two"
rows_per_shard = 100
""")
    step = TRAINING.step("materialize")
    kind, arguments = operator_of(step, TRAINING, "docker")
    places = Site.from_environment().places(Site.from_environment().resources(step))
    taken = [
        kind(**arguments, places=places, shard={"number": n, "of": 3}).docker_url for n in (1, 2, 3)
    ]
    assert taken == ["tcp://one:2376", "tcp://two:2376", "tcp://one:2376"]
    assert kind(**arguments).docker_url == "tcp://one:2376"


@pytest.mark.parametrize(("n_gpus", "optional"), [(1, "true"), (0, "false")])
def test_a_step_waits_for_gpus_only_when_it_needs_them(
    file: Path, n_gpus: int, optional: str
) -> None:
    file.write_text(f"[steps.train]\nn_gpus = {n_gpus}\ngpu_optional = {optional}\n")
    operator = step_operator(TRAIN, TRAINING, "docker")
    assert (operator.pool, operator.pool_slots) == ("default_pool", 1)


@pytest.mark.parametrize("runtime", ["docker", "kubernetes"])
@pytest.mark.parametrize("store", ["", ".spira/store", "/data/store"])
def test_containers_need_a_store_in_a_bucket(
    runtime: str, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPIRA_STORE", store)
    with pytest.raises(ValueError, match="s3://bucket/prefix") as raised:
        step_operator(PLAIN, TRAINING, runtime)
    assert repr(store) in str(raised.value)
    assert isinstance(step_operator(PLAIN, TRAINING, "process"), ProcessStepOperator)


@pytest.mark.parametrize("text", ["48h", "-1", "nan", "inf", "1,5"])
def test_a_number_in_the_environment_that_is_none_is_refused_with_what_to_write(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPIRA_KEEP_HOURS", text)
    words = re.escape(f"SPIRA_KEEP_HOURS is {text!r}: write a number of hours, such as 48")
    with pytest.raises(ValueError, match=words):
        number_of("SPIRA_KEEP_HOURS", 48, "hours")
    monkeypatch.setenv("SPIRA_KEEP_HOURS", "")
    assert number_of("SPIRA_KEEP_HOURS", 48, "hours") == 48


def test_a_runtime_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="must be one of process, docker, kubernetes"):
        step_operator(PLAIN, TRAINING, "podman")


# -- the keys of a step ----------------------------------------------------------------------


def add(patch: pytest.MonkeyPatch, name: str, **fields: object) -> None:
    connection = {"conn_type": "generic", "host": f"http://{name}", "login": f"{name}-login"}
    content = json.dumps({**connection, "password": f"{name}-password", **fields})
    patch.setenv(f"AIRFLOW_CONN_{name.upper()}", content)


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("spira_s3", "spira_mlflow", "spira_pseudonyms", "spira_signing", "spira_sealing"):
        add(monkeypatch, name)


S3 = ("SPIRA_S3_ACCESS_KEY", "SPIRA_S3_ENDPOINT", "SPIRA_S3_SECRET_KEY")
EVERY = (*S3, "SPIRA_SEALING_KEY")
MLFLOW = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME")


@pytest.mark.usefixtures("connections")
@pytest.mark.parametrize(
    ("access", "names"),
    [
        ("store", EVERY),
        ("models", (*MLFLOW, *EVERY)),
        ("governance", (*MLFLOW, *EVERY, "SPIRA_SIGNING_KEY")),
        ("data", ("SPIRA_PSEUDONYM_KEY", *EVERY)),
    ],
)
def test_a_step_gets_the_keys_of_its_access_and_no_other(
    access: str, names: tuple[str, ...]
) -> None:
    assert sorted(secrets_of(Resources(access=access))) == sorted(names)  # type: ignore[arg-type]


@pytest.mark.usefixtures("connections")
def test_a_connection_of_its_access_goes_before_the_general_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add(monkeypatch, "spira_s3_data", extra={"region": "eu-1"})
    data, store = secrets_of(Resources(access="data")), secrets_of(Resources(access="store"))
    assert data["SPIRA_S3_ENDPOINT"] == "http://spira_s3_data"
    assert data["SPIRA_S3_SECRET_KEY"] == "spira_s3_data-password"
    assert data["SPIRA_S3_REGION"] == "eu-1"
    assert store["SPIRA_S3_SECRET_KEY"] == "spira_s3-password"
    assert "SPIRA_S3_REGION" not in store


def test_a_connection_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AirflowFailException, match="no Airflow connection spira_s3: add it"):
        secrets_of(Resources())
    add(monkeypatch, "spira_s3")
    assert sorted(secrets_of(Resources(access="models"))) == sorted(S3)  # MLflow is optional


def test_what_is_hidden_is_hidden_whole() -> None:
    assert (
        hidden("key=abc secret=abcdef", {"A_KEY": "abc", "B_KEY": "abcdef"}) == "key=*** secret=***"
    )


# -- the record of a step --------------------------------------------------------------------


RECORD = StepRecord("train", "train", "done", "2026-11-21T12:00:00+00:00", 1.0)


def test_airflow_shows_a_small_part_of_a_record(tmp_path: Path) -> None:
    record = replace(
        RECORD,
        key="k",
        metrics={"auc": 0.9},
        outputs={"model": "sha256:0"},
        provenance={"mlflow_run": "1/abc", "host": "h"},
    )
    Store(str(tmp_path)).runs.write("a_run", record)
    state = {"state": "done", "found": False, "seconds": 1.0, "verdicts": []}
    small = {"key": "k", "metrics": {"auc": 0.9}, "mlflow_run": "1/abc", **state}
    assert result_of(str(tmp_path), "a_run", "train", {}) == small
    assert shown(RECORD)["mlflow_run"] == ""


def test_airflow_is_shown_no_small_count() -> None:
    few = Verdict("erased", "block", observed=Number(3, "people"), n=80, n_unit="people")
    metrics = {"n_patients": 4, "n_controls": 3, "n_subjects": 7, "sensitivity": 0.75}
    record = replace(RECORD, verdicts=(few,), metrics=metrics)
    assert set(shown(record)["metrics"].values()) == {None, 7}
    (verdict,) = shown(record)["verdicts"]
    assert verdict["observed"]["value"] is None
    assert verdict["n"] == 80


def test_a_step_that_left_no_record_is_not_done(tmp_path: Path) -> None:
    assert StoreReader(str(tmp_path), {}).record("a_run", "train") is None
    with pytest.raises(AirflowException, match="left no record"):
        result_of(str(tmp_path), "a_run", "train", {})
    assert not reason_of(str(tmp_path), "a_run", "train", {})


def test_a_store_that_does_not_answer_is_reported_and_its_keys_are_not() -> None:
    keys = {
        "SPIRA_S3_ENDPOINT": "http://127.0.0.1:1",
        "SPIRA_S3_ACCESS_KEY": "an-access-key",
        "SPIRA_S3_SECRET_KEY": "a-secret-key",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spira_tasks.s3_client.urllib3.Retry", lambda *_, **__: False)
        with pytest.raises(AirflowException, match="is done, but S3 does not answer") as raised:
            result_of("s3://spira-store/v1", "a_run", "train", keys)
        assert not reason_of("s3://spira-store/v1", "a_run", "train", keys)
    assert "key" not in str(raised.value)


def test_why_a_step_failed_is_its_message_or_the_gates_that_refused() -> None:
    verdicts = (
        Verdict("enough", "block", observed=Number(13, "people"), threshold=20),
        Verdict("noise", "warn"),
        Verdict("balance", "block"),
    )
    record = replace(RECORD, verdicts=verdicts)
    enough, balance = explanation(record).splitlines()
    assert enough.startswith("- enough: ")
    assert enough.endswith("Found: 13; limit: 20.")
    assert balance.startswith("- balance: ")
    assert explanation(replace(record, message="no file")) == "no file"
    assert not explanation(replace(record, verdicts=verdicts[1:2]))
    assert not explanation(RECORD)


# -- what a status means ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "final"),
    [(1, True), (65, True), (78, True), (75, False), (137, False), (143, False), (9, False)],
)
def test_only_what_trying_again_does_not_mend_is_final(
    status: int, final: bool, caplog: pytest.LogCaptureFixture
) -> None:
    error = failure("train", status, "why")
    assert caplog.messages == [str(error)]  # in the log above the trace that Airflow writes
    assert isinstance(error, AirflowFailException) == final
    assert str(error).startswith(f"step 'train' ended with status {status}: ")
    assert str(error).endswith("\nwhy")


def test_a_process_that_a_signal_ended_was_killed() -> None:
    """Python gives such a status as the signal's number, negated."""
    assert "status 137: it was killed from outside (SIGKILL)" in str(failure("train", -9, ""))


def test_memory_limits_are_gone_through_one_by_one() -> None:
    limits = (1024, 2048, 4096)
    assert [memory_limit(limits, n) for n in range(5)] == [1024, 2048, 4096, 4096, 4096]
    errors = [out_of_memory("train", limits, n) for n in (1, 2, 3)]
    assert [isinstance(error, AirflowFailException) for error in errors] == [False, False, True]
    assert "limit is 2048 MiB; the next try has 4096 MiB" in str(errors[1])
    assert "[steps.train]" in str(errors[2])
    last = out_of_memory("trial", limits, 3, is_trial=True)  # its next try says what it came to
    assert not isinstance(last, AirflowFailException)


def test_resources_are_no_part_of_what_a_step_is() -> None:
    """Else another memory limit would compute every result again."""
    assert Step("a", "b", resources=Resources(cpus=8)) == Step("a", "b")
    assert "cpus" not in Step("a", "b", resources=Resources(cpus=8)).to_json()
