"""What a service counts of itself, in Prometheus' format, and who may read it.

A label is a name of the code (a route, an action, a decision) or a version of a model, so that
there are few; no metric has a label or a value of a patient or a device.
"""

from __future__ import annotations

import hmac
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy import Connection, Engine, func, select

from spira_services.database import AWAY, reading
from spira_services.events import EVENTS
from spira_tasks.errors import SpiraError

TOKEN_VARIABLE = "SPIRA_METRICS_TOKEN"  # noqa: S105  # names the secret
LOOPBACK = {"127.0.0.1", "::1"}
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
WATCHED = ("disk_full", "mistake", "too_many", "too_much_today", "try_again")
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

# It would add a time to each of them, which nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]

log = logging.getLogger("spira.services")

Source = Callable[[], Iterable[Metric]]


def may_read(address: str, authorization: str) -> bool:
    """Whether a request for the metrics is from this machine, or has the token where one is set."""
    token = os.environ.get(TOKEN_VARIABLE, "")
    if not token:
        return address in LOOPBACK
    return hmac.compare_digest(authorization.encode(), f"Bearer {token}".encode())


class Metrics(Collector):
    """The metrics of one application."""

    def __init__(self) -> None:
        self._sources: dict[str, Source] = {}
        self._lock = threading.Lock()  # a source counts what is new to it
        self._registry = CollectorRegistry()
        self._requests = Histogram(
            "spira_http_request_seconds",
            "Time until the answer to a request begins.",
            ("method", "route", "status"),
            buckets=SECONDS,
            registry=self._registry,
        )
        self._refusals = Counter(
            "spira_refusals", "Refusals by their code.", ["error"], registry=self._registry
        )
        for error in WATCHED:  # an alert sees a change, and none from nothing to the first
            self._refusals.labels(error)
        ProcessCollector(registry=self._registry)
        self._registry.register(self)

    def add(self, name: str, source: Source) -> None:
        """Have a source asked at each scrape."""
        self._sources[name] = source

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request; ``route`` is the template of its path."""
        known = method if method in METHODS else "other"
        self._requests.labels(known, route, f"{status // 100}xx").observe(seconds)

    def refused(self, error: str) -> None:
        """Count a refusal; ``error`` is the code that the asker gets."""
        self._refusals.labels(error).inc()

    def collect(self) -> Iterator[Metric]:
        answers = GaugeMetricFamily(
            "spira_source_answers", "Whether a source of metrics answers.", labels=["source"]
        )
        for name, source in self._sources.items():
            try:
                yield from list(source())
                answers.add_metric([name], 1)
            except (*AWAY, SpiraError) as error:
                # The other metrics say how bad it is; they must not go with this one.
                log.error("metrics: %s does not answer (%s)", name, type(error).__name__)
                answers.add_metric([name], 0)
        yield answers

    def text(self) -> bytes:
        """All metrics as they are now."""
        with self._lock:
            return generate_latest(self._registry)


class Tail:
    """The rows of an append-only table that came since the last look, each once.

    ``columns`` begin with the table's ``number``.  A transaction may commit a row after another has
    committed one with a higher number: the last ``AGAIN`` numbers are looked at again.
    """

    AGAIN = 1000

    def __init__(self, *columns: Any) -> None:
        self._columns = columns
        self._newest = 0
        self._known: set[int] = set()

    def skip(self, connection: Connection) -> None:
        """Begin with what comes from now on."""
        number = self._columns[0]
        self._newest = connection.execute(select(func.max(number))).scalar() or 0
        known = select(number).where(number > self._newest - self.AGAIN)
        self._known = {*connection.execute(known).scalars()}

    def rows(self, connection: Connection) -> list[Any]:
        """Rows that were not returned before."""
        asked = select(*self._columns).where(self._columns[0] > self._newest - self.AGAIN)
        rows = connection.execute(asked.order_by(self._columns[0])).all()
        new = [row for row in rows if row.number not in self._known]
        self._newest = max((row.number for row in rows), default=self._newest)
        self._known = {row.number for row in rows if row.number > self._newest - self.AGAIN}
        return new


def of_events(engine: Engine) -> Source:
    """Count the events of the services by action from now on, and say when the last of each was."""
    tail = Tail(EVENTS.c.number, EVENTS.c.action, EVENTS.c.at)
    total = Counter("spira_events", "Events of the services.", ["action"], registry=None)
    last = Gauge(
        "spira_event_last_timestamp_seconds", "When an event last was.", ["action"], registry=None
    )
    newest = select(EVENTS.c.action, func.max(EVENTS.c.at)).group_by(EVENTS.c.action)
    with reading(engine) as connection:
        tail.skip(connection)
        for action, at in connection.execute(newest):
            total.labels(action)  # from 0 on
            last.labels(action).set(at.timestamp())

    def ask() -> Iterator[Metric]:
        with reading(engine) as connection:
            rows = tail.rows(connection)
        for row in rows:
            total.labels(row.action).inc()
            last.labels(row.action).set(row.at.timestamp())
        return chain(total.collect(), last.collect())

    return ask
