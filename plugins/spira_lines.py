"""The lines of a container's log, out of what a Docker engine answers when asked for them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

PART_BYTES = 16384  # what the engine keeps together of a line; it stamps every part of a longer one
STAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z ")
STAMP_BYTES = 31


@dataclass(frozen=True)
class Line:
    """A line that a container wrote: when, in the engine's own notation, and what."""

    at: str
    text: str


def parse(content: bytes, after: str, *, ended: bool) -> list[Line]:
    """The lines of a stamped log that are later than ``after``.

    While the container works, a line at the end without its newline is left for the next time: it
    has its stamp already, and what follows of it would never be later than itself.
    """
    rows = content.split(b"\n")
    if not ended:
        rows.pop()  # empty when the last line is complete
    lines = []
    for row in rows:
        at = row[: STAMP_BYTES - 1].decode("ascii", "replace")
        if at > after:  # fixed width: the order of text is the order of time
            text = _whole(row[STAMP_BYTES:]).decode("utf-8", "replace")
            lines.append(Line(at, text.rstrip("\r")))
    return lines


def _whole(row: bytes) -> bytes:
    """A line without the stamps of its second and later parts."""
    if len(row) <= PART_BYTES:
        return row
    parts = [row[:PART_BYTES]]
    row = row[PART_BYTES:]
    while stamp := STAMP.match(row):
        parts.append(row[stamp.end() : stamp.end() + PART_BYTES])
        row = row[stamp.end() + PART_BYTES :]
    return b"".join([*parts, row])


def unix_second(at: str) -> int:
    """The second of an engine's timestamp, such as 2026-11-21T13:05:09.123456789Z."""
    return int(datetime.fromisoformat(f"{at[:19]}+00:00").timestamp())
