"""Found sessions are committed as those of a telephone are, by the same code.

The id of a session follows from whose it is, when, and what was recorded: importing the same again
changes nothing, and what was refused can be mended in the source and imported again.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal
from uuid import UUID, uuid5

from pydantic import ValidationError
from sqlalchemy import Connection, Engine, select

from spira_services import devices, events, uploads
from spira_services.collection import form
from spira_services.collection.documents import REVISIONS
from spira_services.collection.sessions import (
    MAX_SECONDS,
    Manifest,
    Measured,
    Origin,
    SentGrant,
    Sessions,
    Submission,
    consent_of,
    grant,
    judged,
    submission,
)
from spira_services.database import now
from spira_services.devices import Device
from spira_services.importers import dc2, spira_bm, tables
from spira_services.importers.found import Asked, Found, Stated, Unusable
from spira_services.labels import store as labels
from spira_services.labels.store import LABEL, LabelEvent
from spira_services.subjects import is_erased
from spira_services.web import Problem, Refused
from spira_tasks.artifacts.blobs import Blobs, canonical_json
from spira_tasks.artifacts.sources import Directory
from spira_tasks.errors import ConfigError
from spira_tasks.intake import audio_reader, pseudonyms
from spira_tasks.progress import progress

Reader = Callable[[Directory, Asked], Iterator[Found | Unusable]]
Status = Literal["accepted", "refused", "there", "conflict", "not_taken"]

READERS: Mapping[str, Reader] = {
    "dc2": dc2.read,
    "spira-bm": spira_bm.read,
    "published": tables.published,
    "whatsapp": tables.voice_notes,
}
VERSION = "1"  # of what is made of a source: another meaning is another version
IDS = UUID("6f6a1f0c-6d0e-5b0e-9d55-3f6e1c1f7a52")  # of the ids of imported sessions
VOICE = ("VOWEL", "RHYME", "SENTENCE")
CONSENT_SCOPE = "research"


@dataclass(frozen=True)
class Outcome:
    """What became of a session, and why."""

    status: Status
    reasons: tuple[tuple[str, str], ...] = ()  # fields or tasks, and rules; never a value
    is_pending: bool = False  # whether its consent is still to be given
    has_label: bool = False
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prepared:
    """A session that is ready to be committed."""

    found: Found
    device: Device
    session_id: str
    manifest: Manifest
    names: Mapping[str, str]  # digest to the name of the file
    origin: Origin


@dataclass(frozen=True)
class Importer:
    """A source on its way into a collection."""

    engine: Engine
    blobs: Blobs  # store A
    kind: str  # a key of ``READERS``
    source: Directory
    hospital_id: str
    asked: Asked

    def run(self, actor: str, *, is_rehearsal: bool) -> list[Outcome]:
        """Import the source; a rehearsal judges everything and writes nothing.

        Raises
        ------
        ConfigError
            When the site is not set up, or the source is none of this kind.
        GateRejected
            When its table is no table.
        """
        with self.engine.connect() as connection:
            devices.site(connection, self.hospital_id)
        found = self._of_site([*READERS[self.kind](self.source, self.asked)])
        ready = [self._prepared(one) for one in progress(found, "reading", len(found))]
        ready = _without_shared_audio(ready)
        done = progress(ready, "importing", len(ready))
        if is_rehearsal:
            measured = [self._measured(one) for one in done]
            with self.engine.begin() as connection:
                pairs = zip(ready, measured, strict=True)
                outcomes = [self._settled(connection, one, sounds) for one, sounds in pairs]
                connection.rollback()
            return outcomes
        outcomes = []
        for one in done:
            measured_now = self._measured(one)
            if isinstance(one, Prepared) and measured_now:
                for name in one.names.values():
                    self.blobs.put_file(self.source.path(name), durable=True)
            with self.engine.begin() as connection:
                outcomes.append(self._settled(connection, one, measured_now))
        with self.engine.begin() as connection:
            about: dict[str, Any] = {"kind": self.kind, "hospital_id": self.hospital_id}
            counts = Counter(one.status for one in outcomes)
            key = f"import:{self.kind}:{self.hospital_id}:{self.source.digest}"
            events.record(connection, actor, "import", key, about | dict(counts.items()))
        return outcomes

    def _of_site(self, found: list[Found | Unusable]) -> list[Found | Unusable]:
        """Those of the hospitals that are the site; ConfigError where that is not clear."""
        wanted = {pseudonyms.canonical_site(name) for name in self.asked.hospitals}
        named = {
            pseudonyms.canonical_site(one.hospital)
            for one in found
            if isinstance(one, Found) and one.hospital
        }
        if not wanted and len(named) > 1:
            raise ConfigError(
                f"the source names {len(named)} hospitals, and a number is another person in each: "
                "say which are this site by --hospital, written as in the source, and import the "
                "others to their own sites"
            )
        return [
            Unusable("another_hospital")
            if wanted
            and isinstance(one, Found)
            and pseudonyms.canonical_site(one.hospital) not in wanted
            else one
            for one in found
        ]

    def _prepared(self, found: Found | Unusable) -> Prepared | Unusable:
        if isinstance(found, Unusable):
            return found
        at = found.recorded_at or self.asked.recorded_at
        if at is None or at.tzinfo is None:
            return Unusable("required" if at is None else "naive_timestamp", "recorded_at")
        names, takes, problems, left_out = {}, {}, [], [*found.left_out]
        for task, name in found.files.items():
            size = 0 if name is None else self.source.path(name).stat().st_size
            if name is None:
                problems.append(Problem(task, "record_again", "missing_audio"))
            elif not size:
                left_out.append("empty file")  # a task that was skipped
            elif size > uploads.MAX_BYTES:
                problems.append(Problem(task, "record_again", "too_large"))
            else:
                takes[task] = hashlib.sha256(self.source.read(name)).hexdigest()
                names[takes[task]] = name
        if not takes:
            return Unusable("no_audio")
        if not set(takes) & {*VOICE}:
            problems.append(Problem("files", "required", ", ".join(VOICE)))
        origin = Origin(
            fields=tuple(
                one
                for one in (*form.FIELDS, *form.GASOMETRY)
                if not (found.subject_id and one.name == form.NUMBER)
            ),
            tasks=(),
            subject_id=found.subject_id,
            problems=tuple(problems),
        )
        if found.consent_file and self.source.path(found.consent_file).stat().st_size:
            sha256 = hashlib.sha256(self.source.read(found.consent_file)).hexdigest()
            names[sha256] = found.consent_file
            origin = replace(origin, consent_sha256=sha256)
        given = found.consent or ("granted" if self.asked.consent else "pending")
        version = found.consent_version or self.asked.consent
        consent = {"status": given, "version": version, "scope": CONSENT_SCOPE, "at": at}
        about = {"recorded_at": at, "prompt_version": found.prompt_version}
        files = [
            {"task": task, "sha256": sha256, "n_bytes": self._size(names[sha256]), **about}
            for task, sha256 in takes.items()
        ]
        try:
            manifest = Manifest.model_validate(
                {
                    "form_version": f"{self.kind}/{VERSION}",
                    "app_version": "",
                    "revision": 1,
                    "recorded_at": at,
                    "sent_at": now(),
                    "consent": consent,
                    "form": {n: value for n, value in found.form.items() if value is not None},
                    "capture": {"app": self.kind},
                    "files": files,
                }
            )
        except ValidationError as error:  # its text quotes values
            (first, *_) = error.errors()
            return Unusable("malformed", ".".join(map(str, first["loc"][:2])))
        device = self._device(found.collector)
        subject = submission(device, manifest, origin).subject_id or ""
        with self.engine.connect() as connection:
            if subject and is_erased(connection, subject):
                return Unusable("erased", "person")
        of_content = [self.kind, self.hospital_id, subject, at.isoformat(), sorted(takes.items())]
        session_id = str(uuid5(IDS, canonical_json(of_content).decode()))
        found = replace(found, left_out=left_out)
        return Prepared(found, device, session_id, manifest, names, origin)

    def _size(self, name: str) -> int:
        return self.source.path(name).stat().st_size

    def _device(self, collector: str) -> Device:
        """Stands for what recorded: a kind of source at a site, in the hands of a collector."""
        pseudonym = ""
        if collector:
            written = collector.encode(errors="replace").decode()
            parts = self.kind, self.hospital_id, written
            pseudonym = pseudonyms.pseudonym(pseudonyms.key(), "collector", *parts)
        content = canonical_json([self.kind, self.hospital_id, pseudonym])
        device_id = f"import-{hashlib.sha256(content).hexdigest()[:16]}"
        return Device(device_id, self.hospital_id, pseudonym, "", "")

    def _measured(self, one: Prepared | Unusable) -> Measured:
        """What is measured on the takes; nothing where the session was accepted before."""
        if isinstance(one, Unusable):
            return {}
        with self.engine.connect() as connection:
            newest = _newest(connection, one.session_id)
        if newest is not None and newest.status == "accepted":
            return {}
        return {
            file.sha256: audio_reader.convert(self.source.read(one.names[file.sha256]), MAX_SECONDS)
            for file in one.manifest.files
        }

    def _settled(
        self, connection: Connection, one: Prepared | Unusable, measured: Measured
    ) -> Outcome:
        """Commit a session in the caller's transaction, and its label."""
        if isinstance(one, Unusable):
            return Outcome("not_taken", ((one.field, one.reason),))
        sessions = Sessions(self.engine, self.blobs)
        newest = _newest(connection, one.session_id)
        revision = newest.revision if newest is not None else 1
        sent = self._sent(one, revision)
        outcome = Outcome("there", left_out=tuple(one.found.left_out))
        if newest is not None and newest.status == "accepted":
            if newest.digest != sent.digest and not self._granted(connection, one, newest):
                return replace(outcome, status="conflict")
        else:
            if newest is not None:
                _, problems = judged(connection, one.session_id, sent, measured)
                if newest.digest == sent.digest and newest.problems == [
                    vars(problem) for problem in problems
                ]:
                    return replace(outcome, status="refused", reasons=_reasons(problems))
                sent = self._sent(one, revision + 1)
            devices.note_keyless(connection, one.device)
            for sha256, name in one.names.items():
                uploads.note(connection, one.device.device_id, sha256, self._size(name))
            try:
                receipt, _ = sessions.store(connection, one.device, one.session_id, sent, measured)
            except Refused:  # of another collector before
                return replace(outcome, status="conflict")
            status: Status = "accepted" if receipt.status == "accepted" else "refused"
            outcome = replace(outcome, status=status, reasons=_reasons(receipt.problems))
            if status == "refused":
                return outcome
        stated = one.found.label
        if stated is not None and sent.subject_id is not None:
            self._label(connection, one, sent.subject_id, stated)
        is_pending = consent_of(connection, one.session_id) == "pending"
        has_label = stated is not None and stated.label is not None
        return replace(outcome, is_pending=is_pending, has_label=has_label)

    def _sent(self, one: Prepared, revision: int) -> Submission:
        manifest = one.manifest.model_copy(update={"revision": revision})
        return submission(one.device, manifest, one.origin)

    def _granted(self, connection: Connection, one: Prepared, newest: Any) -> bool:
        """Note a consent that was pending and is given now; whether that is all that is new.

        A consent that was withdrawn stays withdrawn.
        """
        before = Manifest.model_validate(
            one.manifest.model_dump() | {"consent": newest.document["consent"]}
        ).model_copy(update={"revision": newest.revision})
        if submission(one.device, before, one.origin).digest != newest.digest:
            return False
        given = one.manifest.consent
        if given.status == "granted" and newest.document["consent"]["status"] == "pending":
            with suppress(Refused):
                actor = f"device:{one.device.device_id}"
                grant(connection, actor, one.session_id, SentGrant(**given.model_dump()))
        return True

    def _label(self, connection: Connection, one: Prepared, subject: str, stated: Stated) -> None:
        at = one.manifest.recorded_at
        labels.register_item(connection, "session", one.session_id, subject, at)
        says = hashlib.sha256(canonical_json([stated.label, stated.source])).hexdigest()[:16]
        event = LabelEvent(
            item_kind="session",
            item_id=one.session_id,
            label=stated.label,
            source=stated.source,
            annotator=one.device.collector or f"{self.kind}/{VERSION}",
            valid_from=at,
            recorded_at=now(),
            unique_key=f"import:{one.session_id}:{LABEL}:{says}",
            value=dict(stated.value),
        )
        labels.record(connection, event)


