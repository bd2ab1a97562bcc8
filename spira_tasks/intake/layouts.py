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
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

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
PUBLISHED_REQUIRED = ("record_id", "task", "audio_uri", "sample_type", "ri_clinical")
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
    ward_noise: pd.DataFrame  # text; ``file_path`` and, where given, ``x_pool``


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
    canonical = [name for name in CANONICAL if name in data.names]
    published = [name for name in PUBLISHED if name in data.names]
    if len(canonical) > 1 or (canonical and published):
        raise ConfigError(
            f"the folder holds {', '.join(canonical + published)}: it is not clear which one "
            "counts; leave one layout there"
        )
    if canonical:
        return _read_canonical(data, canonical[0])
    if published:
        return _read_published(data, published, secret)
    raise ConfigError(
        f"none of the folder's {len(data.names)} files is a table of recordings. Looked, at its "
        f"top, for {' or '.join(CANONICAL)} (canonical layout) and for {', '.join(PUBLISHED)} "
        "(published SPIRA layout); point the data to the folder that holds one"
    )


def _read_canonical(data: Directory, name: str) -> Incoming:
    faults: Faults = {}
    if name.endswith(".parquet"):
        rows = _read_parquet(data.path(name))
        header = list(rows.columns)
        _check_header(name, header, REQUIRED, COLUMNS)
    else:
        header, lines = _read_csv(data.path(name), name)
        _check_header(name, header, REQUIRED, COLUMNS)
        rows, faults = _table(header, lines)
    if not {"patient_pid", "patient_rgh"} & set(header):
        raise GateRejected(f"{name} has neither patient_pid nor patient_rgh: add one of them")
    return Incoming("canonical", rows, faults, REQUIRED, _read_noise(data, "ward_noise.csv"))


def _read_published(data: Directory, names: Sequence[str], secret: bytes) -> Incoming:
    """Every row of all three tables; what they do not say stays missing."""
    parts: list[pd.DataFrame] = []
    faults: Faults = {}
    n_before = 0
    for name in names:
        header, lines = _read_csv(data.path(name), name)
        _check_header(name, header, ("file_path", "class"), PUBLISHED_COLUMNS)
        part, wrong = _table(header, lines, first=1 + n_before)
        parts.append(part.rename(columns=PUBLISHED_COLUMNS).assign(split_given=PUBLISHED[name]))
        faults |= wrong
        n_before += len(part)
    rows = pd.concat(parts)
    path = rows["audio_uri"]
    rows["record_id"] = "spira-" + path.map(
        lambda text: pseudonym(secret, "record", text)[:16], na_action="ignore"
    )
    rows["subject_id"] = path.map(lambda text: _person(secret, text), na_action="ignore")
    rows["task"] = "SENTENCE"
    if "sex" in rows:
        rows["sex"] = rows["sex"].str.upper()
    given = rows["ri_clinical"].str.removesuffix(".0")
    rows["sample_type"] = given.map({"1": "PATIENT", "0": "CONTROL"})
    noise = _read_noise(data, "noise_data.csv")
    return Incoming("published", rows, faults, PUBLISHED_REQUIRED, noise)


def _person(secret: bytes, path: str) -> str | None:
    cookie = COOKIE.fullmatch(PurePosixPath(path).stem)
    return pseudonym(secret, "cookie", cookie[1]) if cookie else None


def _read_noise(data: Directory, name: str) -> pd.DataFrame:
    """The list of ward noises, with or without a header: its first line is never lost."""
    if name not in data.names:
        return pd.DataFrame({"file_path": []}, dtype="str")
    header, lines = _read_csv(data.path(name), name)
    if header[0] != "file_path":
        header, lines = ["file_path"], [[line[0]] for line in [header, *lines]]
    rows, faults = _table(header, lines)
    if faults:
        raise GateRejected(f"{name}: {len(faults)} lines have more or fewer cells than the header")
    return rows


def _read_csv(path: Path, name: str) -> tuple[list[str], list[list[str]]]:
    """Header and lines of a comma-separated file; blank lines are left out."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        lines = [line for line in csv.reader(io.StringIO(text, newline=""), strict=True) if line]
    except UnicodeDecodeError as error:
        raise GateRejected(
            f"{name} is not UTF-8 (byte {error.start}); save it again as CSV UTF-8"
        ) from None
    except csv.Error as error:
        raise GateRejected(f"{name} is not CSV ({error}); check its quotation marks") from None
    if not lines:
        raise GateRejected(f"{name} is empty: there is not even a header")
    header = [cell.strip() for cell in lines[0]]
    if len(header) == 1 and ";" in header[0]:
        raise GateRejected(
            f"{name} is separated by semicolons; the contract asks for commas between cells and "
            "dots in decimal numbers"
        )
    return header, lines[1:]


def _read_parquet(path: Path) -> pd.DataFrame:
    """A typed table as text, so that both kinds of file meet the same checks."""
    frame = pd.read_parquet(path)
    frame.index = pd.RangeIndex(1, len(frame) + 1)
    return frame.apply(lambda column: _clean(column.map(str, na_action="ignore")))


def _table(
    header: list[str], lines: list[list[str]], first: int = 1
) -> tuple[pd.DataFrame, Faults]:
    """Lines as rows numbered from ``first``; a line that does not fit the header is left empty."""
    faults: Faults = {}
    for number, line in enumerate(lines, start=first):
        if len(line) != len(header):
            detail = f"{len(line)} cells under {len(header)} names; an unquoted comma?"
            faults[number] = ("wrong_number_of_cells", detail)
    rows = [[""] * len(header) if first + i in faults else line for i, line in enumerate(lines)]
    index = pd.RangeIndex(first, first + len(lines))
    return pd.DataFrame(rows, columns=header, index=index, dtype="str").apply(_clean), faults


def _clean(column: pd.Series) -> pd.Series:
    """Text without surrounding blanks; empty cells as NaN."""
    text = column.astype("str").str.strip()
    return text.where(text != "")


def _check_header(
    name: str, header: list[str], required: Sequence[str], known: Sequence[str] | dict[str, Any]
) -> None:
    missing = [column for column in required if column not in header]
    if len(missing) * 2 > len(required):
        raise GateRejected(
            f"the first line of {name} is not a header of this layout: {len(missing)} of its "
            f"required columns are not there ({', '.join(missing)})"
        )
    if missing:
        raise GateRejected(f"{name} lacks the required columns {', '.join(missing)}")
    unknown = [column for column in header if column not in known and not is_extra(column)]
    if unknown:
        raise GateRejected(
            f"{name} has columns that the contract does not know: {', '.join(unknown)}; remove "
            f"them, or let their names begin with {EXTRA} to carry them along"
        )
    if len(set(header)) < len(header):
        raise GateRejected(f"{name} names a column twice; every column needs its own name")
