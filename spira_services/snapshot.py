"""Snapshots: what was accepted and has a label, as a folder that a training reads.

A snapshot is a folder in the canonical layout, named by its content and never changed.  As of the
same time it has the same bytes, whenever it is made.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, and_, select

from spira_services import events
from spira_services.collection.documents import CONSENTS, RECORDINGS, REVISIONS, SESSIONS
from spira_services.collection.sessions import wait_for_writers
from spira_services.database import now
from spira_services.devices import DEVICES
from spira_services.labelling import record_id
from spira_services.labels import quality, store
from spira_services.labels.policy import POLICY, LabelPolicy, settled
from spira_services.subjects import erased_tags
from spira_tasks.artifacts.backends import Backend
from spira_tasks.artifacts.blobs import Blobs, canonical_json
from spira_tasks.artifacts.sources import NEWEST, open_backend
from spira_tasks.errors import ConfigError, ServiceUnavailable
from spira_tasks.intake.pseudonyms import tombstone_tag
from spira_tasks.intake.record_contract import COLUMNS, SHEET
from spira_tasks.progress import progress

TABLE = "recordings.csv"
NOISES = "ward_noise.csv"  # the rooms, for a training to mix under other voices
DATASHEET = "datasheet.md"
FORMAT = "spira.snapshot/1"
log = logging.getLogger(__name__)

CODECS = COLUMNS["codec_original"].values


@dataclass(frozen=True)
class Snapshot:
    """What was written, or was there already."""

    place: str  # folder, or s3://bucket/prefix
    is_new: bool
    about: Mapping[str, Any]  # the content of its sheet
    rows: list[dict[str, Any]] = field(compare=False, repr=False)
    changes: Mapping[str, Any] = field(compare=False)  # since the newest snapshot before it
    labels: quality.Labels = field(compare=False)

    @property
    def name(self) -> str:
        return str(self.about["name"])


def write(
    engine: Engine, blobs: Blobs, under: str, as_of: datetime, policy: LabelPolicy = POLICY
) -> Snapshot:
    """Write what was accepted and labelled as of a time.

    Parameters
    ----------
    engine : Engine
    blobs : Blobs
        Store A.
    under : str
        Folder, or ``s3://bucket/prefix``, that holds the snapshots.
    as_of : datetime
        With its zone.  What was received, labelled or withdrawn later is not looked at.
    policy : LabelPolicy
        Which label holds.

    Raises
    ------
    ConfigError
        When nothing is accepted and labelled yet, or for a time to come.
    ServiceUnavailable
        When a person in it was erased while it was written.
    """
    if as_of > now():
        raise ConfigError("a snapshot is as of a past time: what is still to come is not known")
    wait_for_writers(engine)
    snapshots = open_backend(under)
    since, earlier = _newest(snapshots)
    is_newest = earlier is None or as_of > earlier
    with engine.begin() as connection:
        rows = rows_as_of(connection, as_of, policy)
        before = rows_as_of(connection, earlier, policy) if earlier and is_newest else []
        labels = quality.of(connection, as_of, rows)
    if not rows:
        raise ConfigError(
            f"nothing was accepted and labelled until {as_of.isoformat(timespec='seconds')}; "
            "the labelling page shows what waits for a label"
        )
    table = _csv(rows)
    name = hashlib.sha256(table).hexdigest()[:16]
    about = {"format": FORMAT, "name": name, "label_policy": policy.version} | _counts(rows)
    backend = open_backend(f"{under}/{name}")
    digests = sorted({row["sha256"] for row in rows})
    for digest in progress(digests, "snapshot", len(digests)):
        if backend.find(_file(digest)) is None:
            backend.write(_file(digest), blobs.path(f"sha256:{digest}"), durable=True)
    changes = _changes(before, rows) | {"since": since if is_newest else ""}
    checks = [one.to_dict() for one in labels.checks]
    backend.write_once(SHEET, canonical_json({**about, "checks": checks}))
    backend.write_once(DATASHEET, datasheet(about, changes, labels).encode())
    backend.write_once(NOISES, _noises(rows))
    is_new = backend.write_once(TABLE, table)  # the last: a run finds no table before its files
    with engine.begin() as connection:
        store.serialise(connection)  # an erasure that comes later finds the table
        gone = erased_tags(connection)
        if not gone.isdisjoint({tombstone_tag(row["patient_pid"]) for row in rows}):
            delete(under, name)
            raise ServiceUnavailable("a person was erased at the same time; write it again")
        events.record(connection, "snapshot", "snapshot", f"snapshot:{name}", about)
    if is_newest and policy.weak_from is None:  # who wants weak labels names the snapshot
        snapshots.write(NEWEST, canonical_json({"snapshot": name, "as_of": as_of.isoformat()}))
    return Snapshot(f"{under}/{name}", is_new, about, rows, changes, labels)


def delete(under: str, name: str) -> None:
    """Delete a snapshot; after a kill, what is left of it still says whose it is."""
    everything, table = open_backend(under), f"{name}/{TABLE}"
    files = [entry.name for entry in everything.entries(f"{name}/")]
    for file in sorted(files, key=lambda file: file == table):
        everything.delete(file)


def _newest(snapshots: Backend) -> tuple[str, datetime | None]:
    """The name and the time of the newest snapshot; neither where none is marked."""
    content = snapshots.read(NEWEST)
    if content is None:
        return "", None
    try:
        about = json.loads(content)
        return str(about["snapshot"]), datetime.fromisoformat(about["as_of"])
    except (ValueError, KeyError, TypeError):
        log.warning("%s names no snapshot; it is written anew", NEWEST)
        return "", None


def tables(under: str) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """The name and the rows of every snapshot in a place; ConfigError for a table of another."""
    everything = open_backend(under)
    for table in [one.name for one in everything.entries("") if one.name.endswith(f"/{TABLE}")]:
        content = everything.read(table) or b""
        rows = csv.DictReader(io.StringIO(content.decode()))
        if not {"patient_pid", "session_id"} <= {*(rows.fieldnames or ())}:
            raise ConfigError(f"{table} in {under} is of no snapshot; move it to another place")
        yield table.partition("/")[0], [*rows]


def rows_as_of(
    connection: Connection, as_of: datetime, policy: LabelPolicy
) -> list[dict[str, Any]]:
    """Rows of the canonical layout, by record id."""
    labels = {label.session_id: label for label in settled(connection, as_of, policy)}
    consents = {
        row.session_id: row
        for row in connection.execute(
            select(CONSENTS).where(CONSENTS.c.received_at <= as_of).order_by(CONSENTS.c.number)
        )
    }
    accepted = (
        select(REVISIONS, RECORDINGS, SESSIONS, DEVICES)
        .join(
            RECORDINGS,
            and_(
                RECORDINGS.c.session_id == REVISIONS.c.session_id,
                RECORDINGS.c.revision == REVISIONS.c.revision,
            ),
        )
        .join(SESSIONS, SESSIONS.c.session_id == REVISIONS.c.session_id)
        .join(DEVICES, DEVICES.c.device_id == SESSIONS.c.device_id)
        .where(REVISIONS.c.status == "accepted", REVISIONS.c.received_at <= as_of)
        .with_only_columns(
            REVISIONS.c.session_id,
            REVISIONS.c.subject_id,
            REVISIONS.c.received_at,
            REVISIONS.c.document,
            RECORDINGS.c.task,
            RECORDINGS.c.sha256,
            RECORDINGS.c.recorded_at,
            RECORDINGS.c.about,
            SESSIONS.c.hospital_id,
            DEVICES.c.collector,
            DEVICES.c.model,
            DEVICES.c.os,
        )
    )
    rows = []
    for row in connection.execute(accepted):
        label, consent = labels.get(row.session_id), consents.get(row.session_id)
        if label is None or consent is None or consent.status != "granted":
            continue
        capture, codec = row.document["capture"], row.about.get("codec")
        rows.append(
            {
                "record_id": record_id(row.session_id, row.task),
                "task": row.task,
                "audio_uri": _file(row.sha256),
                "sha256": row.sha256,
                "patient_pid": row.subject_id,
                "session_id": row.session_id,
                "hospital_id": row.hospital_id,
                "collector_pid": row.collector,
                "collected_at": row.recorded_at.isoformat(),
                "ingested_at": row.received_at.isoformat(),
                "app": capture["app"] or "spira-collection",
                "app_version": row.document["app_version"],
                "prompt_version": row.about["prompt_version"],
                "device_model": row.model,
                "os": row.os,
                **{f"capture_{name}": capture[name] for name in ("ns", "agc", "aec")},
                "codec_original": codec if codec in CODECS else "unknown",
                **row.document["values"],
                "ri_clinical": label.ri_clinical,
                "label_source": label.label_source,
                "label_confidence": label.label_confidence,
                "label_version": label.label_version,
                "consent_status": consent.status,
                "consent_version": consent.version,
                "consent_scope": consent.scope,
            }
        )
    return sorted(rows, key=lambda row: str(row["record_id"]))


def _file(sha256: str) -> str:
    return f"audio/{sha256}"  # without an ending: the bytes say what it is


def _csv(rows: Iterable[Mapping[str, Any]], columns: Iterable[str] = COLUMNS) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, [*columns], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue().encode()


def _noises(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """The ambient tracks of all sessions, each file once."""
    rooms = {
        row["audio_uri"]: {"file_path": row["audio_uri"], "hospital_id": row["hospital_id"]}
        for row in rows
        if row["task"] == "AMBIENT"
    }
    return _csv([rooms[name] for name in sorted(rooms)], ("file_path", "hospital_id"))


def _cell(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def _changes(before: list[dict[str, Any]], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How many recordings, people and labels came, went or changed."""
    was, now_ = (
        {row["record_id"]: (row["patient_pid"], row["ri_clinical"]) for row in some}
        for some in (before, rows)
    )
    people_before, people = ({pid for pid, _ in some.values()} for some in (was, now_))
    return {
        "n_recordings_new": len(now_.keys() - was.keys()),
        "n_recordings_gone": len(was.keys() - now_.keys()),
        "n_subjects_new": len(people - people_before),
        "n_subjects_gone": len(people_before - people),
        "n_recordings_with_another_label": sum(
            now_[name][1] != was[name][1] for name in now_.keys() & was.keys()
        ),
    }


