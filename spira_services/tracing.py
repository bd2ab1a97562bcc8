"""Traces by OpenTelemetry, off unless OTEL_EXPORTER_OTLP_ENDPOINT says where they are sent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry import trace

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"


def start(service: str) -> TracerProvider | None:
    """Send the spans of this process, if the variable says where; None where it does not."""
    if not os.environ.get(VARIABLE):
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider


@contextmanager
def span(name: str, **attributes: str | float) -> Iterator[trace.Span]:
    """A span around a piece of work; of an exception nothing is kept, as it may quote a patient."""
    tracer = trace.get_tracer("spira")
    with tracer.start_as_current_span(
        name, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as found:
        yield found
