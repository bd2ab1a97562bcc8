"""The interface of who asks a model, under /v1.

Audio is stored and not looked into: the model itself refuses what it cannot judge.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, FastAPI, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field, ValidationError
from sqlalchemy import Engine
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from spira_services import devices
from spira_services.database import reading
from spira_services.devices import Device
from spira_services.serving import inferences
from spira_services.serving.events import Watch
from spira_services.serving.inferences import (
    Action,
    AnsweringVersion,
    Backlog,
    Inference,
    Inferences,
    SentInference,
    State,
)
from spira_services.serving.relay import Relay
from spira_services.uploads import MAX_BYTES, Uploads, disk_full, most_a_day
from spira_services.web import MAX_BODY_BYTES, Asker, Problem, Refusal, Refused, Sent, may_answer
from spira_tasks.artifacts.backends import FULL
from spira_tasks.artifacts.blobs import Blobs

LARGER = {"/v1/blobs/": MAX_BYTES, "/v1/inferences": MAX_BYTES + MAX_BODY_BYTES}
MAX_BATCH = 32
N_PARTS = 2  # audio and request
Delete = Callable[[Device, str], None]


class Taken(BaseModel):
    """That an inference is stored; the answer comes under its id."""

    inference_id: str
    state: State


class SentOne(Sent):
    """An inference of a batch."""

    idempotency_key: UUID
    request: SentInference


class SentBatch(Sent):
    inferences: Annotated[list[SentOne], Field(min_length=1, max_length=MAX_BATCH)]


class TakenOne(BaseModel):
    """What became of an inference of a batch: as its own request would have been answered."""

    idempotency_key: UUID
    status: int
    inference_id: str | None = None
    refusal: Refusal | None = None


class TakenBatch(BaseModel):
    inferences: list[TakenOne]


class Listed(BaseModel):
    """The newest inferences; ``next`` is the id to ask on with, as ``before``."""

    inferences: list[Inference]
    next: str | None


class ListedModels(BaseModel):
    models: list[AnsweringVersion]


class Hospital(BaseModel):
    hospital_id: str
    name: str


class Hospitals(BaseModel):
    hospitals: list[Hospital]


class Me(BaseModel):
    """The device that asks; ``collector`` is the pseudonym of who enrolled it."""

    device_id: str
    hospital_id: str
    collector: str
    model: str
    os: str


class SentAction(Sent):
    action: Action


Key = Annotated[UUID, Header(description="Chosen by the device, one for each inference")]


SENT = {"$ref": "#/components/schemas/SentInference"}
BODY = {  # in two forms, of which FastAPI describes one
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": SENT},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "audio": {"type": "string", "format": "binary"},
                        "request": SENT,
                    },
                    "required": ["audio", "request"],
                    "additionalProperties": False,
                },
                "encoding": {"request": {"contentType": "application/json"}},
            },
        },
    }
}

EVENT = {
    "type": "object",
    "properties": {
        "event": {"type": "string", "description": "The state"},
        "data": {"type": "string", "description": "The inference as JSON"},
    },
    "required": ["event", "data"],
}


def add_to(
    app: FastAPI, engine: Engine, blobs: Blobs, unfinished: Path, relay: Relay, *, delete: Delete
) -> None:
    """Put the interface on an application.

    ``blobs`` is store A; ``unfinished`` the folder of files that are not whole yet.  ``delete``
    deletes an inference of a device, also where others know of it, and may raise Refused.
    """
    asks = Inferences(engine, blobs, Backlog(engine))
    uploads = Uploads(engine, unfinished, blobs, most_a_day())
    router = APIRouter(prefix="/v1", tags=["serving"])
    uploads.add_to(router)
    _add_asking(router, asks, uploads, relay)
    _add_answers(router, engine, delete)
    _add_facts(router, engine)
    app.include_router(router)


def _add_asking(router: APIRouter, asks: Inferences, uploads: Uploads, relay: Relay) -> None:
    @router.post(
        "/inferences",
        status_code=202,
        responses=may_answer(401, 409, 410, 413, 429, 507),
        openapi_extra=BODY,
    )
    async def ask(
        request: Request, device: Asker, idempotency_key: Key, response: Response
    ) -> Taken:
        """Ask with the audio (multipart), or about audio that was sent before (JSON).

        It is answered when audio and request are durable.  The same again gives the same inference.
        """
        await run_in_threadpool(asks.check_room, device, idempotency_key)
        is_whole = request.headers.get("Content-Type", "").startswith("multipart/form-data")
        if is_whole:
            sent = await _whole(request, device.device_id, uploads)
        else:
            sent = _request(await _bounded(request))
        try:
            asked = await run_in_threadpool(asks.ask, device, idempotency_key, sent)
        except Refused:
            if is_whole:
                await run_in_threadpool(asks.discard, sent.sha256)
            raise
        relay.wake()
        response.headers["Location"] = f"/v1/inferences/{asked.inference_id}"
        if asked.is_new:
            return Taken(inference_id=asked.inference_id, state="queued")
        found = await run_in_threadpool(_own, asks.engine, device, asked.inference_id)
        return Taken(inference_id=asked.inference_id, state=found.state)

    @router.post("/inferences/batch", status_code=202, responses=may_answer(401, 413, 429))
    def ask_batch(batch: SentBatch, device: Asker) -> TakenBatch:
        """Ask about several recordings that were sent before; one that is refused stops none."""
        requests = [(one.idempotency_key, one.request) for one in batch.inferences]
        answers = asks.ask_each(device, requests)
        relay.wake()
        refused = [one for one in answers if isinstance(one, Refused)]
        if len(refused) == len(answers) and all(one.status == 429 for one in refused):
            raise refused[0]
        return TakenBatch(
            inferences=[
                TakenOne(
                    idempotency_key=key,
                    status=one.status if isinstance(one, Refused) else 202,
                    inference_id=None if isinstance(one, Refused) else one.inference_id,
                    refusal=Refusal(**one.body) if isinstance(one, Refused) else None,
                )
                for (key, _), one in zip(requests, answers, strict=True)
            ]
        )


def _add_answers(router: APIRouter, engine: Engine, delete: Delete) -> None:
    watch = Watch(engine)

    @router.get("/inferences", responses=may_answer(401, 404))
    def listed(
        device: Asker, limit: Annotated[int, Query(ge=1, le=100)] = 50, before: UUID | None = None
    ) -> Listed:
        """The inferences of this device, the newest first."""
        with reading(engine) as connection:
            last = None if before is None else str(before)
            found = inferences.of_device(connection, device.device_id, limit + 1, last)
        more = len(found) > limit
        page = found[:limit]
        return Listed(inferences=page, next=page[-1].inference_id if more else None)

    @router.get("/inferences/{inference_id}", responses=may_answer(401, 404))
    def one(inference_id: UUID, device: Asker) -> Inference:
        """An inference, with its answer where there is one."""
        return _own(engine, device, str(inference_id))

    @router.get(
        "/inferences/{inference_id}/events",
        responses={
            **may_answer(401, 404, 429),
            200: {"content": {"text/event-stream": {"schema": EVENT}}},
        },
        response_class=StreamingResponse,
    )
    async def events(inference_id: UUID, device: Asker) -> StreamingResponse:
        """Each state of an inference as it comes, until it is answered, failed or deleted."""
        found = await run_in_threadpool(_own, engine, device, str(inference_id))
        watch.check_room(device.device_id)
        return StreamingResponse(
            watch.events(device.device_id, found),
            media_type="text/event-stream",
            headers={"X-Accel-Buffering": "no"},
        )

    @router.delete("/inferences/{inference_id}", status_code=204, responses=may_answer(401, 404))
    def delete_it(inference_id: UUID, device: Asker) -> None:
        """Delete an inference: its audio, and what leads to a person."""
        delete(device, str(inference_id))

    @router.post(
        "/inferences/{inference_id}/actions", status_code=204, responses=may_answer(401, 404)
    )
    def act(inference_id: UUID, sent: SentAction, device: Asker) -> None:
        """Say what a person did on the answer; each action counts once."""
        with engine.begin() as connection:
            inferences.note_action(connection, device.device_id, str(inference_id), sent.action)


def _add_facts(router: APIRouter, engine: Engine) -> None:
    @router.get("/models", responses=may_answer(401))
    def models(device: Asker) -> ListedModels:
        """The versions behind the newest answers, the last to answer first."""
        with reading(engine) as connection:
            return ListedModels(models=inferences.answering(connection))

    @router.get("/hospitals", responses=may_answer(401))
    def hospitals(device: Asker) -> Hospitals:
        """The hospital of this device."""
        with reading(engine) as connection:
            site = devices.site(connection, device.hospital_id)
        return Hospitals(hospitals=[Hospital(hospital_id=site.hospital_id, name=site.name)])

    @router.get("/me", responses=may_answer(401))
    def me(device: Asker) -> Me:
        """Who asks."""
        return Me(**vars(device))


def _own(engine: Engine, device: Device, inference_id: str) -> Inference:
    with reading(engine) as connection:
        inferences.check_own(connection, device.device_id, inference_id)
        (found,) = inferences.states(connection, [inference_id])
    return found


async def _bounded(request: Request) -> bytes:
    """The body of a request without audio."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise Refused(413, "too_large", f"a request has at most {MAX_BODY_BYTES} bytes")
    return body


async def _whole(request: Request, device_id: str, uploads: Uploads) -> SentInference:
    """Store the audio of a request with parts; return what is asked about it."""
    try:
        async with request.form(max_files=2, max_fields=2, max_part_size=MAX_BODY_BYTES) as form:
            audio, asked = form.get("audio"), form.get("request")
            n_parts = len(form.multi_items())
            if not isinstance(audio, UploadFile) or asked is None or n_parts != N_PARTS:
                problem = Problem("parts", "missing", "audio, a file, and request")
                raise Refused(422, "malformed", "the request has another form", [problem])
            sent = _request(asked if isinstance(asked, str) else await asked.read(MAX_BODY_BYTES))
            await uploads.take(device_id, sent.sha256, audio.file, audio.size or 0)
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise disk_full() from None
    return sent


def _request(content: str | bytes) -> SentInference:
    try:
        return SentInference.model_validate_json(content)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False, include_input=False)
        raise RequestValidationError(
            [{**one, "loc": ("body", *one["loc"])} for one in errors]
        ) from None
