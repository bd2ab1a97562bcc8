"""The queue between the API and the workers: its port, and the adapter for SQL.

A table on SQLite or Postgres serves a laptop and a hospital; NATS JetStream (``jetstream.py``) many
workers on many machines.  Both pass the same tests.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from uuid import uuid4

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Engine,
    Index,
    Integer,
    Table,
    Text,
    bindparam,
    delete,
    func,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from spira_services.database import AWAY, Instant, metadata, now
from spira_services.serving.port import (
    LEASE_SECONDS,
    REMEMBERED_SECONDS,
    DeadLetter,
    Depth,
    Message,
    Queue,
)
from spira_tasks.errors import ConfigError, ServiceUnavailable

__all__ = [
    "LEASE_SECONDS",
    "REMEMBERED_SECONDS",
    "DeadLetter",
    "Depth",
    "Message",
    "Queue",
    "SqlQueue",
    "open_queue",
]

VARIABLE = "SPIRA_QUEUE"
CREDENTIALS = "SPIRA_QUEUE_CREDENTIALS"
POLL_SECONDS = 0.05
LATER_SECONDS = 60.0  # the longest wait of a message that was given back

# Open while ``ended_at`` is empty; then dead with a reason, done without.
QUEUE = Table(
    "serving_queue",
    metadata,
    Column("id", Text, primary_key=True),
    Column("put_at", Instant, nullable=False),
    Column("ready_at", Instant, nullable=False),  # end of the lease, or of the wait
    Column("lease", Text),  # a token of the last taker
    Column("n_tries", Integer, nullable=False),
    Column("ended_at", Instant),
    Column("reason", Text),
    Index("ix_serving_queue_ended_at_ready_at", "ended_at", "ready_at"),
)
IS_OPEN = QUEUE.c.ended_at.is_(None)
IS_DEAD = QUEUE.c.reason.is_not(None)
# Built once, as DONE is: to build and to recognise it takes most of its time.  A CTE runs once;
# Postgres may run a subquery anew for each row, and lease more.
_READY = (
    select(QUEUE.c.id)
    .where(
        IS_OPEN,
        (QUEUE.c.ready_at <= bindparam("moment"))
        # What is later than any wait was put before the clock was set back.
        | (QUEUE.c.ready_at > bindparam("latest")),
    )
    .order_by(QUEUE.c.ready_at)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)  # SQLite has one writer, and leaves it out
    .cte("ready")
)
TAKE = (
    update(QUEUE)
    .where(QUEUE.c.id.in_(select(_READY.c.id)))
    .values(lease=bindparam("token"), ready_at=bindparam("until"), n_tries=QUEUE.c.n_tries + 1)
    .returning(QUEUE.c.id, QUEUE.c.n_tries)
)
# Also where another worker has the lease now: the work is done.
DONE = (
    update(QUEUE).where(QUEUE.c.id == bindparam("done"), IS_OPEN).values(ended_at=bindparam("at"))
)


def open_queue(engine: Engine) -> Queue:
    """The queue of SPIRA_QUEUE: ``sql``, the default, is the services' database.

    ``nats://HOST`` and ``tls://HOST`` are JetStream.  The file of SPIRA_QUEUE_CREDENTIALS holds
    ``user:password``; they may also stand before the host.

    Raises
    ------
    ConfigError
        When the address or the credentials cannot be.
    """
    address = os.environ.get(VARIABLE, "") or "sql"
    if address == "sql":
        return SqlQueue(engine)
    if address.startswith(("nats://", "tls://")):
        from spira_services.serving.jetstream import JetStreamQueue

        file = os.environ.get(CREDENTIALS, "")
        return JetStreamQueue(address, Path(file) if file else None)
    raise ConfigError(f"{VARIABLE} is none of sql, nats://HOST and tls://HOST: write one of these")


class SqlQueue:
    """A table of ids, leased by the clock of the database.

    Parameters
    ----------
    lease_seconds : float
        How long a message is leased that is not extended.
    """

    def __init__(self, engine: Engine, lease_seconds: float = LEASE_SECONDS) -> None:
        self._engine = engine
        self._lease = timedelta(seconds=lease_seconds)
        self._longest = max(self._lease, timedelta(seconds=LATER_SECONDS))

    def put(self, ids: Sequence[str]) -> None:
        if not ids:
            return
        dialect = postgresql if self._engine.dialect.name == "postgresql" else sqlite
        with self._transaction() as (connection, moment):
            is_past = QUEUE.c.ended_at < moment - timedelta(seconds=REMEMBERED_SECONDS)
            connection.execute(delete(QUEUE).where(~IS_DEAD, is_past))
            row = {"put_at": moment, "ready_at": moment, "n_tries": 0}
            # Sorted: two that put the same ids wait for one another in one order.
            connection.execute(
                dialect.insert(QUEUE).on_conflict_do_nothing(),
                [{"id": id_, **row} for id_ in sorted(ids)],
            )

    def take(self, n: int, wait_seconds: float) -> list[Message]:
        deadline = time.monotonic() + wait_seconds
        while not (taken := self._take(n)):
            left = deadline - time.monotonic()
            if left <= 0:
                return []
            time.sleep(min(POLL_SECONDS, left))
        return taken

    def _take(self, n: int) -> list[Message]:
        with self._transaction() as (connection, moment):
            token = uuid4().hex
            taken = connection.execute(
                TAKE,
                {
                    "moment": moment,
                    "latest": moment + self._longest,
                    "until": moment + self._lease,
                    "token": token,
                    "most": n,
                },
            )
            return [Message(row.id, row.n_tries, token) for row in taken]

    def extend(self, message: Message) -> None:
        with self._transaction() as (connection, moment):
            leased = update(QUEUE).where(*_held(message))
            connection.execute(leased.values(ready_at=moment + self._lease))

    def done(self, message: Message) -> None:
        with self._transaction() as (connection, moment):
            connection.execute(DONE, {"done": message.id, "at": moment})

    def later(self, message: Message, seconds: float) -> None:
        with self._transaction() as (connection, moment):
            given_back = update(QUEUE).where(*_held(message))
            ready_at = moment + timedelta(seconds=min(seconds, LATER_SECONDS))
            connection.execute(given_back.values(ready_at=ready_at, lease=None))

    def bury(self, message: Message, reason: str) -> None:
        with self._transaction() as (connection, moment):
            buried = update(QUEUE).where(*_held(message))
            connection.execute(buried.values(ended_at=moment, reason=reason))

    def dead(self) -> list[DeadLetter]:
        with self._transaction() as (connection, _):
            rows = connection.execute(select(QUEUE).where(IS_DEAD).order_by(QUEUE.c.ended_at))
            return [DeadLetter(row.id, row.reason, row.n_tries, row.ended_at) for row in rows]

    def replay(self, ids: Sequence[str] | None) -> int:
        with self._transaction() as (connection, moment):
            waits = update(QUEUE).where(IS_DEAD)
            if ids is not None:
                waits = waits.where(QUEUE.c.id.in_(ids))
            row = {"put_at": moment, "ready_at": moment, "lease": None, "n_tries": 0}
            return connection.execute(waits.values(**row, ended_at=None, reason=None)).rowcount

    def discard(self, ids: Sequence[str]) -> int:
        with self._transaction() as (connection, moment):
            ended = update(QUEUE).where(IS_DEAD, QUEUE.c.id.in_(ids))
            return connection.execute(ended.values(ended_at=moment, reason=None)).rowcount

    def depth(self) -> Depth:
        is_taken = QUEUE.c.n_tries > 0
        with self._transaction() as (connection, moment):
            counts = select(
                func.count().filter(IS_OPEN, ~is_taken),
                func.count().filter(IS_OPEN, is_taken),
                func.count().filter(IS_DEAD),
                func.min(QUEUE.c.put_at).filter(IS_OPEN),
            )
            n_waiting, n_leased, n_dead, oldest = connection.execute(counts).one()
            age = max((moment - oldest).total_seconds(), 0) if oldest else None
            return Depth(n_waiting, n_leased, n_dead, age)

    def close(self) -> None:
        """Leave the engine open: its owner closes it."""

    @contextmanager
    def _transaction(self) -> Iterator[tuple[Connection, datetime]]:
        """A transaction, and the time by the one clock that all hosts share."""
        try:
            with self._engine.begin() as connection:
                if connection.dialect.name == "postgresql":
                    moment = connection.execute(
                        select(func.clock_timestamp(type_=Instant))
                    ).scalar_one()
                else:
                    moment = now()
                yield connection, moment
        except AWAY as error:
            raise ServiceUnavailable(
                f"the table of the queue does not answer ({type(error).__name__}); see that "
                "the services' database is up, may be reached from here and has room on its disk"
            ) from None


def _held(message: Message) -> tuple[ColumnElement[bool], ...]:
    return (QUEUE.c.id == message.id, QUEUE.c.lease == message.handle, IS_OPEN)
