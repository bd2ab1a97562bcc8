"""What outlives a try: the next one takes the container over, its lines, and its end."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException
from engines import SMALL, USER, Proxy, engine, wait_for
from tries import NETWORK, PATIENT, RECORD, Task, image, surroundings, task

import spira.engine
from spira.engine import Identity
from spira.site import Place, platform_of

__all__ = ["engine", "image", "surroundings", "task"]  # the fixtures

pytestmark = pytest.mark.docker

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
        found = task.containers()
        assert len(found) <= 1
        if not found or len(task.ticks(1)) < 10 or not task.notes.get("log_cursor"):
            return False
        lines = task.engine.lines(found[0]["Id"], task.notes.get("log_cursor")["at"])
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


def test_a_step_is_found_again_when_its_engine_was_lost(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spira.engine, "LOST_SECONDS", 0.3)
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
