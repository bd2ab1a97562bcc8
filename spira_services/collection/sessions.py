"""A session becomes whole by its manifest: the form, the consent, and the files that belong to it.

All of it is committed in one transaction, or nothing.  What cannot be accepted is kept as a refused
revision with what is wrong, and can be mended by the next revision.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from cryptography.fernet import Fernet
from pydantic import BaseModel, Field
from sqlalchemy import Connection, Engine, delete, select, text
from sqlalchemy.engine import Row

from spira_services import devices, events
from spira_services.collection import form
from spira_services.collection.documents import CONSENTS, RECORDINGS, REVISIONS, SCHEMA, SESSIONS
from spira_services.database import insert_once, now
from spira_services.devices import Device
from spira_services.subjects import is_erased, subject_of
from spira_services.uploads import BLOBS, drop
from spira_services.web import (
    CLOCK_SLACK,
    Moment,
    Problem,
    Refused,
    Sent,
    SentCapture,
    Sha256,
    Text,
    not_there,
)
from spira_tasks.artifacts.blobs import Blobs, canonical_json
from spira_tasks.errors import ArtifactCorrupt, ConfigError
from spira_tasks.intake import audio_reader, pseudonyms

LINKAGE_KEY = "SPIRA_LINKAGE_KEY"  # encrypts the hospital numbers that a site keeps
MAX_SECONDS = 300.0  # as ingest has it
log = logging.getLogger("spira.services")
AT_ONCE = threading.BoundedSemaphore(2)  # decoded files in memory

Status = Literal["accepted", "refused"]


class SentConsent(Sent):
    """What the person agreed to, on this device."""

    status: Literal["granted", "pending"]
    version: Text
    scope: Text
    at: Moment


class SentGrant(SentConsent):
    """What the person agreed to later than the session was sent."""

    status: Literal["granted"] = "granted"


class SentFile(Sent):
    """One take, by the digest under which it was uploaded."""

    task: Literal["AMBIENT", "VOWEL", "RHYME", "SENTENCE"]
    sha256: Sha256
    n_bytes: Annotated[int, Field(gt=0)]
    recorded_at: Moment
    prompt_version: Text


class Manifest(Sent):
    """What a device says of a session.  Times are by its own clock."""

    form_version: Text
    app_version: Text
    revision: Annotated[int, Field(ge=1, le=1000)]
    recorded_at: Moment
    sent_at: Moment
    consent: SentConsent
    form: Annotated[dict[Text, bool | int | float | Text | None], Field(max_length=100)]
    capture: SentCapture
    files: Annotated[list[SentFile], Field(min_length=1, max_length=8)]


class FileReceipt(BaseModel):
    """What became of a file."""

    task: str
    sha256: str
    status: Status
    reason: str | None = None


class SentProblem(BaseModel):
    """What to mend: a field of the form, or a take by its task."""

    field: str
    rule: str
    allowed: str = ""


class Receipt(BaseModel):
    """That a session is stored, and whether it was accepted.  No value of the form is in it."""

    session_id: str
    revision: int
    status: Literal["accepted", "refused", "withdrawn"]
    consent: Literal["granted", "pending", "withdrawn"]
    received_at: datetime
    files: list[FileReceipt]
    problems: list[SentProblem]


Measured = Mapping[str, Mapping[str, Any]]  # by digest: the measurements, or why there are none


@dataclass(frozen=True)
class Origin:
    """What a session has to have by where it comes from, and what is known beside its manifest."""

    fields: Sequence[form.Field] = form.FIELDS
    tasks: Collection[str] = form.REQUIRED_TASKS
    subject_id: str | None = None  # where no hospital number says who it is
    consent_sha256: str | None = None  # of the file in which the person consents
    problems: Sequence[Problem] = ()


PHONE = Origin()


@dataclass(frozen=True)
class Submission:
    """A manifest that was judged but for its audio, and what is kept of it."""

    manifest: Manifest
    subject_id: str | None
    number: str  # the hospital's, empty where it is none; kept by sites that keep numbers alone
    document: Mapping[str, Any]  # without the number
    digest: str
    problems: tuple[Problem, ...]


def submission(device: Device, manifest: Manifest, origin: Origin = PHONE) -> Submission:
    """Judge a manifest, but for its audio."""
    values, wrong = form.checked(manifest.form, origin.fields)
    number, subject_id = str(manifest.form.get(form.NUMBER) or ""), origin.subject_id
    if known := subject_of(device.hospital_id, number):
        subject_id = known
    else:
        number = ""
    # From here on the hospital number is not looked at: only what is made of it is kept.
    document = manifest.model_dump(mode="json", exclude={"form", "sent_at"})
    document |= {"values": values, "subject_id": subject_id}
    if origin.consent_sha256:
        document["consent_sha256"] = origin.consent_sha256
    digest = hashlib.sha256(canonical_json(document)).hexdigest()
    document["sent_at"] = manifest.sent_at.isoformat()
    wrong += [*origin.problems, *_wrong_times(manifest), *_wrong_tasks(manifest, origin.tasks)]
    return Submission(manifest, subject_id, number, document, digest, tuple(wrong))


def judged(
    connection: Connection, session_id: str, sent: Submission, measured: Measured
) -> tuple[list[FileReceipt], list[Problem]]:
    """What becomes of a session's files, and all that is wrong with the session."""
    elsewhere = _elsewhere(connection, session_id, sent.manifest)
    files = [_judged(file, measured[file.sha256], elsewhere) for file in _in_order(sent.manifest)]
    takes = [file for file in files if file.status == "refused"]
    again = [Problem(file.task, "record_again", file.reason or "") for file in takes]
    return files, [*sent.problems, *again]


