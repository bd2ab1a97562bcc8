"""The collection interface, under /collection/v1, and the page that a collector opens."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Engine

from spira_services import devices
from spira_services.collection import form, overview
from spira_services.collection.sessions import Manifest, Receipt, SentGrant, Sessions, grant
from spira_services.database import now
from spira_services.people import Person
from spira_services.uploads import MAX_BYTES, Uploads, most_a_day
from spira_services.web import (
    PAGES,
    Asker,
    Limiter,
    Moment,
    Refused,
    address_of,
    may_answer,
    signed_in,
)
from spira_tasks.artifacts.blobs import Blobs

APP = Path(__file__).parent / "app"
LARGER = {"/collection/v1/blobs/": MAX_BYTES}


class Enrolment(BaseModel):
    model_config = ConfigDict(extra="forbid")

    code: Annotated[str, Field(max_length=40)]
    model: Annotated[str, Field(max_length=120)] = ""
    os: Annotated[str, Field(max_length=120)] = ""


class Enrolled(BaseModel):
    """``key`` is shown once; the device keeps it."""

    device_id: str
    key: str
    hospital_id: str
    collector: str


Manager = Annotated[Person, signed_in("data_manager")]


def add_to(app: FastAPI, engine: Engine, blobs: Blobs, unfinished: Path) -> None:
    """Put the interface and the page on an application.

    ``blobs`` is store A; ``unfinished`` the folder of files that are not whole yet.
    """
    sessions = Sessions(engine, blobs)
    tries = Limiter(10, 60)
    router = APIRouter(prefix="/collection/v1", tags=["collection"])
    Uploads(engine, unfinished, blobs, most_a_day()).add_to(router)

    @router.post("/devices", status_code=201, responses=may_answer(403, 429))
    def enrol(request: Request, enrolment: Enrolment) -> Enrolled:
        """Enrol a device by a one-time code."""
        tries.check(address_of(request))
        with engine.begin() as connection:
            found = devices.enrol(connection, enrolment.code, enrolment.model, enrolment.os)
        if found is None:
            tries.count(address_of(request))
            raise Refused(403, "bad_code", "the code is wrong, was used, or is too old")
        device, key = found
        return Enrolled(
            device_id=device.device_id,
            key=key,
            hospital_id=device.hospital_id,
            collector=device.collector,
        )

    @router.get("/form", responses=may_answer(401))
    def get_form(device: Asker) -> dict[str, Any]:
        """The questions, tasks, prompts and consent of the device's site."""
        with engine.connect() as connection:
            site = devices.site(connection, device.hospital_id)
        return form.described(site.name, site.check_letter, site.hospital_id)

    @router.put(
        "/sessions/{session_id}",
        responses={**may_answer(401, 404, 409, 410, 413), 201: {"model": Receipt}},
    )
    def commit(session_id: UUID, manifest: Manifest, device: Asker, response: Response) -> Receipt:
        """Commit a session whose files have come; the same again gives the same receipt."""
        receipt, is_new = sessions.commit(device, str(session_id), manifest)
        response.status_code = 201 if is_new else 200
        return receipt

    @router.get("/sessions", responses=may_answer(401))
    def receipts(device: Asker) -> list[Receipt]:
        """What became of this device's sessions, the newest first."""
        return [*sessions.receipts(device)]

    @router.post("/sessions/{session_id}/withdraw", responses=may_answer(401, 404))
    def withdraw(session_id: UUID, device: Asker) -> Receipt:
        """Withdraw the consent of a session's person."""
        return sessions.withdraw(device, str(session_id))

    @router.post("/sessions/{session_id}/consent", responses=may_answer(401, 404, 409))
    def consent(session_id: UUID, given: SentGrant, device: Asker) -> Receipt:
        """Take a consent that was pending when its session was sent."""
        return sessions.grant(device, str(session_id), given)

    @router.post("/consents/{session_id}", status_code=204, responses=may_answer(401, 404, 409))
    def consent_on_paper(session_id: UUID, given: SentGrant, manager: Manager) -> None:
        """Take a consent that reached the data manager otherwise, as on paper."""
        with engine.begin() as connection:
            grant(connection, f"person:{manager.person_id}", str(session_id), given)

    @router.get("/overview", responses=may_answer(401, 404))
    def what_came(manager: Manager, as_of: Moment | None = None) -> overview.Overview:
        """By site and day: what was expected, came, was accepted and refused as of a time."""
        with engine.connect() as connection:
            return overview.overview(connection, min(as_of or now(), now()))

    app.include_router(router)

    # Not under /collection/: there a phone's browser answers with the page that it keeps.
    @app.get("/overview/", include_in_schema=False)
    def overview_page() -> Response:
        return FileResponse(PAGES / "overview.html")

    @app.get("/overview/overview.js", include_in_schema=False)
    def overview_script() -> Response:
        return FileResponse(PAGES / "overview.js")

    app.mount("/collection", StaticFiles(directory=APP, html=True), name="collection")
