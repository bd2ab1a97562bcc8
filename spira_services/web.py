"""What the services' pages and interfaces share: answers, limits, headers, and who asks."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool
from sqlalchemy import Engine, select
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spira_services import devices, logs, people, tracing
from spira_services.database import AWAY, reading
from spira_services.devices import Device
from spira_services.metrics import Metrics, may_read, of_events
from spira_services.people import Person
from spira_tasks.errors import SpiraError

log = logging.getLogger("spira.services")

COOKIE = "spira_token"
REQUEST_ID = "X-Request-Id"
MAX_BODY_BYTES = 1 << 20
DATE = re.compile(r"\d{4}-\d\d-\d\d")
PAGES = Path(__file__).parent / "pages"
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def _written(value: object) -> object:
    if isinstance(value, int | float) or (isinstance(value, str) and not DATE.match(value)):
        raise ValueError("a time is written by ISO 8601")
    return value


# A number would be taken as seconds since 1970; there is room on both sides for every offset.
Moment = Annotated[
    AwareDatetime,
    BeforeValidator(_written),
    Field(ge=datetime(1900, 1, 1, tzinfo=UTC), lt=datetime(9000, 1, 1, tzinfo=UTC)),
]

Text = Annotated[str, Field(max_length=200, pattern=r"^[^\x00]*$")]  # Postgres takes no NUL
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
CLOCK_SLACK = timedelta(days=1)  # as ingest allows a device's clock to be ahead


class Sent(BaseModel):
    """What a device sends, and nothing besides."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SentCapture(Sent):
    """How the browser says that it recorded."""

    ns: StrictBool | None = None  # noise suppression
    agc: StrictBool | None = None  # automatic gain control
    aec: StrictBool | None = None  # echo cancelling
    sample_rate_hz: Annotated[int, Field(gt=0, le=768_000, strict=True)] | None = None
    app: Annotated[str, Field(pattern="^[a-z0-9-]{0,40}$")] = ""


@dataclass(frozen=True)
class Problem:
    """What is wrong with one field or take; ``rule`` is a stable code."""

    field: str
    rule: str
    allowed: str = ""  # the values or the range that are


