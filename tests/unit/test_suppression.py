"""No small number of a table of counts is seen, or can be computed from what is seen."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from spira_tasks.contract.verdict import MIN_CELL, Number, Verdict, suppress
from spira_tasks.reports.tables import one_way, two_way


@given(st.lists(st.lists(st.integers(0, 12), min_size=3, max_size=3), min_size=1, max_size=4))
@settings(deadline=None, max_examples=60)
def test_no_hidden_number_of_a_table_can_be_computed(numbers: list[list[int]]) -> None:
    pairs = {(f"r{i}", f"c{j}"): n for i, row in enumerate(numbers) for j, n in enumerate(row)}
    table = two_way(("site", "label"), "subjects", pairs)
    shown = np.array(
        [[*cells, total] for cells, total in zip(table.cells, table.row_totals, strict=True)]
        + [[*table.column_totals, table.total]],
        dtype=object,
    )
    assert_nothing_is_computed(shown, truth(numbers))


@given(st.lists(st.integers(0, 12), min_size=1, max_size=6))
@settings(deadline=None, max_examples=60)
def test_no_hidden_number_of_a_list_can_be_computed(numbers: list[int]) -> None:
    table = one_way("site", "subjects", {f"r{i}": n for i, n in enumerate(numbers)})
    column = [*(cell for (cell,) in table.cells), table.total]
    shown = np.array([[n, n] for n in column], dtype=object)
    assert_nothing_is_computed(shown, truth([[n] for n in numbers]))


def truth(numbers: list[list[int]]) -> np.ndarray:
    cells = np.array(numbers)
    cells = np.concatenate([cells, cells.sum(axis=0, keepdims=True)])
    return np.concatenate([cells, cells.sum(axis=1, keepdims=True)], axis=1)


def assert_nothing_is_computed(shown: np.ndarray, true: np.ndarray) -> None:
    """Every hidden number can be two whole numbers or more; what is shown is true and not small."""
    is_shown = np.array([[n is not None for n in row] for row in shown])
    assert (shown[is_shown] == true[is_shown]).all()
    assert not ((true > 0) & (true < MIN_CELL) & is_shown).any()
    assert is_shown[true == 0].all()
    index = np.arange(true.size).reshape(true.shape)
    sums = []
    for line in [*index, *index.T]:
        sums.append(np.zeros(true.size))
        sums[-1][line[:-1]], sums[-1][line[-1]] = 1, -1
    low = np.where(is_shown, true, 1).ravel()
    high = np.where(is_shown, true, 1000).ravel()
    for place in index[~is_shown]:
        aim = np.zeros(true.size)
        aim[place] = 1
        ends = [
            milp(
                sign * aim,
                constraints=LinearConstraint(np.array(sums), 0, 0),
                integrality=np.ones(true.size),
                bounds=Bounds(low, high),
            ).x[place]
            for sign in (1, -1)
        ]
        assert round(ends[0]) < round(ends[1]), (shown, np.unravel_index(place, true.shape))


def test_one_small_cell_hides_the_next_smallest_of_its_line() -> None:
    table = one_way("site", "subjects", {"a": 3, "b": 20, "c": 50})
    assert table.cells == ((None,), (None,), (50,))
    assert table.total == 73


def test_two_ones_under_a_known_total_hide_a_third_number() -> None:
    """2 = 1 + 1 has one solution."""
    assert one_way("site", "subjects", {"a": 1, "b": 1, "c": 50}).cells == ((None,),) * 3


@given(st.integers(0, 8), st.integers(0, 40))
def test_no_number_of_a_verdict_reveals_a_small_count(n_small: int, n: int) -> None:
    verdict = Verdict(
        "v", "warn", observed=Number(n_small / n if n else 0.0, "share"), n=n,
        numbers={
            "n_unexpected": Number(n_small, "rows"), "people": Number(n_small, "people"),
            "versions": Number(n_small, "items"), "rate": Number(0.5, "rate", 0.4, 0.6),
        },
    )  # fmt: skip
    shown = suppress(verdict)
    assert suppress(shown) == shown
    few = 0 < n < MIN_CELL
    for name in ("n_unexpected", "people"):
        assert (shown.numbers[name].value is None) is (0 < n_small < MIN_CELL)
        assert shown.numbers[name].unit == verdict.numbers[name].unit
    if n >= n_small > 0 and n:
        assert shown.observed is not None
        assert (shown.observed.value is None) is (few or n_small < MIN_CELL)
    assert (shown.numbers["rate"] == Number(None, "rate")) is few
    assert few or shown.numbers["versions"].value == n_small


def test_a_table_in_full_has_every_count() -> None:
    pairs = {("patients", "positive"): 38, ("patients", "negative"): 2}
    table = two_way(("label", "call"), "recordings", pairs, in_full=True)
    assert (table.cells, table.row_totals, table.total) == (((38, 2),), (40,), 40)
