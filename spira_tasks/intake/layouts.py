"""The two layouts in which recordings come, read into one table of text.

* canonical: ``recordings.csv`` or ``recordings.parquet`` with the columns of ``record_contract``,
  and optionally ``ward_noise.csv``;
* published: the released SPIRA data sets, ``metadata_{train,eval,test}.csv`` with
  ``file_path,class[,sexo,idade,nivel_falta_de_ar]``, and optionally ``noise_data.csv``.

Messages quote the names of columns, and only when a header is surely there: in a file without one
the "names" are the first patient's values.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, TextIO

import pandas as pd

from spira_tasks.errors import ConfigError, GateRejected
from spira_tasks.intake.pseudonyms import pseudonym
from spira_tasks.intake.record_contract import COLUMNS, EXTRA, REQUIRED, Faults, is_extra

if TYPE_CHECKING:
    from spira_tasks.artifacts import Directory

CANONICAL = ("recordings.csv", "recordings.parquet")
PUBLISHED = {  # file to the split that its rows were given
    "metadata_train.csv": "train",
    "metadata_eval.csv": "validation",
    "metadata_test.csv": "test",
}
PUBLISHED_COLUMNS = {
    "file_path": "audio_uri",
    "class": "ri_clinical",
    "sexo": "sex",
    "idade": "age",
    "nivel_falta_de_ar": "x_nivel_falta_de_ar",
}
PUBLISHED_REQUIRED = ("record_id", "task", "audio_uri", "ri_clinical")
NOISE_COLUMNS = ("file_path", "hospital_id", "x_pool")
MAX_COLUMNS = 500  # of a table; the contract has some fifty
MAX_LINE = 1 << 20  # characters
MAX_CELL = 4096  # characters; the search for personal data takes minutes for a cell of 200,000
# The web form of 2020 named the files of one person <cookie>_<number>.wav.
COOKIE = re.compile(r"([0-9a-f-]{16,36})_\d+")


@dataclass(frozen=True)
class Incoming:
    """What a folder of recordings says, nothing interpreted yet."""

    layout: Literal["canonical", "published"]
    # Text, missing cells as NaN; index: number of the row, from 1.  Columns of the contract and
    # ``x_`` ones; published: also ``split_given``, and ``subject_id`` where the name tells it.
    rows: pd.DataFrame
    faults: Faults  # of lines that could not even be cut into cells
    required: tuple[str, ...]  # columns that must have a value in this layout
    called: dict[str, str]  # column of the contract to its name in this layout, where it differs
    ward_noise: pd.DataFrame  # text; ``file_path`` and, where given, ``x_pool``, ``hospital_id``
    ward_noise_faults: Faults


def read(data: Directory, secret: bytes) -> Incoming:
    """Read the tables of a folder of recordings.

    Parameters
    ----------
    data : Directory
    secret : bytes
        Key of the pseudonyms: published file names become record ids by it.

    Raises
    ------
    ConfigError
        When neither layout is there, or more than one table is.
    GateRejected
        When a table is not one: wrong encoding, separator or columns.
    """
    tables = tables_of(data)
    if tables[0] in CANONICAL:
        return _without_long_cells(_read_canonical(data, tables[0]))
    return _without_long_cells(_read_published(data, tables, secret))


def tables_of(data: Directory) -> list[str]:
    """Names of the tables of recordings in a folder, all of one layout; raises as ``read``."""
    canonical = [name for name in CANONICAL if name in data.names]
    published = [name for name in PUBLISHED if name in data.names]
    if len(canonical) > 1 or (canonical and published):
        raise ConfigError(
            f"the folder holds {', '.join(canonical + published)}: it is not clear which one "
            "counts; leave one layout there"
        )
    if canonical or published:
        return canonical or published
    raise ConfigError(
        f"none of the folder's {len(data.names)} files is a table of recordings. Looked, at its "
        f"top, for {' or '.join(CANONICAL)} (canonical layout) and for {', '.join(PUBLISHED)} "
        "(published SPIRA layout); point the data to the folder that holds one"
    )


def _without_long_cells(incoming: Incoming) -> Incoming:
    """The same with long cells emptied and their rows at fault."""
    for name, cells in incoming.rows.items():
        long = cells.index[cells.str.len() > MAX_CELL]
        incoming.rows.loc[long, name] = None
        fault = ("bad_value", f"{name}: more than {MAX_CELL} characters")
        incoming.faults.update(dict.fromkeys(long, fault))
    return incoming


def _read_canonical(data: Directory, name: str) -> Incoming:
    faults: Faults = {}
    if name.endswith(".parquet"):
        rows = _read_parquet(data.path(name), name)
    else:
        rows, faults = read_table(data.path(name), name, REQUIRED, COLUMNS)
    if not {"patient_pid", "patient_rgh"} & set(rows):
        raise GateRejected(f"{name} has neither patient_pid nor patient_rgh: add one of them")
    for column in {"sha256", "patient_pid", "collector_pid"} & set(rows):
        rows[column] = rows[column].str.lower()  # some programs write hexadecimal in capitals
    noise = _read_noise(data, "ward_noise.csv")
    return Incoming("canonical", rows, faults, REQUIRED, {}, *noise)


def _read_published(data: Directory, names: Sequence[str], secret: bytes) -> Incoming:
    """Every row of all three tables; what they do not say stays missing."""
    parts: list[pd.DataFrame] = []
    faults: Faults = {}
    n_before = 0
    for name in names:
        cells, lines = _read_csv(data.path(name), name)
        header = _header(name, cells, ("file_path", "class"), PUBLISHED_COLUMNS)
        part, wrong = _table(header, lines, first=1 + n_before)
        parts.append(part.rename(columns=PUBLISHED_COLUMNS).assign(split_given=PUBLISHED[name]))
        faults |= wrong
        n_before += len(part)
    rows = pd.concat(parts)
    path = rows["audio_uri"]
    records = path.map(lambda text: pseudonym(secret, "record", text)[:16], na_action="ignore")
    people = path.map(lambda text: _person(secret, text), na_action="ignore")
    rows["record_id"] = "spira-" + records.astype("str")  # text also where no row has a path
    rows["subject_id"] = people.astype("str")
    rows["task"] = "SENTENCE"
    if "sex" in rows:
        rows["sex"] = rows["sex"].str.upper()
    given = pd.to_numeric(rows["ri_clinical"], errors="coerce")
    rows["sample_type"] = given.map({1.0: "PATIENT", 0.0: "CONTROL"}).astype("str")
    called = {ours: theirs for theirs, ours in PUBLISHED_COLUMNS.items()}
    noise = _read_noise(data, "noise_data.csv", needs_header=False)
    return Incoming("published", rows, faults, PUBLISHED_REQUIRED, called, *noise)


def _person(secret: bytes, path: str) -> str | None:
    cookie = COOKIE.fullmatch(PurePosixPath(path).stem)
    return pseudonym(secret, "cookie", cookie[1]) if cookie else None


def _read_noise(
    data: Directory, name: str, *, needs_header: bool = True
) -> tuple[pd.DataFrame, Faults]:
    """The list of ward noises; where it needs no header, its first line is never lost."""
    if name not in data.names:
        return pd.DataFrame({"file_path": []}, dtype="str"), {}
    cells, lines = _read_csv(data.path(name), name)
    if needs_header or "file_path" in map(str.lower, cells):
        return _table(_header(name, cells, ("file_path",), NOISE_COLUMNS), lines)
    return _table(["file_path"], [[line[0]] for line in [cells, *lines]])


def read_table(
    path: Path, name: str, required: Sequence[str], known: Sequence[str] | dict[str, Any]
) -> tuple[pd.DataFrame, Faults]:
    """A CSV file as rows of text, numbered from 1, and the faults of lines that do not fit.

    Parameters
    ----------
    path : Path
    name : str
        For messages.
    required : sequence of str
        Columns that have to be there.
    known : sequence of str, or mapping by str
        Columns that may be there, beside those that begin with ``x_``.

    Raises
    ------
    GateRejected
        When the file is no such table.
    """
    cells, lines = _read_csv(path, name)
    return _table(_header(name, cells, required, known), lines)


def _read_csv(path: Path, name: str) -> tuple[list[str], list[list[str]]]:
    """First line, and the others, of a comma-separated file; empty ones are left out."""

    def limited(file: TextIO) -> Iterator[str]:
        while text := file.readline(MAX_LINE):
            if len(text) == MAX_LINE:
                raise GateRejected(
                    f"{name} has a line of more than {MAX_LINE} characters; check its line ends"
                )
            yield text

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(limited(file), strict=True)
            filled = (line for line in reader if any(cell.strip() for cell in line))
            header = [cell.strip() for cell in next(filled, [])]
            _check_width(name, len(header))
            lines = [*filled]
    except UnicodeDecodeError:
        raise GateRejected(f"{name} is not UTF-8; save it again as CSV UTF-8") from None
    except csv.Error as error:
        raise GateRejected(f"{name} is not CSV ({error}); check its quotation marks") from None
    if not header:
        raise GateRejected(f"{name} is empty: there is not even a header")
    if len(header) == 1 and ";" in header[0]:
        raise GateRejected(
            f"{name} is separated by semicolons; the contract asks for commas between cells and "
            "dots in decimal numbers"
        )
    return header, lines


def _check_width(name: str, n_columns: int) -> None:
    if n_columns > MAX_COLUMNS:
        raise GateRejected(
            f"{name} has {n_columns} columns; at most {MAX_COLUMNS} are read. Remove what the "
            "contract does not know"
        )


def _read_parquet(path: Path, name: str) -> pd.DataFrame:
    """A typed table as text, so that both kinds of file meet the same checks."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            stored = file.schema_arrow.names
            names = [column for column in stored if not column.startswith("__index_level_")]
            _check_width(name, len(names))
            header = _header(name, names, REQUIRED, COLUMNS)
            # what pandas noted of the table does not matter, and may be damaged
            frame = file.read(columns=names).replace_schema_metadata().to_pandas()
    except (pa.ArrowException, OSError) as error:
        raise GateRejected(
            f"{name} cannot be read as Parquet ({type(error).__name__}); write it again"
        ) from None
    rows = frame.set_axis(header, axis="columns").apply(
        lambda column: _clean(column.astype("object").map(str, na_action="ignore"))
    )
    rows = rows.dropna(how="all")
    return rows.set_axis(pd.RangeIndex(1, len(rows) + 1), axis="index")


