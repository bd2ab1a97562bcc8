"""Tables of counts from which no small count can be read or computed.

A count of 1 to 4 people, or of recordings of them, is suppressed.  Where it follows from a total
and the other cells, further cells are suppressed, the smallest first, until every suppressed cell
has at least two possible values.  A reader is taken to know that no zero is ever suppressed.

Nothing protects the size of a cohort against that of another day: the difference of two totals is
the number of recordings that came between.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from spira_tasks.contract.verdict import MIN_CELL, is_small
from spira_tasks.reports.facts import Count, Counts

if TYPE_CHECKING:
    import numpy as np

Unit = Literal["subjects", "recordings"]


def count(n: int) -> Count:
    """A number that stands alone, such as that of all subjects; None when it is small."""
    return None if is_small(n) else n


def one_way(by: str, unit: Unit, counts: Mapping[str, int]) -> Counts:
    """A table of one column, with its total."""
    import numpy as np

    numbers = np.array([*counts.values(), sum(counts.values())])[:, None]
    *cells, (total,) = _shown(numbers, hide(numbers))
    return Counts(
        (by,), unit, tuple(counts), (), tuple(cells), row_totals=(), column_totals=(), total=total
    )


def two_way(
    by: tuple[str, str], unit: Unit, counts: Mapping[tuple[str, str], int], *, in_full: bool = False
) -> Counts:
    """A table with the totals of its rows and of its columns.

    Parameters
    ----------
    by : tuple of str
        Dimensions of the rows and of the columns.
    counts : mapping of (str, str) to int
        Row and column to a count; pairs left out are 0.  The order in which rows and columns come
        first is kept.
    in_full : bool
        Whether nothing is suppressed, for counts that follow from published rates anyway.
    """
    import numpy as np

    rows = list(dict.fromkeys(row for row, _ in counts))
    columns = list(dict.fromkeys(column for _, column in counts))
    numbers = np.zeros((len(rows) + 1, len(columns) + 1), dtype=int)
    for (row, column), n in counts.items():
        numbers[rows.index(row), columns.index(column)] = n
    numbers[-1, :] = numbers.sum(axis=0)
    numbers[:, -1] = numbers.sum(axis=1)
    hidden = np.zeros(numbers.shape, dtype=bool) if in_full else hide(numbers)
    *lines, totals = _shown(numbers, hidden)
    return Counts(
        by,
        unit,
        tuple(rows),
        tuple(columns),
        tuple(line[:-1] for line in lines),
        row_totals=tuple(line[-1] for line in lines),
        column_totals=totals[:-1],
        total=totals[-1],
    )


def hide(numbers: np.ndarray) -> np.ndarray:
    """Which numbers of a table are suppressed.

    Parameters
    ----------
    numbers : ndarray of int, (row + 1, column + 1) or (row + 1, 1)
        The last row holds the totals, and so does the last column if there are several.

    Returns
    -------
    ndarray of bool
        Of the same shape.  Totals are looked at first, as tables of their own, so that two tables
        with the same totals hide the same ones; more totals are hidden only where no cell is left.
    """
    hidden = (numbers > 0) & (numbers < MIN_CELL)
    if numbers.shape[1] > 1:
        hidden[:, -1:] |= hide(numbers[:, -1:])
        hidden[-1:, :] |= hide(numbers[-1:, :].T).T
    while (computed := _computed(numbers, hidden)) is not None:
        hidden[_next_to_hide(numbers, hidden, computed)] = True
    return hidden


def _shown(numbers: np.ndarray, hidden: np.ndarray) -> list[tuple[Count, ...]]:
    return [
        tuple(None if is_hidden else int(n) for n, is_hidden in zip(*line, strict=True))
        for line in zip(numbers, hidden, strict=True)
    ]


def _computed(numbers: np.ndarray, hidden: np.ndarray) -> tuple[int, int] | None:
    """The place of a hidden number that the shown ones leave one value, or None.

    The smallest and the largest value that it may have are linear programmes over the sums of rows
    and columns.  Those have whole solutions, so nothing is lost by not asking for whole ones.
    """
    import numpy as np
    from scipy.optimize import linprog

    places = np.argwhere(hidden)
    sums, constants = _equations(numbers, hidden)
    for aim, place in zip(np.eye(len(places)), places, strict=True):
        low, high = (
            # 3 is "unbounded": it may be as large as it likes
            np.inf
            if (found := linprog(aim * sign, A_eq=sums, b_eq=constants, bounds=(1, None))).status
            == 3
            else sign * found.fun
            for sign in (1.0, -1.0)
        )
        if high - low < 0.5:
            return int(place[0]), int(place[1])
    return None


def _equations(numbers: np.ndarray, hidden: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every line sums to its last number: as equations in the hidden numbers."""
    import numpy as np

    unknown = np.full(numbers.shape, -1)
    unknown[hidden] = np.arange(hidden.sum())
    lines: list[Any] = [np.s_[:, column] for column in range(numbers.shape[1])]
    if numbers.shape[1] > 1:
        lines += [np.s_[row, :] for row in range(numbers.shape[0])]
    sums, constants = np.zeros((len(lines), hidden.sum())), np.zeros(len(lines))
    for number, line in enumerate(lines):
        signs = np.ones(len(numbers[line]))
        signs[-1] = -1.0
        is_hidden = hidden[line]
        sums[number, unknown[line][is_hidden]] = signs[is_hidden]
        constants[number] = -(signs * numbers[line])[~is_hidden].sum()
    return sums, constants


def _next_to_hide(
    numbers: np.ndarray, hidden: np.ndarray, computed: tuple[int, int]
) -> tuple[int, int]:
    """The smallest number shown: near the computed one if there is any, a cell before a total.

    There always is one: with all numbers but zeros hidden, each can be any multiple of what it is.
    """
    import numpy as np

    rows, columns = numbers.shape

    def rank(place: tuple[int, int]) -> tuple[bool, bool, int]:
        row, column = place
        is_total = row == rows - 1 or (columns > 1 and column == columns - 1)
        is_near = row == computed[0] or column == computed[1]
        return is_total, not is_near, int(numbers[place])

    shown = np.argwhere(~hidden & (numbers > 0))
    return min(((int(row), int(column)) for row, column in shown), key=rank)
