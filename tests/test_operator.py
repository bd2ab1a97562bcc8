"""A step as Airflow runs it in a container: what it is told, what outlives it, what it may say."""

from __future__ import annotations

import io
import json
import logging
import multiprocessing
import os
import signal
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
import spira_docker
import spira_engine
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowTaskTimeout
from airflow.sdk.execution_time.timeout import timeout
from engines import HERE, IMAGE, SMALL, USER, Proxy, own_engine, wait_for
from spira_docker import StepDockerOperator
from spira_engine import Engine
from spira_identity import Identity
from spira_site import Place, platform_of

from spira_tasks.contract import Resources, Step

pytestmark = pytest.mark.docker

STORE, NETWORK = "s3://spira-test/v1", "none"
SECRETS = {
    "SPIRA_S3_ENDPOINT": "http://s3.example.org:8333",
    "SPIRA_S3_ACCESS_KEY": "an-access-key",
    "SPIRA_S3_SECRET_KEY": "an-access-key-and-a-secret",
    "MLFLOW_TRACKING_PASSWORD": "a-password",
}
RECORD = {"key": "k", "metrics": {"n": 1}}

# What stands in for the package of the steps: it does what the step's configuration says.
PROGRAM = """
import json, os, signal, sys, time
command, option, run_id, step = sys.argv[1:]
assert (command, option) == ("run", "--run-id")
def say(*words):
    print(*words, file=sys.stderr, flush=True)
exec(json.loads(step)["config"]["script"])
"""
DOCKERFILE = f"FROM {IMAGE}\nCOPY spira_tasks /usr/local/lib/python3.11/site-packages/spira_tasks\n"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with own_engine() as found:
        yield found


@pytest.fixture(scope="module")
def image(engine: Engine) -> Iterator[str]:
    name = f"spira-test-steps:{uuid4().hex[:12]}"
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for path, text in {
            "Dockerfile": DOCKERFILE,
            "spira_tasks/__init__.py": "",
            "spira_tasks/__main__.py": PROGRAM,
        }.items():
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(text.encode()), 0o644
            tar.addfile(member, io.BytesIO(text.encode()))
    content.seek(0)
    answer = list(engine.client.build(fileobj=content, custom_context=True, tag=name, rm=True))
    assert engine.client.images(name), answer[-1]
    yield name
    engine.client.remove_image(name, force=True)


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No store and no Airflow around the operator; and nobody waits for long."""
    monkeypatch.setattr(spira_docker, "result_of", lambda *_: dict(RECORD))
    monkeypatch.setattr(spira_docker, "reason_of", lambda *_: "")
    monkeypatch.setattr(spira_docker, "secrets_of", lambda _: dict(SECRETS))
    monkeypatch.setattr(spira_engine, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(spira_docker, "SAMPLE_SECONDS", 0.1)
    monkeypatch.setattr(spira_docker, "STOP_SECONDS", 5.0)
    standard = logging.getLogger("airflow.task")
    log = property(lambda operator: operator.__dict__.get("log_of_try", standard))
    monkeypatch.setattr(StepDockerOperator, "log", log)


class Notes:
    """Airflow's task_state_store: what a try leaves for the next one, whatever became of it."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def get(self, name: str, default: Any = None) -> Any:
        return self._all().get(name, default)

    def set(self, name: str, value: Any) -> None:
        content = json.dumps({**self._all(), name: value})
        scratch = self.file.with_suffix(".new")
        scratch.write_text(content)
        scratch.replace(self.file)

    def _all(self) -> dict[str, Any]:
        return dict(json.loads(self.file.read_text())) if self.file.exists() else {}


