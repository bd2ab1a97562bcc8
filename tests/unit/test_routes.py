"""Which version answers whom, and a sequential test stops a canary that does worse."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from math import log
from pathlib import Path
from threading import Barrier
from typing import Any

import databases
import numpy as np
import pytest
from in_use import put_into_use
from sqlalchemy import Engine, select

from spira_services import devices
from spira_services.__main__ import main
from spira_services.database import now
from spira_services.devices import DEVICES
from spira_services.events import EVENTS
from spira_services.serving import router, sequential
from spira_services.serving.router import FALLBACK, ROUTES, Comparison, Route, Turn, arms_of
from spira_services.serving.tables import FAILURES, INFERENCES, PREDICTIONS
from spira_tasks import package
from spira_tasks.artifacts import Store
from spira_tasks.errors import ConfigError
from spira_tasks.provenance import ROOT
from spira_tasks.tracking import CLASSIFIER, MODEL, Tracker

WHY = "a week as shadow was fine"
Answers = Callable[[np.random.Generator], dict[str, Any]]


@contextmanager
def prepared(address: str, folder: Path) -> Iterator[Engine]:
    """A database with a device that asks."""
    with databases.migrated(address, folder) as engine:
        with engine.begin() as connection:
            devices.add_site(connection, "hc", "Hospital", "cli:test")
            row = {"device_id": "d", "key_hash": "h", "hospital_id": "hc", "collector": "ana"}
            about = {"model": "Moto G", "os": "Android 14", "enrolled_at": now()}
            connection.execute(DEVICES.insert(), row | about)
        yield engine


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with prepared("", tmp_path) as engine:
        yield engine


def start(engine: Engine, mode: router.Mode = "canary", share: float = 0.2) -> Route:
    with engine.begin() as connection:
        return router.start(connection, mode, "4", share, by="cli:ana", why=WHY)


def usual(rng: np.random.Generator) -> dict[str, Any]:
    """What a model answers that finds a third of the people positive."""
    score = float(1 / (1 + np.exp(-rng.normal(-0.5, 1.0))))
    return {
        "probability": score,
        "decision": "positive" if score > 0.5 else "negative",
        "record_again": ["snr_db_low"] if rng.random() < 0.05 else [],
        "compute_seconds": float(rng.lognormal(-3, 0.3)),
    }


def changed(**fields: Any) -> Answers:
    """The same, with fields that are worse: values, or functions of what it was."""

    def answer(rng: np.random.Generator) -> dict[str, Any]:
        found = usual(rng)
        return found | {n: v(found) if callable(v) else v for n, v in fields.items()}

    return answer


def shifted(found: dict[str, Any]) -> float:
    return float(1 / (1 + (1 / found["probability"] - 1) * np.exp(2.0)))


@dataclass
class Ward:
    """People who are recorded one after the other, and what the models answer."""

    engine: Engine
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(1))
    n: int = 0

    def ask(
        self,
        n: int,
        route: Route | None = None,
        canary: Answers | None = usual,
        *,
        arm: str = "",
        subject_id: str | None = None,
        agreed: bool = True,
    ) -> list[str]:
        """Ask ``n`` times; a canary of None fails, and the champion answers instead."""
        asked: list[dict[str, Any]] = []
        answered: list[dict[str, Any]] = []
        arms: list[str] = []
        for _ in range(n):
            self.n += 1
            id_, at = f"i{self.n:06d}", now() + timedelta(seconds=self.n / 1000)
            shown = arm or arms_of(route, subject_id or id_, agreed=agreed).shown
            is_tried = shown in ("canary", "b")
            answer = (canary or usual)(self.rng) if is_tried else usual(self.rng)
            if is_tried and canary is None:
                shown = FALLBACK
            arms.append(shown)
            row = {"inference_id": id_, "idempotency_key": id_, "subject_id": subject_id}
            texts = dict.fromkeys(("digest", "task", "sha256"), "x")
            times = {"recorded_at": at, "received_at": at, "agreed": {"ab": agreed}, "about": {}}
            asked.append(
                row | texts | times | {"device_id": "d", "hospital_id": "hc", "n_bytes": 1}
            )
            version = "4" if is_tried and canary else "3"
            known = {"inference_id": id_, "version": version, "arm": shown, "shown": True, "at": at}
            texts = {"classifier": "x", "feature_schema": "x"}
            rest = {
                "synthetic": False,
                "unusual": [],
                "window_scores": [],
                "waited_seconds": 0.1,
                "operating_point": 0,
            }
            answered.append(known | texts | rest | answer)
        with self.engine.begin() as connection:
            connection.execute(INFERENCES.insert(), asked)
            connection.execute(PREDICTIONS.insert(), answered)
        return arms

    def judged(self, route: Route, canary: Answers | None, n: int) -> tuple[int, Comparison | None]:
        """How many requests the canary had when it was stopped, of at most ``n`` in all."""
        n_canary = 0
        for _ in range(0, n, 5):
            arms = self.ask(5, route, canary)
            n_canary += sum(arm in ("canary", FALLBACK) for arm in arms)
            with self.engine.begin() as connection:
                if found := router.judge(connection, route):
                    return n_canary, found
        return n_canary, None


def test_a_route_gives_its_share_of_people_to_a_version_and_a_person_keeps_it() -> None:
    route = Route(1, "canary", "4", 0.2, now(), "cli:ana", WHY)
    other = Route(3, "canary", "4", 0.2, now(), "cli:ana", WHY)
    keys = [f"person {n}" for n in range(4000)]
    mine = [key for key in keys if arms_of(route, key, agreed=False).shown == "canary"]
    assert abs(len(mine) - 800) < 100
    assert [arms_of(route, key, agreed=True).shown for key in mine[:9]] == ["canary"] * 9
    again = [key for key in mine if arms_of(other, key, agreed=False).shown == "canary"]
    assert abs(len(again) - 160) < 50  # another route, other people


def test_a_shadow_is_hidden_and_an_ab_test_asks_first() -> None:
    shadow = Route(1, "shadow", "4", 1.0, now(), "cli:ana", WHY)
    assert arms_of(shadow, "somebody", agreed=False) == Turn("champion", "shadow")
    ab = Route(1, "ab", "4", 0.5, now(), "cli:ana", WHY)
    people = [f"person {n}" for n in range(50)]
    assert {arms_of(ab, one, agreed=True) for one in people} == {Turn("a"), Turn("b")}
    assert {arms_of(ab, one, agreed=False) for one in people} == {Turn("champion")}
    assert arms_of(None, "somebody", agreed=True) == Turn("champion")


def test_one_route_is_open_and_what_was_is_kept(engine: Engine) -> None:
    route = start(engine)
    with engine.begin() as connection:
        assert router.open_route(connection) == route
        with pytest.raises(ConfigError, match="a canary of version 4 is open"):
            router.start(connection, "ab", "5", 0.5, by="cli:ana", why=WHY)
        assert router.stop(connection, by="cli:rui", why="seen enough of it") == route
        assert router.stop(connection, by="cli:rui", why="seen enough of it") is None
        assert router.open_route(connection) is None
        for share, why in (
            (0.0, WHY),
            (1.0, WHY),
            (0.1, "ok"),
            (0.1, "ask ana@example.org for it"),
        ):
            with pytest.raises(ConfigError):
                router.start(connection, "canary", "4", share, by="cli:ana", why=why)
        rows = connection.execute(select(ROUTES.c.action, ROUTES.c.actor)).all()
        assert [tuple(row) for row in rows] == [("started", "cli:ana"), ("stopped", "cli:rui")]


def test_of_two_who_act_at_once_the_second_is_refused(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(engine)
    with engine.begin() as connection:
        monkeypatch.setattr(router, "_last", lambda _: None)  # what it saw before the first
        with pytest.raises(ConfigError, match="somebody else has just changed the route"):
            router.start(connection, "ab", "5", 0.5, by="cli:rui", why=WHY)


def test_a_file_opens_and_closes_routes_and_names_what_is_wrong_in_it(
    engine: Engine, tmp_path: Path
) -> None:
    file = tmp_path / "route.toml"

    def applied(text: str) -> tuple[Route | None, bool]:
        file.write_text(text)
        with engine.begin() as connection:
            return router.apply(connection, router.wanted(file), by="cli:ana", file=file)

    text = f'[route]\nmode = "canary"\nversion = "4"\nshare = 0.1\nwhy = "{WHY}"\n'
    first, changed = applied(text)
    assert changed
    assert applied(text) == (first, False)
    second, changed = applied(text.replace("0.1", "0.2"))
    assert changed
    assert second is not None
    assert (second.number, second.share) == (3, 0.2)
    assert applied("") == (None, True)
    assert applied("") == (None, False)
    applied(text)
    with engine.begin() as connection:
        router.stop(connection, by=router.TEST, why="the sequential test: errors")
    with pytest.raises(ConfigError, match="a file does not open it again"):
        applied(text)
    assert applied(text.replace('"4"', '"5"'))[1]
    for wrong, what in (
        ("[routes]", "routes is not known"),
        (text.replace("canary", "canari"), r"wrong in \[route\]: mode"),
        ("[route]\nmode = ", "cannot be read as TOML"),
    ):
        with pytest.raises(ConfigError, match=what):
            applied(wrong)


@pytest.mark.parametrize(
    ("canary", "measures"),
    [
        pytest.param(None, {"errors"}, id="crash"),
        pytest.param(
            changed(compute_seconds=lambda it: 4 * it["compute_seconds"]), {"slow"}, id="slow"
        ),
        pytest.param(
            changed(probability=0.1, decision="negative"), {"scores", "positives"}, id="constant"
        ),
        pytest.param(changed(probability=shifted), {"scores"}, id="shifted"),
        pytest.param(changed(record_again=["too_short"]), {"record_again"}, id="input quality"),
    ],
)
def test_a_bad_canary_is_taken_back_within_fifty_of_its_requests(
    canary: Answers | None, measures: set[str], engine: Engine
) -> None:
    ward = Ward(engine)
    ward.ask(100)
    route = start(engine)
    n_canary, failed = ward.judged(route, canary, 250)
    assert failed is not None
    assert failed.measure in measures
    assert n_canary <= 50
    with engine.begin() as connection:
        assert router.open_route(connection) is None
        assert router.judge(connection, route) is None  # it is closed
        (event,) = connection.execute(select(EVENTS).where(EVENTS.c.action == "route_aborted"))
        ended = router.last_stop(connection)
    assert ended is not None
    assert ended.found["measure"] == event.details["measure"] == failed.measure
    assert event.details["log_evidence"] >= event.details["needed"]
    assert (event.details["route"], event.details["version"]) == (1, "4")


@pytest.mark.parametrize("backend", databases.BACKENDS)
def test_of_workers_that_judge_at_once_the_first_takes_it_back(
    backend: str, tmp_path: Path
) -> None:
    with databases.server(backend) as address, prepared(address, tmp_path) as engine:
        route = start(engine)
        Ward(engine).ask(50, route, None)
        ready = Barrier(4)

        def judge(_: int) -> Comparison | None:
            ready.wait()
            with engine.begin() as connection:
                return router.judge(connection, route)

        with ThreadPoolExecutor(4) as workers:
            found = [one for one in workers.map(judge, range(4)) if one]
        assert [one.measure for one in found] == ["errors"]
        with engine.begin() as connection:
            assert router.open_route(connection) is None
            assert [*connection.execute(select(ROUTES.c.number)).scalars()] == [1, 2]


def test_a_canary_as_good_as_the_champion_goes_on(engine: Engine) -> None:
    ward = Ward(engine)  # without a champion's answer from before: the first ones say what is slow
    route = start(engine)
    n_canary, failed = ward.judged(route, usual, 300)
    assert failed is None
    assert n_canary > 30
    with engine.begin() as connection:
        found = {one.measure: one for one in router.compare(connection, route)}
    assert found["errors"].n == n_canary
    assert found["slow"].n_champion + found["slow"].n < 300


def test_a_person_counts_once_and_a_worker_that_knew_no_route_is_no_failure(engine: Engine) -> None:
    ward = Ward(engine)
    route = start(engine)
    ward.ask(20, route, arm="champion")  # the route was not known to the worker yet
    subject = next(
        one
        for one in (f"{n:064d}" for n in range(99))
        if arms_of(route, one, agreed=True).shown == "canary"
    )
    ward.ask(20, route, None, subject_id=subject)
    with engine.begin() as connection:
        (errors, *_) = router.compare(connection, route)
    assert (errors.n, errors.n_with) == (1, 1)
    assert not errors.aborts


def test_a_request_that_nobody_answered_is_an_error_of_its_arm(engine: Engine) -> None:
    ward = Ward(engine)
    route = start(engine)
    ward.ask(30, route)
    with engine.begin() as connection:
        (before, *_) = router.compare(connection, route)
        rows = connection.execute(select(PREDICTIONS.c.inference_id, PREDICTIONS.c.arm)).all()
        failed = next(row.inference_id for row in rows if row.arm == "canary")
        connection.execute(PREDICTIONS.delete().where(PREDICTIONS.c.inference_id == failed))
        (waits, *_) = router.compare(connection, route)
        row = {"inference_id": failed, "reason": "crash", "n_tries": 5, "at": now()}
        connection.execute(FAILURES.insert(), row)
        (after, *_) = router.compare(connection, route)
    assert (before.n_with, waits.n, waits.n_with) == (0, before.n - 1, 0)
    assert (after.n, after.n_with) == (before.n, 1)


def test_among_many_good_canaries_few_are_taken_back_and_looking_often_does_not_change_that() -> (
    None
):
    """Seeded; benchmarks/canary.py does the same with many more."""
    rules, rng = router.limits(), np.random.default_rng(7)
    canary = rng.random((300, 600)) < 0.2
    aborted = np.zeros(300, dtype=bool)
    for (name, side), usually in zip(
        sequential.MEASURES.items(), (0.005, 0.03, 0.3, 0.5, 0.1), strict=True
    ):
        outcome = (rng.random(canary.shape) < usually).astype(float)
        money = sequential.log_evidence(canary, outcome, 0.2, side)
        gap = sequential.differs(canary, outcome, side, rules.tolerated[name])
        aborted |= ((money >= log(5 / rules.alpha)) & gap).any(axis=1)
        # the expectation of the money is 1: no bet has an edge
        assert 0.5 < np.exp(money[:, 50]).mean() < 1.5
    assert aborted.mean() <= 0.05


def test_the_benchmark_of_canaries_runs() -> None:
    command = [sys.executable, "benchmarks/canary.py", "--routes", "3"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    rows = [line for line in run.stdout.splitlines() if "%" in line]
    assert len(rows) == 1 + 8 * 9 + 9


def test_the_limits_name_every_measure() -> None:
    assert {*router.limits().tolerated} == {*sequential.MEASURES}


def test_the_command_opens_shows_and_stops_a_route_of_a_version_that_may_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(str(tmp_path / "store"))
    monkeypatch.setenv("SPIRA_STORE", store.url)
    monkeypatch.setenv("SPIRA_SERVICES_DATABASE", f"sqlite:///{tmp_path}/services.db")
    tracker = Tracker(store.tracking_uri)
    tracker.client.create_registered_model(MODEL)
    for n in (1, 2):
        digest = f"sha256:{n:064x}"
        tags = {CLASSIFIER: digest, **package.tags_of(digest, digest)}
        tracker.client.create_model_version(MODEL, "file:///nowhere", tags=tags)
    put_into_use(tracker, "1")
    command = ("--share", "0.1", "--why", WHY)
    assert main(["route", "canary", "1", *command]) == 78
    assert "it is the champion" in capsys.readouterr().err
    tracker.tag("2", {"spira.refused": "true"})
    assert main(["route", "canary", "2", *command]) == 78
    assert "a person refused it" in capsys.readouterr().err
    assert main(["route", "canary", "v2", *command]) == 78
    assert "give the number of a version" in capsys.readouterr().err
    tracker.tag("2", {"spira.refused": "false"})
    assert main(["route", "canary", "2", *command]) == 0
    assert main(["route", "show"]) == 0
    shown = capsys.readouterr().out
    assert "canary of version 2, share 0.1" in shown
    assert "errors" in shown
    assert main(["route", "stop", "--why", "seen enough of it"]) == 0
    file = tmp_path / "route.toml"
    file.write_text(
        f'[route]\nmode = "shadow"\nversion = "2"\nshare = 1.0\nwhy = {json.dumps(WHY)}'
    )
    assert main(["route", "apply", str(file)]) == 0
    assert "open: shadow of version 2, share 1" in capsys.readouterr().out
