"""Sequences that hold in memory what fits, so that memory does not grow with the cohort."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, overload

HELD_BYTES = 64 << 20  # by default, of one sequence

T = TypeVar("T")


class Held(Sequence[T]):
    """Things that are made when they are asked for; the first ones are kept, while there is room.

    An epoch asks for all of them in a new order, so keeping the last ones would keep none in time.

    Parameters
    ----------
    n : int
    make : callable
        ``make(i, kept)`` makes the thing at place ``i``, always the same; ``kept`` says whether
        there is room to keep it, else it will be made again.
    n_bytes_of : callable
        Size of a thing.
    most_bytes : int
        What is kept at most; 0 keeps nothing.
    """

    def __init__(
        self,
        n: int,
        make: Callable[[int, bool], T],
        n_bytes_of: Callable[[T], int],
        most_bytes: int = HELD_BYTES,
    ) -> None:
        self._places = range(n)
        self._make, self._n_bytes_of = make, n_bytes_of
        self.most_bytes = self._room = most_bytes
        self._kept: dict[int, T] = {}

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self[place] for place in self._places[index]]
        place = self._places[index]
        if place not in self._kept:
            made = self._make(place, self._room > 0)
            n_bytes = self._n_bytes_of(made)
            if n_bytes > self._room:
                self._room = 0
                return made
            self._room -= n_bytes
            self._kept[place] = made
        return self._kept[place]