def _in_order(manifest: Manifest) -> list[SentFile]:
    return sorted(manifest.files, key=lambda file: (file.task, file.sha256))


@dataclass(frozen=True)
class Sessions:
    """The sessions of a database, with the store of their audio."""

    engine: Engine
    blobs: Blobs

    def commit(self, device: Device, session_id: str, manifest: Manifest) -> tuple[Receipt, bool]:
        """Store a session; return its receipt, and whether it is new.

        Raises
        ------
        Refused
            ``erased`` for a person who had all recordings erased, ``not_there`` for a session of
            another device, ``missing_blobs`` when files are still
            to come, ``conflict`` when this revision came with another content or the session was
            accepted before.
        """
        sent = submission(device, manifest)
        if sent.subject_id is not None:
            self._refuse_erased(device, sent.subject_id, manifest)
        with self.engine.connect() as connection:
            if known := self._answered(connection, device, session_id, sent):
                return known, False
            missing = _missing(connection, device, manifest)
        if missing:
            raise _missing_blobs(missing)
        measured = {file.sha256: self._measured(file) for file in manifest.files}
        with self.engine.begin() as connection:
            if missing := _missing(connection, device, manifest):  # deleted meanwhile
                raise _missing_blobs(missing)
            return self.store(connection, device, session_id, sent, measured)

    def store(
        self,
        connection: Connection,
        device: Device,
        session_id: str,
        sent: Submission,
        measured: Measured,
    ) -> tuple[Receipt, bool]:
        """Store a session in the caller's transaction; returns and raises as ``commit`` does."""
        manifest = sent.manifest
        whose = {"device_id": device.device_id, "hospital_id": device.hospital_id}
        session = {"session_id": session_id, **whose, "received_at": now()}
        insert_once(connection, SESSIONS, session)
        _locked(connection, session_id)
        moment = now()
        if known := self._answered(connection, device, session_id, sent):
            return known, False  # the same request came twice at the same time
        change = consent_of(connection, session_id), manifest.consent.status
        if change[0] != "withdrawn" and change != ("granted", "pending"):
            _add_consent(connection, session_id, manifest.consent)
        files, problems = judged(connection, session_id, sent, measured)
        keeps_numbers = devices.site(connection, device.hospital_id).keeps_numbers
        status: Status = "refused" if problems else "accepted"
        receipt = Receipt(
            session_id=session_id,
            revision=manifest.revision,
            status=status,
            consent=consent_of(connection, session_id),
            received_at=moment,
            files=files,
            problems=[SentProblem(**vars(problem)) for problem in problems],
        )
        connection.execute(
            REVISIONS.insert().values(
                session_id=session_id,
                revision=manifest.revision,
                digest=sent.digest,
                status=status,
                received_at=moment,
                subject_id=sent.subject_id,
                number=_encrypted(sent.number) if sent.number and keeps_numbers else None,
                schema=SCHEMA,
                document=sent.document,
                problems=[problem.model_dump() for problem in receipt.problems],
            )
        )
        for file, one in zip(_in_order(manifest), files, strict=True):
            connection.execute(
                RECORDINGS.insert().values(
                    record_id=f"{session_id}-{file.task.lower()}-{manifest.revision}",
                    session_id=session_id,
                    revision=manifest.revision,
                    task=file.task,
                    sha256=file.sha256,
                    status=one.status,
                    reason=one.reason,
                    recorded_at=file.recorded_at,
                    about={"prompt_version": file.prompt_version, **measured[file.sha256]},
                )
            )
        events.record(
            connection,
            f"device:{device.device_id}",
            "submission",
            f"submission:{session_id}:{manifest.revision}",
            {
                "session_id": session_id,
                "status": status,
                "hospital_id": device.hospital_id,
                "n_files": len(files),
                "rules": sorted({problem.rule for problem in problems}),
            },
        )
        return receipt, True

    def _refuse_erased(self, device: Device, subject: str, manifest: Manifest) -> None:
        """Keep nothing of a person who had all recordings erased."""
        with self.engine.begin() as connection:
            if not is_erased(connection, subject):
                return
            sent = select(BLOBS.c.sha256).where(BLOBS.c.device_id == device.device_id)
            wanted = sent.where(BLOBS.c.sha256.in_([file.sha256 for file in manifest.files]))
            files = connection.execute(wanted).scalars().all()
            drop(connection, self.blobs, files)
        raise Refused(
            410, "erased", "this person had all recordings erased; delete the session on the device"
        )

    def receipts(self, device: Device) -> Iterator[Receipt]:
        """What became of the device's sessions, the newest first."""
        with self.engine.connect() as connection:
            theirs = select(SESSIONS.c.session_id).where(SESSIONS.c.device_id == device.device_id)
            for session_id in connection.execute(theirs.order_by(SESSIONS.c.received_at.desc())):
                yield self._receipt(connection, _newest(connection, session_id[0]))

    def withdraw(self, device: Device, session_id: str) -> Receipt:
        """Withdraw the consent of a session's person: nothing made afterwards uses it."""
        with self.engine.begin() as connection:
            sent = select(SESSIONS.c.device_id).where(SESSIONS.c.session_id == session_id)
            if not devices.may_take_back(connection, device, connection.execute(sent).scalar()):
                raise not_there()
            _locked(connection, session_id)
            newest = _newest(connection, session_id)
            actor, key = f"device:{device.device_id}", f"withdrawal:{session_id}"
            if events.record(
                connection, actor, "consent_withdrawn", key, {"session_id": session_id}
            ):
                given = newest.document["consent"]
                row = {"version": given["version"], "scope": given["scope"], "status": "withdrawn"}
                times = {"at": now(), "received_at": now()}
                connection.execute(CONSENTS.insert().values(session_id=session_id, **row, **times))
            return self._receipt(connection, newest)

    def grant(self, device: Device, session_id: str, given: SentGrant) -> Receipt:
        """Take a consent that was pending when its session came: what is made from now on uses it.

        Raises
        ------
        Refused
            ``not_there`` for a session of another device, ``conflict`` where the consent was
            withdrawn, ``future`` for a time that is still to come.
        """
        with self.engine.begin() as connection:
            _own(connection, device, session_id)
            grant(connection, f"device:{device.device_id}", session_id, given)
            return self._receipt(connection, _newest(connection, session_id))

    def _answered(
        self, connection: Connection, device: Device, session_id: str, sent: Submission
    ) -> Receipt | None:
        """The receipt of a manifest that came before; None for the next one of its session."""
        there = select(SESSIONS).where(SESSIONS.c.session_id == session_id)
        if connection.execute(there).first() is None:
            return None
        _own(connection, device, session_id)
        rows = select(REVISIONS).where(REVISIONS.c.session_id == session_id)
        known = {row.revision: row for row in connection.execute(rows)}
        same = known.get(sent.manifest.revision)
        if same is not None and same.digest == sent.digest:
            return self._receipt(connection, same)
        if any(row.status == "accepted" for row in known.values()):
            raise Refused(409, "conflict", "the session was accepted before, with another content")
        if known and sent.manifest.revision <= max(known):
            raise Refused(
                409, "conflict", "the revision came before, with another content; count it up"
            )
        return None

    def _receipt(self, connection: Connection, revision: Row[Any]) -> Receipt:
        files = connection.execute(
            select(RECORDINGS)
            .where(RECORDINGS.c.session_id == revision.session_id)
            .where(RECORDINGS.c.revision == revision.revision)
            .order_by(RECORDINGS.c.task, RECORDINGS.c.sha256)
        )
        consent = consent_of(connection, revision.session_id)
        return Receipt(
            session_id=revision.session_id,
            revision=revision.revision,
            status="withdrawn" if consent == "withdrawn" else revision.status,
            consent=consent,
            received_at=revision.received_at,
            files=[
                FileReceipt(task=f.task, sha256=f.sha256, status=f.status, reason=f.reason)
                for f in files
            ],
            problems=[SentProblem(**problem) for problem in revision.problems],
        )

    def _measured(self, file: SentFile) -> Mapping[str, Any]:
        """What ingest would measure on the file, or why it would refuse it."""
        with AT_ONCE:
            try:
                content = self.blobs.read(f"sha256:{file.sha256}")
            except ArtifactCorrupt as error:
                log.error("audio that was sent is lost, and asked for again: %s", error)
                with self.engine.begin() as connection:
                    connection.execute(delete(BLOBS).where(BLOBS.c.sha256 == file.sha256))
                raise _missing_blobs([file.sha256]) from None
            return audio_reader.convert(content, MAX_SECONDS)


