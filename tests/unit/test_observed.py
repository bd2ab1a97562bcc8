"""What the services tell of themselves: metrics, a log, and nothing of a patient."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from asking import Ward
from collecting import Collection, served, session
from fastapi import FastAPI, Request, Response
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import create_engine

from spira_services import events, logs, tracing
from spira_services.database import now
from spira_services.metrics import TOKEN_VARIABLE, may_read, of_events
from spira_services.serving import router
from spira_services.serving.gauges import of_answers

MARKER = "Maria 55321987B"


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collection]:
    with Collection.at(tmp_path_factory.mktemp("observed")) as made:

        @made.app.get("/mistake", include_in_schema=False)
        def mistake(value: str) -> None:
            int(value)

        yield made


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What is logged, as the servers write it."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(logs.Lines())
    loggers = [logging.getLogger(name) for name in ("spira.services", "uvicorn.error")]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    yield written
    for logger in loggers:
        logger.removeHandler(handler)


def samples(collection: Collection) -> dict[tuple[str, ...], float]:
    text = collection.client.get("/metrics").text
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def counted(collection: Collection) -> dict[tuple[str, ...], float]:
    name = "spira_http_request_seconds_count"
    return {key[1:]: value for key, value in samples(collection).items() if key[0] == name}


def test_requests_are_counted_by_route_and_never_by_path(collection: Collection) -> None:
    before = counted(collection)
    for name in range(3):
        collection.client.get(f"/sign-in/{name}")
    collection.client.get(f"/{MARKER}")
    collection.client.request("PROPFIND", "/health")
    new = {
        key: value - before.get(key, 0)
        for key, value in counted(collection).items()
        if value != before.get(key, 0) and "/metrics" not in key
    }
    assert new == {
        ("GET", "/sign-in/{name}", "4xx"): 3,
        ("GET", "another path", "4xx"): 1,
        ("other", "/health", "4xx"): 1,
    }


def test_each_event_is_counted_once_also_one_that_was_committed_late(
    collection: Collection,
) -> None:
    def record(number: int) -> None:
        row = {"number": number, "at": now(), "actor": "cli:test"}
        row |= {"action": "planted", "details": {}, "unique_key": uuid4().hex}
        with collection.engine.begin() as connection:
            connection.execute(events.EVENTS.insert().values(row))

    for number in (5001, 5003, 5002):
        record(number)
        found = samples(collection)
    assert found["spira_events_total", "planted"] == 3
    assert found["spira_event_last_timestamp_seconds", "planted"] > 1.7e9


def test_events_of_before_the_start_are_not_counted_and_it_is_known_when_they_last_were(
    collection: Collection,
) -> None:
    def record(action: str) -> None:
        with collection.engine.begin() as connection:
            events.record(connection, "cli:test", action, uuid4().hex, {})

    for action in ("before", "before", "both"):
        record(action)
    source = of_events(collection.engine)
    record("both")
    metrics = {
        (one.name, *one.labels.values()): one.value for family in source() for one in family.samples
    }
    assert metrics["spira_events_total", "before"] == 0
    assert metrics["spira_events_total", "both"] == 1
    for action in ("before", "both"):
        assert metrics["spira_event_last_timestamp_seconds", action] > 1.7e9


def test_a_source_that_does_not_answer_takes_no_other_metric_away(tmp_path: Path) -> None:
    with Collection.at(tmp_path) as other:
        busy = create_engine(other.engine.url, pool_size=1, max_overflow=0, pool_timeout=0.01)
        other.app.state.metrics.add("busy", of_events(busy))
        with busy.connect():  # the only connection
            found = samples(other)
        busy.dispose()
        assert found["spira_source_answers", "busy"] == 0
        assert found["spira_source_answers", "events"] == 1
        other.engine.dispose()
        (tmp_path / "services.db").write_bytes(b"")  # the tables are gone
        for file in tmp_path.glob("services.db-*"):
            file.unlink()
        found = samples(other)
        assert found["spira_source_answers", "events"] == 0
        assert found["process_resident_memory_bytes",] > 0


def test_only_this_machine_or_a_token_reads_the_metrics(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert may_read("127.0.0.1", "")
    assert not may_read("10.0.0.5", "")
    monkeypatch.setenv(TOKEN_VARIABLE, "the token")
    assert collection.client.get("/metrics").status_code == 404
    for sent, status in (("Bearer the token", 200), ("Bearer another", 404), ("Bearer ü", 404)):
        headers = {b"Authorization": sent.encode()}
        assert collection.client.get("/metrics", headers=headers).status_code == status


def test_every_line_of_a_request_has_the_id_that_its_answer_has(
    collection: Collection, lines: io.StringIO
) -> None:
    mine = str(uuid4())
    answers = [
        collection.client.get("/health", headers={"X-Request-Id": sent}) for sent in (mine, MARKER)
    ]
    place = collection.client.base_url
    answers.append(httpx.get(f"{place}/mistake", params={"value": MARKER}))
    httpx.get(f"{place}/health")  # by now the error is logged, which its answer does not await
    ids = [answer.headers["X-Request-Id"] for answer in answers]
    assert ids[0] == mine
    assert len({*ids}) == 3
    assert answers[2].status_code == 500
    assert ids[2] in answers[2].json()["message"]
    written = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert [line["request_id"] for line in written[:4]] == [ids[0], ids[1], ids[2], ids[2]]
    assert [line["status"] for line in written[:3]] == [204, 204, 500]
    assert written[3]["error"][0]["type"] == "ValueError"
    assert any("test_observed.py" in place for place in written[3]["error"][0]["stack"])
    assert MARKER.split(maxsplit=1)[0] not in lines.getvalue() + answers[2].text


def test_no_value_of_a_session_is_in_the_metrics_or_the_log(
    collection: Collection, lines: io.StringIO
) -> None:
    phone = collection.device()
    sent = session(seed=7)
    sent.form = {**sent.form, "cid10": "Z98.7"}
    assert phone.send(sent).status_code == 201
    told = collection.client.get("/metrics").text + lines.getvalue()
    assert "/collection/v1/sessions/{session_id}" in told
    for value in ("55321987", "Z98.7", str(sent.session_id), phone.key):
        assert value not in told


def test_answers_are_counted_by_model_and_decision_and_what_waits_is_seen(tmp_path: Path) -> None:
    with Ward.at("", tmp_path) as ward:
        device = ward.device()

        def answered(**answer: Any) -> None:
            ward.answer(ward.ask(device).inference_id, waited_seconds=0.02, **answer)

        answered(compute_seconds=0.1)  # before this process began
        source = of_answers(ward.engine)
        for decision in ("positive", "positive", "negative", None):
            answered(compute_seconds=0.1, decision=decision)
        answered(version="4", arm="shadow", shown=False, decision="negative")
        ward.fail(ward.ask(device).inference_id, "no_audio")
        replayed = ward.ask(device).inference_id
        ward.fail(replayed, "crashed")
        ward.answer(replayed, version="5", compute_seconds=0.1, waited_seconds=0.02)
        with ward.engine.begin() as connection:
            router.start(connection, "shadow", "4", 0.5, by="cli:test", why="a new version")
        for _ in range(2):  # a row is counted once
            metrics = {
                (one.name, *one.labels.values()): one.value
                for family in source()
                for one in family.samples
            }
        counts = {key[1:]: n for key, n in metrics.items() if key[0] == "spira_predictions_total"}
        assert counts == {
            ("3", "champion", "positive"): 2,
            ("3", "champion", "negative"): 1,
            ("3", "champion", "record_again"): 1,
            ("4", "shadow", "negative"): 1,
            ("5", "champion", "positive"): 1,
        }
        assert metrics["spira_answer_seconds_count",] == 5
        assert metrics["spira_answer_seconds_bucket", "0.1"] == 0  # each took 0.12 s
        assert metrics["spira_answer_seconds_bucket", "0.25"] == 5
        assert metrics["spira_route_share", "shadow", "4"] == 0.5
        assert metrics["spira_inferences_failed", "no_audio"] == 1
        assert ("spira_inferences_failed", "crashed") not in metrics
        assert metrics["spira_outbox_unsent",] == 8
        assert metrics["spira_prediction_last_timestamp_seconds", "4", "shadow"] > 1.7e9


def test_a_request_is_a_span_where_somebody_takes_them(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies: list[bytes] = []
    taker = FastAPI()

    @taker.post("/v1/traces")
    async def take(request: Request) -> Response:
        bodies.append(await request.body())
        return Response()

    assert tracing.start("spira-test") is None
    with served(taker) as address:
        monkeypatch.setenv(tracing.VARIABLE, address)
        provider = tracing.start("spira-test")
        assert provider is not None
        answer = collection.client.get("/sign-in/none")
        with pytest.raises(ValueError, match=MARKER), tracing.span("prediction", version="3"):
            raise ValueError(MARKER)
        provider.shutdown()
    sent = [ExportTraceServiceRequest.FromString(body) for body in bodies]
    spans = [
        span
        for one in sent
        for of in one.resource_spans
        for s in of.scope_spans
        for span in s.spans
    ]
    assert [span.name for span in spans] == ["GET /sign-in/{name}", "prediction"]
    attributes = {one.key: one.value.string_value for one in spans[0].attributes}
    assert attributes["spira.request_id"] == answer.headers["X-Request-Id"]
    assert MARKER.encode() not in b"".join(bodies)
