"""Ask a model: what is asked is durable before it is answered, and its state follows from rows.

The audio is in store A first.  Then one transaction writes the request and the outbox row from
which it reaches the queue (``relay``), or nothing.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID, uuid4

from pydantic import BaseModel, Field, StrictBool
from sqlalchemy import Connection, Engine, Select, delete, func, select, update
from sqlalchemy.engine import Row

from spira_services import events, logs
from spira_services.database import insert_once, now, reading
from spira_services.devices import Device, may_take_back
from spira_services.serving.tables import ACTIONS, FAILURES, INFERENCES, OUTBOX, PREDICTIONS
from spira_services.subjects import is_erased, of_tag, subject_of
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

MAX_WAITING = 5_000  # inferences without an answer, of all devices
MAX_WAITING_OF_DEVICE = 500
COUNT_EVERY_SECONDS = 1.0
RETRY_AFTER_SECONDS = 10

Task = Literal["AMBIENT", "VOWEL", "RHYME", "SENTENCE"]
State = Literal["queued", "answered", "failed", "deleted"]
Action = Literal["seen", "recorded_again", "agreed", "disagreed"]
# It is exported for ever: no room for a name or a sentence.
AppVersion = Annotated[str, Field(pattern=r"^[A-Za-z0-9.+_-]{0,40}$")]


class Agreed(Sent):
    """What the person agreed to, beside the answer, and by which version of the text."""

    labels: StrictBool = False  # the recording may be labelled and learned from
    ab: StrictBool = False  # the answer may come from either of two models
    version: Text = ""


class SentInference(Sent):
    """What a device asks, beside the audio.  Times are by its own clock."""

    sha256: Sha256
    task: Task = "SENTENCE"
    recorded_at: Moment
    patient_rgh: Text = ""  # replaced by a pseudonym before anything is kept
    agreed: Agreed = Agreed()
    capture: SentCapture = SentCapture()
    app_version: AppVersion = ""


class Inference(BaseModel):
    """An inference as its device sees it.

    A recording that the model refuses has neither probability nor decision: ``record_again`` says
    why.  ``meaning`` holds stable codes, for a page to put into words.
    """

    inference_id: str
    state: State
    task: str
    recorded_at: datetime
    received_at: datetime
    answered_at: datetime | None = None
    probability: float | None = None  # of respiratory insufficiency
    decision: Literal["positive", "negative", "inconclusive"] | None = None
    record_again: list[str] = []
    unusual: list[str] = []
    window_scores: list[float] = []
    operating_point: float | None = None
    version: str | None = None  # of the model, in the registry
    classifier: str | None = None  # its digest
    reason: str | None = None  # why there is no answer, where it failed
    meaning: list[str] = []


@dataclass(frozen=True)
class Asked:
    """An inference that is stored, and whether this request stored it."""

    inference_id: str
    is_new: bool


class Backlog:
    """Refuses requests while too many wait for an answer.

    What waits is counted once a second, and this process adds what it takes meanwhile.  A count
    goes no further back than to the oldest that waited, so that it does not grow with the history.
    """

    def __init__(
        self,
        engine: Engine,
        most: int = MAX_WAITING,
        most_of_device: int = MAX_WAITING_OF_DEVICE,
        every_seconds: float = COUNT_EVERY_SECONDS,
    ) -> None:
        self._engine, self._most, self._most_of_device = engine, most, most_of_device
        self._every_seconds = every_seconds
        self._lock = threading.Lock()
        self._waiting: Counter[str] = Counter()
        self._counted_at = -every_seconds
        self._oldest: datetime | None = None

    def room(self, device_id: str) -> int:
        """How many more a device may ask now."""
        with self._lock:
            if time.monotonic() - self._counted_at >= self._every_seconds:
                self._count()
            of_device = self._most_of_device - self._waiting[device_id]
            return min(of_device, self._most - self._waiting.total())

    def add(self, device_id: str, n: int) -> None:
        """Note what was stored since the last count."""
        with self._lock:
            self._waiting[device_id] += n

    def _count(self) -> None:
        begun = now()
        asked = (
            select(
                INFERENCES.c.device_id,
                func.count().label("n"),
                func.min(INFERENCES.c.received_at).label("oldest"),
            )
            .where(is_waiting())
            .group_by(INFERENCES.c.device_id)
        )
        if self._oldest is not None and self._oldest < begun:  # else the clock was set back
            asked = asked.where(INFERENCES.c.received_at >= self._oldest)
        with reading(self._engine) as connection:
            rows = connection.execute(asked).all()
        self._waiting = Counter({row.device_id: row.n for row in rows})
        # A transaction that is open may still bring one that was received a little earlier.
        self._oldest = min([begun, *(row.oldest for row in rows)]) - timedelta(minutes=1)
        self._counted_at = time.monotonic()


def is_waiting() -> Any:
    """That an inference has no answer yet, as a condition of SQL."""
    of_it = INFERENCES.c.inference_id
    shown = PREDICTIONS.c.inference_id == of_it, PREDICTIONS.c.shown
    failed = FAILURES.c.inference_id == of_it
    return (
        INFERENCES.c.deleted_at.is_(None)
        & ~select(PREDICTIONS.c.number).where(*shown).exists()
        & ~select(FAILURES.c.inference_id).where(failed).exists()
    )


@dataclass(frozen=True)
class Inferences:
    """The inferences of a database, with the store of their audio."""

    engine: Engine
    blobs: Blobs  # store A
    backlog: Backlog

    def ask(self, device: Device, key: UUID, sent: SentInference) -> Asked:
        """Store an inference whose audio has come; the same again gives the same inference.

        ``key`` is chosen by the device, one for each inference.

        Raises
        ------
        Refused
            ``conflict`` where the key came with another content, ``missing_blobs`` when the audio
            is still to come, ``too_many_waiting``, ``erased`` for a person who had all recordings
            erased, ``malformed`` for a time to come or a hospital number that is none.
        """
        (answer,) = self.ask_each(device, [(key, sent)])
        if isinstance(answer, Refused):
            raise answer
        return answer

    def ask_each(
        self, device: Device, requests: Sequence[tuple[UUID, SentInference]]
    ) -> list[Asked | Refused]:
        """Store several in one transaction, each as ``ask`` does; a refused one stops none."""
        answers: list[Asked | Refused] = []
        room, n_new = self.backlog.room(device.device_id), 0
        with self.engine.begin() as connection:
            for key, sent in requests:
                try:
                    asked = self._stored(connection, device, str(key), sent, n_new < room)
                except Refused as refused:
                    answers.append(refused)
                else:
                    answers.append(asked)
                    n_new += asked.is_new
        self.backlog.add(device.device_id, n_new)
        return answers

    def check_room(self, device: Device, key: UUID) -> None:
        """Refused (429) before audio comes, where its request would be."""
        if self.backlog.room(device.device_id) > 0:
            return
        theirs = (
            INFERENCES.c.device_id == device.device_id,
            INFERENCES.c.idempotency_key == str(key),
        )
        with reading(self.engine) as connection:
            if connection.execute(select(INFERENCES.c.device_id).where(*theirs)).first() is None:
                raise _too_many()

    def discard(self, sha256: str) -> None:
        """Delete the audio of a request that was refused, unless something names it."""
        with self.engine.begin() as connection:
            drop(connection, self.blobs, [sha256])

    def _stored(
        self, connection: Connection, device: Device, key: str, sent: SentInference, has_room: bool
    ) -> Asked:
        """Store an inference in the caller's transaction.  What is refused writes nothing."""
        _check(sent)
        subject_id = subject_of(device.hospital_id, sent.patient_rgh)
        # From here on the hospital number is not looked at: only what is made of it is kept.
        document = sent.model_dump(mode="json", exclude={"patient_rgh"})
        content = canonical_json(document | {"subject_id": subject_id})
        digest = hashlib.sha256(content).hexdigest()
        if subject_id is not None and is_erased(connection, subject_id):
            if _sent_bytes(connection, device, sent.sha256) is not None:
                drop(connection, self.blobs, [sent.sha256])
            raise Refused(
                410, "erased", "this person had all recordings erased; delete it on the device"
            )
        if known := _same(connection, device, key, digest):
            # Audio that came again with the request of an inference that was deleted goes again.
            drop(connection, self.blobs, [sent.sha256])
            return known
        if not has_room:
            raise _too_many()
        n_bytes = _sent_bytes(connection, device, sent.sha256)
        if n_bytes is None or self.blobs.size(f"sha256:{sent.sha256}") != n_bytes:
            missing = [sent.sha256]
            message = "send this file, then the request again"
            raise Refused(409, "missing_blobs", message, missing=missing)
        inference_id, moment = str(uuid4()), now()
        row = {
            "inference_id": inference_id,
            "device_id": device.device_id,
            "hospital_id": device.hospital_id,
            "idempotency_key": key,
            "digest": digest,
            "task": sent.task,
            "sha256": sent.sha256,
            "n_bytes": n_bytes,
            "subject_id": subject_id,
            "agreed": document["agreed"],
            "about": {**document["capture"], "app_version": sent.app_version},
            "recorded_at": sent.recorded_at,
            "received_at": moment,
        }
        is_new = insert_once(connection, INFERENCES, row)  # else it came twice at the same time
        if not is_new and (known := _same(connection, device, key, digest)):
            return known
        outbox = {
            "inference_id": inference_id,
            "stored_at": moment,
            "request_id": logs.REQUEST_ID.get(),
        }
        connection.execute(OUTBOX.insert().values(**outbox))
        return Asked(inference_id, is_new=True)


