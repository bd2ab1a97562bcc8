"""Serve the governance site, only to users who may read the runs of the training DAG.

Airflow asks for no login on the pages of a plugin, so every route here does: without a login any
path answers 401, whether it exists or not.  Files are served by routes and not by a mount, because
a mount has no dependencies.
"""

from __future__ import annotations

import json
import mimetypes
import posixpath
from collections.abc import Awaitable, Callable
from functools import partial
from html import escape
from http import HTTPStatus
from typing import Annotated
from urllib.parse import quote, urlsplit

from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, DagAccessEntity
from airflow.api_fastapi.core_api.security import (
    GetUserDep,
    requires_access_dag,
    requires_access_view,
)
from airflow.configuration import conf
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.log import Log
from airflow.utils.session import create_session
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy import func, select
from starlette.exceptions import HTTPException as StarletteHTTPException

from expectations.words import LANGUAGES, Language, words_of
from spira import deciding
from spira.governance_pages import decide_page, message, run_page, step_page
from spira.store import PACK, RECORDS, RUN_ID, Damaged, own_store
from spira_tasks.contract.pipelines import TRAINING

DAG = "spira_continuous_training"
METHODS = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT"]

# A page can run no script and load nothing from another host, whatever is in the store.
POLICY = "Content-Security-Policy"
HEADERS = {
    POLICY: (
        "default-src 'none'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "font-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}  # other files are downloads
READ = ["GET", "HEAD"]
OVERVIEWS = {f"overview.{language}.html": language for language in LANGUAGES}
VERDICTS = {f"verdict.{language}.html": language for language in LANGUAGES}
DECISIONS = dict.fromkeys(deciding.ACTS.values())  # DAGs
# Airflow may be below a path of its host.
AIRFLOW_ROOT = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")
PACK_EVENT = "spira_report_pack"
# The steps of the DAG whose runs a user must be allowed to read; an erasure is another DAG's.
SHOWN = {step.name for step in TRAINING.all_steps}


def build() -> FastAPI:
    """The application, to be mounted by Airflow."""
    app = FastAPI(
        title="SPIRA governance",
        dependencies=[
            Depends(requires_access_view(AccessView.PLUGINS)),
            Depends(requires_access_dag("GET", DagAccessEntity.RUN, param_dag_id=DAG)),
        ],
        openapi_url=None,  # it and its pages would ask for no login
        redirect_slashes=False,
    )
    app.add_exception_handler(StarletteHTTPException, _refused)
    app.add_exception_handler(deciding.Refused, _not_taken)
    app.add_exception_handler(OSError, _store_is_away)
    app.add_exception_handler(Damaged, _damaged)
    app.middleware("http")(_with_headers)
    app.api_route("/", methods=READ)(overview)
    app.api_route("/runs/{run_id}/", methods=READ)(run)
    app.api_route("/runs/{run_id}/pack", methods=READ)(pack)
    app.api_route("/runs/{run_id}/decide", methods=READ)(decide)
    app.api_route("/runs/{run_id}/decide", methods=["POST"])(decided)
    app.api_route("/runs/{run_id}/{name:path}", methods=READ)(file)
    app.api_route("/tasks/{run_id}/{task_id}", methods=READ)(task)
    app.api_route("/{anything:path}", methods=METHODS)(nothing)
    return app


def overview(request: Request) -> Response:
    """Redirect to the newest overview."""
    run_id = own_store().latest()
    if not RUN_ID.fullmatch(run_id):
        return HTMLResponse(message("no_report", _language(request)))
    return RedirectResponse(f"runs/{quote(run_id, safe='')}/{_page('overview', request)}")


def run(run_id: str, request: Request, user: GetUserDep) -> Response:
    """Redirect to the verdict page of a run; before its report, show the verdicts so far."""
    files = own_store()
    if files.names(run_id) is not None:
        return RedirectResponse(_page("verdict", request))
    records = {step.name: files.record(run_id, step.name) for step in TRAINING}
    if not any(records.values()):
        raise HTTPException(HTTPStatus.NOT_FOUND)
    # a person is asked before there is a report
    return HTMLResponse(run_page(run_id, records, _may_decide(user), _language(request)))


def pack(run_id: str, request: Request, user: GetUserDep) -> Response:
    """The site of a run as one signed zip, under its own file name."""
    name = own_store().pack(run_id)
    if not name:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return file(run_id, name, request, user)


def decide(run_id: str, request: Request, user: GetUserDep) -> Response:
    """The forms by which a user decides about a run."""
    files = own_store()
    if not any(files.record(run_id, step.name) for step in TRAINING):
        raise HTTPException(HTTPStatus.NOT_FOUND)
    chosen = deciding.choices(files, run_id, user)
    return HTMLResponse(decide_page(run_id, chosen, _language(request)))


def decided(
    run_id: str,
    request: Request,
    user: GetUserDep,
    form: Annotated[dict[str, str], Depends(deciding.form_of)],
) -> Response:
    """Take a decision; the page says which run of Airflow writes it."""
    sent_from = request.headers.get("sec-fetch-site", "")
    dag_id, made = deciding.take(own_store(), run_id, form, user, sent_from)
    place = f"{AIRFLOW_ROOT}/dags/{dag_id}/runs/{quote(made, safe='')}"
    return HTMLResponse(message("decide.taken", _language(request), link=place))


def file(run_id: str, name: str, request: Request, user: GetUserDep) -> Response:
    """A file of a run's site; a download of the pack is logged first."""
    files = own_store()
    names = files.names(run_id)
    if names is None:
        return run(run_id, request, user)
    if name not in names:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    kind = TYPES.get(posixpath.splitext(name)[1].lower())
    content = files.content(names[name])
    if language := OVERVIEWS.get(name):
        content = _with_schedule(content, language)
    if (language := VERDICTS.get(name)) and _may_decide(user):
        link = f'<a href="decide">{escape(words_of(language)("airflow.decide"))}</a>'
        content = content.replace(b"</h1>", f'</h1><p class="note">{link}</p>'.encode(), 1)
    if kind is not None:
        return Response(content, media_type=kind)
    if PACK.fullmatch(name) and request.method != "HEAD":
        _log_export(run_id, name, names[name], user)
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    saved = f"attachment; filename*=UTF-8''{quote(posixpath.basename(name), safe='')}"
    return Response(content, media_type=kind, headers={"Content-Disposition": saved})


def task(run_id: str, task_id: str, request: Request) -> Response:
    """The page of a step: its verdict, its counts, its reasons."""
    step = RECORDS.get(task_id, task_id)
    record = own_store().record(run_id, step) if step in SHOWN else None
    if record is None:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return HTMLResponse(step_page(run_id, record, _language(request)))


def nothing() -> Response:
    """Any other path and method: they ask for a login too."""
    raise HTTPException(HTTPStatus.NOT_FOUND)


def _may_decide(user: GetUserDep) -> bool:
    return any(map(partial(deciding.may, user), DECISIONS))


def _with_schedule(content: bytes, language: Language) -> bytes:
    """The overview with the last and the next run, which are in Airflow and not in the store."""
    with create_session(scoped=False) as session:
        dag = session.get(DagModel, DAG)
        last = session.scalar(select(func.max(DagRun.start_date)).where(DagRun.dag_id == DAG))
    following = dag.next_dagrun_create_after if dag and not dag.is_paused else None
    words = words_of(language)
    shown = [
        words.instant(at.isoformat()) if at else words("airflow.schedule.none")
        for at in (last, following)
    ]
    line = words("airflow.schedule", last=shown[0], next=shown[1])
    return content.replace(b"</h1>", f'</h1><p class="note">{escape(line)}</p>'.encode(), 1)


def _log_export(run_id: str, name: str, digest: str, user: GetUserDep) -> None:
    """Log a download in Airflow's audit log: the key here may not write the store's.

    A download that cannot be logged fails.
    """
    entry = Log(
        PACK_EVENT,
        owner=user.get_name(),
        owner_display_name=user.get_name(),
        extra=json.dumps({"file": name, "sha256": digest}),
        dag_id=DAG,
        run_id=run_id,
    )
    with create_session(scoped=False) as session:
        session.add(entry)


def _page(name: str, request: Request) -> str:
    return f"{name}.{_language(request)}.html"


def _language(request: Request) -> Language:
    """The language that the browser prefers."""
    return "pt" if request.headers.get("accept-language", "").lower().startswith("pt") else "en"


async def _with_headers(
    request: Request, answer: Callable[[Request], Awaitable[Response]]
) -> Response:
    response = await answer(request)
    response.headers.update(HEADERS)
    if request.url.path.endswith("/decide"):
        own = HEADERS[POLICY].replace("form-action 'none'", "form-action 'self'")
        response.headers[POLICY] = own
    return response


async def _refused(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 500)
    name = {401: "login", 403: "forbidden", 404: "not_found", 405: "not_found"}.get(status, "login")
    page = message(name, _language(request))
    return HTMLResponse(page, status, getattr(error, "headers", None))


async def _not_taken(request: Request, error: Exception) -> Response:
    if not isinstance(error, deciding.Refused):
        raise error
    return HTMLResponse(message(error.name, _language(request)), error.status_code)


async def _store_is_away(request: Request, error: Exception) -> Response:
    return HTMLResponse(
        message("away", _language(request), str(error)), HTTPStatus.SERVICE_UNAVAILABLE
    )


async def _damaged(request: Request, error: Exception) -> Response:
    return HTMLResponse(
        message("damaged", _language(request), str(error)), HTTPStatus.INTERNAL_SERVER_ERROR
    )
