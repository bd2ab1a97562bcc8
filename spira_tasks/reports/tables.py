"""From tables of recordings to tables of counts: categories instead of values.

Only the columns in ``COLUMNS`` are read.  Names that people chose, of sites and devices, are
replaced before anything is counted; ages become bands.

A count of 1 to 4 people, or of recordings of them, is suppressed.  Where it follows from a total
and the other cells, further cells are suppressed, the smallest first, until every suppressed cell
has at least two possible values; a reader is taken to know which zeros are suppressed.  Zeros of
people are suppressed in a line of 1 to 4 people, or the other cells would name the group of each of
them.  Two reports of different days are not protected against each other: totals differ by what
came between.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from spira_tasks.contract.verdict import MIN_CELL, is_small
from spira_tasks.intake.record_contract import COLUMNS as CONTRACT
from spira_tasks.reports.facts import (
    Count,
    Counts,
    Dataset,
    Interval,
    Quarantine,
    SignalQuality,
    Slice,
    Unit,
)

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

OTHER, MISSING = "other", "missing"
BANDS = ("<18", "18-29", "30-44", "45-59", "60-74", "75+")
AGES = (-1000, 18, 30, 45, 60, 75, 1000)  # the bands' edges
# What is measured of a recording, and to what it is rounded.
MEASURES = {
    "snr_db": 1.0,
    "level_dbfs": 1.0,
    "bandwidth_hz": 100.0,
    "speech_fraction": 0.05,
    "duration_seconds": 1.0,
}
COLUMNS = (
    *("subject_id", "hospital_id", "task", "sex", "age", "device_model", "label", "split"),
    "x_synthetic",
    *MEASURES,
)
MIN_SLICE = 10  # people that a rate of a group rests on: with fewer its interval says nothing
# Of subjects: dimensions of the rows and, of some tables, of the columns.
COMPOSITION: tuple[tuple[str, ...], ...] = (
    *((by,) for by in ("label", "sex", "age", "site", "device")),
    *((by, "label") for by in ("sex", "age", "site")),
)


def site_names(
    table: pd.DataFrame | None, quarantine: Mapping[str, pd.DataFrame], configured: Iterable[str]
) -> dict[str, str]:
    """What each site is called in the reports; the same in all tables of a run.

    Numbers are those of the gates (``evaluation.slices.numbered``), which know the table alone and
    no configured name; sites that only quarantine has follow.
    """
    import pandas as pd

    parts = [*([] if table is None else [table]), *quarantine.values()]
    if not parts:
        return {}
    columns = [part["hospital_id"] for part in parts]
    return _names([*([] if table is None else columns[:1]), pd.concat(columns)], configured)


def with_categories(table: pd.DataFrame, sites: Mapping[str, str]) -> pd.DataFrame:
    """One row a recording, and nothing in it but categories and measures of the sound."""
    import pandas as pd

    devices = _names([table["device_model"]], ())
    label = table["label"].map({0: "controls", 1: "patients"})
    age = pd.cut(table["age"].astype("float64"), AGES, right=False, labels=BANDS)
    return pd.DataFrame(
        {
            "subject": table["subject_id"],
            "site": _replaced(table["hospital_id"], sites),
            "device": _replaced(table["device_model"], devices),
            "task": _known(table["task"], CONTRACT["task"].values),
            "sex": _known(table["sex"], CONTRACT["sex"].values),
            "age": _known(age.astype("str"), BANDS),
            "label": label.fillna(MISSING),
            "split": _known(table["split"], ("train", "validation", "test")),
            "is_synthetic": table["x_synthetic"].eq("true"),
            **{name: table[name] for name in MEASURES},
        }
    )


def by_task(counts: Mapping[str, int]) -> Counts:
    known = {task: n for task, n in counts.items() if task in CONTRACT["task"].values}
    return one_way("task", "recordings", known)


def composition(table: pd.DataFrame | None) -> tuple[Counts, ...]:
    """Tables of people, each counted by the first recording; none of so few that rows name them."""
    if table is None:
        return ()
    people = table.drop_duplicates("subject")
    if len(people) < MIN_CELL:
        return ()
    return tuple(_tabulated(people, by, "subjects") for by in COMPOSITION)


def dataset(table: pd.DataFrame | None, digest: str) -> Dataset | None:
    """The training set; None where the run stopped before it, or where it is gone."""
    if table is None or not digest:
        return None
    people = table.drop_duplicates("subject")
    return Dataset(
        digest=digest,
        n_recordings=count(len(table)),
        n_subjects=count(len(people)),
        by_split=_tabulated(people, ("split", "label"), "subjects"),
    )


def quarantine(refused: Mapping[str, pd.DataFrame], sites: Mapping[str, str]) -> Quarantine | None:
    """What ingest and the gates refused; None where no step left a table of it."""
    import pandas as pd

    if not refused:
        return None
    n_by_step = {step: count(len(table)) for step, table in refused.items()}
    table = pd.concat(refused.values(), ignore_index=True)
    if table.empty:
        return Quarantine(n_by_step)
    code = table["reason"].astype("str").str.fullmatch(r"[\w(), .:+-]{1,200}")
    reasons = table["reason"].where(code, OTHER)
    counted = pd.DataFrame({"reason": reasons, "site": _replaced(table["hospital_id"], sites)})
    return Quarantine(
        n_by_step,
        by_reason=one_way("reason", "recordings", reasons.value_counts().to_dict()),
        by_site=_tabulated(counted, ("site",), "recordings"),
        by_site_and_reason=_tabulated(counted, ("site", "reason"), "recordings"),
    )


def signal_quality(table: pd.DataFrame | None) -> Iterator[SignalQuality]:
    """Quartiles of what was measured of the voices, by device."""
    if table is None:
        return
    voices = table[table["task"] != "AMBIENT"]
    groups = dict(iter(voices.groupby("device")))
    devices = sorted(groups, key=_order)
    n_people = {device: groups[device]["subject"].nunique() for device in devices}
    n_voices = {device: len(groups[device]) for device in devices}
    people = one_way("device", "subjects", n_people).cells  # no total gives a hidden one away
    recordings = one_way("device", "recordings", n_voices).cells
    for measure, unit in MEASURES.items():
        for device, (n_subjects,), (n_recordings,) in zip(devices, people, recordings, strict=True):
            values = groups[device][measure].dropna()
            quartiles: list[float | None] = [None, None, None]
            if n_people[device] >= MIN_CELL and len(values) >= MIN_CELL:
                quartiles = [
                    round(round(float(value) / unit) * unit, 2)
                    for value in values.quantile([0.25, 0.5, 0.75])
                ]
            yield SignalQuality(measure, device, n_subjects, n_recordings, *quartiles)


def slices(
    table: pd.DataFrame | None, predictions: pd.DataFrame | None, operating_point: float
) -> Iterator[Slice]:
    """Sensitivity and specificity on groups of the test subjects, one score a person."""
    if table is None or predictions is None:
        return
    test = predictions[predictions["split"] == "test"]
    scores = test.groupby("subject_id")[["label", "clean"]].mean()
    people = table.drop_duplicates("subject").set_index("subject")
    people = people.join(scores.rename(columns={"label": "is_patient"}), how="inner")
    is_right = (people["clean"] >= operating_point) == (people["is_patient"] == 1)
    for by in ("sex", "age", "site", "device"):
        counts = _tabulated(people, (by, "label"), "subjects")
        n_right = is_right.groupby([people[by], people["label"]]).sum()
        for group, numbers in zip(counts.rows, counts.cells, strict=True):
            cells = dict(zip(counts.columns, numbers, strict=True))
            n_patients, n_controls = (cells.get(name, 0) for name in ("patients", "controls"))
            sensitivity, specificity = (
                _rate(int(n_right.get((group, name), 0)), n)
                for name, n in (("patients", n_patients), ("controls", n_controls))
            )
            yield Slice(by, group, n_patients, n_controls, sensitivity, specificity)


def _rate(n_right: int, n: Count) -> Interval | None:
    """The share that is right, with Wilson's interval; None of too few people."""
    from spira_tasks.speech.metrics import wilson_interval

    if n is None or n < MIN_SLICE:
        return None
    return Interval(n_right / n, *wilson_interval(n_right / n, n))


