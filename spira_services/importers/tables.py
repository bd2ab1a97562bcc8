"""Folders with a table: the published dataset, and voice notes of WhatsApp."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, cast

import pandas as pd

from spira_services.collection.form import FIELDS, GASOMETRY, NUMBER
from spira_services.importers.found import Asked, Files, Found, Stated, Unusable, moment
from spira_services.labels.store import Source
from spira_tasks.artifacts.sources import Directory
from spira_tasks.errors import ConfigError
from spira_tasks.intake import layouts, pseudonyms
from spira_tasks.intake.record_contract import COLUMNS

NOTES = "notes.csv"
NEEDED = ("audio_uri", NUMBER, "collected_at", "sample_type", "sex", "age")
ANSWERS = tuple(field.name for field in (*FIELDS, *GASOMETRY))
ALLOWED = (
    *dict.fromkeys((*NEEDED, *ANSWERS)),
    *("task", "prompt_version", "ri_clinical", "label_source"),
    *("consent_status", "consent_version"),
)


def published(source: Directory, asked: Asked) -> Iterator[Found | Unusable]:
    """The released SPIRA dataset, one sentence a row; its ward noises are no sessions.

    A person is known by the pseudonym that ingest makes for this layout, so that nobody is on both
    sides of a split.  The table has no time and no consent.
    """
    secret = pseudonyms.key()
    incoming = layouts.read(source, secret)
    if incoming.layout != "published":
        raise ConfigError("the source is in the canonical layout: a training reads it as it is")
    files = Files(source)
    subjects = pseudonyms.subject_ids(incoming.rows, secret)
    for number, row in _rows(incoming.rows):
        if number in incoming.faults:
            yield Unusable(incoming.faults[number][0])
            continue
        name = files.at(str(row.get("audio_uri")))
        subject = subjects[number]
        if pd.isna(subject) and name is not None:
            sha256 = hashlib.sha256(source.read(name)).hexdigest()
            subject = pseudonyms.pseudonym(secret, "audio", sha256)
        label = row.get("ri_clinical")
        yield Found(
            form={answer: row.get(answer) for answer in ("sample_type", "sex", "age")},
            files={"SENTENCE": name},
            recorded_at=None,
            subject_id=None if pd.isna(subject) else str(subject),
            label=_label(label, "hospital_record", {"class": label}),
            left_out=[
                incoming.called[column] for column in ("x_nivel_falta_de_ar",) if row.get(column)
            ],
        )


def voice_notes(source: Directory, asked: Asked) -> Iterator[Found | Unusable]:
    """Voice notes, with a table that says who speaks: ``notes.csv``, a row a file.

    Its columns are those of the row contract.  Rows of one person and time are one session.
    """
    if NOTES not in source.names:
        raise ConfigError(
            f"the source has no {NOTES} at its top; the names of voice notes do not say who "
            f"speaks. It has a row a file, and the columns {', '.join(NEEDED)}"
        )
    table, faults = layouts.read_table(source.path(NOTES), NOTES, NEEDED, ALLOWED)
    yield from (Unusable(reason) for reason, _ in faults.values())
    sessions: dict[tuple[Any, Any], list[dict[str, Any]]] = {}
    for number, row in _rows(table):
        if number not in faults:
            # who cannot be told is nobody else's session
            who = row.get(NUMBER) or f"row {number}"
            sessions.setdefault((who, row.get("collected_at")), []).append(row)
    files = Files(source)
    for rows in sessions.values():
        yield _session(rows, files, asked)


def _session(rows: list[dict[str, Any]], files: Files, asked: Asked) -> Found | Unusable:
    about = [{k: v for k, v in row.items() if k not in ("audio_uri", "task")} for row in rows]
    tasks = [row.get("task", "SENTENCE") for row in rows]
    if any(one != about[0] for one in about) or len(set(tasks)) < len(tasks):
        return Unusable("contradiction")
    if not set(tasks) <= {*COLUMNS["task"].values}:
        return Unusable("bad_value")
    row = about[0]
    says, sources = row.get("label_source", "hospital_record"), COLUMNS["label_source"].values
    consent = row.get("consent_status", "")
    if says not in sources or consent not in ("granted", "pending", ""):
        return Unusable("consent_withdrawn" if consent == "withdrawn" else "bad_value")
    return Found(
        form={answer: row.get(answer) for answer in ANSWERS},
        files={
            task: files.at(str(one.get("audio_uri"))) for task, one in zip(tasks, rows, strict=True)
        },
        recorded_at=moment(row.get("collected_at"), asked),
        consent=consent,
        consent_version=row.get("consent_version", ""),
        prompt_version=row.get("prompt_version", ""),
        label=_label(row.get("ri_clinical"), cast(Source, says), {}),
    )


def _rows(table: pd.DataFrame) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and filled cells of each row."""
    for row in table.itertuples():
        cells = zip(table.columns, row[1:], strict=True)
        yield int(row[0]), {name: cell for name, cell in cells if not pd.isna(cell)}


def _label(cell: Any, source: Source, value: dict[str, Any]) -> Stated | None:
    return Stated(int(cell), source, value) if cell in ("0", "1") else None
