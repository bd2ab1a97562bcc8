"""What can be seen of serving from outside: what waits, what was answered, and by which model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from sqlalchemy import Engine, func, select

from spira_services.database import now, reading
from spira_services.metrics import SECONDS, Source, Tail
from spira_services.serving.port import Depth
from spira_services.serving.router import open_route
from spira_services.serving.tables import ACTIONS, FAILURES, OUTBOX, PREDICTIONS


def of_queue(depth: Callable[[], Depth]) -> Source:
    """How many messages the queue holds, and how long the oldest has waited."""

    def ask() -> Iterator[Metric]:
        found = depth()
        messages = GaugeMetricFamily(
            "spira_queue_messages", "Messages of the queue.", labels=["state"]
        )
        messages.add_metric(["waiting"], found.n_waiting)
        messages.add_metric(["leased"], found.n_leased)
        messages.add_metric(["dead"], found.n_dead)
        yield messages
        yield GaugeMetricFamily(
            "spira_queue_oldest_seconds",
            "Age of the oldest message that is not done.",
            value=found.oldest_seconds or 0,
        )

    return ask


def of_models(ready: Callable[[], Mapping[str, str]]) -> Source:
    """Which versions a worker has ready, each with what it is used for."""

    def ask() -> Iterator[Metric]:
        versions = GaugeMetricFamily(
            "spira_model_ready", "Versions that can answer at once.", labels=["version", "use"]
        )
        for version, use in ready().items():
            versions.add_metric([version, use], 1)
        yield versions

    return ask


def of_answers(engine: Engine) -> Source:
    """Count answers by model and decision, and what people did with them, from now on."""
    of = PREDICTIONS.c
    new = Tail(
        *(of.number, of.version, of.arm, of.decision, of.shown),
        *(of.waited_seconds, of.compute_seconds, of.at),
    )
    done = Tail(ACTIONS.c.number, ACTIONS.c.action)
    with reading(engine) as connection:
        new.skip(connection)
        done.skip(connection)
    answers = Counter(
        "spira_predictions", "Answers of models.", ["version", "arm", "decision"], registry=None
    )
    last = Gauge(
        "spira_prediction_last_timestamp_seconds",
        "When a version last answered.",
        ["version", "arm"],
        registry=None,
    )
    waited = Histogram(
        "spira_answer_seconds",
        "From stored to answered, of answers that are shown.",
        buckets=(*SECONDS, 30, 60, 300),
        registry=None,
    )
    computed = Histogram(
        "spira_compute_seconds", "Of a prediction.", ["version"], buckets=SECONDS, registry=None
    )
    actions = Counter("spira_actions", "What people did with answers.", ["action"], registry=None)

    is_answered = select(of.number).where(of.inference_id == FAILURES.c.inference_id, of.shown)

    def ask() -> Iterator[Metric]:
        with reading(engine) as connection:
            rows, acts = new.rows(connection), done.rows(connection)
            failed = connection.execute(
                select(FAILURES.c.reason, func.count())
                .where(~is_answered.exists())
                .group_by(FAILURES.c.reason)
            ).all()
            unsent = select(func.count(), func.min(OUTBOX.c.stored_at))
            route = open_route(connection)
            n_unsent, oldest = connection.execute(unsent.where(OUTBOX.c.sent_at.is_(None))).one()
        for row in rows:
            answers.labels(row.version, row.arm, row.decision or "record_again").inc()
            last.labels(row.version, row.arm).set(row.at.timestamp())
            computed.labels(row.version).observe(row.compute_seconds)
            if row.shown:
                waited.observe(row.waited_seconds + row.compute_seconds)
        for row in acts:
            actions.labels(row.action).inc()
        routes = GaugeMetricFamily(
            "spira_route_share", "Of requests that a version gets.", labels=["mode", "version"]
        )
        if route is not None:
            routes.add_metric([route.mode, route.version], route.share)
        yield routes
        failures = GaugeMetricFamily(
            "spira_inferences_failed", "Inferences without an answer.", labels=["reason"]
        )
        for reason, n in failed:
            failures.add_metric([reason], n)
        yield failures
        yield GaugeMetricFamily("spira_outbox_unsent", "Not yet on the queue.", value=n_unsent)
        age = (now() - oldest).total_seconds() if oldest else 0
        yield GaugeMetricFamily("spira_outbox_oldest_seconds", "Age of the oldest.", value=age)
        counted = (answers, last, waited, computed, actions)
        yield from chain.from_iterable(metric.collect() for metric in counted)

    return ask