def _names(columns: Iterable[pd.Series], configured: Iterable[str]) -> dict[str, str]:
    """Configured names as they are, with their number, frequent ones by number, the rest as other.

    The frequent names of the first column are numbered first.
    """
    frequent: dict[str, None] = {}
    for column in columns:
        counts = column.dropna().value_counts()
        frequent |= dict.fromkeys(sorted(name for name, n in counts.items() if n >= MIN_CELL))
    numbered = {name: f"#{number}" for number, name in enumerate(frequent, start=1)}
    own = {name: f"{name} ({numbered[name]})" if name in numbered else name for name in configured}
    return numbered | own


def _replaced(column: pd.Series, names: Mapping[str, str]) -> pd.Series:
    replaced = column.map(lambda name: names.get(name, OTHER), na_action="ignore")
    return replaced.astype("object").fillna(MISSING)


def _known(column: pd.Series, values: Sequence[str]) -> pd.Series:
    return column.where(column.isin(values), MISSING).astype("str")


def _tabulated(table: pd.DataFrame, by: tuple[str, ...], unit: Unit) -> Counts:
    """Count the rows by one column or two, zeros too, with the categories in their order."""
    counts: Mapping[Any, int] = table[[*by]].value_counts().to_dict()
    rows, *columns = (sorted(table[name].unique(), key=_order) for name in by)
    if not columns:
        return one_way(by[0], unit, {row: counts[row,] for row in rows})
    pairs = ((row, column) for row in rows for column in columns[0])
    return two_way((by[0], by[1]), unit, {pair: counts.get(pair, 0) for pair in pairs})