def _too_many() -> Refused:
    return Refused(
        429,
        "too_many_waiting",
        "too many wait for an answer; keep it, and send it again later",
        retry_after_seconds=RETRY_AFTER_SECONDS,
    )


def _sent_bytes(connection: Connection, device: Device, sha256: str) -> int | None:
    """The length of audio that the device has sent; it stays until the transaction ends."""
    theirs = BLOBS.c.sha256 == sha256, BLOBS.c.device_id == device.device_id
    return connection.execute(select(BLOBS.c.n_bytes).where(*theirs).with_for_update()).scalar()


def _check(sent: SentInference) -> None:
    problems = []
    if sent.recorded_at > now() + CLOCK_SLACK:
        problems.append(Problem("recorded_at", "future"))
    if sent.patient_rgh and subject_of("", sent.patient_rgh) is None:
        problems.append(Problem("patient_rgh", "format"))
    if problems:
        raise Refused(422, "malformed", "the request has another form", problems)


def _same(connection: Connection, device: Device, key: str, digest: str) -> Asked | None:
    """The inference of a key; Refused where the key came with another content.

    Of a deleted one the content is not known any more: it is the same for each that comes.
    """
    theirs = INFERENCES.c.device_id == device.device_id, INFERENCES.c.idempotency_key == key
    known = INFERENCES.c.inference_id, INFERENCES.c.digest, INFERENCES.c.deleted_at
    asked = select(*known).where(*theirs)
    row = connection.execute(asked).first()
    if row is None:
        return None
    if row.deleted_at is None and row.digest != digest:
        raise Refused(409, "conflict", "the key came before, with another content; use a new one")
    return Asked(row.inference_id, is_new=False)


