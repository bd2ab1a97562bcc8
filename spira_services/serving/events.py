"""Server-sent events: one query finds what changed for all open streams."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from spira_services.database import reading
from spira_services.serving.inferences import Inference, states
from spira_services.web import Refused

log = logging.getLogger("spira.services")

EVERY_SECONDS = 0.25
KEEP_ALIVE_SECONDS = 15.0  # proxies close what says nothing for a minute
MAX_SECONDS = 600.0  # then who listens asks again
MAX_STREAMS = 200
MAX_STREAMS_OF_DEVICE = 10


class Watch:
    """The open streams of a process.  All of it runs in one event loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # To the newest state that each knows.
        self._listening: dict[asyncio.Queue[Inference], Inference] = {}
        self._open: Counter[str] = Counter()  # by device
        self._polling: asyncio.Task[None] | None = None

    def check_room(self, device_id: str) -> None:
        """Refused (429) where too many streams are open."""
        if self._open.total() >= MAX_STREAMS or self._open[device_id] >= MAX_STREAMS_OF_DEVICE:
            raise Refused(429, "too_many_streams", "too many streams are open; close one, or ask")

    async def events(self, device_id: str, first: Inference) -> AsyncIterator[str]:
        """Each state of an inference, from the one that is known until the last."""
        queue: asyncio.Queue[Inference] = asyncio.Queue()
        self._listening[queue] = first
        self._open[device_id] += 1
        if self._polling is None or self._polling.done():
            self._polling = asyncio.create_task(self._poll())
        try:
            async with asyncio.timeout(MAX_SECONDS):
                last = first
                yield _event(first)
                while last.state == "queued":
                    try:
                        found = await asyncio.wait_for(queue.get(), KEEP_ALIVE_SECONDS)
                    except TimeoutError:
                        yield ": waiting\n\n"
                        continue
                    last = found
                    yield _event(found)
        except TimeoutError:
            return
        finally:
            del self._listening[queue]
            self._open[device_id] -= 1

    async def _poll(self) -> None:
        while self._listening:
            await asyncio.sleep(EVERY_SECONDS)
            try:
                ids = sorted({last.inference_id for last in self._listening.values()})
                found = await run_in_threadpool(self._states, ids)
            except SQLAlchemyError as error:
                log.error("the database does not answer (%s)", type(error).__name__)
                continue
            for queue, last in self._listening.items():
                newest = found.get(last.inference_id, last)
                if newest != last:  # what has not changed is left to the keep-alive
                    self._listening[queue] = newest
                    queue.put_nowait(newest)

    def _states(self, inference_ids: list[str]) -> dict[str, Inference]:
        with reading(self._engine) as connection:
            return {one.inference_id: one for one in states(connection, inference_ids)}


def _event(inference: Inference) -> str:
    return f"event: {inference.state}\ndata: {inference.model_dump_json()}\n\n"