class Refused(Exception):
    """The answer to a request that is not fulfilled.  ``code`` is stable; ``more`` is added."""

    def __init__(
        self, status: int, code: str, message: str, problems: Sequence[Problem] = (), **more: Any
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {
            "error": code,
            "message": message,
            "problems": [asdict(problem) for problem in problems],
            **more,
        }


class Refusal(BaseModel):
    """The body of every refusal; some carry more."""

    model_config = ConfigDict(extra="allow")

    error: str
    message: str
    problems: list[Problem] = []


NOT_THERE = "there is no such thing, or it is not yours"


def not_there() -> Refused:
    """One answer for what does not exist and for what the asker may not see."""
    return Refused(404, "not_there", NOT_THERE)


class Limiter:
    """At most ``n`` events of a key within ``seconds``, in this process."""

    N_KEYS = 10_000  # of which the oldest are forgotten

    def __init__(self, n: int, seconds: float) -> None:
        self._n, self._seconds = n, seconds
        self._lock = threading.Lock()
        self._times: dict[str, list[float]] = {}

    def count(self, key: str) -> None:
        """Note an event."""
        with self._lock:
            self._times[key] = [*self._times.pop(key, []), time.monotonic()][-self._n :]
            while len(self._times) > self.N_KEYS:
                self._times.pop(next(iter(self._times)))

    def check(self, key: str) -> None:
        """Refused (429) where there were too many."""
        since = time.monotonic() - self._seconds
        with self._lock:
            n_recent = sum(moment > since for moment in self._times.get(key, []))
        if n_recent >= self._n:
            raise Refused(429, "too_many", f"too many tries; wait {self._seconds:g} s")


class _Headers:
    """Puts the security headers on every answer, and forbids to keep what is no file of a page."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)


class _Bounded:
    """Refuses a body that is too large while it comes."""

    def __init__(self, app: ASGIApp, larger: Mapping[str, int]) -> None:
        self.app, self.larger = app, larger

    def _most(self, path: str) -> int:
        for place, n_bytes in self.larger.items():
            if path == place or (place.endswith("/") and path.startswith(place)):
                return n_bytes
        return MAX_BODY_BYTES

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        most, n_bytes = self._most(scope.get("path", "")), 0

        async def counted() -> Message:
            nonlocal n_bytes
            message = await receive()
            n_bytes += len(message.get("body", b""))
            if n_bytes > most:
                raise Refused(413, "too_large", f"a request has at most {most} bytes")
            return message

        await self.app(scope, counted if scope["type"] == "http" else receive, send)


class _Observed:
    """Gives a request its id; logs it, counts it, and makes a span of it.

    All three name its route, and no identifier that its path holds.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        request_id = logs.begin(Headers(scope=scope).get(REQUEST_ID, ""))
        begun = time.monotonic()

        def note(status: int) -> None:
            method, route = scope["method"], getattr(scope.get("route"), "path", "another path")
            seconds = time.monotonic() - begun
            self.metrics.request(method, route, status, seconds)
            said = {"method": method, "route": route, "status": status}
            logs.noted(log, "request", **said, milliseconds=round(1000 * seconds, 1))
            span.update_name(f"{method} {route}")
            attributes = {"http.request.method": method, "http.route": route}
            span.set_attributes({**attributes, "http.response.status_code": status})

        async def noted(message: Message) -> None:
            # When the answer begins: a stream of events lasts as long as somebody listens.
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
                note(message["status"])
            await send(message)

        with tracing.span("request", **{"spira.request_id": request_id}) as span:
            try:
                await self.app(scope, receive, noted)
            except Exception:
                note(500)
                raise


def create_app(
    title: str,
    engine: Engine,
    larger: Mapping[str, int] | None = None,
    *,
    has_people: bool = True,
    check: Callable[[], None] = lambda: None,
) -> FastAPI:
    """An application without pages of other hosts, whose errors quote no value of a request.

    ``larger``: paths, or how they begin where they end in ``/``, whose bodies may have more bytes
    than others, and how many.  ``has_people``: whether somebody signs in.  ``check``: refuses where
    the process is not well, beside its database.
    """
    # FastAPI's own pages of the interface load their scripts from another host.
    app = FastAPI(title=title, version="1", docs_url=None, redoc_url=None)
    app.state.engine = engine
    app.add_middleware(_Bounded, larger=larger or {})
    app.add_middleware(_Headers)
    app.state.metrics = Metrics()
    app.state.metrics.add("events", of_events(engine))
    app.add_middleware(_Observed, metrics=app.state.metrics)

    @app.exception_handler(Refused)
    def refused(request: Request, error: Refused) -> Response:
        app.state.metrics.refused(error.body["error"])
        seconds = error.body.get("retry_after_seconds", 60)
        headers = {"Retry-After": str(seconds)} if error.status == 429 else {}
        return JSONResponse(error.body, error.status, headers)

    @app.exception_handler(HTTPException)
    def no_route(request: Request, error: HTTPException) -> Response:
        if error.status_code == 400:  # what FastAPI says of a body that is no UTF-8
            return refused(request, Refused(422, "malformed", "the request has another form"))
        answer = refused(request, Refused(error.status_code, "http", str(error.detail)))
        answer.headers.update(error.headers or {})  # Allow, beside 405
        return answer

    @app.exception_handler(ClientDisconnect)
    def cut_off(request: Request, error: ClientDisconnect) -> Response:
        # Nobody reads it.  It is counted, and is no error of the server.
        return refused(request, Refused(400, "cut_off", "the request ended before all of it came"))

    @app.exception_handler(RequestValidationError)
    def malformed(request: Request, error: RequestValidationError) -> Response:
        # Neither the value nor a key that somebody else chose: it may be a patient's name.
        problems = [Problem(_place(one), str(one["type"])) for one in error.errors()]
        return refused(request, Refused(422, "malformed", "the request has another form", problems))

    @app.exception_handler(SpiraError)
    def store_away(request: Request, error: SpiraError) -> Response:
        # Also where it may not be written: a sender can only wait until that is mended here.
        log.error("%s: %s", request.method, error)
        return refused(request, Refused(503, "try_again", "the store does not answer; try again"))

    def database_away(request: Request, error: Exception) -> Response:
        log.error("the database does not answer (%s)", type(error).__name__)
        return refused(
            request, Refused(503, "try_again", "the database does not answer; try again")
        )

    for kind in AWAY:
        app.add_exception_handler(kind, database_away)

    @app.exception_handler(Exception)
    def mistake(request: Request, error: Exception) -> Response:
        # The server logs where it was, and not what was sent.
        request_id = logs.REQUEST_ID.get()
        said = f"a mistake of this program; its administrator finds it in the log by {request_id}"
        answer = refused(request, Refused(500, "mistake", said))
        answer.headers[REQUEST_ID] = request_id
        return answer

    @app.get("/metrics", include_in_schema=False)
    def metrics(request: Request) -> Response:
        if not may_read(address_of(request), request.headers.get("Authorization", "")):
            raise not_there()
        return Response(request.app.state.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/health", status_code=204, include_in_schema=False)
    def health(request: Request) -> None:
        check()
        with reading(engine_of(request)) as connection:
            connection.execute(select(1))

    if has_people:
        _add_sign_in(app)
    return app


def _place(error: Mapping[str, Any]) -> str:
    """Where a request has another form, without the keys that the sender chose."""
    parts = [str(part) for part in error["loc"][1:]]
    return ".".join(parts[:-1] if error["type"] == "extra_forbidden" else parts[:2])


def address_of(request: Request) -> str:
    return request.client.host if request.client else ""


def engine_of(request: Request) -> Engine:
    found: Engine = request.app.state.engine
    return found


class Credentials(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(max_length=120)]
    password: Annotated[str, Field(max_length=1000)]


def _add_sign_in(app: FastAPI) -> None:
    by_name, by_address = Limiter(5, 60), Limiter(50, 60)

    @app.get("/", include_in_schema=False)
    def first() -> Response:
        return RedirectResponse("/sign-in")

    @app.get("/sign-in", include_in_schema=False)
    def page() -> Response:
        return FileResponse(PAGES / "sign-in.html")

    @app.get("/sign-in/{name}", include_in_schema=False)
    def part(name: str) -> Response:
        if name not in ("sign-in.js", "pages.css"):
            raise not_there()
        return FileResponse(PAGES / name)

    @app.post("/sign-in", status_code=204, responses=may_answer(401, 429))
    def sign_in(request: Request, credentials: Credentials) -> Response:
        address = address_of(request)
        by_address.check(address)
        by_name.check(credentials.name)
        with engine_of(request).begin() as connection:
            token = people.sign_in(connection, credentials.name, credentials.password)
        if token is None:
            by_address.count(address)
            by_name.count(credentials.name)
            raise Refused(401, "wrong", "the name or the password is wrong")
        answer = Response(status_code=204)
        answer.set_cookie(
            COOKIE,
            token,
            max_age=int(people.SIGNED_IN.total_seconds()),
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return answer

    @app.post("/sign-out", status_code=204)
    def sign_out(request: Request) -> Response:
        with engine_of(request).begin() as connection:
            people.sign_out(connection, request.cookies.get(COOKIE, ""))
        answer = Response(status_code=204)
        answer.delete_cookie(COOKIE)
        return answer


def signed_in(*roles: str) -> Any:
    """A dependency: the person who asks, if of one of the roles.

    Without a sign-in the answer is 401; to another role, what it may not see is not there.
    """

    def asker(request: Request) -> Person:
        # The cookie is sent to this site's own pages alone; a browser also says who asks.
        if request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
            raise not_there()
        with reading(engine_of(request)) as connection:
            person = people.who(connection, request.cookies.get(COOKIE, ""))
        if person is None:
            raise Refused(401, "sign_in", "sign in first")
        if person.roles.isdisjoint(roles):
            raise not_there()
        return person

    return Depends(asker)


bearer = HTTPBearer(auto_error=False, description="The key that the enrolment gave")


def device_of(
    request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
) -> Device:
    with reading(engine_of(request)) as connection:
        device = devices.of_key(connection, given.credentials) if given else None
    if device is None:
        raise Refused(401, "unknown_device", "this device is not enrolled, or no more")
    return device


Asker = Annotated[Device, Depends(device_of)]


def may_answer(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The refusals of a path, for its description."""
    return {status: {"model": Refusal} for status in (*statuses, 422, 503)}