def _table(
    header: list[str], lines: list[list[str]], first: int = 1
) -> tuple[pd.DataFrame, Faults]:
    """Lines as rows numbered from ``first``; a line that does not fit the header is left empty.

    A column without a name is left out: spreadsheets write empty ones.
    """
    faults: Faults = {}
    unnamed = [place for place, column in enumerate(header) if not column]
    for number, line in enumerate(lines, start=first):
        if len(line) != len(header):
            detail = f"{len(line)} cells under {len(header)} names; an unquoted comma?"
            faults[number] = ("wrong_number_of_cells", detail)
        elif any(line[place].strip() for place in unnamed):
            faults[number] = ("wrong_number_of_cells", "a value in a column without a name")
    rows = [[""] * len(header) if first + i in faults else line for i, line in enumerate(lines)]
    index = pd.RangeIndex(first, first + len(lines))
    table = pd.DataFrame(rows, columns=header, index=index, dtype="str")
    return table.loc[:, [bool(column) for column in header]].apply(_clean), faults


def _clean(column: pd.Series) -> pd.Series:
    """Text without surrounding blanks; empty cells as NaN."""
    text = column.astype("str").str.strip()
    return text.where(text != "")


def _header(
    name: str, cells: Sequence[str], required: Sequence[str], known: Sequence[str] | dict[str, Any]
) -> list[str]:
    """The names of columns in small letters; a name that nobody knows may be a patient's value."""
    header = [cell.strip().lower() for cell in cells]
    missing = [column for column in required if column not in header]
    if len(missing) * 2 > len(required):
        raise GateRejected(
            f"the first line of {name} is not a header of this layout: {len(missing)} of its "
            f"required columns are not there ({', '.join(missing)})"
        )
    if missing:
        raise GateRejected(f"{name} lacks the required columns {', '.join(missing)}")
    unknown = [
        str(place)
        for place, column in enumerate(header, start=1)
        if column and column not in known and not is_extra(column)
    ]
    if unknown:
        raise GateRejected(
            f"{name} has columns that the contract does not know; by their places from the left: "
            f"{', '.join(unknown)}. Remove them, or let their names begin with {EXTRA} to carry "
            "them along"
        )
    named = [column for column in header if column]
    if len(set(named)) < len(named):
        raise GateRejected(f"{name} names a column twice; every column needs its own name")
    return header