def datasheet(about: Mapping[str, Any], changes: Mapping[str, Any], labels: quality.Labels) -> str:
    """What is in a snapshot and what changed, as a text to read."""
    since = f"Since {changes['since']}" if changes["since"] else "This is the first snapshot"
    return f"""# Snapshot {about["name"]}

{about["n_recordings"]} recordings of {about["n_subjects"]} people, accepted at the door,
labelled by version {about["label_policy"]} of the label policy, with a consent in force.

| people | |
|---|---|
{_lines({f"label {label}": n for label, n in about["n_subjects_by_label"].items()})}
{_lines({f"site {site}": n for site, n in about["n_subjects_by_site"].items()})}

| labels | |
|---|---|
{_lines({f"sessions by {source}": n for source, n in labels.n_sessions_by_source.items()})}
| days from a recording to its label, median | {labels.median_days} |

{labels.checks_in_words()}

{since}:

| | |
|---|---|
| recordings that are new | {changes["n_recordings_new"]} |
| recordings that are gone (withdrawn, erased, without a label) | {changes["n_recordings_gone"]} |
| people who are new | {changes["n_subjects_new"]} |
| people who are gone | {changes["n_subjects_gone"]} |
| recordings with another label than before | {changes["n_recordings_with_another_label"]} |

Not in it: sessions that were refused at the door, that nobody has labelled, that people dispute, or
whose consent is pending or withdrawn. Where each came from: `python -m spira_services trace`.
"""


def _lines(counts: Mapping[str, int]) -> str:
    return "\n".join(f"| {name} | {n} |" for name, n in counts.items())


def _counts(rows: list[dict[str, Any]]) -> dict[str, Any]:
    people = {(row["patient_pid"], row["ri_clinical"], row["hospital_id"]) for row in rows}
    return {
        "n_recordings": len(rows),
        "n_subjects": len({row["patient_pid"] for row in rows}),
        "n_subjects_by_label": dict(sorted(Counter(str(one[1]) for one in people).items())),
        "n_subjects_by_site": dict(sorted(Counter(one[2] for one in people).items())),
    }