def _newest(connection: Connection, session_id: str) -> Any:
    asked = select(REVISIONS).where(REVISIONS.c.session_id == session_id)
    return connection.execute(asked.order_by(REVISIONS.c.revision.desc()).limit(1)).first()


def _reasons(problems: Iterable[Any]) -> tuple[tuple[str, str], ...]:
    """Fields and rules; of a take, why it cannot be used."""
    return tuple(
        (one.field, one.allowed if one.rule == "record_again" else one.rule) for one in problems
    )


def _without_shared_audio(ready: list[Prepared | Unusable]) -> list[Prepared | Unusable]:
    """A file of two sessions belongs to one of them, and nobody knows to which."""
    used: dict[str, set[str]] = {}
    for one in ready:
        for file in one.manifest.files if isinstance(one, Prepared) else ():
            used.setdefault(file.sha256, set()).add(one.session_id)  # type: ignore[union-attr]

    def marked(one: Prepared) -> Prepared:
        shared = [
            Problem(file.task, "record_again", "duplicate_audio")
            for file in one.manifest.files
            if len(used[file.sha256]) > 1
        ]
        return replace(one, origin=replace(one.origin, problems=(*one.origin.problems, *shared)))

    return [marked(one) if isinstance(one, Prepared) else one for one in ready]
