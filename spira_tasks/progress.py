"""Progress of long work: a bar on a terminal, a line every few seconds in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

SECONDS_BETWEEN_LINES = 5.0

T = TypeVar("T")

log = logging.getLogger(__name__)


def progress(items: Iterable[T], label: str, total: int) -> Iterator[T]:
    """Yield ``items``, and show how many of ``total`` are done and the remaining time."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, desc=label, total=total, leave=False)
        return
    last = time.monotonic()
    first: tuple[float, int] | None = None  # when it printed the first line, and after how many
    for number, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last < SECONDS_BETWEEN_LINES:
            continue
        last = now
        if first is None:  # imports and the start of processes are no rate
            first = now, number
            log.info("%s: %d of %d", label, number, total)
            continue
        left = (now - first[0]) / (number - first[1]) * (total - number)
        log.info("%s: %d of %d, about %.0f s left", label, number, total, left)
