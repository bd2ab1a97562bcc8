"""Logs of the services: one JSON object a line, and in each the id of the request that it is of."""

from __future__ import annotations

import json
import logging
import re
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
# Of other forms none is taken: it is written to the log, and could be a number of a hospital.
UUID = re.compile(r"[0-9a-f]{8}(-?)[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{12}")


def begin(request_id: str = "") -> str:
    """Give what is done from here on in this context an id: this one if it is a UUID, or a new one.

    It is not taken back: the server logs an error after the request has ended, in its context.
    """
    found = request_id if UUID.fullmatch(request_id) else str(uuid4())
    REQUEST_ID.set(found)
    return found


def noted(logger: logging.Logger, message: str, **fields: str | float) -> None:
    """Log a message with fields that a program can read: names and counts, no patient's value."""
    logger.info(message, extra={"fields": fields})


class Lines(logging.Formatter):
    """A record as one line of JSON.

    Of an exception the types and the places in the code are written, and not its message, which may
    quote what somebody sent.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := REQUEST_ID.get():
            line["request_id"] = request_id
        line |= getattr(record, "fields", {})
        if record.exc_info and record.exc_info[1]:
            line["error"] = list(_chain(record.exc_info[1]))
        return json.dumps(line, ensure_ascii=False)


def _chain(error: BaseException | None) -> Any:
    """An exception and those that it came from, the last first."""
    while error is not None:
        frames = traceback.extract_tb(error.__traceback__)
        yield {
            "type": type(error).__name__,
            "stack": [f"{one.filename}:{one.lineno} {one.name}" for one in frames],
        }
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def start(level: int = logging.INFO) -> None:
    """Write the log of this process as such lines, to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(Lines())
    logging.basicConfig(level=level, handlers=[handler])
