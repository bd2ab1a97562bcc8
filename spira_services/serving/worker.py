"""A worker: takes inferences from the queue and answers them, until it is stopped.

The answer is written before the message is acknowledged, so a worker that dies loses nothing: the
message comes again, to this worker or another, and finds the answer or is answered then.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Column, Engine, bindparam, exists, func, select, update
from sqlalchemy.engine import Row
from sqlalchemy.exc import SQLAlchemyError

from spira_services import events, logs, tracing
from spira_services.database import insert_once, now, reading
from spira_services.serving import router
from spira_services.serving.models import ModelFailed, Models, Version, VersionBroken
from spira_services.serving.queue import LEASE_SECONDS, Message, Queue
from spira_services.serving.router import ROUTES, Route, Turn
from spira_services.serving.tables import FAILURES, INFERENCES, OUTBOX, PREDICTIONS
from spira_tasks.artifacts.blobs import Blobs
from spira_tasks.errors import ArtifactCorrupt, ConfigError, ServiceUnavailable, SpiraError

log = logging.getLogger("spira.services")

MAX_TRIES = 5  # of a recording that a sound model fails on
N_SHADOWS, SHADOW_SECONDS = 50, 0.02  # that are written at once; between two looks
MAX_LOOKS = 20  # for audio that is not there
BACK_OFF_SECONDS = (1, 2, 5, 10, 30)
WAIT_SECONDS = 0.5
N_HIDDEN = 100  # that wait for the shadow; older ones are left out
HANGS_SECONDS = 3 * LEASE_SECONDS  # without a turn: a statement may take one, another a second
AWAY_SECONDS = 2.0  # between two tries of a store or database that is away
# What is known of an inference, and the newest row of the routes.  Built once: to build and to
# recognise it takes most of its time.
ASKED = (
    select(
        INFERENCES,
        *(OUTBOX.c.stored_at, OUTBOX.c.request_id),
        exists()
        .where(PREDICTIONS.c.inference_id == INFERENCES.c.inference_id, PREDICTIONS.c.shown)
        .label("is_answered"),
        select(func.max(ROUTES.c.number)).scalar_subquery().label("route_row"),
    )
    .join(OUTBOX)
    .where(INFERENCES.c.inference_id == bindparam("of_message"))
)
NO_MODEL = (
    "no version of the model may serve, so nothing is answered: promote one by a training, or see "
    "python -m spira_tasks model list"
)
NOWHERE = f"sha256:{'0' * 64}"  # a digest that the store is asked for
# What a worker waits for; of a key that was changed, or a right that lacks, a ConfigError says so.
AWAY = (ServiceUnavailable, ConfigError, SQLAlchemyError, OSError)


@dataclass
class Worker:
    """One of any number; each has its own model processes."""

    engine: Engine
    blobs: Blobs  # store A
    queue: Queue
    models: Models
    stopping: threading.Event = field(default_factory=threading.Event)
    route: Route | None = None  # that is open
    _hidden: deque[tuple[str, str, Route]] = field(default_factory=lambda: deque(maxlen=N_HIDDEN))
    _is_compared: threading.Event = field(default_factory=threading.Event)  # an answer of a route
    _is_working: bool = False  # on what is shown
    _beside: list[threading.Thread] = field(default_factory=list)  # that work beside the loop
    _turned: float = field(default_factory=time.monotonic)
    _said: str = ""

    @property
    def hangs(self) -> bool:
        """Whether the loop has not turned for longer than anything that it does may take.

        Or whether a thread beside it has ended, and nobody compares or shadows any more.
        """
        late = time.monotonic() - self._turned > HANGS_SECONDS
        return late or not all(thread.is_alive() for thread in self._beside)

    def run(self, *, until_empty: bool = False) -> int:
        """Work until ``stopping``, or until no message is left; return how many were answered.

        A message that is being worked on is finished first.
        """
        n_answered = 0
        loops = (self.shadow, self.judge)
        threads = [threading.Thread(target=one, name=one.__name__, daemon=True) for one in loops]
        for thread in threads:
            thread.start()
        self._beside = threads
        while not self.stopping.is_set():
            self._turned = time.monotonic()
            self.models.settle()
            if self.models.serving is None:
                if self.models.is_followed:
                    if until_empty:
                        raise ConfigError(NO_MODEL)
                    self._say(NO_MODEL)
                self.stopping.wait(WAIT_SECONDS)
                continue
            try:
                messages = self.queue.take(1, WAIT_SECONDS)
                self._said = ""
                for message in messages:
                    self._is_working = True
                    n_answered += self._work(message)
                self._is_working = False
                if until_empty and not messages:
                    depth = self.queue.depth()
                    if not depth.n_waiting + depth.n_leased:
                        break
            except AWAY as error:
                self._is_working = False
                self._wait(error)
        return n_answered

    def _work(self, message: Message) -> bool:
        """Answer a message, or give it back; whether there is a new answer."""
        logs.begin()  # by which the lines of one message are found
        n_tries = 0  # that are counted
        try:
            row = self._row(message.id)
            if row is None or row.is_answered or row.deleted_at is not None:
                self.queue.done(message)
                return False
            logs.begin(row.request_id or "")  # so that they are found by that of who asked
            audio = self._audio(row.sha256)
            if message.n_tries > 1:
                # A file that kills its worker leaves no other trace than this number.
                n_tries = self._tried(message)
                if n_tries > MAX_TRIES:
                    self._bury(message, "too_many_tries", n_tries)
                    return False
            return self._answer(message, row, audio)
        except ModelFailed as failed:
            most = MAX_TRIES
            if failed.reason == "audio_lost":
                # It may be on a disk that is not mounted: it is waited for longer.
                n_tries, most = self._tried(message, OUTBOX.c.n_lost), MAX_LOOKS
            elif not n_tries:
                n_tries = self._tried(message)
            if n_tries >= most:
                self._bury(message, failed.reason, n_tries)
            else:
                log.warning("a try of an inference failed: %s", failed.reason)
                self.queue.later(message, _back_off(n_tries))
        except AWAY as error:
            self.queue.later(message, AWAY_SECONDS)  # nothing is wrong with the message
            self._wait(error)
        return False

    def _audio(self, sha256: str) -> bytes:
        try:
            return self.blobs.read(f"sha256:{sha256}")
        except ArtifactCorrupt:
            raise ModelFailed("audio_lost") from None

    def _answer(self, message: Message, row: Row[Any], audio: bytes) -> bool:
        route, agreed = self._route(row.route_row), bool(row.agreed.get("ab"))
        turn = router.arms_of(route, router.key_of(message.id, row.subject_id), agreed=agreed)
        is_new = self._shown(message, row, audio, turn, route)
        self.queue.done(message)
        if route is not None and turn.hidden:
            self._hidden.append((message.id, row.sha256, route))
        elif route is not None:
            self._is_compared.set()
        return is_new

    def _route(self, newest: int | None) -> Route | None:
        """The open route, by the newest row: another worker may just have stopped it."""
        known = self.route
        if known is not None and known.number != newest:
            with reading(self.engine) as connection:
                known = self.route = router.open_route(connection)
        return known

    def _shown(
        self, message: Message, row: Row[Any], audio: bytes, turn: Turn, route: Route | None
    ) -> bool:
        """Write the answer of the version whose turn it is; the champion's where that one fails."""
        arm: str = turn.shown
        if route is not None and arm in ("canary", "b"):
            if tried := self.models.get(route.version):
                with suppress(ModelFailed):
                    return self._predict(message, row, tried, audio, arm)
                arm = router.FALLBACK
            else:
                arm = "champion"  # it is not ready here yet
        version = self.models.serving
        if version is None:  # it was taken away meanwhile
            raise ModelFailed("no_model")
        if arm in ("champion", "a") and not self.models.is_champion(version):
            arm = "previous"
        return self._predict(message, row, version, audio, arm)

    def _predict(
        self, message: Message, row: Row[Any], version: Version, audio: bytes, arm: str
    ) -> bool:
        waited, begun = (now() - row.stored_at).total_seconds(), time.monotonic()
        try:
            about = {"spira.request_id": logs.REQUEST_ID.get()}
            with tracing.span("prediction", version=version.number, arm=arm, **about):
                is_tried = arm in ("canary", "b")
                answer = (version.attempt if is_tried else version.answer)(
                    audio, self._heartbeat(message)
                )
        except VersionBroken as error:
            self.models.drop(version, str(error))
            raise ModelFailed("model_broken") from None
        took = time.monotonic() - begun
        made = self._made(message.id, version, answer, arm=arm, waited=waited, took=took)
        with self.engine.begin() as connection:
            return insert_once(connection, PREDICTIONS, made)

    @staticmethod
    def _made(
        inference_id: str,
        version: Version,
        answer: dict[str, Any],
        *,
        arm: str,
        waited: float,
        took: float,
    ) -> dict[str, Any]:
        """The row of a prediction."""
        return {
            "inference_id": inference_id,
            "version": version.number,
            "classifier": answer["version"],
            "feature_schema": version.feature_schema,
            "synthetic": version.registered.tags.get("spira.synthetic") != "false",
            "arm": arm,
            "shown": arm != "shadow",
            **{name: answer[name] for name in ("probability", "decision", "operating_point")},
            **{name: answer[name] for name in ("record_again", "unusual", "window_scores")},
            "waited_seconds": waited,
            "compute_seconds": took,
            "at": now(),
        }

    def look(self) -> tuple[str, int] | None:
        """Read the open route; what it needs ready.  Called by the thread that follows."""
        try:
            with reading(self.engine) as connection:
                route = router.open_route(connection)
            tried = self.models.get(route.version) if route else None
            if tried and self.models.is_champion(tried):
                # else it would still be tried after a rollback from it
                with self.engine.begin() as connection:
                    router.stop(connection, by=router.WORKER, why="its version is the champion")
                route = None
            self.route = route
        except ConfigError as error:  # another worker was first
            log.info("%s", error)
            route = self.route = None
        except SQLAlchemyError as error:
            log.error("the route is not followed (%s)", type(error).__name__)
            route = self.route
        return None if route is None else (route.version, 19 if route.mode == "shadow" else 0)

    def judge(self) -> None:
        """Stop a route whose version does worse, in a thread of its own, until ``stopping``.

        It looks after every answer that is compared, or a version would give many in between.  The
        test reads all that the route has answered, so it takes at most a twentieth of the time.
        """
        while not self.stopping.is_set():
            if not self._is_compared.wait(WAIT_SECONDS):
                continue
            self._is_compared.clear()  # also where the route has ended, or this would never wait
            route = self.route
            if route is None:
                continue
            begun = time.thread_time()
            try:
                with reading(self.engine) as connection:
                    does_worse = any(one.aborts for one in router.compare(connection, route))
                if does_worse:
                    with self.engine.begin() as connection:
                        router.judge(connection, route)
            except ConfigError as error:  # another worker was first
                log.info("%s", error)
            except SQLAlchemyError as error:
                log.error("the route is not judged (%s)", type(error).__name__)
            except Exception:  # nobody would see that its version does worse
                log.exception("the route cannot be judged, so it is closed")
                with suppress(ConfigError, SQLAlchemyError), self.engine.begin() as connection:
                    router.stop(connection, by=router.WORKER, why="its version cannot be compared")
            self.stopping.wait(20 * (time.thread_time() - begun))

    def shadow(self) -> None:
        """Answer what was shown again by the shadow, in a thread of its own, until ``stopping``.

        What it does not get to is left out: nobody waits for it.
        """
        made: list[dict[str, Any]] = []
        while not self.stopping.is_set():
            if made and (len(made) >= N_SHADOWS or not self._hidden):
                self._write_shadows(made)
                made = []
            if not self._hidden or self._is_working:
                self.stopping.wait(SHADOW_SECONDS)
                continue
            inference_id, sha256, route = self._hidden.popleft()
            version = self.models.get(route.version)
            if version is None or self.route != route:
                continue
            try:
                begun = time.monotonic()
                answer = version.answer(self.blobs.read(f"sha256:{sha256}"))
                took = time.monotonic() - begun
                made.append(
                    self._made(inference_id, version, answer, arm="shadow", waited=0.0, took=took)
                )
            except VersionBroken as error:
                self.models.drop(version, str(error))
            except (ModelFailed, SpiraError, OSError) as error:
                log.warning("the shadow did not answer (%s)", type(error).__name__)

    def _write_shadows(self, made: list[dict[str, Any]]) -> None:
        """Many in one transaction: each waits for a disk, and on SQLite lets all others wait."""
        try:
            with self.engine.begin() as connection:
                for row in made:
                    insert_once(connection, PREDICTIONS, row)
        except SQLAlchemyError as error:
            log.warning("shadows were not written (%s)", type(error).__name__)

    def _heartbeat(self, message: Message) -> Callable[[], None]:
        """Keep the lease while a long recording is worked on."""
        extended = time.monotonic()

        def beat() -> None:
            nonlocal extended
            self._turned = time.monotonic()
            if time.monotonic() - extended > LEASE_SECONDS / 3:
                try:
                    self.queue.extend(message)
                except SpiraError as error:  # at worst another worker answers it too
                    log.warning("a lease was not extended: %s", error)
                extended = time.monotonic()

        return beat

    def _row(self, inference_id: str) -> Row[Any] | None:
        with reading(self.engine) as connection:
            return connection.execute(ASKED, {"of_message": inference_id}).first()

    def _tried(self, message: Message, of: Column[int] = OUTBOX.c.n_tries) -> int:
        """Count a try of a message; return how many there were."""
        counted = update(OUTBOX).where(OUTBOX.c.inference_id == message.id)
        with self.engine.begin() as connection:
            n = counted.values({of: of + 1}).returning(of)
            return int(connection.execute(n).scalar_one())

    def _bury(self, message: Message, reason: str, n_tries: int) -> None:
        """Say first that there will be no answer, then put the message to the dead letters."""
        row = {"inference_id": message.id, "reason": reason, "n_tries": n_tries, "at": now()}
        with self.engine.begin() as connection:
            insert_once(connection, FAILURES, row)
            # It may be replayed: then its tries begin anew.
            theirs = update(OUTBOX).where(OUTBOX.c.inference_id == message.id)
            connection.execute(theirs.values(n_tries=0, n_lost=0))
        self.queue.bury(message, reason)
        log.error("an inference has no answer after %d tries: %s", n_tries, reason)

    def _say(self, what: str) -> None:
        """Log what keeps this from answering, once."""
        if what != self._said:
            log.error("%s", what)
        self._said = what

    def _wait(self, error: Exception) -> None:
        """Wait until database and store answer: no message is taken meanwhile."""
        while not self.stopping.wait(AWAY_SECONDS):
            self._turned = time.monotonic()
            said = str(error) if isinstance(error, SpiraError) else type(error).__name__
            self._say(f"the store, the database or the queue is waited for: {said}")
            try:
                with reading(self.engine) as connection:
                    connection.execute(select(1))
                self.blobs.exists(NOWHERE)
            except AWAY as still:
                error = still
            else:
                return


def _back_off(n_tries: int) -> float:
    return float(BACK_OFF_SECONDS[min(n_tries, len(BACK_OFF_SECONDS)) - 1])


def note_refused(engine: Engine) -> Callable[[str, str, str], None]:
    """Record, once, that a version may not or cannot serve, and close the route that tries it."""

    def note(number: str, classifier: str, why: str) -> None:
        log.error("%s", why)
        key = f"model_not_served:{number}:{classifier}"
        about = {"version": number, "classifier": classifier}
        with engine.begin() as connection:
            events.record(connection, "worker", "model_not_served", key, about)
            route = router.open_route(connection)
        if route is not None and route.version == number:
            with suppress(ConfigError), engine.begin() as connection:  # another worker was first
                router.stop(connection, by=router.WORKER, why="its version may not or cannot serve")

    return note
