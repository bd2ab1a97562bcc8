"""Workers: every inference is answered once, by a version that may serve, whatever happens."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from in_use import put_into_use
from serving import (
    BAD,
    GOOD,
    REASONS,
    Asker,
    code_of,
    misbehaving,
    poisonous,
    publish,
    spread,
    tried,
    until,
    voices,
    working,
)
from sqlalchemy import Engine, func, select, update
from started import free_port

from spira_services import logs
from spira_services.__main__ import main
from spira_services.database import migrate, now, open_engine
from spira_services.events import EVENTS
from spira_services.server import watched
from spira_services.serving import router
from spira_services.serving import worker as rules
from spira_services.serving.inferences import Backlog
from spira_services.serving.models import Models, Version
from spira_services.serving.queue import QUEUE, SqlQueue
from spira_services.serving.tables import INFERENCES, OUTBOX, PREDICTIONS
from spira_tasks import package
from spira_tasks.artifacts import Store
from spira_tasks.artifacts.blobs import Blobs, digest_of
from spira_tasks.artifacts.sources import open_backend
from spira_tasks.commands import predict
from spira_tasks.contract.exits import EXIT_REJECTED, EXIT_UNAVAILABLE
from spira_tasks.errors import ServiceUnavailable
from spira_tasks.provenance import ROOT
from spira_tasks.speech import golden
from spira_tasks.tracking import TAG_REFUSED, Tracker

CALM, OTHER, CLIPPED = (golden.clips()[n].content for n in (0, 1, 2))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A registry with two versions that may serve; the first is the champion."""
    folder = tmp_path_factory.mktemp("serving")
    store = Store(str(folder / "store"))
    for seed in (1, 2):
        publish(store, folder, seed)
    put_into_use(Tracker(store.tracking_uri), "1")
    return store


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine(f"sqlite:///{tmp_path}/services.db")
    migrate(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def asker(engine: Engine, tmp_path: Path) -> Asker:
    return Asker.at(engine, Blobs(open_backend(str(tmp_path / "services" / "audio"))))


def test_an_inference_is_answered_by_the_champion_once_and_as_predict_does(
    store: Store, engine: Engine, asker: Asker, tmp_path: Path
) -> None:
    queue = SqlQueue(engine)
    with working(engine, asker.blobs, queue, store):
        asked = [asker.ask(audio) for audio in (CALM, OTHER, CLIPPED, b"no audio at all")]
        until(lambda: all(asker.answer(one).state == "answered" for one in asked))
        queue.put(asked)  # as after a broker that forgot that it had them
        until(lambda: queue.depth().n_waiting + queue.depth().n_leased == 0)
    answers = [asker.answer(one) for one in asked]
    assert {one.version for one in answers} == {"1"}
    name, model = predict.load("spira/1", store, tmp_path / "loaded")
    for given, audio in zip(answers, (CALM, OTHER, CLIPPED), strict=False):
        path = tmp_path / "recording"
        path.write_bytes(audio)
        (said,) = predict.answers(model, name, [path])  # as the command line does
        assert given.window_scores == pytest.approx(said["window_scores"], abs=1e-6)
        for field in ("probability", "decision", "record_again", "unusual", "operating_point"):
            assert getattr(given, field) == pytest.approx(said[field], abs=1e-6), field
        assert given.classifier == said["version"]
    assert [bool(one.record_again) for one in answers] == [False, False, True, True]
    assert (answers[2].decision, answers[2].probability) == (None, None)
    with engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(PREDICTIONS)).scalar() == 4