def state(connection: Connection, inference_id: str) -> Inference | None:
    """An inference with its answer, None where there is none of this name."""
    row = connection.execute(_seen().where(INFERENCES.c.inference_id == inference_id)).first()
    return None if row is None else _as_seen(row)


def states(connection: Connection, inference_ids: Sequence[str]) -> list[Inference]:
    """Those of the names that are there, in no order."""
    asked = _seen().where(INFERENCES.c.inference_id.in_(inference_ids))
    return [_as_seen(row) for row in connection.execute(asked)]


def of_device(
    connection: Connection, device_id: str, limit: int, before: str | None = None
) -> list[Inference]:
    """A device's inferences, the newest first; with ``before``, those that are older than it.

    Raises
    ------
    Refused
        ``not_there`` where ``before`` is no inference of the device.
    """
    asked = _seen().where(INFERENCES.c.device_id == device_id)
    order = INFERENCES.c.received_at.desc(), INFERENCES.c.inference_id.desc()
    if before is not None:
        check_own(connection, device_id, before)
        at = select(INFERENCES.c.received_at).where(INFERENCES.c.inference_id == before)
        last = connection.execute(at).scalar_one()
        asked = asked.where(
            (INFERENCES.c.received_at < last)
            | ((INFERENCES.c.received_at == last) & (INFERENCES.c.inference_id < before))
        )
    return [_as_seen(row) for row in connection.execute(asked.order_by(*order).limit(limit))]


