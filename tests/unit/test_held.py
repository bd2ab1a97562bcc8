"""Memory does not grow with what a sequence holds."""

from __future__ import annotations

import pytest

from spira_tasks.speech.held import Held


def make_log(n: int, most_bytes: int) -> tuple[Held[bytes], list[tuple[int, bool]]]:
    made: list[tuple[int, bool]] = []

    def make(index: int, is_kept: bool) -> bytes:
        made.append((index, is_kept))
        return bytes([index]) * 10

    return Held(n, make, len, most_bytes), made


def test_what_fits_is_made_once_and_the_rest_each_time() -> None:
    held, made = make_log(5, most_bytes=25)
    order = [3, 0, 4, 1, 2]
    for _ in range(2):
        assert [held[place] for place in order] == [bytes([place]) * 10 for place in order]
    first = [(3, True), (0, True), (4, True), (1, False), (2, False)]
    assert made == [*first, (4, False), (1, False), (2, False)]


def test_nothing_is_kept_without_room() -> None:
    held, made = make_log(2, most_bytes=0)
    assert [*held, *held] == [b"\0" * 10, b"\1" * 10] * 2
    assert len(made) == 4


def test_it_is_a_sequence() -> None:
    held, _ = make_log(4, most_bytes=1000)
    assert len(held) == 4
    assert held[-1] == b"\3" * 10
    assert held[1:3] == [b"\1" * 10, b"\2" * 10]
    with pytest.raises(IndexError):
        held[4]
