"""Telemetry (store F): each day that is over as files to analyse, and how long rows are kept.

The files name no device, no person and no audio.  An ``inference_id`` leads to them only as long as
its row in the database does, which an erasure or the end of its time takes away.
"""

from __future__ import annotations

import hashlib
import io
import json
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from sqlalchemy import Connection, Engine, Table, func, select

from spira_services import events
from spira_services.events import EVENTS
from spira_services.serving.inferences import expire, remove
from spira_services.serving.tables import ACTIONS, FAILURES, INFERENCES, PREDICTIONS
from spira_services.uploads import drop_unnamed
from spira_tasks.artifacts.blobs import Blobs, canonical_json
from spira_tasks.artifacts.sources import open_backend
from spira_tasks.config import StageConfig

FILE = Path(__file__).parents[2] / "expectations" / "telemetry.toml"
FORMAT = "spira.telemetry/1"
ACTION, REMOVED = "telemetry", "telemetry_removed"  # of the events
AT_ONCE = 500  # inferences in one transaction

Count = Annotated[int, Field(ge=0)]
Moments = tuple[datetime, datetime]  # from, and until but without


class Rule(StageConfig):
    """What is kept and sampled; ``expectations/telemetry.toml`` says what and why."""

    owner: str
    closed_after_hours: Annotated[float, Field(ge=0)]
    audio_days: Count
    row_days: Count
    sample_a_day: Count
    sample_uncertain: Count
    sample_seed: int


def rule() -> Rule:
    """The rule of the file."""
    return Rule.model_validate(tomllib.loads(FILE.read_text("utf-8")))


@dataclass(frozen=True)
class Extract:
    """The rows of a day: ``columns`` to the name of their type in Arrow, and who reads them."""

    columns: Mapping[str, str]
    rows: Callable[[Connection, Moments], Iterable[Any]]  # mappings


@dataclass(frozen=True)
class Day:
    """A day that was exported now, and how many rows each table has of it."""

    day: date
    n_rows: Mapping[str, int]


def _requests(connection: Connection, moments: Moments) -> Iterator[Mapping[str, Any]]:
    for row in connection.execute(_within(INFERENCES, INFERENCES.c.received_at, moments)):
        yield {
            **row._mapping,
            "has_subject": row.subject_id is not None,
            "agreed_labels": row.agreed["labels"],
            "agreed_ab": row.agreed["ab"],
            "about": json.dumps(row.about, sort_keys=True),
            "recorded_seconds_before": (row.received_at - row.recorded_at).total_seconds(),
            "is_deleted": row.deleted_at is not None,
        }


def _of(table: Table) -> Callable[[Connection, Moments], Iterable[Any]]:
    return lambda connection, moments: connection.execute(
        _within(table, table.c.at, moments)
    ).mappings()


def _within(table: Table, column: Any, moments: Moments) -> Any:
    asked = select(table).where(column >= moments[0], column < moments[1])
    return asked.order_by(column, table.c.inference_id)


AT = "timestamp"
TABLES: Mapping[str, Extract] = {
    "requests": Extract(
        {
            **dict.fromkeys(("inference_id", "hospital_id", "task", "about"), "string"),
            **dict.fromkeys(("has_subject", "agreed_labels", "agreed_ab", "is_deleted"), "bool"),
            "n_bytes": "int64",
            "received_at": AT,
            "recorded_seconds_before": "float64",
        },
        _requests,
    ),
    "predictions": Extract(
        {
            **dict.fromkeys(("inference_id", "version", "classifier", "feature_schema"), "string"),
            **dict.fromkeys(("arm", "decision"), "string"),
            "shown": "bool",
            **dict.fromkeys(("probability", "operating_point"), "float64"),
            **dict.fromkeys(("waited_seconds", "compute_seconds"), "float64"),
            **dict.fromkeys(("record_again", "unusual"), "strings"),
            "window_scores": "floats",
            "at": AT,
        },
        _of(PREDICTIONS),
    ),
    "failures": Extract(
        {"inference_id": "string", "reason": "string", "n_tries": "int64", "at": AT}, _of(FAILURES)
    ),
    "actions": Extract({"inference_id": "string", "action": "string", "at": AT}, _of(ACTIONS)),
}


