"""The queue as those see it who put ids on it and those who work on them.

At least once, in no promised order: a worker must find that something is done already.
Max tries and back-off are the worker's policy.  A message is an id, never what it stands for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

LEASE_SECONDS = 30.0
REMEMBERED_SECONDS = 900.0  # so long an id that is done is not put again


@dataclass(frozen=True)
class Message:
    """An id in the hands of a worker, until the lease ends.

    ``n_tries`` is 1 at the first delivery.  A delivery whose lease ended counts; those of the last
    moment before a server of JetStream was killed may not.
    """

    id: str
    n_tries: int
    handle: object = field(repr=False, compare=False)  # of the adapter


@dataclass(frozen=True)
class DeadLetter:
    """An id that the worker gave up, and the stable code that says why."""

    id: str
    reason: str
    n_tries: int
    at: datetime


@dataclass(frozen=True)
class Depth:
    """How full the queue is.

    ``n_waiting`` were never taken.  ``n_leased`` were taken and are not done: in work, given back
    for later, or of a worker that died.  ``oldest_seconds`` is the age of the oldest of both.
    """

    n_waiting: int
    n_leased: int
    n_dead: int
    oldest_seconds: float | None


class Queue(Protocol):
    """Ids that wait for work; safe to use from several threads and processes.

    Every method raises ServiceUnavailable when the queue does not answer.  Each can then be
    repeated: it does nothing that was done before.
    """

    def put(self, ids: Sequence[str]) -> None:
        """Add ids of letters, digits, ``-`` and ``_``; they are durable when it returns.

        An id that waits or is leased is left alone, and so is one that was done or buried within
        REMEMBERED_SECONDS; that much a restart of the server of JetStream may forget.
        """

    def take(self, n: int, wait_seconds: float) -> list[Message]:
        """Lease at most ``n`` messages, as soon as there is one; none after ``wait_seconds``."""

    def extend(self, message: Message) -> None:
        """Lease a message anew, from now on."""

    def done(self, message: Message) -> None:
        """Remove a message.  It counts also when the lease has ended: the work is done."""

    def later(self, message: Message, seconds: float) -> None:
        """Give a message back, to be taken again after so long."""

    def bury(self, message: Message, reason: str) -> None:
        """Move a message to the dead letters; ``reason`` is a stable code."""

    def dead(self) -> list[DeadLetter]:
        """All dead letters, the oldest first."""

    def replay(self, ids: Sequence[str] | None) -> int:
        """Let dead letters wait again, all of them for None; their tries count from one.

        Returns
        -------
        int
            How many there were.
        """

    def discard(self, ids: Sequence[str]) -> int:
        """Remove dead letters for good; return how many there were."""

    def depth(self) -> Depth:
        """How full the queue is."""

    def close(self) -> None:
        """End the connection; what is leased is taken again when its lease has ended."""