def _missing_blobs(missing: Sequence[str]) -> Refused:
    message = "send these files, then the manifest again"
    return Refused(409, "missing_blobs", message, missing=missing)


def grant(connection: Connection, actor: str, session_id: str, given: SentGrant) -> None:
    """Add the consent to a session that is there, once; see ``Sessions.grant``."""
    if given.at > now() + CLOCK_SLACK:
        raise Refused(422, "future", "the time of the consent is later than now")
    _locked(connection, session_id)
    consent = consent_of(connection, session_id)
    if consent is None:
        raise not_there()
    if consent == "withdrawn":
        raise Refused(
            409, "conflict", "the consent was withdrawn; it can be given for a new session"
        )
    if consent == "pending":
        _add_consent(connection, session_id, given)
        about = {"session_id": session_id, "version": given.version, "scope": given.scope}
        events.record(connection, actor, "consent_granted", f"consent:{session_id}", about)


def consent_of(connection: Connection, session_id: str) -> Any:
    """The status of the newest consent, None before the first."""
    of_session = select(CONSENTS.c.status).where(CONSENTS.c.session_id == session_id)
    return connection.execute(of_session.order_by(CONSENTS.c.number.desc()).limit(1)).scalar()


def _add_consent(connection: Connection, session_id: str, given: SentConsent) -> None:
    row = {"session_id": session_id, "received_at": now(), **given.model_dump()}
    connection.execute(CONSENTS.insert().values(**row))