def _order(name: str) -> tuple[Any, ...]:
    """Bands and splits in their own order, then names, numbers as numbers; leftovers last."""
    fixed = (*BANDS, "train", "validation", "test", "patients", "controls")
    place = fixed.index(name) if name in fixed else len(fixed)
    number = int(name[1:]) if name.startswith("#") and name[1:].isdecimal() else 0
    return name in (OTHER, MISSING), place, number, name


def count(n: int) -> Count:
    """A number that stands alone, such as that of all subjects; None when it is small."""
    return None if is_small(n) else n


def one_way(by: str, unit: Unit, counts: Mapping[str, int]) -> Counts:
    """A table of one column, with its total."""
    import numpy as np

    numbers = np.array([*counts.values(), sum(counts.values())])[:, None]
    *cells, (total,) = _shown(numbers, hide(numbers))
    return Counts((by,), unit, tuple(counts), (), tuple(cells), (), (), total)


def two_way(
    by: tuple[str, str], unit: Unit, counts: Mapping[tuple[str, str], int], *, in_full: bool = False
) -> Counts:
    """A table with the totals of its rows and of its columns.

    ``counts`` are by row and column, in the order that is shown; absent pairs are 0.  ``in_full``
    suppresses nothing, for counts that follow from published rates anyway.
    """
    import numpy as np

    rows = tuple(dict.fromkeys(row for row, _ in counts))
    columns = tuple(dict.fromkeys(column for _, column in counts))
    numbers = np.zeros((len(rows) + 1, len(columns) + 1), dtype=int)
    numbers[:-1, :-1] = [[counts.get((row, column), 0) for column in columns] for row in rows]
    numbers[-1, :] = numbers.sum(axis=0)
    numbers[:, -1] = numbers.sum(axis=1)
    people = unit == "subjects"
    hidden = np.zeros(numbers.shape, dtype=bool) if in_full else hide(numbers, zeros=people)
    *lines, totals = _shown(numbers, hidden)
    cells = tuple(line[:-1] for line in lines)
    row_totals = tuple(line[-1] for line in lines)
    return Counts(by, unit, rows, columns, cells, row_totals, totals[:-1], totals[-1])


def hide(numbers: np.ndarray, *, zeros: bool = False) -> np.ndarray:
    """Which numbers of a table are suppressed.

    Parameters
    ----------
    numbers : ndarray of int, (row + 1, column + 1) or (row + 1, 1)
        The last row holds the totals, and so does the last column if there are several.
    zeros : bool
        Whether zeros are suppressed too where their row or column has a total of 1 to 4.

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
        if zeros:
            rows, columns = numbers[:, -1:], numbers[-1:, :]
            small = [(totals > 0) & (totals < MIN_CELL) for totals in (rows, columns)]
            hidden |= (small[0] & (columns > 0)) | (small[1] & (rows > 0))
    while (computed := _computed(numbers, hidden)) is not None:
        hidden[_next_to_hide(numbers, hidden, computed)] = True
    return hidden


def _shown(numbers: np.ndarray, hidden: np.ndarray) -> list[tuple[Count, ...]]:
    return [
        tuple(None if is_hidden else int(n) for n, is_hidden in zip(*line, strict=True))
        for line in zip(numbers, hidden, strict=True)
    ]


def _computed(numbers: np.ndarray, hidden: np.ndarray) -> tuple[int, int] | None:
    """The place of a hidden number that follows from the shown ones, or None.

    Its smallest and largest value are linear programmes over the sums of rows and columns; these
    have whole solutions without asking for them.
    """
    import numpy as np
    from scipy.optimize import linprog

    places = np.argwhere(hidden)
    sums, constants = _equations(numbers, hidden)
    bounds = [(min(1, int(numbers[*place])), None) for place in places]
    for aim, place in zip(np.eye(len(places)), places, strict=True):
        low, high = (
            linprog(aim * sign, A_eq=sums, b_eq=constants, bounds=bounds) for sign in (1, -1)
        )
        is_bounded = high.status != 3
        if is_bounded and -high.fun - low.fun < 0.5:
            return int(place[0]), int(place[1])
    return None


def _equations(numbers: np.ndarray, hidden: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every line sums to its last number: as equations in the hidden numbers."""
    import numpy as np

    signs = [np.append(np.ones(n - 1), -1.0) for n in numbers.shape]
    factors = np.einsum("r,cl->rcl", signs[0], np.eye(numbers.shape[1]))  # (row, column, line)
    if numbers.shape[1] > 1:
        of_rows = np.einsum("c,rl->rcl", signs[1], np.eye(numbers.shape[0]))
        factors = np.concatenate([factors, of_rows], axis=2)
    return factors[hidden].T, -numbers[~hidden] @ factors[~hidden]


def _next_to_hide(
    numbers: np.ndarray, hidden: np.ndarray, computed: tuple[int, int]
) -> tuple[int, int]:
    """The smallest number shown; cells come before totals, and those near the computed one first.

    There always is one: with all numbers but zeros hidden, none follows from the others.
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
