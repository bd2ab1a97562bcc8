"""Notify people of a run that failed, was refused, is late, or waits for an approval.

There are two channels, and each is off until its Airflow connection exists: ``spira_smtp``, a
connection of type smtp with the addressees as ``to`` in its extra, and ``spira_webhook``, whose
password is the URL of a webhook that Slack understands.

Airflow calls these functions once a run has ended, which is after the last retry of its tasks.  A
message holds states, reasons, counts of checks and an address, in two languages, and no value of a
patient; small counts are suppressed, as on the pages.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from html import escape
from typing import Any
from urllib.parse import quote

from airflow.sdk import BaseHook, Variable
from airflow.sdk.configuration import conf
from airflow.sdk.definitions.callback import SyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference
from airflow.sdk.exceptions import AirflowNotFoundException

from expectations.words import LANGUAGES, words_of
from expectations.words.verdicts import sentence
from spira.site import number_of
from spira.store import LAPTOP_STORE, RECORDS, own_store, summary, waits_for
from spira_tasks.contract.pipelines import TRAINING
from spira_tasks.contract.run import StepRecord

SENT = "spira_notified"  # the Airflow variable that holds what was sent
MAX_SENT = 200
TIMEOUT_SECONDS = 20.0
COUNTS = ("n_blocked", "n_warnings", "n_passed")

log = logging.getLogger("spira.notify")


def failed(context: Mapping[str, Any]) -> None:
    """Notify of a run that failed, that a gate refused, or that was stopped."""
    dag, run_id = context["dag"], context["run_id"]
    records = _records(run_id, dag.task_ids)
    is_refused = any(record.refused for record in records)
    is_stopped = any(record.error == "Stopped" for record in records)
    outcome = "refused" if is_refused else "stopped" if is_stopped else "failed"
    _notify(dag.dag_id, run_id, outcome, records)


def succeeded(context: Mapping[str, Any]) -> None:
    """Notify of a model that passed everything and lacks only the approval of a person."""
    dag, run_id = context["dag"], context["run_id"]
    records = _records(run_id, dag.task_ids)
    if any(record.stage == "promote" and waits_for(record) for record in records):
        _notify(dag.dag_id, run_id, "waiting", records)


def waiting(dag_id: str, run_id: str, *, again: bool) -> None:
    """Notify of a model that a person is asked about; ``again`` to remind of it."""
    records = _records(run_id, [step.name for step in TRAINING])
    _notify(dag_id, run_id, "waiting", records, remember=not again)


def late(context: Mapping[str, Any], hours: float) -> None:
    """Notify of a run that has not ended in time.  Airflow calls it once for each deadline."""
    run = context["dag_run"]
    run_id = run["dag_run_id"]
    records = _records(run_id, [step.name for step in TRAINING])
    if any(record.stage == "promote" and waits_for(record) for record in records):
        return  # it waits for a person, who is reminded
    # Airflow refuses its variables, and the connections of its database, to the executor, where
    # this runs.
    _notify(run["dag_id"], run_id, "late", records, remember=False, hours=hours)


def deadline() -> DeadlineAlert | None:
    """The alert of a DAG that ``late`` serves: SPIRA_LATE_HOURS after a run was queued.

    None where that is not set, as on a laptop, and under ``airflow dags test``, which (3.3) ends a
    good run of a DAG that has an alert with a trace.
    """
    hours = number_of("SPIRA_LATE_HOURS", 0, "hours")
    if not hours or sys.argv[1:3] == ["dags", "test"]:
        return None
    return DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(hours=hours),
        callback=SyncCallback(late, {"hours": hours}),
    )


def _records(run_id: str, steps: Iterable[str]) -> list[StepRecord]:
    """What the steps or tasks of a run have left; nothing where the store does not answer."""
    names = dict.fromkeys(RECORDS.get(name, name) for name in steps)
    try:
        store = own_store(LAPTOP_STORE)
        found = [store.record(run_id, name) for name in names]
    except OSError as error:
        log.warning("the notification of run %s has no reasons: %s", run_id, error)
        return []
    return sorted(filter(None, found), key=lambda record: record.finished_at)


def _notify(
    dag_id: str,
    run_id: str,
    outcome: str,
    records: list[StepRecord],
    *,
    remember: bool = True,
    **values: object,
) -> None:
    """Send a message by each channel that has not sent it; an error is logged and ends nothing."""
    title, lines = _words(dag_id, run_id, outcome, records, values)
    earlier = _remembered() if remember else []
    sent = [
        what
        for name, send in {"spira_smtp": _mail, "spira_webhook": _post}.items()
        if (what := [dag_id, run_id, outcome, name]) not in earlier
        and _sent(name, send, title, lines)
    ]
    if sent and remember:
        try:
            Variable.set(SENT, [*earlier, *sent][-MAX_SENT:], serialize_json=True)
        except Exception as error:
            log.warning("%s: it may be sent again, as Airflow did not store that: %s", title, error)


def _remembered() -> list[list[str]]:
    """What was sent: dag, run, outcome and channel of each message."""
    try:
        return list(Variable.get(SENT, default=[], deserialize_json=True))
    except Exception as error:  # rather two messages than none
        log.warning("what was sent is not known, as Airflow does not say: %s", error)
        return []


def _sent(
    name: str, send: Callable[[Any, str, list[str]], None], title: str, lines: list[str]
) -> bool:
    """Send a message by the channel of a connection; False where there is none, or it failed."""
    try:
        send(BaseHook.get_connection(name), title, lines)
    except AirflowNotFoundException:
        return False
    except Exception as error:  # its text may hold the webhook's URL, which is a secret
        log.error("%s: not notified by %s (%s)", title, name, type(error).__name__)
        return False
    log.info("%s: notified by %s", title, name)
    return True


def _words(
    dag_id: str, run_id: str, outcome: str, records: list[StepRecord], values: Mapping[str, object]
) -> tuple[str, list[str]]:
    """The title of a message, and its lines."""
    stopped = [one for one in records if one.state != "done"]
    counts = [found for record in records if (found := summary(record))]
    total = {name: sum(found[name] for found in counts) for name in COUNTS}
    lines = []
    for language in LANGUAGES[::-1]:  # English first
        words = words_of(language)
        lines.append(words(f"airflow.notice.{outcome}", dag=dag_id, run=run_id, **values))
        for record in stopped:
            said = [sentence(one, language) for one in record.stopping]
            lines += [f"{record.step}: {reason}" for reason in said or [record.message] if reason]
        if outcome == "failed" and not any(one.message or one.stopping for one in stopped):
            lines.append(words("airflow.notice.no_reason"))
        if counts:
            lines.append(f"{words('airflow.notice.checks')}: {words('airflow.counts', **total)}")
    root = conf.get("api", "base_url", fallback="").rstrip("/")
    page = f"{root}/dags/{quote(dag_id)}/runs/{quote(run_id, safe='')}/plugin/governance_run"
    titles = [words_of(language)(f"airflow.notice.title.{outcome}") for language in LANGUAGES[::-1]]
    return f"SPIRA: {' / '.join(titles)}", [*lines, page]


def _mail(connection: Any, title: str, lines: list[str]) -> None:
    from airflow.providers.smtp.notifications.smtp import SmtpNotifier

    html = "".join(f"<p>{escape(line)}</p>" for line in lines)
    to = connection.extra_dejson["to"]
    mail = SmtpNotifier(to=to, subject=title, html_content=html, smtp_conn_id=connection.conn_id)
    mail.notify({})  # not as Airflow calls it, which would take the text for a template


def _post(connection: Any, title: str, lines: list[str]) -> None:
    import httpx

    text = "\n".join([title, *lines])
    answer = httpx.post(connection.password, json={"text": text}, timeout=TIMEOUT_SECONDS)
    answer.raise_for_status()