def wait_for_writers(engine: Engine) -> None:
    """Wait until nobody is writing a session: what comes from here on is dated later than now.

    Writers lock their session before they look at the clock.  SQLite has one writer at a time.
    """
    if engine.dialect.name == "postgresql":
        with engine.begin() as connection:
            connection.execute(text(f"LOCK TABLE {SESSIONS.name} IN EXCLUSIVE MODE"))


def _locked(connection: Connection, session_id: str) -> None:
    """Let nobody else change a session until the transaction ends."""
    there = select(SESSIONS.c.session_id).where(SESSIONS.c.session_id == session_id)
    connection.execute(there.with_for_update())


def _newest(connection: Connection, session_id: str) -> Row[Any]:
    of_session = select(REVISIONS).where(REVISIONS.c.session_id == session_id)
    newest = of_session.order_by(REVISIONS.c.revision.desc()).limit(1)
    return connection.execute(newest).one()


def _own(connection: Connection, device: Device, session_id: str) -> None:
    there = select(SESSIONS.c.device_id).where(SESSIONS.c.session_id == session_id)
    if connection.execute(there).scalar() != device.device_id:
        raise not_there()


def _missing(connection: Connection, device: Device, manifest: Manifest) -> list[str]:
    """Digests of files that this device has not sent, or sent with another length.

    The others stay until the transaction ends.
    """
    sent = select(BLOBS.c.sha256, BLOBS.c.n_bytes).where(BLOBS.c.device_id == device.device_id)
    wanted = [file.sha256 for file in manifest.files]
    held = sent.where(BLOBS.c.sha256.in_(wanted)).order_by(BLOBS.c.sha256).with_for_update()
    there = {tuple(row) for row in connection.execute(held)}
    return [f.sha256 for f in manifest.files if (f.sha256, f.n_bytes) not in there]


