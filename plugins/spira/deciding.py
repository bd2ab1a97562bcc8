"""What a person may decide on the governance page, and how it gets to the steps.

The API server has no key that writes the store.  So a decision starts a run of a DAG, in the name
of who decides; Airflow's roles say who may start it, and its step writes the decision with the keys
for that, and the event of the audit log.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from http import HTTPStatus
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qsl

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.common.dagbag import get_latest_version_of_dag
from airflow.configuration import conf
from airflow.models.dag import DagModel
from airflow.models.dagbag import DBDagBag
from airflow.models.log import Log
from airflow.sdk.exceptions import ParamValidationError
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from fastapi import HTTPException, Request
from itsdangerous import BadSignature, URLSafeTimedSerializer

from expectations.personal import holds_personal_data
from spira.store import Damaged, StoreReader, asked_about, waits_for
from spira_tasks.contract.access import DATA_DECISION, MODEL_DECISION
from spira_tasks.contract.pipelines import TRAINING
from spira_tasks.contract.verdict import Verdict

ACTS: Mapping[str, str] = {  # to the DAG that writes it
    **dict.fromkeys(("approve", "refuse", "waive", "sign"), MODEL_DECISION),
    **dict.fromkeys(("release", "hold"), DATA_DECISION),
}
FIELDS: Mapping[str, tuple[str, ...]] = {
    "approve": ("version", "classifier", "asked"),
    "refuse": ("version", "classifier"),
    "waive": ("suite", "check", "run"),
    "sign": ("part", "digest"),
    **dict.fromkeys(("release", "hold"), ("record", "code")),
}
MIN_REASON, MAX_REASON = 10, 500
MAX_BYTES = 16_384  # of a form
TOKEN_SECONDS = 3600
EVENT = "spira_decision"
LIMITS = {"policy": "policy.yaml", "plan": "pccp.yaml"}  # that may be signed, in ``expectations``
PROMOTION = "promotion"  # what a waiver calls the gates of promotion, which have no suite


class Refused(Exception):
    """A decision that is not taken; ``name`` says why, as the text ``airflow.<name>``."""

    def __init__(self, name: str, status: int = HTTPStatus.FORBIDDEN) -> None:
        super().__init__(name)
        self.name, self.status_code = name, status


@dataclass(frozen=True)
class Limits:
    """A file of limits, as it stands here."""

    part: str
    digest: str  # SHA-256, in hexadecimal
    text: str


@dataclass(frozen=True)
class Choices:
    """What a person may decide of a run."""

    token: str
    # Of what may be approved or refused: version, classifier, and what its promotion left open.
    about: Mapping[str, str] = field(default_factory=dict)
    is_excluded: bool = False  # another person has to approve it
    left_open: tuple[Verdict, ...] = ()  # checks that had too little to tell
    waivable: tuple[Verdict, ...] = ()
    limits: tuple[Limits, ...] = ()  # that may be signed
    is_steward: bool = False  # of recordings in quarantine
    is_synthetic: bool = False  # the model was tested on invented people


def choices(store: StoreReader, run_id: str, user: Any) -> Choices:
    """What a user may decide of a run, by the roles that Airflow knows."""
    of_model: dict[str, Any] = {}
    if may(user, MODEL_DECISION):
        records = [store.record(run_id, step.name) for step in TRAINING]
        found = {one.id: one for record in records if record for one in record.verdicts}
        of_model = {
            "about": _about(store, run_id),
            "is_excluded": user.get_name().lower() in _excluded(store, run_id),
            "left_open": tuple(one for one in found.values() if one.status == "insufficient"),
            "waivable": _waivable(store, run_id),
            "is_synthetic": _is_synthetic(store, run_id),
            "limits": tuple(_limits()),
        }
    token = _signer().dumps(str(user.get_id()))
    return Choices(token, is_steward=may(user, DATA_DECISION), **of_model)


def may(user: Any, dag_id: str) -> bool:
    details = DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id))
    return bool(
        get_auth_manager().is_authorized_dag(
            method="POST", access_entity=DagAccessEntity.RUN, details=details, user=user
        )
    )


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a form that was sent; the framework's own reader needs another package."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BYTES:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))


def take(
    store: StoreReader, run_id: str, form: Mapping[str, str], user: Any, sent_from: str
) -> tuple[str, str]:
    """Start the DAG run that writes a decision; return the ids of the DAG and of its run.

    ``sent_from`` is what the browser says of the page that sent the form (Sec-Fetch-Site).

    Raises
    ------
    Refused
        When the form is not one of ours, the user may not decide that, or the reason is none.
    """
    if sent_from not in ("", "same-origin") or not _is_ours(form.get("token", ""), user):
        raise Refused("decide.stale")
    act, reason = form.get("act", ""), " ".join(form.get("reason", "").split())
    dag_id = ACTS.get(act, "")
    if not dag_id:
        raise Refused("not_found", HTTPStatus.BAD_REQUEST)
    if not may(user, dag_id):
        raise Refused("forbidden")
    if not MIN_REASON <= len(reason) <= MAX_REASON:
        raise Refused("decide.no_reason", HTTPStatus.BAD_REQUEST)
    if holds_personal_data(reason):  # before it is in Airflow's database
        raise Refused("decide.personal", HTTPStatus.BAD_REQUEST)
    if act == "approve" and user.get_name().lower() in _excluded(store, run_id):
        raise Refused("decide.excluded")
    fields = {name: form[name] for name in FIELDS[act] if form.get(name)}
    return dag_id, _start(dag_id, {"act": act, "reason": reason, **fields}, user)


def _start(dag_id: str, settings: dict[str, str], user: Any) -> str:
    """Start a run as Airflow's own page does, and leave its entry in Airflow's audit log."""
    from airflow.api_fastapi.core_api.datamodels.dag_run import TriggerDAGRunPostBody

    try:
        with create_session(scoped=False) as session:
            dag = get_latest_version_of_dag(DBDagBag(), dag_id, session)
            body = TriggerDAGRunPostBody(logical_date=None, conf=settings)
            made = body.validate_context(dag)
            del made["note"]
            run = dag.create_dagrun(
                **made,
                run_type=DagRunType.MANUAL,
                triggered_by=DagRunTriggeredByType.UI,
                triggering_user_name=user.get_name(),
                state=DagRunState.QUEUED,
                session=session,
            )
            name = user.get_name()
            about = json.dumps({"act": settings["act"]})
            entry = Log(EVENT, owner=name, owner_display_name=name, extra=about, dag_id=dag_id)
            entry.run_id = run.run_id
            session.add(entry)
            return str(run.run_id)
    except (ParamValidationError, ValueError):
        raise Refused("decide.wrong", HTTPStatus.BAD_REQUEST) from None


def _signer() -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(conf.get_mandatory_value("api", "secret_key"), salt=EVENT)


def _is_ours(token: str, user: Any) -> bool:
    """Whether a page of this server, made for this user within the hour, had the form."""
    try:
        return bool(_signer().loads(token, max_age=TOKEN_SECONDS) == str(user.get_id()))
    except BadSignature:
        return False


def _about(store: StoreReader, run_id: str) -> dict[str, str]:
    try:
        content = store.output(run_id, "register", "registration", "registration.json")
    except Damaged:  # the run did not come so far
        return {}
    record = store.record(run_id, "promote")
    verdicts = record.verdicts if record else ()
    asked = next((one for one in verdicts if one.id == "approved_by_a_person"), None)
    registered = json.loads(content)
    own = {name: str(registered[name]) for name in ("version", "classifier")}
    return asked_about(asked) | own


def _is_synthetic(store: StoreReader, run_id: str) -> bool:
    try:
        content = store.output(run_id, "evaluate", "report", "evaluation.json")
    except Damaged:  # the run did not come so far
        return False
    return bool(json.loads(content).get("synthetic"))


def _limits() -> Iterator[Limits]:
    for part, name in LIMITS.items():
        content = files("expectations").joinpath(name).read_bytes()
        yield Limits(part, sha256(content).hexdigest(), content.decode())


def _excluded(store: StoreReader, run_id: str) -> tuple[str, ...]:
    waiting = waits_for(store.record(run_id, "promote"))
    return waiting.names.get("excluded", ()) if waiting else ()


def _waivable(store: StoreReader, run_id: str) -> tuple[Verdict, ...]:
    records = [store.record(run_id, step.name) for step in TRAINING]
    return tuple(
        verdict
        for record in records
        if record
        for verdict in record.stopping
        if not verdict.firm and (verdict.suite or record.stage == "promote")
    )
