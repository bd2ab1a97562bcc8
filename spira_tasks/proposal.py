"""Suggest thresholds from a cohort, as Python for a person to edit into ``expectations/limits.py``.

A cohort says what is usual in it, never what is right: if half of it has a fault, the fault is
usual.  So nothing reads a proposal but people.

Everything is counted by person, and nothing rests on fewer than ``SMALL`` of them: not a category,
not the end of a range, not a count of empty cells.  Of columns of free text
only the share of filled cells is shown.
"""

from __future__ import annotations

import io
import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

import pandas as pd

from expectations.limits import AUDIO, IMPOSSIBLE
from expectations.personal import holds_personal_data
from spira_tasks.artifacts import Directory, open_source
from spira_tasks.contract.verdict import MIN_CELL as SMALL
from spira_tasks.errors import GateRejected
from spira_tasks.intake import layouts, pseudonyms
from spira_tasks.intake.record_contract import COLUMNS, RAW_IDENTIFIERS, typed
from spira_tasks.progress import progress
from spira_tasks.speech import audio
from spira_tasks.speech.containers import UnusableAudio
from spira_tasks.speech.metrics import wilson_interval
from spira_tasks.speech.probe import Probe, probe

FEWEST = 20  # people for a range: fewer, and its ends would rest on one or two
TAIL = 0.01  # share of people beyond an end, where there are enough of them
# Text that is set up and not written freely; still, only what several people share is shown.
CODES = ("hospital_id", "app", "app_version", "device_model", "os", "cid10")
SIGNED = ("level_dbfs", "dc_offset", "snr_db")  # measures that may be below zero

HEADER = """\
# A PROPOSAL, FOR A PERSON TO EDIT.  Nothing reads this file.
#
# Seen: {n_rows} recordings of {n_people} people ({layout} layout).  Left out: {n_faulty} rows with
# a fault, and trials of the app.  A count of fewer than {small} is shown as <{small}.
#
# Ranges: of the medians of people, between the quantiles beyond which {tail:.0%} of them lie, and
# no fewer than {small} people.  Each end is moved out by (0.1 + 1/sqrt(n)) of the width, for few
# people show less than there is, rounded outwards, and cut where a value is impossible.
# Shares of filled cells: the lower end of the 95 % interval (Wilson); where any cell is empty,
# at least {small} are counted.
#
# Give a line a reason and an owner before it goes into expectations/limits.py.
"""


def propose(place: str, *, audio: bool = False) -> str:
    """Profile the recordings of a folder, or of a prefix in a bucket.

    Parameters
    ----------
    place : str
        As ingest takes it: a path or ``s3://bucket/prefix``, in either layout of
        ``spira_tasks.intake.layouts``.
    audio : bool
        Whether to read the audio files too; takes about 20 ms each.

    Returns
    -------
    str
        Python source with comments; no identifier and no text that people wrote.

    Raises
    ------
    ConfigError
        When the place is not there or holds no table of recordings.
    GateRejected
        When its table cannot be read, or holds fewer than ``SMALL`` people.
    """
    data = open_source(place if place.startswith(("s3://", "folder:")) else f"folder:{place}")
    secret = pseudonyms.key()
    incoming = layouts.read(data, secret)
    rows = incoming.rows[incoming.rows["sample_type"] != "TEST"]
    table, faults = typed(rows, incoming.required)
    people = pseudonyms.subject_ids(rows, secret)
    if incoming.layout == "published":  # a file whose name shows no person counts as one
        people = people.fillna(rows["record_id"])
    faulty = {*faults, *incoming.faults} & {*rows.index} | {*people.index[people.isna()]}
    table = table.drop(index=list(faulty))
    people = people.drop(index=list(faulty))
    n_people = int(people.nunique())
    if n_people < SMALL:
        raise GateRejected(
            f"{place}: fewer than {SMALL} people have rows without a fault; a proposal would "
            "describe each of them. Mend the faults, or use a larger cohort"
        )
    out = io.StringIO()
    header = {"n_rows": len(table), "n_people": n_people, "layout": incoming.layout}
    out.write(HEADER.format(**header, n_faulty=_shown(len(faulty)), small=SMALL, tail=TAIL))
    out.write(_ranges(table, people))
    out.write(_completeness(table, incoming.required))
    out.write(_categories(table, people))
    if audio:
        out.write(_audio(data, table, people))
    return out.getvalue()


def _ranges(table: pd.DataFrame, people: pd.Series) -> str:
    lines = ["\nUNUSUAL = {\n"]
    for name, column in COLUMNS.items():
        if column.kind not in {"whole", "number"} or column.values:
            continue
        impossible = IMPOSSIBLE.get(name)
        floor, ceiling = (impossible.low, impossible.high) if impossible else (None, None)
        found = usual(table[name].dropna().astype("float64"), people, floor, ceiling)
        if isinstance(found, int):
            lines.append(f"    # {name}: {_shown(found)} people, too few for a range\n")
        else:
            low, high, n = found
            lines.append(f'    "{name}": Limit({low:g}, {high:g}, "TODO: why"),  # n = {n}\n')
    return "".join([*lines, "}\n"])