def _seen() -> Select[Any]:
    of_it = INFERENCES.c.inference_id
    shown = (PREDICTIONS.c.inference_id == of_it) & PREDICTIONS.c.shown
    return (
        select(
            *(INFERENCES.c[name] for name in ("inference_id", "task", "recorded_at")),
            *(INFERENCES.c[name] for name in ("received_at", "deleted_at")),
            *(PREDICTIONS.c[name] for name in (*ANSWER, "synthetic")),
            PREDICTIONS.c.at.label("answered_at"),
            FAILURES.c.reason,
        )
        .outerjoin(PREDICTIONS, shown)
        .outerjoin(FAILURES, FAILURES.c.inference_id == of_it)
    )


ANSWER = (
    *("probability", "decision", "record_again", "unusual", "window_scores"),
    *("operating_point", "version", "classifier"),
)


def _as_seen(row: Row[Any]) -> Inference:
    """Deleted comes before answered, answered before failed, failed before queued."""
    derived: State = "queued"
    answer: dict[str, Any] = {}
    if row.deleted_at is not None:
        derived = "deleted"
    elif row.answered_at is not None:
        derived = "answered"
        answer = {name: getattr(row, name) for name in (*ANSWER, "answered_at")}
    elif row.reason is not None:
        derived, answer = "failed", {"reason": row.reason}
    return Inference(
        inference_id=row.inference_id,
        state=derived,
        task=row.task,
        recorded_at=row.recorded_at,
        received_at=row.received_at,
        meaning=_meaning(derived, answer, is_synthetic=bool(row.synthetic)),
        **answer,
    )


def _meaning(derived: State, answer: dict[str, Any], *, is_synthetic: bool) -> list[str]:
    if derived != "answered":
        return [derived]
    if answer["record_again"]:
        return ["record_again"]
    unusual = ["unusual"] if answer["unusual"] else []
    synthetic = ["synthetic_cohort"] if is_synthetic else []
    return [str(answer["decision"]), *unusual, *synthetic, "not_a_diagnosis"]


def check_own(connection: Connection, device_id: str, inference_id: str) -> None:
    """Refused (``not_there``) where the device has not asked for the inference."""
    asked = select(INFERENCES.c.device_id).where(INFERENCES.c.inference_id == inference_id)
    if connection.execute(asked).scalar() != device_id:
        raise not_there()


def delete_own(connection: Connection, blobs: Blobs, device: Device, inference_id: str) -> None:
    """Delete an inference because who asked wants it; again changes nothing.

    The audio goes where nothing else names it, and what leads to a person.  What a model answered
    stays: it says how the model does.

    Raises
    ------
    Refused
        ``not_there`` for an inference of another device, unless the same person has it.
    """
    asked = select(INFERENCES.c.device_id).where(INFERENCES.c.inference_id == inference_id)
    if not may_take_back(connection, device, connection.execute(asked).scalar()):
        raise not_there()
    _delete(connection, blobs, [inference_id])
    actor, key = f"device:{device.device_id}", f"inference_deleted:{inference_id}"
    about = {"inference_id": inference_id}
    events.record(connection, actor, "inference_deleted", key, about)


