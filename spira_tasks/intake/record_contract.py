"""The columns of an incoming recording: their kinds, and text turned into values.

Rows arrive as text and leave typed.  A cell that cannot be what its column says gives the row a
fault; what is said about a fault names the column, never the value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Literal

import pandas as pd

from expectations.limits import IMPOSSIBLE
from spira_tasks.intake.releases import Released, nothing_released

Kind = Literal["text", "name", "hex64", "whole", "number", "flag", "instant", "date"]

RAW_IDENTIFIERS = ("patient_rgh", "patient_pid")  # replaced by subject_id before anything is kept
Faults = dict[Any, tuple[str, str]]  # row to the stable code of its first fault, and one line

EXTRA = "x_"  # columns that begin so are carried along and never used for training


@dataclass(frozen=True)
class Column:
    """``values``: the only ones allowed; none means any."""

    kind: Kind = "text"
    required: bool = False
    values: tuple[str, ...] = ()


COLUMNS = {
    "record_id": Column("name", required=True),
    "task": Column(required=True, values=("AMBIENT", "VOWEL", "RHYME", "SENTENCE")),
    "audio_uri": Column(required=True),
    "sha256": Column("hex64"),
    "patient_pid": Column("hex64"),  # this or the next
    "patient_rgh": Column(),
    "session_id": Column(required=True),
    "hospital_id": Column(required=True),
    "unit": Column(values=("WARD", "ICU", "ER", "OUTPATIENT", "HOME")),
    "collector_pid": Column("hex64"),
    "collected_at": Column("instant", required=True),
    "ingested_at": Column("instant"),
    "app": Column(),
    "app_version": Column(),
    "prompt_version": Column(values=("coronavirus", "essa_fase")),
    "device_model": Column(),
    "os": Column(),
    "capture_ns": Column("flag"),
    "capture_agc": Column("flag"),
    "capture_aec": Column("flag"),
    "codec_original": Column(values=("pcm16", "opus", "aac", "flac", "mp3", "unknown")),
    "sex": Column(required=True, values=("M", "F", "OTHER", "UNKNOWN")),
    "age": Column("whole", required=True),
    "mask_type": Column(values=("NONE", "THIN", "THICK", "UNKNOWN")),
    "spo2": Column("whole"),
    "on_oxygen": Column("flag"),
    "fio2": Column("number"),
    "spo2_at": Column("instant"),
    "heart_rate": Column("number"),
    "resp_rate": Column("number"),
    "temp": Column("number"),
    "bp_sys": Column("number"),
    "bp_dia": Column("number"),
    "pao2": Column("number"),
    "paco2": Column("number"),
    "ph": Column("number"),
    "weight": Column("number"),
    "height": Column("number"),
    "cid10": Column(),
    "sample_type": Column(required=True, values=("PATIENT", "CONTROL", "AFTERCOVID", "TEST")),
    "ri_clinical": Column("whole", values=("1", "0")),
    "ri_cause": Column(),
    "label_source": Column(values=("clinician", "hospital_record", "weak", "self_report")),
    "label_confidence": Column("number"),
    "label_version": Column("whole"),
    "consent_status": Column(required=True, values=("granted", "withdrawn", "pending")),
    "consent_version": Column(),
    "consent_scope": Column(),
    "retention_until": Column("date"),
}
# On a label from one of these sources nothing can be measured: a model may be behind it.  It may be
# learned from, on the side of a split where models learn.
WEAK_SOURCES = ("weak",)
WEAK_SIDES = ("train",)
SHEET = "snapshot.json"  # beside the table of a snapshot: what is to be said of its labels
LEFT_OUT = "left_out.json"  # beside a split table: how many of them are not in it
# Columns in which people can write what they like; the others cannot hold a name.
FREE_TEXT = tuple(
    name
    for name, column in COLUMNS.items()
    if column.kind in {"text", "name"}
    and not column.values
    and name not in {*RAW_IDENTIFIERS, "audio_uri"}
)
REQUIRED = tuple(name for name, column in COLUMNS.items() if column.required)

NAME = re.compile(r"[A-Za-z0-9._-]{1,80}")
A_NAME = "1 to 80 letters, digits, dots, dashes and underscores"
HEX64 = re.compile(r"[0-9a-f]{64}")
WHOLE = re.compile(r"[+-]?\d{1,15}(\.0*)?")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")
DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+")
FLAGS = {"true": True, "false": False}


def is_extra(column: str) -> bool:
    """Whether a column is carried along without being part of the contract."""
    return column.startswith(EXTRA)


class BadValue(ValueError):
    """A cell that its column cannot hold.  ``reason`` is a stable code."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def typed(
    rows: pd.DataFrame,
    required: Collection[str] = REQUIRED,
    is_released: Released = nothing_released,
    called: Mapping[str, str] = MappingProxyType({}),
) -> tuple[pd.DataFrame, Faults]:
    """Turn rows of text into values.

    Parameters
    ----------
    rows : DataFrame
        Text; columns of the contract, missing cells as NaN.  Other columns pass as they are.
    required : collection of str
        Columns that must have a value in every row.
    is_released : callable
        Whether a person has lifted the refusal of a row for a reason.  The row is then taken
        without the value, unless its column is required.
    called : mapping of str to str
        Column of the contract to the name that the table that came has for it.

    Returns
    -------
    table : DataFrame
        All columns of the contract in its order, absent ones empty, then the others.  Kinds
        become Int64, float64, boolean, timestamps in UTC, and str.
    faults : dict
        Row label to ``(reason, detail)``, for the first fault of each row that has one.
    """
    faults: Faults = {}
    columns: dict[str, pd.Series] = {}
    for name, column in COLUMNS.items():
        cells = rows[name] if name in rows else [None] * len(rows)
        values: list[Any] = []
        for label, cell in zip(rows.index, cells, strict=True):
            values.append(None)
            if pd.isna(cell):
                if name in required:
                    fault = ("missing_value", f"{called.get(name, name)} is required")
                    faults.setdefault(label, fault)
                continue
            try:
                values[-1] = value_of(name, cell)
            except BadValue as error:
                if name in required or not is_released(label, error.reason):
                    faults.setdefault(label, (error.reason, f"{called.get(name, name)}: {error}"))
        columns[name] = pd.Series(values, index=rows.index, dtype=DTYPES[column.kind])
    others = rows[[name for name in rows.columns if name not in COLUMNS]]
    return pd.concat([pd.DataFrame(columns), others], axis=1), faults