def usual(
    values: pd.Series, people: pd.Series, floor: float | None, ceiling: float | None
) -> tuple[float, float, int] | int:
    """A range in which most people are.

    Parameters
    ----------
    values : Series of float
        Without empty cells; several for a person.
    people : Series of str
        The person of each row; its index holds that of ``values``.
    floor, ceiling : float or None
        What is impossible beyond.

    Returns
    -------
    (low, high, n) or n
        The range and the number of people it rests on; that number alone where it is too small.
    """
    one_each = values.groupby(people.reindex(values.index)).median()
    n = len(one_each)
    if n < FEWEST:
        return n
    tail = max(TAIL, SMALL / n)
    # order statistics with at least SMALL people on their far side, themselves included
    low = float(one_each.quantile(tail, interpolation="higher"))
    high = float(one_each.quantile(1 - tail, interpolation="lower"))
    margin = (0.1 + 1 / math.sqrt(n)) * (high - low)
    step = 10 ** math.floor(math.log10(max(high - low, abs(high), 1e-6))) / 10
    low = round(math.floor((low - margin) / step) * step, 10)
    high = round(math.ceil((high + margin) / step) * step, 10)
    return (
        max(low, -math.inf if floor is None else floor),
        min(high, math.inf if ceiling is None else ceiling),
        n,
    )


def _completeness(table: pd.DataFrame, required: tuple[str, ...]) -> str:
    lines = ["\nCOMPLETE_FRACTION = {\n"]
    for name in COLUMNS:
        n_filled = int(table[name].notna().sum())
        if name in {*required, *RAW_IDENTIFIERS} or n_filled < SMALL:
            continue
        lines.append(f'    "{name}": {filled_share(len(table), len(table) - n_filled):.2f},\n')
    return "".join([*lines, f"}}  # n = {len(table)} recordings\n"])


def filled_share(n: int, n_empty: int) -> float:
    """The lower end of the 95 % interval of the share of filled cells (Wilson), rounded down."""
    n_empty = max(n_empty, SMALL) if n_empty else 0
    low, _ = wilson_interval(1 - min(n_empty, n) / n, n)
    return math.floor(100 * low) / 100


def _categories(table: pd.DataFrame, people: pd.Series) -> str:
    lines = ["\nCATEGORIES = {  # seen in at least a few people, the most frequent first\n"]
    for name, column in COLUMNS.items():
        if not column.values and column.kind != "flag" and name not in CODES:
            continue
        values = table[name].dropna()
        n_people = people.reindex(values.index).groupby(values).nunique()
        n_people = n_people.sort_values(ascending=False, kind="stable")
        listed = [
            value.item() if hasattr(value, "item") else value
            for value, n in n_people.items()
            if n >= SMALL and not holds_personal_data(str(value))
        ]
        if len(n_people):
            rest = len(n_people) - len(listed)
            hidden = f"  # others left out: {rest}" if rest else ""
            lines.append(f'    "{name}": {listed!r},{hidden}\n')
    return "".join([*lines, "}\n"])


def _audio(data: Directory, table: pd.DataFrame, people: pd.Series) -> str:
    """Ranges of what is measured on the files, by task."""
    measures = sorted({limit.column for limit in AUDIO})
    names = {str(PurePosixPath(name)): name for name in data.names}
    files = table["audio_uri"].map(lambda path: names.get(str(PurePosixPath(path)))).dropna()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = progress(pool.map(lambda name: _measured(data, name), files), "audio", len(files))
        heard = pd.DataFrame(
            [[getattr(probe, name, None) for name in measures] for probe in done],
            index=files.index,
            columns=measures,
            dtype="float64",
        )
    lines = ["\nAUDIO = (  # the typical range alone: what is useless, a cohort cannot say\n"]
    for task, of_task in heard.groupby(table["task"].reindex(heard.index)):
        for name in measures:
            floor = None if name in SIGNED else 0.0
            ceiling = 1.0 if name.endswith("_fraction") else None
            found = usual(of_task[name].dropna(), people, floor, ceiling)
            if isinstance(found, int):
                lines.append(f"    # {name} of {task}: {_shown(found)} people, too few\n")
            else:
                low, high, _ = found
                lines.append(
                    f'    AudioLimit("{name}", (None, None), ({low:g}, {high:g}), ("{task}",), '
                    f'"TODO: why"),\n'
                )
    return "".join([*lines, ")\n"])


def _measured(data: Directory, name: str) -> Probe | None:
    """The measures of a file; None of one that cannot be used."""
    try:
        sound = audio.decode(data.read(name), max_seconds=300)
        return probe(sound, audio.to_pcm16(sound))
    except UnusableAudio:
        return None


def _shown(n: int) -> str:
    return str(n) if n >= SMALL or n == 0 else f"<{SMALL}"
