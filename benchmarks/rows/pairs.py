"""Paired measurements: two ways take turns, so that whatever else the machine does slows both."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any

import numpy as np

# Prepares one of two ways, in a process of its own; what it returns does one turn.
Way = Callable[..., Callable[[], "Cost"]]


@dataclass(frozen=True)
class Size:
    """Of a measurement; a small one shows that a row works."""

    n_turns: int
    small: bool = False


@dataclass(frozen=True)
class Cost:
    wall: float  # seconds
    cpu: float  # seconds of this process and of its children that have ended


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of some turns."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        low, median, high = np.percentile(values, (25, 50, 75))
        return cls(float(median), float(low), float(high))


@dataclass(frozen=True)
class Line:
    """A line of the table: what was measured, and what it should be."""

    measure: str
    unit: str  # × or s
    wall: Spread
    cpu: Spread | None  # None where only the time that a person waits counts
    goal: float | None  # None: shown beside the others, without a goal
    at_least: bool = True  # else the goal is a limit
    detail: str = ""

    @property
    def is_reached(self) -> bool:
        """By CPU-seconds where there are some: others use the cores meanwhile."""
        if self.goal is None:
            return True
        found = (self.cpu or self.wall).median
        return found >= self.goal if self.at_least else found <= self.goal

    def with_detail(self, more: str) -> Line:
        return replace(self, detail=f"{self.detail}; {more}" if self.detail else more)


def used() -> Cost:
    """Seconds until now, from some moment."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return Cost(time.perf_counter(), sum(one.ru_utime + one.ru_stime for one in both))


def since(start: Cost) -> Cost:
    now = used()
    return Cost(now.wall - start.wall, now.cpu - start.cpu)


def cost(call: Callable[[], object]) -> Cost:
    start = used()
    call()
    return since(start)


_turn: Callable[[], Cost]


def _prepare(way: Way, arguments: tuple[Any, ...]) -> None:
    global _turn  # noqa: PLW0603  (of the process that takes the turns of one way)
    _turn = way(*arguments)


def _take() -> Cost:
    return _turn()


@contextmanager
def _turns(way: Way, arguments: tuple[Any, ...], *, small: bool) -> Iterator[Callable[[], Cost]]:
    if small:
        yield way(*arguments)
        return
    with ProcessPoolExecutor(
        1, get_context("spawn"), initializer=_prepare, initargs=(way, arguments)
    ) as process:
        yield lambda: process.submit(_take).result()


def paired(ours: Way, other: Way, size: Size, *arguments: Any) -> list[tuple[Cost, Cost]]:
    """Costs of the turns of two ways, each in a process of its own: A B A B, the first not counted.

    One way's settings of threads and memory are then not the other's.  The small form, which only
    shows that both work, has one process.
    """
    with (
        _turns(ours, arguments, small=size.small) as first,
        _turns(other, arguments, small=size.small) as second,
    ):
        found = [(first(), second()) for _ in range(size.n_turns + (not size.small))]
    return found if size.small else found[1:]


def times_as_fast(measure: str, turns: Sequence[tuple[Cost, Cost]], goal: float | None) -> Line:
    """How often ours is done while the other way does the same once."""
    wall = Spread.of([other.wall / ours.wall for ours, other in turns])
    cpu = Spread.of([other.cpu / ours.cpu for ours, other in turns])
    medians = [np.median([one.cpu for one in side]) for side in zip(*turns, strict=True)]
    detail = f"{medians[0]:.2f} s of CPU against {medians[1]:.2f} s"
    return Line(measure, "×", wall, cpu, goal, detail=detail)