def _delete(connection: Connection, blobs: Blobs, inference_ids: Sequence[str]) -> int:
    """Mark inferences as deleted, with nothing of a person left; return how many files went."""
    theirs = INFERENCES.c.inference_id.in_(inference_ids), INFERENCES.c.deleted_at.is_(None)
    digests = connection.execute(select(INFERENCES.c.sha256).where(*theirs)).scalars().all()
    # Both digests go too: who has the file or the pseudonym could tell that it was this.
    gone = dict.fromkeys(("subject_id", "sha256", "digest"))
    left = {"deleted_at": now(), "agreed": Agreed().model_dump(), "about": {}}
    connection.execute(update(INFERENCES).where(*theirs).values(**gone, **left))
    return drop(connection, blobs, set(digests))


def forget(connection: Connection, blobs: Blobs, tag: str) -> int:
    """Erase the person of a tag in the caller's transaction; return how many inferences went."""
    theirs = select(INFERENCES.c.inference_id).where(
        INFERENCES.c.subject_id.in_(of_tag(connection, tag, INFERENCES.c.subject_id))
    )
    found = connection.execute(theirs).scalars().all()
    _delete(connection, blobs, found)
    connection.execute(delete(ACTIONS).where(ACTIONS.c.inference_id.in_(found)))
    return len(found)


def expire(connection: Connection, blobs: Blobs, before: datetime, most: int) -> int:
    """Delete, as a device does, older inferences that may not be labelled; return how many.

    Nobody agreed to that, or nobody says of whom they are: who cannot be found cannot withdraw.
    """
    theirs = (
        INFERENCES.c.received_at < before,
        INFERENCES.c.deleted_at.is_(None),
        INFERENCES.c.agreed["labels"].as_boolean().is_(False) | INFERENCES.c.subject_id.is_(None),
    )
    found = connection.execute(select(INFERENCES.c.inference_id).where(*theirs).limit(most))
    inference_ids = found.scalars().all()
    _delete(connection, blobs, inference_ids)
    return len(inference_ids)


def remove(connection: Connection, blobs: Blobs, since: datetime, until: datetime) -> int:
    """Delete the rows of a time, with all that points to them; return how many inferences."""
    theirs = INFERENCES.c.received_at >= since, INFERENCES.c.received_at < until
    found = connection.execute(select(INFERENCES.c.inference_id).where(*theirs)).scalars().all()
    _delete(connection, blobs, found)
    of_them = select(INFERENCES.c.inference_id).where(*theirs)
    for table in (OUTBOX, PREDICTIONS, FAILURES, ACTIONS):
        connection.execute(delete(table).where(table.c.inference_id.in_(of_them)))
    connection.execute(delete(INFERENCES).where(*theirs))
    return len(found)


def note_action(connection: Connection, device_id: str, inference_id: str, action: Action) -> None:
    """Note what a person did on an answer, once.

    Raises
    ------
    Refused
        ``not_there`` for an inference of another device.
    """
    check_own(connection, device_id, inference_id)
    row = {"inference_id": inference_id, "action": action, "at": now()}
    insert_once(connection, ACTIONS, row)


class AnsweringVersion(BaseModel):
    """A version of the model that gave answers, and when it gave the last."""

    version: str
    classifier: str
    feature_schema: str
    synthetic: bool  # it learned from voices that a computer made
    arm: str
    answered_at: datetime


N_NEWEST = 200  # answers in which the versions are looked for


def answering(connection: Connection) -> list[AnsweringVersion]:
    """The versions behind the newest answers, the last to answer first; none before any answer."""
    newest = (
        select(PREDICTIONS)
        .where(PREDICTIONS.c.shown)
        .order_by(PREDICTIONS.c.at.desc())
        .limit(N_NEWEST)
        .subquery()
    )
    named = "version", "classifier", "feature_schema", "synthetic", "arm"
    which = [newest.c[name] for name in named]
    last = func.max(newest.c.at).label("answered_at")
    rows = connection.execute(select(*which, last).group_by(*which).order_by(last.desc()))
    return [AnsweringVersion(**row._mapping) for row in rows]