class Task:
    """One task of one DAG run, and its tries."""

    def __init__(self, engine: Engine, image: str, folder: Path) -> None:
        self.engine, self.image, self.folder = engine, image, folder
        self.run_id = f"manual__{uuid4().hex}"
        self.notes = Notes(folder / "notes.json")

    def operator(
        self,
        script: str,
        attempt: int = 1,
        *,
        limits: Resources = SMALL,
        place: Place = HERE,
        **options: Any,
    ) -> StepDockerOperator:
        operator = StepDockerOperator(
            task_id="work",
            pipeline=(Step("work", "a_stage", config={"script": script}),),
            limits=limits,
            place=place,
            store=STORE,
            user=USER,
            **{"image": self.image, "network": NETWORK, **options},
        )
        log = logging.getLogger(f"{self.run_id}.{attempt}")
        log.setLevel(logging.INFO)
        log.propagate = False
        log.addHandler(logging.FileHandler(self.folder / f"try{attempt}.log"))
        operator.__dict__["log_of_try"] = log
        return operator

    def context(self, attempt: int = 1) -> Any:
        ti = SimpleNamespace(
            dag_id="a_dag",
            task_id="work",
            run_id=self.run_id,
            map_index=None,
            try_number=attempt,
        )
        return {"ti": ti, "run_id": self.run_id, "params": {}, "task_state_store": self.notes}

    def execute(self, script: str, attempt: int = 1, **options: Any) -> dict[str, Any]:
        return dict(
            self.operator(script, attempt, **options).execute(self.context(attempt))  # type: ignore[arg-type]
        )

    def log(self, attempt: int = 1) -> list[str]:
        file = self.folder / f"try{attempt}.log"
        return file.read_text().splitlines() if file.exists() else []

    def ticks(self, attempt: int) -> list[str]:
        return [line for line in self.log(attempt) if line.startswith("tick ")]

    def containers(self) -> list[dict[str, Any]]:
        platform = platform_of(STORE, NETWORK)
        return self.engine.find(Identity("a_dag", "work", self.run_id, -1, 1, platform))

    def abandon(self, script: str, until: Callable[[], bool], **options: Any) -> str:
        """Let the process of the first try be killed when it has come so far."""
        process = multiprocessing.get_context("fork").Process(
            target=self.execute, args=(script,), kwargs=options
        )
        process.start()
        try:
            wait_for(until)
        finally:
            assert process.pid
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        (found,) = self.containers()
        return str(found["Id"])


@pytest.fixture
def task(engine: Engine, image: str, tmp_path: Path) -> Task:
    return Task(engine, image, tmp_path)


# -- how it ends -----------------------------------------------------------------------------


def test_a_step_that_is_done_shows_its_record_and_leaves_no_container(task: Task) -> None:
    record = task.execute("x = bytearray(b'x' * (30 << 20)); say('working'); time.sleep(2.5)")
    peak_mib = record.pop("peak_memory_mib")
    assert record == RECORD
    assert 30 <= peak_mib <= 128
    assert "working" in task.log()
    assert not task.containers()


def test_a_step_gets_its_run_its_store_and_its_keys(task: Task) -> None:
    names = ["SPIRA_STORE", *SECRETS]
    script = f"assert run_id == {task.run_id!r}\nfor n in {names}: say(n, len(os.environ[n]))"
    task.execute(script)
    expected = {"SPIRA_STORE": STORE, **SECRETS}
    assert set(task.log()) >= {f"{name} {len(value)}" for name, value in expected.items()}


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (1, AirflowFailException, "an error that trying again does not mend"),
        (65, AirflowFailException, "a gate refused"),
        (78, AirflowFailException, "its configuration is wrong"),
        (75, AirflowException, "a service did not answer"),
        (143, AirflowException, "stopped from outside (SIGTERM)"),
        (137, AirflowException, "killed from outside (SIGKILL)"),
        (42, AirflowException, "for no reason that is known here"),
    ],
)
def test_a_status_says_whether_to_try_again(
    task: Task, status: int, error: type[Exception], words: str
) -> None:
    with pytest.raises(AirflowException) as raised:
        task.execute(f"say('the reason'); sys.exit({status})")
    assert type(raised.value) is error
    assert f"step 'work' ended with status {status}: " in str(raised.value)
    assert words in str(raised.value)
    assert str(raised.value).endswith("\nthe reason")
    (found,) = task.containers()  # for whoever wants to look
    assert found["State"] == "exited"


