"""Whose a container is on a real engine, when several tries of a task want it."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from engines import SLEEP, engine, identity, start

import spira.engine
from spira.engine import Engine, connect
from spira.site import Place, Site

__all__ = ["engine"]  # the fixture

pytestmark = pytest.mark.docker


@pytest.mark.parametrize("round_", range(5))
def test_of_two_tries_at_the_same_moment_one_makes_a_container_and_both_follow_it(
    engine: Engine, round_: int
) -> None:
    tries = [identity(attempt, run=f"race-{round_}-{os.getpid()}") for attempt in (1, 2, 3)]
    barrier = threading.Barrier(len(tries))

    def begin(n: int) -> str:
        own = Engine(connect(Place(engine_url())).client)
        barrier.wait()
        return start(own, SLEEP, tries[n])

    with ThreadPoolExecutor(len(tries)) as pool:
        ids = list(pool.map(begin, range(len(tries))))
    assert len(set(ids)) == 1
    (found,) = engine.find(tries[0])
    assert (found["Id"], found["State"]) == (ids[0], "running")
    assert engine.belongs_to(ids[0], tries[2])  # the latest try may stop it, and no other
    assert not engine.belongs_to(ids[0], tries[0])
    engine.remove(ids[0])


def engine_url() -> str:
    return Site.from_environment().engines[""].url


def test_the_try_that_comes_later_gets_the_container_that_works(engine: Engine) -> None:
    first, second = identity(1, run="late"), identity(2, run="late")
    older = start(engine, SLEEP, first)
    assert start(engine, SLEEP, second) == older
    assert [found["Id"] for found in engine.find(first)] == [older]


def test_a_container_that_was_made_and_never_started_is_in_nobodys_way(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its maker was killed in between, and did not let go of the name."""
    who = identity(1, run="killed-before-start")

    class Killed(BaseException):
        pass

    def killed(_: str) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(engine.client, "start", killed)
        with pytest.raises(Killed):
            start(engine, SLEEP, who)
    assert [found["State"] for found in engine.find(who)] == ["created"]
    monkeypatch.setattr(spira.engine, "START_SECONDS", 0.3)
    container = start(engine, ["true"], replace(who, attempt=2))
    assert [found["Id"] for found in engine.find(who)] == [container]


def test_a_container_belongs_to_the_last_try_that_claimed_it(engine: Engine) -> None:
    first, second = identity(1, run="claims"), identity(12, run="claims")
    container = start(engine, SLEEP, first)
    assert engine.belongs_to(container, first)
    assert not engine.belongs_to(container, second)
    engine.claim(container, second)
    engine.claim(container, second)
    assert engine.belongs_to(container, second)
    assert not engine.belongs_to(container, first)
    assert not engine.belongs_to(container, identity(2, run="claims"))  # -try12 ends in 2, too
    engine.claim(container, first)  # a process of the first try that does not know yet
    assert engine.belongs_to(container, second)


def test_containers_of_other_work_are_not_found(engine: Engine) -> None:
    who = identity(run="mine")
    start(engine, ["true"], who)
    for change in (
        {"dag": "other"},
        {"task": "other"},
        {"run": "other"},
        {"map_index": 3},
        {"platform": "another installation on this engine"},
    ):
        assert not engine.find(replace(who, **change)), change
    assert engine.find(replace(who, attempt=7))


def test_a_claim_that_comes_late_does_not_undo_that_of_a_later_try(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The earlier try has read the name, and the later one is sooner with its change."""
    first, third = identity(1, run="late-claim"), identity(3, run="late-claim")
    container = start(engine, SLEEP, identity(0, run="late-claim"))
    rename = engine.client.rename
    later = Engine(connect(Place(engine_url())).client)

    def overtaken(held: str, new: str) -> None:
        later.claim(container, third)
        rename(held, new)

    monkeypatch.setattr(engine.client, "rename", overtaken)
    engine.claim(container, first)
    assert engine.belongs_to(container, third)


def test_a_claim_that_the_engine_lets_an_earlier_try_undo_is_made_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine looked up the name for the earlier try, and renames for the later one first."""
    first, third = identity(1, run="undone"), identity(3, run="undone")
    container = start(engine, SLEEP, identity(0, run="undone"))
    rename = engine.client.rename
    late: list[threading.Timer] = []

    def undone(held: str, new: str) -> None:
        rename(held, new)
        if not late:
            back = (container, new.replace(third.mark, first.mark))
            late.append(threading.Timer(0.05, rename, back))
            late[0].start()

    monkeypatch.setattr(engine.client, "rename", undone)
    engine.claim(container, third)
    late[0].join()
    assert engine.belongs_to(container, third)
