"""The queue on NATS JetStream: one stream of work, one of dead letters.

Each id has a subject of its own, so the server itself refuses an id that waits or is leased.
The server must run with ``jetstream { sync_interval: always }``: by default it acknowledges
messages that a power cut loses.

JetStream leases by AckWait.  It takes nothing back when a client disconnects: what a dead worker
held waits until its lease ends (nats-server#4716), so workers extend short leases.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import ssl
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import unquote, urlsplit

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api
from nats.js.errors import APIError, NotFoundError

from spira_services.serving.port import (
    LEASE_SECONDS,
    REMEMBERED_SECONDS,
    DeadLetter,
    Depth,
    Message,
)
from spira_tasks.contract.access import QUEUE
from spira_tasks.errors import ConfigError, ServiceUnavailable

CALL_SECONDS = 5.0
CLOSE_SECONDS = 0.5
N_AT_ONCE = 256  # messages that are put and not acknowledged yet
NO_MORE = ("404", "408")  # statuses of the server: there is none, the time is over
WORKERS = "workers"  # the consumer that all of them share
STORE_REFUSED = 10077  # of the server: an error of its disk, or the subject has its message
REASON, TRIES = "Spira-Reason", "Spira-Tries"
REACH = (
    "the NATS server runs with JetStream, may be reached from here, has room on its disk, and that "
    "this user may use the streams"
)
TRUST = "it has handshake_first, and a certificate that the file of SSL_CERT_FILE trusts"
ID = re.compile(r"[A-Za-z0-9_-]+")  # one token of a subject

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")


@dataclass
class Session:
    """A connection, until it ends."""

    client: Client
    js: JetStreamContext
    ended: asyncio.Future[None]
    has_consumer: bool = False


Act = Callable[[Session], Coroutine[Any, Any, Answer]]


class JetStreamQueue:
    """Streams of a NATS server.  It connects at the first call, and again after a failure.

    Parameters
    ----------
    address : str
        ``nats://HOST:PORT``, or ``tls://HOST:PORT`` for a server with ``handshake_first``.
    credentials : Path, optional
        File with ``user:password``; without it they stand before the host, or there are none.
    lease_seconds : float
        AckWait of the consumer, which all workers share.
    name : str
        Of the streams: ``name`` and ``name-dead``.

    Raises
    ------
    ConfigError
        When the address or the file of credentials cannot be.  No password is quoted.
    """

    def __init__(
        self,
        address: str,
        credentials: Path | None = None,
        lease_seconds: float = LEASE_SECONDS,
        name: str = QUEUE,
    ) -> None:
        self._host, self._options = _parsed(address, credentials)
        self._lease_seconds = lease_seconds
        self._work, self._dead = name, f"{name}-dead"
        self._session: Session | None = None
        self._loop = asyncio.new_event_loop()  # of a thread of its own: the callers have none
        self._connecting = asyncio.Lock()
        self._thread = threading.Thread(target=self._loop.run_forever, name="queue", daemon=True)
        self._thread.start()

    def put(self, ids: Sequence[str]) -> None:
        if wrong := [id_ for id_ in ids if not ID.fullmatch(id_)]:
            raise ValueError(f"{len(wrong)} ids have characters beside letters, digits, - and _")
        self._call(lambda session: self._put({id_: id_ for id_ in ids}, session.js))

    async def _put(self, ids: dict[str, str], js: JetStreamContext) -> None:
        """Publish ids, each under the name by which the server knows it again."""
        gate = asyncio.Semaphore(N_AT_ONCE)

        async def put_one(id_: str, known_by: str) -> None:
            async with gate:
                headers = {str(api.Header.MSG_ID.value): known_by}
                try:
                    await js.publish(f"{self._work}.{id_}", id_.encode(), headers=headers)
                except APIError as error:
                    if error.err_code != STORE_REFUSED:
                        raise
                    # Its number is also that of a full disk: see whether the id is there.
                    await js.get_last_msg(self._work, f"{self._work}.{id_}")

        await asyncio.gather(*(put_one(*item) for item in ids.items()))

    def take(self, n: int, wait_seconds: float) -> list[Message]:
        async def fetch(session: Session) -> list[Message]:
            if not session.has_consumer:
                await self._consume(session)
            found: list[Msg] = []
            inbox = session.client.new_inbox()
            answers = await session.client.subscribe(inbox)
            asked = {"batch": n, "no_wait": True, "expires": int(wait_seconds * 1e9)}  # nanoseconds
            subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._work}.{WORKERS}"
            await session.client.publish(subject, json.dumps(asked).encode(), reply=inbox)
            # The server says when there are no more.  ``fetch`` of nats-py goes by a clock of its
            # own, and leaves leased what comes a moment later.
            while len(found) < n:
                answer = await answers.next_msg(wait_seconds + CALL_SECONDS)
                status = (answer.headers or {}).get(api.Header.STATUS.value)
                if status is not None:
                    if status not in NO_MORE:
                        raise nats.errors.Error(f"the server ends a request with {status}")
                    break
                found.append(answer)
            await answers.unsubscribe()
            return [
                Message(
                    answer.data.decode(), answer.metadata.num_delivered, (session, answer.reply)
                )
                for answer in found
            ]

        return self._call(fetch)

    async def _consume(self, session: Session) -> None:
        config = api.ConsumerConfig(
            durable_name=WORKERS,
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=self._lease_seconds,
            max_deliver=-1,  # the worker decides when it is enough
            max_ack_pending=-1,  # those given back for later must not stop the others
        )
        await session.js.add_consumer(self._work, config)
        session.has_consumer = True

    def extend(self, message: Message) -> None:
        self._call(lambda session: _settle(session, message, "+WPI"))

    def done(self, message: Message) -> None:
        self._call(lambda session: _settle(session, message, "+ACK"))

    def later(self, message: Message, seconds: float) -> None:
        delay = json.dumps({"delay": int(seconds * 1e9)})  # nanoseconds
        self._call(lambda session: _settle(session, message, f"-NAK {delay}"))

    def bury(self, message: Message, reason: str) -> None:
        async def move(session: Session) -> None:
            headers = {REASON: reason, TRIES: str(message.n_tries)}
            subject = f"{self._dead}.{message.id}"
            await session.js.publish(subject, message.id.encode(), headers=headers)
            # Only now: a crash in between leaves it in both, and its next worker buries it again.
            await _settle(session, message, "+TERM")

        self._call(move)

    def dead(self) -> list[DeadLetter]:
        return [_letter(raw) for raw in self._call(self._letters)]

    async def _letters(self, session: Session) -> list[api.RawStreamMsg]:
        found: list[api.RawStreamMsg] = []
        number = 1
        while True:
            try:
                subject = f"{self._dead}.*"
                raw = await session.js.get_msg(self._dead, number, subject=subject, next=True)
            except NotFoundError:
                return found
            found.append(raw)
            number = (raw.seq or number) + 1

    def replay(self, ids: Sequence[str] | None) -> int:
        async def replayed(session: Session) -> int:
            letters = await self._named(session, ids)
            # Another name than at first, by which the server would know what was put lately.
            await self._put({id_: f"{id_}.{raw.seq}" for id_, raw in letters.items()}, session.js)
            return await self._remove(session, letters)

        return self._call(replayed)

    def discard(self, ids: Sequence[str]) -> int:
        async def discarded(session: Session) -> int:
            return await self._remove(session, await self._named(session, ids))

        return self._call(discarded)

    async def _named(
        self, session: Session, ids: Sequence[str] | None
    ) -> dict[str, api.RawStreamMsg]:
        """The dead letters of these ids, of all for None."""
        letters = {_letter(raw).id: raw for raw in await self._letters(session)}
        return {id_: raw for id_, raw in letters.items() if ids is None or id_ in ids}

    async def _remove(self, session: Session, letters: dict[str, api.RawStreamMsg]) -> int:
        for raw in letters.values():
            await session.js.delete_msg(self._dead, raw.seq or 0)
        return len(letters)

    def depth(self) -> Depth:
        async def measure(session: Session) -> Depth:
            js = session.js
            n_open = (await js.stream_info(self._work)).state.messages
            n_dead = (await js.stream_info(self._dead)).state.messages
            try:
                consumer = await js.consumer_info(self._work, WORKERS)
                n_leased = min(consumer.num_ack_pending or 0, n_open)
            except NotFoundError:  # no worker ever was
                n_leased = 0
            age = None
            try:
                oldest = await js.get_msg(self._work, 1, subject=f"{self._work}.*", next=True)
                put_at = oldest.time or datetime.now(UTC)
                age = max(0.0, (datetime.now(UTC) - put_at).total_seconds())  # by two clocks
            except NotFoundError:
                pass
            return Depth(n_open - n_leased, n_leased, n_dead, age)

        return self._call(measure)

    def close(self) -> None:
        session = self._session
        if session is not None:
            asyncio.run_coroutine_threadsafe(self._end(session), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, act: Act[Answer]) -> Answer:
        return asyncio.run_coroutine_threadsafe(self._run(act), self._loop).result()

    async def _run(self, act: Act[Answer]) -> Answer:
        session = None
        try:
            async with self._connecting:
                if self._session is None or not self._session.client.is_connected:
                    self._session = await self._connect()
                session = self._session
            task = asyncio.ensure_future(act(session))
            # What is asked of a server that goes away, or that refuses, is never answered.
            await asyncio.wait((task, session.ended), return_when=asyncio.FIRST_COMPLETED)
            if session.ended.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                raise nats.errors.ConnectionClosedError
            return task.result()
        except (nats.errors.Error, OSError, TimeoutError) as error:
            if session is not None:
                await self._end(session)
            is_tls = isinstance(error, ssl.SSLError)
            raise ServiceUnavailable(
                f"the queue at {self._host} does not answer ({type(error).__name__}): see that "
                f"{TRUST if is_tls else REACH}"
            ) from None

    async def _connect(self) -> Session:
        client = Client()
        ended: asyncio.Future[None] = self._loop.create_future()

        async def on_close() -> None:
            if not ended.done():
                ended.set_result(None)

        async def on_error(error: Exception) -> None:
            if client.is_connected:  # such as a subject that this user may not use: no answer comes
                log.warning("the queue at %s: %s", self._host, error)
                await on_close()

        try:
            await client.connect(
                **self._options,
                allow_reconnect=False,  # the next call does, and says at once when it cannot
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=int(CALL_SECONDS),
                closed_cb=on_close,
                error_cb=on_error,
            )
            js = client.jetstream(timeout=CALL_SECONDS)
            for config in self._streams():
                try:
                    await js.stream_info(str(config.name))
                except NotFoundError:  # what is there may have been given replicas
                    await js.add_stream(config)
        except BaseException as error:
            await _close(client)
            if "authorization violation" in str(error).lower():  # the protocol's own word
                raise ConfigError(
                    f"the queue at {self._host} refuses this user: see the user and the password "
                    "in the file of SPIRA_QUEUE_CREDENTIALS, or before the host in SPIRA_QUEUE"
                ) from None
            raise
        return Session(client, js, ended)

    def _streams(self) -> tuple[api.StreamConfig, api.StreamConfig]:
        work = api.StreamConfig(
            name=self._work,
            subjects=[f"{self._work}.*"],
            retention=api.RetentionPolicy.WORK_QUEUE,
            storage=api.StorageType.FILE,
            discard=api.DiscardPolicy.NEW,
            max_msgs_per_subject=1,  # an id that is there is refused,
            discard_new_per_subject=True,
            duplicate_window=REMEMBERED_SECONDS,  # and so is one that was done lately
        )
        dead = api.StreamConfig(
            name=self._dead,
            subjects=[f"{self._dead}.*"],
            storage=api.StorageType.FILE,
            max_msgs_per_subject=1,  # buried twice is buried once
        )
        return work, dead

    async def _end(self, session: Session) -> None:
        if self._session is session:
            self._session = None
        await _close(session.client)


async def _close(client: Client) -> None:
    # After a failed TLS handshake Python 3.11 closes the socket, and never says so.
    with suppress(TimeoutError):
        await asyncio.wait_for(client.close(), CLOSE_SECONDS)


async def _settle(session: Session, message: Message, word: str) -> None:
    """Answer for a delivery, and wait until the server has read it."""
    delivered_in, subject = cast(tuple[Session, str], message.handle)
    if delivered_in is session:
        await session.client.request(subject, word.encode(), timeout=CALL_SECONDS)
    else:
        # A server that was killed may have forgotten the delivery.  It says nothing then, and
        # delivers the message again, as if for the first time.
        await session.client.publish(subject, word.encode())
        await session.client.flush(int(CALL_SECONDS))


def _parsed(address: str, credentials: Path | None) -> tuple[str, dict[str, Any]]:
    """The host, for messages, and the options by which the client reaches it."""
    parts = urlsplit(address)
    host = parts.netloc.rpartition("@")[2]
    try:
        is_address = parts.scheme in ("nats", "tls") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        raise ConfigError("SPIRA_QUEUE is no address: write nats://HOST:4222 or tls://HOST:4222")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if credentials is not None:
        try:
            user, colon, password = credentials.read_text().strip().partition(":")
        except OSError as error:
            raise ConfigError(
                f"the file of SPIRA_QUEUE_CREDENTIALS cannot be read ({error.strerror})"
            ) from None
        if not colon:
            raise ConfigError("the file of SPIRA_QUEUE_CREDENTIALS has no line user:password")
    # TLS begins before the first word: nats-py would send the password to a server that says it
    # needs no TLS, and so to anybody in between.
    options = {"servers": f"{parts.scheme}://{host}", "tls_handshake_first": parts.scheme == "tls"}
    return host, options | ({"user": user, "password": password} if user else {})


def _letter(raw: api.RawStreamMsg) -> DeadLetter:
    headers = raw.headers or {}
    at = raw.time or datetime.now(UTC)
    return DeadLetter((raw.data or b"").decode(), headers[REASON], int(headers[TRIES]), at)