@pytest.mark.parametrize("status", [65, 75])
def test_the_reason_in_the_record_goes_before_the_last_lines(
    task: Task, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """Where trying again does not help: else the record is none of this try."""
    monkeypatch.setattr(spira_docker, "reason_of", lambda *_: "too few people")
    with pytest.raises(AirflowException) as raised:
        task.execute(f"say('a line'); sys.exit({status})")
    assert ("too few people" in str(raised.value)) == (status == 65)
    assert ("a line" in str(raised.value)) == (status == 75)


GREEDY = "say('more'); x = bytearray(b'x' * (90 << 20)); say('had it')"


def test_out_of_memory_is_tried_again_with_the_larger_limit(task: Task) -> None:
    limits = replace(SMALL, memory_mib=(64, 192))
    with pytest.raises(AirflowException) as raised:
        task.execute(GREEDY, limits=limits)
    assert type(raised.value) is AirflowException  # to be tried again
    assert "ran out of memory: its limit is 64 MiB" in str(raised.value)
    assert "the next try has 192 MiB" in str(raised.value)
    task.execute(GREEDY, attempt=2, limits=limits)
    assert "had it" in task.log(2)


def test_out_of_memory_without_a_larger_limit_is_final(task: Task) -> None:
    with pytest.raises(AirflowFailException, match="its limit is 64 MiB") as raised:
        task.execute(GREEDY, limits=replace(SMALL, memory_mib=(64,)))
    assert "memory_mib under [steps.work] in the site file" in str(raised.value)


PATIENT = """
def end(*_):
    say("state saved")
    sys.exit(75)
signal.signal(signal.SIGTERM, end)
say("ready")
time.sleep(20)
"""


def test_a_step_that_takes_too_long_saves_its_state_and_airflow_tells_why(task: Task) -> None:
    operator = task.operator(PATIENT)
    try:
        with pytest.raises(AirflowTaskTimeout), timeout(2):  # as Airflow's task runner does
            operator.execute(task.context())
    finally:
        operator.on_kill()
    assert [line for line in task.log() if line in ("ready", "state saved")] == [
        "ready",
        "state saved",
    ]
    (found,) = task.containers()
    assert found["State"] == "exited"
    assert task.engine.ending(found["Id"]).status == 75


def test_a_timeout_while_the_engine_is_away_is_still_a_timeout(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Proxy()
    operator = task.operator(PATIENT, place=Place(proxy.url))
    with pytest.raises(AirflowTaskTimeout), timeout(3):
        execute_and_shut(operator, task, proxy)
    operator.on_kill()
    assert any("cannot stop the container" in line for line in task.log())
    (found,) = task.containers()
    assert found["State"] == "running"  # the next try takes it over, or the maintenance stops it


def execute_and_shut(operator: StepDockerOperator, task: Task, proxy: Proxy) -> None:
    threading.Thread(
        target=lambda: (wait_for(lambda: "ready" in task.log()), proxy.shut()), daemon=True
    ).start()
    operator.execute(task.context())


def test_a_step_that_a_person_stops_shows_its_last_words(task: Task) -> None:
    operator = task.operator(PATIENT)
    with ThreadPoolExecutor() as pool:
        work = pool.submit(operator.execute, task.context())
        wait_for(lambda: "ready" in task.log())
        operator.on_kill()
        with pytest.raises(AirflowException, match="status 75"):
            work.result(20)
    assert task.log().count("state saved") == 1


# -- what outlives it ------------------------------------------------------------------------

TICKING = """
for n in range(20):
    if n == 10: time.sleep({seconds})
    say("tick", n)
sys.exit({status})
"""
TICKS = [f"tick {n}" for n in range(20)]


def half_shown(task: Task) -> Callable[[], bool]:
    """Whether the first lines are shown, and the note of it is written."""

    def is_so() -> bool:
        (found,) = task.containers() or [None]
        if not found or len(task.ticks(1)) < 10 or not task.notes.get("log_cursor"):
            return False
        lines = task.engine.lines(found["Id"], task.notes.get("log_cursor")["at"])
        return not lines

    return is_so


def test_a_container_at_work_is_taken_over(task: Task) -> None:
    script = TICKING.format(seconds=2.5, status=0)
    container = task.abandon(script, half_shown(task))
    assert task.engine.is_running(container)
    with ThreadPoolExecutor() as pool:
        work = pool.submit(task.execute, script, 2)
        wait_for(lambda: any("still working" in line for line in task.log(2)))
        (found,) = task.containers()
        assert found["Id"] == container
        assert work.result(30)["key"] == RECORD["key"]
    assert task.ticks(1) + task.ticks(2) == TICKS
    assert len(task.ticks(1)) == 10
    assert not task.containers()


def test_a_container_that_finished_meanwhile_is_taken_over(task: Task) -> None:
    script = TICKING.format(seconds=1.5, status=0)
    container = task.abandon(script, half_shown(task))
    wait_for(lambda: not task.engine.is_running(container))
    assert task.execute(script, 2)["key"] == RECORD["key"]
    assert task.ticks(1) + task.ticks(2) == TICKS
    assert not any(line.startswith("container ") for line in task.log(2))  # no other was started
    assert not task.containers()


def test_a_container_that_failed_meanwhile_is_not(task: Task) -> None:
    container = task.abandon(TICKING.format(seconds=1.0, status=75), half_shown(task))
    wait_for(lambda: not task.engine.is_running(container))
    with pytest.raises(AirflowException, match="status 75"):
        task.execute(TICKING.format(seconds=0.1, status=75), 2)
    assert task.ticks(2) == TICKS
    assert len(task.containers()) == 2


def test_without_its_note_a_container_is_taken_over_and_lines_are_shown_again(task: Task) -> None:
    script = TICKING.format(seconds=2.0, status=0)
    task.abandon(script, half_shown(task))
    task.notes.file.unlink()
    task.execute(script, 2)
    assert task.ticks(2) == TICKS


def test_a_container_that_does_other_work_is_stopped(task: Task) -> None:
    """Of an older DAG: another command.  Of an older image it would be the same."""
    other = task.abandon(PATIENT, lambda: "ready" in task.log(1))
    assert task.execute("say('mine')", 2)["key"] == RECORD["key"]
    assert any("does other work" in line for line in task.log(2))
    assert "mine" in task.log(2)
    assert not task.containers()
    assert other not in [found["Id"] for found in task.containers()]


def test_a_container_of_an_older_image_is_stopped(task: Task) -> None:
    newer = f"{task.image}-newer"
    task.engine.client.tag(task.image, newer)
    try:
        container = task.abandon(PATIENT, lambda: "ready" in task.log(1))
        with ThreadPoolExecutor() as pool:
            operator = task.operator(PATIENT, 2, image=newer)
            work = pool.submit(operator.execute, task.context(2))
            wait_for(lambda: "ready" in task.log(2))
            (found,) = task.containers()
            assert found["Id"] != container
            operator.on_kill()
            assert work.exception(20)
    finally:
        task.engine.client.remove_image(newer)


def test_the_first_try_does_not_stop_what_the_second_has_taken_over(task: Task) -> None:
    """A scheduler that was restarted starts a second try, and then ends the first."""
    first, second = task.operator(PATIENT, 1), task.operator(PATIENT, 2)
    with ThreadPoolExecutor() as pool:
        works: list[Future[Any]] = [pool.submit(first.execute, task.context(1))]
        wait_for(lambda: "ready" in task.log(1))
        works.append(pool.submit(second.execute, task.context(2)))
        wait_for(lambda: any("still working" in line for line in task.log(2)))
        first.on_kill()
        (found,) = task.containers()
        assert found["State"] == "running"
        second.on_kill()
        assert [type(work.exception(20)) for work in works] == [AirflowException] * 2
    assert len(task.containers()) == 1


def test_another_installation_on_the_same_engine_is_left_alone(task: Task) -> None:
    """Its DAG has the same name, and its scheduled run too."""
    theirs = replace(
        Identity("a_dag", "work", task.run_id, -1, 1), platform=platform_of("s3://theirs", NETWORK)
    )
    container = task.engine.start(
        theirs,
        image=task.image,
        command=["sleep", "60"],
        environment={},
        resources=SMALL,
        memory_mib=64,
        network=NETWORK,
        user=USER,
        mounts=[],
        labels={},
    )
    task.execute("say('mine')")
    assert task.engine.is_running(container)
    task.engine.remove(container)


# -- what it may say -------------------------------------------------------------------------


def test_no_key_is_ever_shown(task: Task) -> None:
    """Not even one that begins with another."""
    with pytest.raises(AirflowException) as raised:
        task.execute("for name, value in os.environ.items(): say(name, value)\nsys.exit(75)")
    shown = "\n".join([*task.log(), str(raised.value)])
    for name in ("SPIRA_S3_ACCESS_KEY", "SPIRA_S3_SECRET_KEY", "MLFLOW_TRACKING_PASSWORD"):
        assert f"{name} ***\n" in shown
        assert SECRETS[name] not in shown
    assert "a-secret" not in shown
    assert f"SPIRA_S3_ENDPOINT {SECRETS['SPIRA_S3_ENDPOINT']}" in shown


# -- what is wrong with the place ------------------------------------------------------------


@pytest.fixture
def without_gpus(engine: Engine) -> None:
    if "nvidia" in engine.client.info().get("Runtimes", {}):
        pytest.skip("this engine lends GPUs")


@pytest.mark.usefixtures("without_gpus")
def test_a_step_that_needs_a_gpu_fails_for_good_where_there_is_none(task: Task) -> None:
    with pytest.raises(AirflowFailException, match="needs 1 GPU") as raised:
        task.execute("pass", limits=replace(SMALL, n_gpus=1))
    for advice in (HERE.url, "container toolkit", "site file", "gpu_optional"):
        assert advice in str(raised.value)
    assert not task.containers()


@pytest.mark.usefixtures("without_gpus")
def test_a_step_that_can_do_without_a_gpu_does(task: Task) -> None:
    task.execute("say('by hand')", limits=replace(SMALL, n_gpus=1, gpu_optional=True))
    assert "by hand" in task.log()
    assert any("no GPU to lend" in line for line in task.log())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image": "127.0.0.1:1/spira-nobody:1"}, "make images"),
        ({"network": "spira-no-such-network"}, "spira-no-such-network not found"),
    ],
)
def test_what_a_person_has_to_mend_is_said_and_not_tried_again(
    task: Task, options: Mapping[str, Any], words: str
) -> None:
    with pytest.raises(AirflowFailException, match=words):
        task.execute("pass", **options)
    assert not task.containers()


