"""The labelling interface, under /labels/v1, and its pages: to label, and to see the agreement."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from math import isnan
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from fastapi import APIRouter, FastAPI, Response
from fastapi import Path as InPath
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection, Engine

from spira_services.database import now
from spira_services.labels import agreement, assignment
from spira_services.labels.assignment import Answer, NotAllowed
from spira_services.labels.store import LABEL, events_as_of
from spira_services.people import Person
from spira_services.web import may_answer, not_there, signed_in
from spira_tasks.contract.verdict import is_small

HERE = Path(__file__).parent
PAGE = HERE / "page"
PARTS = ("labels.js", "spectrogram.js", "labels.css", "agreement.js")


@dataclass(frozen=True)
class Instruction:
    """What people are asked to label by; another text or other signs are another version."""

    version: str
    signs: tuple[str, ...]  # vital signs that are shown beside the recordings
    title: Mapping[str, str]  # by language
    text: Mapping[str, str]


@cache
def current_instruction() -> Instruction:
    """The newest one; the older ones are kept for the labels that followed them."""
    newest = max((HERE / "instructions").glob("*.json"), key=lambda file: int(file.stem))
    fields = json.loads(newest.read_text())
    return Instruction(**{**fields, "signs": tuple(fields["signs"])})


class Evidence(Protocol):
    """What can be heard and seen of a session: of another service, lent by the server.

    A session may be of the collection, or an inference: their ids are never alike.
    """

    def prepare(self, connection: Connection) -> None:
        """Open tasks for what came since."""

    def recordings(self, connection: Connection, session_id: str) -> Mapping[str, str]:
        """By task, the digest of the audio."""

    def audio(self, digest: str) -> Path:
        """A local file with the audio."""

    def signs(self, connection: Connection, session_id: str) -> Mapping[str, Any]:
        """Vital signs at the time of the session, by the column of the row contract."""


class Task(BaseModel):
    """A session to label.  Nothing in it says what anybody or any program thinks of it."""

    session_id: str
    purpose: Literal["label", "adjudicate"]
    recordings: list[str]  # tasks
    signs: dict[str, Any]
    n_open: int  # sessions that wait for a label or an adjudication


class Given(BaseModel):
    model_config = ConfigDict(extra="forbid")

    session_id: Annotated[str, Field(max_length=80)]
    label: Literal[0, 1] | None
    confidence: Annotated[float, Field(ge=0, le=1)] | None = None
    instruction_version: Annotated[str, Field(max_length=20)]
    submission_id: Annotated[str, Field(min_length=8, max_length=80)]


class Taken(BaseModel):
    recorded: bool  # False: it was sent before
    pre_labels: dict[str, float]  # probabilities that programs gave, shown now and not before


class Shown(BaseModel):
    """Agreement as it may be shown: None where it would tell of fewer than five people."""

    backlog: dict[str, int | None]
    overall: dict[str, Any]
    by_instruction: dict[str, dict[str, Any]]
    pairs: list[dict[str, Any]]
    annotators: list[dict[str, Any]]
    hardest: list[dict[str, Any]]


SessionId = Annotated[str, InPath(pattern=r"^[A-Za-z0-9._-]{1,80}$")]
TaskName = Annotated[str, InPath(pattern="^[A-Z]{1,20}$")]
Labeller = Annotated[Person, signed_in("clinician", "adjudicator")]
Overseer = Annotated[Person, signed_in("governance", "adjudicator")]


def add_to(
    app: FastAPI, engine: Engine, evidence: Evidence, instruction: Instruction | None = None
) -> None:
    """Put the interface and the pages on an application."""
    followed = instruction or current_instruction()
    router = APIRouter(prefix="/labels/v1", tags=["labels"])

    @router.get("/instruction", responses=may_answer(401, 404))
    def get_instruction(person: Labeller) -> dict[str, Any]:
        """What to label by."""
        return asdict(followed)

    @router.get("/next", responses=may_answer(401, 404))
    def get_next(person: Labeller) -> Task | None:
        """What to label now, the same until it is labelled; null when there is nothing."""
        with engine.begin() as connection:
            evidence.prepare(connection)
            item = assignment.next_item(connection, person)
            if item is None:
                return None
            signs = evidence.signs(connection, item.item_id)
            waiting = assignment.backlog(connection)
            return Task(
                session_id=item.item_id,
                purpose=item.purpose,
                recordings=sorted(evidence.recordings(connection, item.item_id)),
                signs={name: signs.get(name) for name in followed.signs},
                n_open=waiting["open"] + waiting["disputed"],
            )

    @router.get(
        "/sessions/{session_id}/{task}", responses=may_answer(401, 404), response_class=FileResponse
    )
    def get_audio(session_id: SessionId, task: TaskName, person: Labeller) -> FileResponse:
        """A recording of a session that was given to the person."""
        with engine.begin() as connection:
            digest = None
            if assignment.given_kind(connection, person, session_id):
                digest = evidence.recordings(connection, session_id).get(task)
        if digest is None:
            raise not_there()
        file = evidence.audio(digest)
        return FileResponse(file, media_type=_media_type(file))

    @router.post("/answers", responses=may_answer(401, 404))
    def post_answer(given: Given, person: Labeller) -> Taken:
        """Say what holds for a session that was given to the person."""
        if given.instruction_version != followed.version:
            raise not_there()
        with engine.begin() as connection:
            kind = assignment.given_kind(connection, person, given.session_id)
            if kind is None:
                raise not_there()
            answer = Answer(
                item_kind=kind, item_id=given.session_id, **given.model_dump(exclude={"session_id"})
            )
            try:
                recorded = assignment.submit(connection, person, answer)
            except NotAllowed:
                raise not_there() from None
            programs = assignment.pre_labels(connection, person, kind, given.session_id)
        return Taken(recorded=recorded, pre_labels=programs)

    @router.get("/agreement", responses=may_answer(401, 404))
    def get_agreement(person: Overseer) -> Shown:
        """How far those who label agree, by pseudonym."""
        with engine.begin() as connection:
            found = agreement.report(events_as_of(connection, now(), LABEL))
            return shown(found, assignment.backlog(connection))

    app.include_router(router)

    @app.get("/labels/", include_in_schema=False)
    def page() -> Response:
        return FileResponse(PAGE / "index.html")

    @app.get("/labels/agreement", include_in_schema=False)
    def agreement_page() -> Response:
        return FileResponse(PAGE / "agreement.html")

    @app.get("/labels/{name}", include_in_schema=False)
    def part(name: str) -> Response:
        if name not in PARTS:
            raise not_there()
        return FileResponse(PAGE / name)


def shown(found: agreement.Report, backlog: Mapping[str, int]) -> Shown:
    """The report without what tells of fewer than five sessions."""
    return Shown(
        backlog={state: None if is_small(n) else n for state, n in backlog.items()},
        overall=_of_enough(found.overall),
        by_instruction={name: _of_enough(one) for name, one in found.by_instruction.items()},
        pairs=[_of_enough(pair) for pair in found.pairs],
        annotators=[_of_enough(one) for one in found.annotators],
        hardest=[
            {"session_id": item[1], "disagreement": share, "difficulty": round(difficulty, 3)}
            for item, share, difficulty in found.hardest
        ],
    )


# The others rest on n_items; so does n_ratings, by which the items could be counted.
RESTS_ON = {"n_gold": "n_gold", "gold_accuracy": "n_gold"}


def _of_enough(row: Any) -> dict[str, Any]:
    """A row of statistics; None for a small count and what rests on it, and in place of NaN."""
    fields = asdict(row)
    kept: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, str):
            kept[name] = value
            continue
        hidden = is_small(fields[RESTS_ON.get(name, "n_items")]) or isnan(value)
        kept[name] = None if hidden else round(value, 3)
    return kept


MEDIA_TYPES = {  # by place and bytes
    (0, b"RIFF"): "audio/wav",
    (0, b"OggS"): "audio/ogg",
    (0, b"fLaC"): "audio/flac",
    (0, b"ID3"): "audio/mpeg",
    (4, b"ftyp"): "audio/mp4",
    (0, b"\x1aE\xdf\xa3"): "audio/webm",
}


def _media_type(file: Path) -> str:
    with file.open("rb") as stream:
        start = stream.read(12)
    found = (name for (at, bytes_), name in MEDIA_TYPES.items() if start.startswith(bytes_, at))
    return next(found, "application/octet-stream")