@pytest.mark.slow
def test_an_answer_that_nobody_waited_for_is_not_given_to_the_next_file(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spira_services.serving.models.BEAT_SECONDS", 0.0)
    tracker = Tracker(store.tracking_uri)
    package.fetch(tracker.version("1"), tracker, store, tmp_path / "model")
    version = Version(tracker.version("1"), tmp_path / "model")
    version.prepare()

    def away() -> None:
        raise ServiceUnavailable("the queue")

    with pytest.raises(ServiceUnavailable):
        version.answer(CALM, away)
    clips = package.golden(tmp_path / "model").clips
    assert version.answer(OTHER)["probability"] == pytest.approx(clips[1].answer["probability"])
    version.close()
    assert not (tmp_path / "model").exists()


@pytest.mark.slow
def test_a_promotion_is_followed_between_messages_and_a_rollback_too(
    store: Store, engine: Engine, asker: Asker
) -> None:
    tracker = Tracker(store.tracking_uri)
    with working(engine, asker.blobs, SqlQueue(engine), store) as worker:
        until(lambda: worker.models.serving)
        routed(engine, "canary", worker)
        for version in ("2", "1", "2", "1"):
            put_into_use(tracker, version)
            asked = [asker.ask(CALM) for _ in range(3)]
            until(lambda: worker.models.serving and worker.models.serving.number == version)  # noqa: B023
            last = asker.ask(OTHER)
            until(lambda: asker.answer(last).state == "answered")  # noqa: B023
            assert asker.answer(last).version == version
            assert {asker.answer(one).state for one in asked} <= {"answered", "queued"}
        until(lambda: all(asker.answer(one).state == "answered" for one in asked))
    assert opened(engine) is None  # what was tried became the champion


@pytest.mark.slow
def test_a_file_that_a_model_fails_on_ends_with_its_reason_and_is_tried_again_by_a_command(
    engine: Engine,
    asker: Asker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SPIRA_SERVICES_DATABASE", str(engine.url))
    monkeypatch.setattr(rules, "BACK_OFF_SECONDS", (0,))
    monkeypatch.setattr(rules, "MAX_TRIES", 2)
    monkeypatch.setattr("spira_services.serving.models.ANSWER_SECONDS", 2.0)
    store, queue = Store(str(tmp_path / "store")), SqlQueue(engine)
    publish(store, tmp_path, edit=poisonous)
    put_into_use(Tracker(store.tracking_uri), "1")
    asked_by, written = logs.begin(), io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(logs.Lines())
    monkeypatch.setattr(logging.getLogger("spira.services"), "handlers", [handler])
    with working(engine, asker.blobs, queue, store) as worker:
        poison = {asker.ask(content): reason for content, reason in REASONS.items()}
        good = asker.ask(CALM)
        until(lambda: asker.answer(good).state == "answered")
        until(lambda: all(asker.answer(one).state == "failed" for one in poison))
        assert {one: asker.answer(one).reason for one in poison} == poison
        assert {dead.id: dead.reason for dead in queue.dead()} == poison
        assert {dead.n_tries for dead in queue.dead()} == {2}
        lines = map(json.loads, written.getvalue().splitlines())
        given_up = [line for line in lines if line["message"].startswith("an inference has no")]
        assert [line["request_id"] for line in given_up] == [asked_by] * 3
        assert main(["queue", "show"]) == 0
        assert "3 have no answer:" in (said := capsys.readouterr().out)
        assert all(one in said and reason in said for one, reason in poison.items())

        publish(store, tmp_path, 2)  # which fails on none of them
        put_into_use(Tracker(store.tracking_uri), "2")
        until(lambda: worker.models.serving and worker.models.serving.number == "2")
        assert main(["queue", "replay"]) == main(["queue", "refill"]) == 0
        until(lambda: all(asker.answer(one).state == "answered" for one in poison))
    assert {asker.answer(one).version for one in poison} == {"2"}
    assert queue.dead() == []


def shifted(model: Path) -> None:
    file = code_of(model)
    file.write_text(file.read_text().replace("one.probability for", "one.probability and 0.5 for"))


def slower_than_its_limit(model: Path) -> None:
    file = model / package.DATA / package.GOLDEN / package.GOLDEN_FILE
    found = json.loads(file.read_text())
    found["limits"]["cpu_seconds"] = 1e-6
    file.write_text(json.dumps(found))


def not_loadable(model: Path) -> None:
    code_of(model).write_text("raise ImportError")


def hanging(model: Path) -> None:
    code_of(model).write_text("import time\n\ntime.sleep(600)")


def without_clips(model: Path) -> None:
    (model / package.DATA / package.GOLDEN / package.GOLDEN_FILE).unlink()


@pytest.mark.slow
def test_a_version_that_is_not_as_it_was_registered_never_serves(
    engine: Engine, asker: Asker, tmp_path: Path
) -> None:
    store = Store(str(tmp_path / "store"))
    tracker = Tracker(store.tracking_uri)
    publish(store, tmp_path, 1)
    put_into_use(tracker, "1")
    broken = [shifted, slower_than_its_limit, not_loadable, without_clips]
    for seed, spoil in enumerate(broken, 2):
        publish(store, tmp_path, seed, spoil)
    with working(engine, asker.blobs, SqlQueue(engine), store) as worker:
        until(lambda: worker.models.serving)
        with engine.begin() as connection:
            router.start(connection, "canary", "2", 0.5, by="cli:test", why="to see what it does")
        until(lambda: {"version": "2"} in refused(engine) and opened(engine) is None)
        for number in map(str, range(2, 2 + len(broken))):
            tracker.assign("1", None)
            put_into_use(tracker, number)
            until(lambda: {"version": number} in refused(engine))  # noqa: B023
        asked = asker.ask(CALM)
        until(lambda: asker.answer(asked).state == "answered")
        assert asker.answer(asked).version == "1"  # the one before, which nobody refused
        last = publish(store, tmp_path, 2 + len(broken), hanging).version
        tracker.assign("1", None)
        put_into_use(tracker, last)
        until(lambda: worker.models._loading)
        one = worker.models.serving
        assert one is not None
        assert not worker.models.is_champion(one)
        tracker.assign("1", None)  # while the other is loaded, which takes for ever
        until(lambda: worker.models.is_champion(one))
        until(lambda: worker.models._loading is None)
        tracker.assign(None, None)
        until(lambda: worker.models.serving is None)
        worker.models.settle()
        assert [*worker.models._folder.iterdir()] == []
    assert {"version": last} not in refused(engine)


def refused(engine: Engine) -> list[dict[str, object]]:
    asked = select(EVENTS.c.details).where(EVENTS.c.action == "model_not_served")
    with engine.connect() as connection:
        found = connection.execute(asked).scalars()
        return [{"version": details["version"]} for details in found]


@pytest.mark.slow
def test_a_canary_answers_its_share_and_where_it_fails_or_is_refused_the_champion_does(
    store: Store, engine: Engine, asker: Asker, tmp_path: Path
) -> None:
    store = Store(str(tmp_path / "store"))
    publish(store, tmp_path, 1)
    publish(store, tmp_path, 2, poisonous)
    put_into_use(Tracker(store.tracking_uri), "1")
    with working(engine, asker.blobs, SqlQueue(engine), store) as worker:
        routed(engine, "canary", worker)
        asked = []
        # one after the other: chance gives a request its arm, and a few errors stop a canary
        for audio, arm in ((CALM, "champion"), (CALM, "canary"), (b"error", "fallback")):
            for _ in range(50):
                if arm in {one for one, _, _ in predicted(engine)}:
                    break
                asked.append(asker.ask(audio))
                until(lambda: asker.answer(asked[-1]).state == "answered")
        arms = predicted(engine)
        assert {(arm, version) for arm, version, _ in arms} == {
            *(("champion", "1"), ("canary", "2"), ("fallback", "1"))
        }
        assert all(shown for _, _, shown in arms)
        Tracker(store.tracking_uri).tag("2", {TAG_REFUSED: "true"})  # as model refuse does
        until(lambda: worker.models.get("2") is None and opened(engine) is None)
        asked = [asker.ask(CALM) for _ in range(4)]
        until(lambda: all(asker.answer(one).state == "answered" for one in asked))
        assert {asker.answer(one).version for one in asked} == {"1"}


@pytest.mark.slow
def test_a_bad_canary_is_stopped_soon_a_good_one_is_not_and_all_are_answered_once(
    engine: Engine, asker: Asker, tmp_path: Path
) -> None:
    store, recordings = Store(str(tmp_path / "store")), voices(24)
    publish(store, tmp_path, 1, tune=spread(recordings, 1))
    put_into_use(Tracker(store.tracking_uri), "1")
    how = tmp_path / "how"  # one version for all kinds: to start each costs seconds
    edit = misbehaving(f"eval(open({str(how)!r}).read())")
    publish(store, tmp_path, 2, edit, tune=spread(recordings, 2))
    with working(engine, asker.blobs, SqlQueue(engine), store) as worker:
        before = [asker.ask(one) for one in recordings]
        until(lambda: all(asker.answer(one).state == "answered" for one in before))
        found = {}
        for kind, expression in {**BAD, "good": GOOD}.items():
            how.write_text(expression)
            found[kind] = tried(
                *(engine, asker, recordings, "2"),
                lambda: worker.route and worker.models.get("2"),
                most=80 if kind in BAD else 40,
            )
    measures = {"crash": "errors", "slow": "slow", "constant": "positives", "shifted": "positives"}
    for kind, measure in measures.items():  # where a busy machine makes it miss its limit, errors
        assert found[kind].measure in (measure, "errors"), kind
    assert found["good"].measure is None
    assert all(one.n_own <= 50 and not one.n_twice for one in found.values())
    assert found["crash"].arms["canary"] == 0  # the champion answered its people


def test_a_shadow_answers_too_and_nobody_sees_it(
    store: Store, engine: Engine, asker: Asker
) -> None:
    with working(engine, asker.blobs, SqlQueue(engine), store) as worker:
        routed(engine, "shadow", worker)
        asked = [asker.ask(CALM) for _ in range(3)]
        until(lambda: sum(arm == "shadow" for arm, _, _ in predicted(engine)) == len(asked))
        assert {asker.answer(one).version for one in asked} == {"1"}
    assert set(predicted(engine)) == {("champion", "1", True), ("shadow", "2", False)}


def routed(engine: Engine, mode: router.Mode, worker: rules.Worker) -> None:
    """Open a route of version 2, and wait until the worker is ready for it."""
    share = 1.0 if mode == "shadow" else 0.5
    with engine.begin() as connection:
        router.start(connection, mode, "2", share, by="cli:test", why="to see what it does")
    until(lambda: worker.route and worker.models.get("2") and worker.models.serving)


def opened(engine: Engine) -> router.Route | None:
    with engine.begin() as connection:
        return router.open_route(connection)


def predicted(engine: Engine) -> list[tuple[str, str, bool]]:
    asked = select(PREDICTIONS.c.arm, PREDICTIONS.c.version, PREDICTIONS.c.shown)
    with engine.connect() as connection:
        return [(row.arm, row.version, row.shown) for row in connection.execute(asked)]


def test_a_store_that_is_away_is_waited_for_and_no_try_is_counted_against_a_message(
    store: Store, engine: Engine, asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "AWAY_SECONDS", 0.05)
    monkeypatch.setattr(rules, "MAX_TRIES", 1)
    queue, asked = SqlQueue(engine), asker.ask(CALM)
    file = asker.blobs.path(digest_of(CALM))
    kept = file.rename(file.with_name("kept"))
    file.mkdir()  # which no disk that works would do
    with working(engine, asker.blobs, queue, store):
        until(lambda: n_tries(engine) > 25)
        assert asker.answer(asked).state == "queued"
        file.rmdir()  # as a disk that is not mounted yet: the audio is looked for again
        until(lambda: n_lost(engine))
        assert asker.answer(asked).state == "queued"
        kept.rename(file)
        until(lambda: asker.answer(asked).state == "answered")
    assert queue.dead() == []


def n_lost(engine: Engine) -> int:
    with engine.connect() as connection:
        return connection.execute(select(func.max(OUTBOX.c.n_lost))).scalar() or 0


def n_tries(engine: Engine) -> int:
    with engine.connect() as connection:
        return connection.execute(select(func.max(QUEUE.c.n_tries))).scalar() or 0


def test_the_command_line_asks_as_a_telephone_does(
    store: Store,
    engine: Engine,
    asker: Asker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SPIRA_SERVICES_DATABASE", str(engine.url))
    monkeypatch.setenv("SPIRA_SERVICES_FOLDER", str(tmp_path / "services"))
    for name, content in {"calm": CALM, "clipped": CLIPPED}.items():
        (tmp_path / name).write_bytes(content)
    with working(engine, asker.blobs, SqlQueue(engine), store):
        assert main(["ask", str(tmp_path / "calm"), "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert main(["ask", str(tmp_path / "calm")]) == 0
        said = capsys.readouterr().out
        assert main(["ask", str(tmp_path / "clipped")]) == EXIT_REJECTED
        refused = capsys.readouterr().out
    assert said.startswith(f"{answer['decision']}: probability {answer['probability']:.2f}")
    assert "version 1 of the model" in said
    assert "says nothing of a person" in said  # its version does not say that it heard people
    assert refused.startswith("record again: clipping_fraction_high")


def test_the_command_line_does_not_wait_for_ever_where_no_worker_runs(
    engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SPIRA_SERVICES_DATABASE", str(engine.url))
    monkeypatch.setenv("SPIRA_SERVICES_FOLDER", str(tmp_path / "services"))
    (tmp_path / "calm").write_bytes(CALM)
    assert main(["ask", str(tmp_path / "calm"), "--wait", "0"]) == EXIT_UNAVAILABLE
    (line,) = [one for one in capsys.readouterr().err.splitlines() if one.startswith("error: ")]
    assert "start one by `python -m spira_services work`" in line
    with engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(INFERENCES)).scalar() == 1
    monkeypatch.setattr(Backlog, "room", lambda *_: 0)
    assert main(["ask", str(tmp_path / "calm")]) == EXIT_UNAVAILABLE
    assert "too many wait for an answer" in capsys.readouterr().err


def started(tmp_path: Path, store: Store, *arguments: str) -> subprocess.Popen[str]:
    variables = {
        "SPIRA_SERVICES_DATABASE": f"sqlite:///{tmp_path}/services.db",
        "SPIRA_SERVICES_FOLDER": str(tmp_path / "services"),
        "SPIRA_STORE": store.url,
    }
    return subprocess.Popen(
        [sys.executable, "-m", "spira_services", "work", *arguments],
        env=os.environ | variables,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_answers_after_the_end_of_a_route_are_compared_with_nothing(
    store: Store, engine: Engine, asker: Asker
) -> None:
    models = Models(store, lambda *_: None)
    worker = rules.Worker(engine, asker.blobs, SqlQueue(engine), models)
    worker._is_compared.set()  # by an answer of a route that another worker has just stopped
    with ThreadPoolExecutor() as threads:
        threads.submit(worker.judge)
        until(lambda: not worker._is_compared.is_set())  # or it would turn without a pause
        worker.stopping.set()
    models.close()


def test_a_route_that_cannot_be_judged_is_closed(
    store: Store,
    engine: Engine,
    asker: Asker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(router, "LIMITS", ROOT / "expectations" / "telemetry.toml")  # not its own
    models = Models(store, lambda *_: None)
    worker = rules.Worker(engine, asker.blobs, SqlQueue(engine), models)
    with engine.begin() as connection:
        worker.route = router.start(
            connection, "canary", "2", 0.5, by="cli:test", why="to see what it does"
        )
    worker._is_compared.set()
    with ThreadPoolExecutor() as threads:
        judging = threads.submit(worker.judge)
        until(lambda: judging.done() or opened(engine) is None)
        assert not judging.done()  # it goes on
        worker.stopping.set()
    assert "cannot be judged" in caplog.text
    models.close()


def test_a_worker_whose_loop_hangs_is_not_well(
    store: Store, engine: Engine, asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "HANGS_SECONDS", 3.0)
    models = Models(store, lambda *_: None)
    worker, port = rules.Worker(engine, asker.blobs, SqlQueue(engine), models), free_port()
    with watched(engine, worker, "127.0.0.1", port), ThreadPoolExecutor() as threads:
        address = f"http://127.0.0.1:{port}/health"
        until(lambda: httpx.get(address).status_code == 503)  # as of a loop that does not turn
        assert httpx.get(address).json()["error"] == "hangs"
        threads.submit(worker.run)
        until(lambda: httpx.get(address).status_code == 204)
        worker.stopping.set()
    models.close()


@pytest.mark.slow
def test_a_worker_that_is_killed_or_stopped_loses_and_doubles_nothing(
    store: Store, engine: Engine, asker: Asker, tmp_path: Path
) -> None:
    asked = [asker.ask(CALM) for _ in range(40)]
    killed = started(tmp_path, store)
    until(lambda: any(asker.answer(one).state == "answered" for one in asked))
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    with engine.begin() as connection:
        connection.execute(update(QUEUE).values(ready_at=now()))  # its lease ends
    port = free_port()
    stopped = started(tmp_path, store, "--port", str(port))
    n_before = sum(asker.answer(one).state == "answered" for one in asked)
    until(lambda: sum(asker.answer(one).state == "answered" for one in asked) > n_before)
    assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 204
    metrics = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    assert 'spira_model_ready{use="champion",version="1"} 1.0' in metrics
    assert httpx.get(f"http://127.0.0.1:{port}/sign-in").status_code == 404
    stopped.send_signal(signal.SIGTERM)
    output, errors = stopped.communicate()
    assert stopped.returncode == 0, errors
    assert "answered" in output
    ended = started(tmp_path, store, "--until-empty")
    _, errors = ended.communicate()
    assert ended.returncode == 0, errors
    assert {asker.answer(one).state for one in asked} == {"answered"}
    with engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(PREDICTIONS)).scalar() == 40