def test_a_setting_of_no_step_is_refused_before_anything_starts(task: Task) -> None:
    context = task.context() | {"params": {"settings": {"wrok.epochs": 1}}}
    with pytest.raises(AirflowFailException, match="wrok"):
        task.operator("pass").execute(context)


def test_an_engine_that_does_not_answer_is_asked_again_by_the_next_try(task: Task) -> None:
    with pytest.raises(AirflowException, match="does not answer as it should") as raised:
        task.execute("pass", place=Place("tcp://127.0.0.1:1"))
    assert type(raised.value) is AirflowException
    assert "tcp://127.0.0.1:1" in str(raised.value)
    assert "make doctor" in str(raised.value)


def test_a_step_is_found_again_when_its_engine_was_lost(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spira_engine, "LOST_SECONDS", 0.3)
    proxy = Proxy()
    script = TICKING.format(seconds=3.0, status=0)
    with ThreadPoolExecutor() as pool:
        work = pool.submit(task.execute, script, place=Place(proxy.url))
        wait_for(half_shown(task))
        proxy.shut()
        error = work.exception(20)
    assert type(error) is AirflowException
    assert "does not answer as it should" in str(error)
    task.execute(script, 2)
    assert task.ticks(1) + task.ticks(2) == TICKS


def test_a_container_that_is_removed_under_way_is_tried_again(task: Task) -> None:
    with ThreadPoolExecutor() as pool:
        work = pool.submit(task.execute, PATIENT)
        wait_for(lambda: "ready" in task.log())
        (found,) = task.containers()
        time.sleep(0.2)
        task.engine.remove(found["Id"])
        error = work.exception(20)
    assert type(error) is AirflowException
    assert any(words in str(error) for words in ("somebody removed", "status 137"))