DTYPES = {
    "text": "str",
    "name": "str",
    "hex64": "str",
    "whole": "Int64",
    "number": "float64",
    "flag": "boolean",
    "instant": "datetime64[us, UTC]",
    "date": "str",  # ISO 8601, so that it sorts; no time zone to go wrong
}


def value_of(name: str, cell: str) -> Any:
    """The value of a cell of a column of the contract; BadValue where it can be none."""
    column = COLUMNS[name]
    value = PARSERS[column.kind](cell)
    if column.values and str(value) not in column.values:
        raise BadValue("bad_value", f"not one of {', '.join(column.values)}")
    if limit := IMPOSSIBLE.get(name):
        is_below = limit.low is not None and value < limit.low
        if is_below or (limit.high is not None and value > limit.high):
            raise BadValue("impossible_value", f"outside {limit.low} to {limit.high}")
    return value


def _matching(cell: str, pattern: re.Pattern[str], what: str) -> str:
    if not pattern.fullmatch(cell):
        raise BadValue("bad_value", f"not {what}")
    return cell


def _numeric(cell: str, pattern: re.Pattern[str], what: str) -> str:
    if DECIMAL_COMMA.fullmatch(cell):
        raise BadValue("decimal_comma", "a decimal comma; write a dot")
    return _matching(cell, pattern, what)


def _flag(cell: str) -> bool:
    try:
        return FLAGS[cell.lower()]
    except KeyError:
        raise BadValue("bad_value", "neither true nor false") from None


def _instant(cell: str) -> datetime:
    try:
        moment = datetime.fromisoformat(cell)
    except ValueError:
        raise BadValue("bad_timestamp", "not an ISO 8601 time") from None
    if moment.tzinfo is None:
        raise BadValue("naive_timestamp", "no offset from UTC; write one, such as -03:00")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise BadValue("bad_timestamp", "outside the years 1 to 9999 in UTC") from None


def _date(cell: str) -> str:
    try:
        return datetime.fromisoformat(cell).date().isoformat()  # a typed table adds a time
    except ValueError:
        raise BadValue("bad_timestamp", "not an ISO 8601 date") from None


PARSERS: dict[Kind, Callable[[str], Any]] = {
    "text": str,
    "name": lambda cell: _matching(cell, NAME, A_NAME),
    "hex64": lambda cell: _matching(cell, HEX64, "64 hexadecimal digits"),
    "whole": lambda cell: int(_numeric(cell, WHOLE, "a whole number").partition(".")[0]),
    "number": lambda cell: float(_numeric(cell, NUMBER, "a number")),
    "flag": _flag,
    "instant": _instant,
    "date": _date,
}
