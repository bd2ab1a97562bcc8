"""A step as Airflow runs it in a container: what it is given, how it ends, what it may say."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowTaskTimeout
from airflow.sdk.execution_time.timeout import timeout
from engines import HERE, SMALL, Proxy, engine, wait_for
from tries import PATIENT, RECORD, SECRETS, STORE, Task, image, surroundings, task

import spira.outcome
from spira.docker import StepDockerOperator
from spira.engine import Engine
from spira.site import Place

__all__ = ["engine", "image", "surroundings", "task"]  # the fixtures

pytestmark = pytest.mark.docker

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
        (1, AirflowFailException, "an error ended it that a retry does not correct"),
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
    (found,) = task.containers()  # for a person who wants to look
    assert found["State"] == "exited"


def test_of_a_service_that_is_away_only_the_last_line_is_told(task: Task) -> None:
    with pytest.raises(AirflowException) as raised:
        task.execute("say('MLflow is slow'); say('S3 at x does not answer'); sys.exit(75)")
    assert str(raised.value).endswith(": a service did not answer\nS3 at x does not answer")


@pytest.mark.parametrize("status", [65, 75])
def test_the_reason_in_the_record_goes_before_the_last_lines(
    task: Task, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """Where trying again does not help: else the record is none of this try."""
    monkeypatch.setattr(spira.outcome, "reason_of", lambda *_: "too few people")
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
    def shut_when_ready() -> None:
        wait_for(lambda: "ready" in task.log())
        proxy.shut()

    threading.Thread(target=shut_when_ready, daemon=True).start()
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
    assert any("the engine has no GPU" in line for line in task.log())


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


def test_a_container_that_is_removed_under_way_is_tried_again(task: Task) -> None:
    with ThreadPoolExecutor() as pool:
        work = pool.submit(task.execute, PATIENT)
        wait_for(lambda: "ready" in task.log())
        (found,) = task.containers()
        time.sleep(0.2)
        task.engine.remove(found["Id"])
        error = work.exception(20)
    assert type(error) is AirflowException
    assert any(words in str(error) for words in ("container was removed", "status 137"))
