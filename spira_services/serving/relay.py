"""Puts on the queue what was stored: the outbox is the truth, the queue a copy of it."""

from __future__ import annotations

import logging
import threading
from time import monotonic
from types import TracebackType

from sqlalchemy import Engine, select, tuple_, update
from sqlalchemy.exc import SQLAlchemyError

from spira_services.database import now, reading
from spira_services.serving.inferences import is_waiting
from spira_services.serving.port import Queue
from spira_services.serving.tables import INFERENCES, OUTBOX
from spira_tasks.errors import SpiraError

log = logging.getLogger("spira.services")

AT_ONCE = 500
EVERY_SECONDS = 1.0
REFILL_SECONDS = 300.0


def relay_once(engine: Engine, queue: Queue) -> int:
    """Put what is not sent yet on the queue, the oldest first; return how many.

    After a kill between the two it is put again, which changes nothing.
    """
    unsent = select(OUTBOX.c.inference_id).where(OUTBOX.c.sent_at.is_(None))
    with reading(engine) as connection:
        oldest = unsent.order_by(OUTBOX.c.stored_at, OUTBOX.c.inference_id).limit(AT_ONCE)
        ids = connection.execute(oldest).scalars().all()
    if ids:
        queue.put(ids)
        with engine.begin() as connection:
            sent = update(OUTBOX).where(OUTBOX.c.inference_id.in_(ids))
            connection.execute(sent.values(sent_at=now()))
    return len(ids)


def refill(engine: Engine, queue: Queue) -> int:
    """Put everything that waits on the queue, whether it was there before or not; return how many.

    What is still there is left alone.  No more than ``AT_ONCE`` rows are in memory, and SQLite is
    locked for one of these pages at a time.
    """
    order = INFERENCES.c.received_at, INFERENCES.c.inference_id
    asked = select(*order).where(is_waiting()).order_by(*order).limit(AT_ONCE)
    after, n = asked, 0
    while True:
        with reading(engine) as connection:
            rows = connection.execute(after).all()
        queue.put([row.inference_id for row in rows])
        n += len(rows)
        if len(rows) < AT_ONCE:
            return n
        after = asked.where(tuple_(*order) > tuple_(*rows[-1], types=[c.type for c in order]))


class Relay:
    """A thread that sends what is stored until the block ends, at once and every second.

    At the start and every ``REFILL_SECONDS`` it puts again all that waits: a queue may lose what
    it acknowledged, as with its disk.  Where the database or the queue is away it says so once, and
    goes on.
    """

    def __init__(self, engine: Engine, queue: Queue) -> None:
        self._engine, self._queue = engine, queue
        self._stored, self._ended = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

    def __enter__(self) -> Relay:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._ended = True
        self._stored.set()
        self._thread.join()

    def wake(self) -> None:
        """Say that something was stored."""
        self._stored.set()

    def _run(self) -> None:
        is_away, refill_at = False, 0.0
        while not self._ended:
            self._stored.clear()
            try:
                while relay_once(self._engine, self._queue) == AT_ONCE:
                    pass
                if monotonic() >= refill_at:
                    refill(self._engine, self._queue)
                    refill_at = monotonic() + REFILL_SECONDS
                is_away = False
            except (SpiraError, SQLAlchemyError) as error:
                if not is_away:
                    log.error("what is stored waits for the queue (%s)", type(error).__name__)
                is_away = True
            except Exception:  # without this thread nothing that is asked would be answered
                log.exception("what is stored was not put on the queue; it is tried again")
            self._stored.wait(EVERY_SECONDS)
