"""Ask a person whether a version of the model may serve, where promotion waits for that.

Airflow parks the task: it holds no slot and no process until somebody answers on its page
(Required Actions).  Now and then it looks whether a person decided by the command line or on the
governance page, which is the same act.  It reminds people, and ends unanswered in the end: the
version then stays challenger, until a person approves it and promotion is run again.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Context, Param
from airflow.sdk.exceptions import AirflowException, AirflowSkipException, TaskAwaitingInput

from expectations.personal import holds_personal_data
from expectations.words import LANGUAGES, words_of
from expectations.words.verdicts import mark, sentence, title, waived_by
from spira import notify
from spira.site import number_of
from spira.store import LAPTOP_STORE, asked_about, own_store, waits_for
from spira_tasks.contract.pipelines import TRAINING
from spira_tasks.contract.run import StepRecord
from spira_tasks.contract.verdict import Verdict

MIN_REASON = 10  # characters, as for every decision
LOOK_SECONDS = 300.0
# The XCom with the question.  The state of the task may be written by a user who may clear it.
ASKED = "asked"
DAG_TEST = "dag_test"  # Airflow's name of who starts a run by ``airflow dags test``

MARKS = re.compile(r"[][\\`*_<>|]")  # of Markdown: a person wrote the reason of a waiver
ESCAPED = r"\\\g<0>"

log = logging.getLogger("spira.step")


class AskOperator(ApprovalOperator):  # type: ignore[misc]
    """Ask, where the step ``promote`` waits for a person; else it is skipped.

    Returns ``{"decided": False, "params", "by"}``: the settings of the step ``decide`` and the name
    of who answered; or ``{"decided": True}`` where the decision is in the store already.
    """

    template_fields = ()  # a reason or a sentence is no template
    ui_color = "#f9e2c7"

    def __init__(self, **kwargs: Any) -> None:
        self.look = timedelta(
            seconds=number_of("SPIRA_APPROVAL_LOOK_SECONDS", int(LOOK_SECONDS), "seconds")
        )
        self.remind = timedelta(hours=number_of("SPIRA_APPROVAL_REMIND_HOURS", 24, "hours"))
        self.expire = timedelta(hours=number_of("SPIRA_APPROVAL_HOURS", 120, "hours"))
        reason = Param(
            "",  # valid, though too short: Airflow checks it before the task runs
            type="string",
            maxLength=500,
            title="Reason",
            description=f"At least {MIN_REASON} characters.  Kept for ever: write no name, number "
            "or address of a person",
            source="task",
        )
        super().__init__(
            subject="May this version of the model serve?",
            response_timeout=self.look,
            **kwargs | {"params": {"reason": reason}},
        )

    def execute(self, context: Context) -> Any:
        record = self._waiting(context)
        self.subject, self.body = question(context["run_id"], record, of_data(context["run_id"]))
        notify.waiting(context["ti"].dag_id, context["run_id"], again=False)
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        if (asked := self._asked(context)) is None:
            self._waiting(context)
            asked = self._asked(context)
        if event.get("error_type") == "timeout":
            return self._look(context, asked)
        act = "approve" if event["chosen_options"] == [self.APPROVE] else "refuse"
        by = str((event["responded_by_user"] or {}).get("name", ""))
        reason = " ".join(str((event["params_input"] or {}).get("reason", "")).split())
        if problem := problem_of(act, by, reason, asked["excluded"]):
            log.warning("%s answered, and is asked again: %s", by, problem)
            return dict(self.execute(context))
        log.info("%s: %s", by, act)
        about = {name: asked[name] for name in ("version", "classifier", "asked")}
        return {"decided": False, "params": {"act": act, "reason": reason, **about}, "by": by}

    def _asked(self, context: Context) -> Any:
        return context["ti"].xcom_pull(task_ids=self.task_id, key=ASKED)

    def _waiting(self, context: Context) -> StepRecord:
        """The record of the promotion that waits; what an answer needs of it is noted.

        An answer, or a look whether there is one, must not fail where the store is away.

        Raises
        ------
        AirflowSkipException
            When it waits for nobody.
        """
        record = waiting(context)
        verdict = waits_for(record)
        assert verdict is not None  # noqa: S101  (see waiting)
        asked = {
            **asked_about(verdict),
            "excluded": list(verdict.names.get("excluded", ())),
            "since": record.finished_at,
        }
        context["ti"].xcom_push(key=ASKED, value=asked)
        return record

    def _look(self, context: Context, asked: dict[str, Any]) -> dict[str, Any]:
        """Go on where a person decided meanwhile, end where the time is over, or wait again."""
        try:
            act = own_store(LAPTOP_STORE).decided(context["run_id"], asked["asked"])
        except OSError as error:
            log.warning("whether a person decided is not known: %s", error)
            act = ""
        if act:
            log.info("a person decided meanwhile: %s", act)
            return {"decided": True}
        waited = datetime.now(UTC) - datetime.fromisoformat(asked["since"])
        if waited > self.expire:
            # again, for what is sent once as the run ends has been sent as it asked
            notify.waiting(context["ti"].dag_id, context["run_id"], again=True)
            raise AirflowSkipException(
                f"nobody answered in {self.expire}: the version stays challenger; approve it, and "
                "clear the task promote of this run, which promotes it"
            )
        notes = context["task_state_store"]
        n_due = int(waited / self.remind) if self.remind else 0
        if n_due > int(notes.get("n_reminded", 0)):
            notify.waiting(context["ti"].dag_id, context["run_id"], again=True)
            notes.set("n_reminded", n_due)
        raise TaskAwaitingInput(method_name="execute_complete", timeout=self.look)


def waiting(context: Context) -> StepRecord:
    """The record of the promotion that waits for a person.

    Raises
    ------
    AirflowSkipException
        When it waits for nobody, or nobody can answer.
    """
    if getattr(context.get("dag_run"), "triggering_user_name", None) == DAG_TEST:
        raise AirflowSkipException(
            "airflow dags test asks nobody, for nothing would bring an answer: where a person "
            "has to approve, the version stays challenger"
        )
    try:
        record = own_store(LAPTOP_STORE).record(context["run_id"], "promote")
    except OSError as error:
        raise AirflowException(f"whom to ask is not known yet: {error}") from None
    if record is None or waits_for(record) is None:
        raise AirflowSkipException("nobody has to be asked about this version")
    return record


def of_data(run_id: str) -> list[Verdict]:
    """The checks of the data of a run that were waived, or that could not tell."""
    try:
        store = own_store(LAPTOP_STORE)
        records = [store.record(run_id, step.name) for step in TRAINING]
    except OSError as error:
        raise AirflowException(f"what was found in the data is not known yet: {error}") from None
    return [
        one
        for record in records
        if record and record.stage != "promote"
        for one in record.verdicts
        if one.waiver or one.status == "insufficient"
    ]


def problem_of(act: str, by: str, reason: str, excluded: Collection[str]) -> str:
    """Why an answer does not count; empty where it does."""
    if len(reason) < MIN_REASON:
        return f"the reason has fewer than {MIN_REASON} characters"
    if holds_personal_data(reason):
        return "the reason holds what looks like a personal number, a telephone or an address"
    if act == "approve" and by.lower() in excluded:
        return "another person has to approve what one started, or signed a waiver for"
    return ""


def question(run_id: str, record: StepRecord, data: Iterable[Verdict]) -> tuple[str, str]:
    """The subject, and what is open and what promotion said (Markdown), in both languages."""
    waits = waits_for(record)
    version = waits.names["version"][0] if waits else ""
    subjects, lines = [], []
    for language in LANGUAGES[::-1]:  # English first
        words = words_of(language)
        subjects.append(words("airflow.ask.subject", version=version))
        lines += ["", f"## {subjects[-1]}", "", words("airflow.ask.how", run=run_id), ""]
        order = {"insufficient": 0, "block": 0, "warn": 1, "pass": 2}
        for one in sorted([*data, *record.verdicts], key=lambda one: order[one.status]):
            found = (sentence(one, language), waived_by(one, language))
            said = f"{mark(one, language)}: {' '.join(filter(None, found))}"
            lines.append(f"- **{title(one, language)}** ({one.id}). {MARKS.sub(ESCAPED, said)}")
    return subjects[0], "\n".join(lines).strip()