def export(
    engine: Engine,
    under: str,
    moment: datetime,
    more: Mapping[str, Extract] | None = None,
    wait: timedelta = timedelta(hours=1),
) -> Iterator[Day]:
    """Export every day that is over and was not exported; a repetition writes nothing.

    ``TABLE/day=YYYY-MM-DD/rows.parquet`` is written before ``days/YYYY-MM-DD.json``, which has the
    digests, and by which a day is whole.  A file that is there stays as it is.

    Parameters
    ----------
    engine : Engine
    under : str
        Folder, or ``s3://bucket/prefix``.
    moment : datetime
        Now, with its zone.  Days are those of UTC.
    more : mapping, optional
        Tables of others, by name.
    wait : timedelta
        How long after its end a day is over.
    """
    backend = open_backend(under)
    with engine.connect() as connection:
        first = connection.execute(select(func.min(INFERENCES.c.received_at))).scalar()
        noted = days_of(connection, ACTION)
    if first is None:
        return
    there = {entry.name for entry in backend.entries("days/")}
    last = (moment.astimezone(UTC) - wait).date() - timedelta(days=1)
    for day in _days(first.date(), last):
        sheet = f"days/{day}.json"
        if sheet in there:
            if day not in noted and (content := backend.read(sheet)):  # killed between the two
                _note(engine, day, json.loads(content))
            continue
        about: dict[str, dict[str, Any]] = {}
        for name, extract in {**TABLES, **(more or {})}.items():
            with engine.begin() as connection:
                content = _parquet(extract, extract.rows(connection, _moments(day)))
            file = f"{name}/day={day}/rows.parquet"
            if not backend.write_once(file, content):
                content = backend.read(file) or content
            digest = hashlib.sha256(content).hexdigest()
            about[name] = {"n_rows": _n_rows(content), "sha256": digest}
        said = {"format": FORMAT, "day": str(day), "tables": about}
        backend.write_once(sheet, canonical_json(said))
        _note(engine, day, said)
        yield Day(day, {name: one["n_rows"] for name, one in about.items()})


def _note(engine: Engine, day: date, said: Mapping[str, Any]) -> None:
    with engine.begin() as connection:
        events.record(connection, "telemetry", ACTION, f"{ACTION}:{day}", said)


def days_of(connection: Connection, action: str) -> set[date]:
    """The days about which there is an event of this kind."""
    done = select(EVENTS.c.details).where(EVENTS.c.action == action)
    return {date.fromisoformat(one["day"]) for one in connection.execute(done).scalars()}


def _days(first: date, last: date) -> Iterator[date]:
    for n in range((last - first).days + 1):
        yield first + timedelta(days=n)


def _moments(day: date) -> Moments:
    begin = datetime.combine(day, time(), UTC)
    return begin, begin + timedelta(days=1)


def _n_rows(content: bytes) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_metadata(io.BytesIO(content)).num_rows)


def _parquet(extract: Extract, rows: Iterable[Mapping[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {
        **{name: getattr(pa, name)() for name in ("string", "int64", "float64")},
        "bool": pa.bool_(),
        "strings": pa.list_(pa.string()),
        "floats": pa.list_(pa.float64()),
        AT: pa.timestamp("us", "UTC"),
    }
    schema = pa.schema([(name, types[kind]) for name, kind in extract.columns.items()])
    kept = [{name: row[name] for name in extract.columns} for row in rows]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(kept, schema=schema), file, compression="zstd")
    return file.getvalue()


def retain(engine: Engine, blobs: Blobs, kept: Rule, moment: datetime) -> dict[str, int]:
    """Delete what is past its time; a repetition deletes nothing.

    Returns
    -------
    dict
        ``n_expired``: inferences whose audio and person went; ``n_removed``: those whose rows went,
        of days that were exported; ``n_unnamed``: files that nothing came to name.
    """
    n_removed = 0
    before = moment - timedelta(days=kept.audio_days)
    n_expired = _all(engine, lambda connection: expire(connection, blobs, before, AT_ONCE))
    n_unnamed = _all(engine, lambda connection: drop_unnamed(connection, blobs, before, AT_ONCE))
    last = moment - timedelta(days=kept.row_days)
    with engine.connect() as connection:
        days = days_of(connection, ACTION) - days_of(connection, REMOVED)
    for day in sorted(day for day in days if _moments(day)[1] < last):
        with engine.begin() as connection:
            n_removed += remove(connection, blobs, *_moments(day))
            about = {"day": str(day)}
            events.record(connection, "telemetry", REMOVED, f"{REMOVED}:{day}", about)
    return {"n_expired": n_expired, "n_removed": n_removed, "n_unnamed": n_unnamed}


def _all(engine: Engine, delete: Callable[[Connection], int]) -> int:
    """Delete AT_ONCE in a transaction until none is left; how many."""
    n_deleted = 0
    while True:
        with engine.begin() as connection:
            n = delete(connection)
        n_deleted += n
        if n < AT_ONCE:
            return n_deleted