def _wrong_times(manifest: Manifest) -> Iterator[Problem]:
    latest = now() + CLOCK_SLACK
    if manifest.recorded_at > latest:
        yield Problem("recorded_at", "future")
    if manifest.consent.at > latest:
        yield Problem("consent", "future")
    for file in manifest.files:
        if file.recorded_at > latest:
            yield Problem(file.task, "future")


def _wrong_tasks(manifest: Manifest, required: Collection[str]) -> Iterator[Problem]:
    """Tasks that are not there or there twice, and one take given for two of them."""
    tasks: list[str] = [file.task for file in manifest.files]
    for task in form.TASKS:
        if task.task in required and task.task not in tasks:
            yield Problem(task.task, "required")
        if tasks.count(task.task) > 1:
            yield Problem(task.task, "format", "one take")
    taken: dict[str, str] = {}
    for file in manifest.files:
        if taken.setdefault(file.sha256, file.task) != file.task:
            yield Problem(file.task, "record_again", "duplicate_audio")


def _elsewhere(connection: Connection, session_id: str, manifest: Manifest) -> set[str]:
    """Digests that belong to another accepted session: audio of somebody else."""
    others = (
        select(RECORDINGS.c.sha256)
        .join(
            REVISIONS,
            (REVISIONS.c.session_id == RECORDINGS.c.session_id)
            & (REVISIONS.c.revision == RECORDINGS.c.revision),
        )
        .where(RECORDINGS.c.sha256.in_([file.sha256 for file in manifest.files]))
        .where(RECORDINGS.c.session_id != session_id, REVISIONS.c.status == "accepted")
    )
    return set(connection.execute(others).scalars())


def _judged(file: SentFile, measured: Mapping[str, Any], elsewhere: set[str]) -> FileReceipt:
    reason = measured.get("reason")
    if reason is None:
        task = form.BY_TASK[file.task]
        seconds = measured["duration_seconds"]
        if seconds < task.min_seconds:
            reason = "too_short"
        elif measured["clipping_fraction"] > form.TAKE_LIMITS["clipping_fraction"]:
            reason = "clipped"
        elif file.sha256 in elsewhere:
            reason = "duplicate_audio"
    status: Status = "refused" if reason else "accepted"
    return FileReceipt(task=file.task, sha256=file.sha256, status=status, reason=reason)


def linkage_key() -> Fernet:
    """The key of the hospital numbers that sites keep.

    Raises
    ------
    ConfigError
        When it is not set, or is none.
    """
    try:
        return Fernet(os.environ.get(LINKAGE_KEY, ""))
    except ValueError:
        raise ConfigError(
            f"{LINKAGE_KEY} is not set to a key of 32 bytes in URL-safe base64, and a site keeps "
            "its hospital numbers; set it, or set the site up without --keeps-numbers"
        ) from None


def _encrypted(number: str) -> bytes:
    return linkage_key().encrypt(pseudonyms.canonical_number(number).encode())
