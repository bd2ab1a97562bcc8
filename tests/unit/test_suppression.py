"""No small number of a table of counts is seen, or can be computed from what is seen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from spira_tasks.contract.verdict import MIN_CELL, Number, Verdict, shown_metrics, suppress
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
    true = truth(numbers)
    assert_nothing_is_computed(shown, true)
    for lines, ends in ((shown, true), (shown.T, true.T)):
        few = (ends[:, -1] > 0) & (ends[:, -1] < MIN_CELL)  # no zero says where they are not
        assert all(n is None for n in lines[few][:, ends[-1] > 0].ravel())


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
    index = np.arange(true.size).reshape(true.shape)
    sums = []
    for line in [*index, *index.T]:
        sums.append(np.zeros(true.size))
        sums[-1][line[:-1]], sums[-1][line[-1]] = 1, -1
    low = np.where(is_shown, true, np.minimum(true, 1)).ravel()
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


def test_the_groups_of_the_only_patient_are_not_named() -> None:
    """Neither by the one cell of patients that is hidden nor by the zeros beside it."""
    ages = {("18-29", "controls"): 12, ("60-74", "patients"): 1, ("60-74", "controls"): 9}
    table = two_way(("age", "label"), "subjects", {("18-29", "patients"): 0, **ages})
    assert table.columns[0] == "patients"
    assert [row[0] for row in table.cells] == [None, None]
    assert [row[1] for row in table.cells] == [None, None]  # 12 of 12 would say the same
    assert table.row_totals == (12, 10)


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
    is_small = 0 < n_small < MIN_CELL
    few = 0 < n < MIN_CELL or is_small
    for name in ("n_unexpected", "people"):
        if is_small:
            assert shown.numbers[name] == Number(None, verdict.numbers[name].unit)
        else:  # nobody is behind a zero, and the sentence needs it
            assert (name in shown.numbers) is (n_small == 0 or not few)
    if n >= n_small > 0 and n:
        assert shown.observed is not None
        assert (shown.observed.value is None) is few
    assert (shown.numbers["rate"] == Number(None, "rate")) is few
    assert few or shown.numbers["versions"].value == n_small


@pytest.mark.parametrize(
    ("metrics", "hidden"),
    [
        ({"n_rows": 80, "n_recordings": 77, "n_quarantined": 3}, {"n_rows", "n_quarantined"}),
        ({"n_rows": 80, "n_recordings": 75, "n_quarantined": 5, "n_warnings": 2}, set()),
        (
            {"n_subjects_test": 20, "n_patients_test": 17, "n_patients_train": 30},  # 3 controls
            {"n_patients_test", "n_patients_train"},
        ),
        (
            {"n_subjects": 21, "n_patients": 4, "n_controls": 17, "auc": 0.9, "brier_score": 0.1},
            {"n_patients", "n_controls", "auc", "brier_score"},
        ),
        ({"n_subjects": 21, "n_patients": 8, "n_controls": 13, "auc": 0.9}, set()),
        ({"n_epochs": 2, "n_train": 30, "train_loss": 0.5}, set()),
    ],
)
def test_the_metrics_of_a_step_hide_a_small_count_and_what_gives_it_away(
    metrics: dict[str, float], hidden: set[str]
) -> None:
    shown = shown_metrics(metrics)
    assert {name for name, value in shown.items() if value is None} == hidden
    assert {name: metrics[name] for name in shown if shown[name] is not None}.items() <= (
        metrics.items()
    )


def test_a_table_in_full_has_every_count() -> None:
    pairs = {("patients", "positive"): 38, ("patients", "negative"): 2}
    table = two_way(("label", "call"), "recordings", pairs, in_full=True)
    assert (table.cells, table.row_totals, table.total) == (((38, 2),), (40,), 40)
