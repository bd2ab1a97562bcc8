"""Notifications: of which runs, how often, what they say, and what a failure to send one does."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from email.header import decode_header, make_header
from pathlib import Path
from typing import Any

from receiving import TO, Received, receiving
from test_dags import home, python

from spira_tasks.artifacts import Store
from spira_tasks.contract.run import StepRecord
from spira_tasks.contract.verdict import Number, Verdict

__all__ = ["home"]  # the fixture
AT = "2026-11-21T00:00:00+00:00"
PASSED = Verdict("sensitivity", "pass")
SMALL = Verdict(
    "class_balance",
    "block",
    observed=Number(3, "people"),
    threshold=10,
    n=3,
    n_unit="people",
    numbers={"controls": Number(3, "people"), "patients": Number(4, "people")},
)


def record(step: str, stage: str, state: Any, *verdicts: Verdict, **fields: Any) -> StepRecord:
    return StepRecord(step, stage, state, AT, 1.0, verdicts=verdicts, **fields)


def end(
    home: Path,
    folder: Path,
    received: Received,
    *records: StepRecord,
    ends: str = "failed",
    more: Sequence[StepRecord] = (),
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    """Call what Airflow calls at the end of a run that left these records.

    ``more`` are records of further runs, one each: Airflow's import takes four seconds a process.
    """
    store = Store(str(folder / "store"))
    runs = {folder.name: records} | {f"more-{n}": (one,) for n, one in enumerate(more)}
    for run_id, left in runs.items():
        for one in left:
            store.runs.write(run_id, one)
    script = f"""
import sys; sys.path[:0] = ["dags", "plugins"]
import spira_continuous_training
from spira import notify
for run_id in {list(runs)}:
    notify.{ends}({{"dag": spira_continuous_training.dag, "run_id": run_id}})
"""
    environment = {"SPIRA_STORE": store.url, "AIRFLOW__API__BASE_URL": "https://spira.example.org"}
    done = python("-c", script, home=home, **environment, **received.connections, **variables)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def test_a_refused_run_is_notified_with_its_reason_and_without_a_small_count(
    home: Path, tmp_path: Path
) -> None:
    gate = record("check_training_set", "validate", "blocked", SMALL, PASSED)
    with receiving() as received:
        end(home, tmp_path, received, gate)
    (mail,), (post,) = received.mails, received.posts
    run = f"dags/spira_continuous_training/runs/{tmp_path.name}"
    page = f"https://spira.example.org/{run}/plugin/governance_run"
    title = "SPIRA: a run was refused / uma execução foi recusada"
    assert (mail["To"], str(make_header(decode_header(mail["Subject"])))) == (TO, title)
    for text in received.texts:
        assert "check_training_set: " in text
        assert "1 blocking, 0 warnings, 1 passed" in text
        assert page in text
        assert not {"3", "4"} & set(text.replace(page, ""))
    assert "Uma verificação recusou" in post  # in both languages


def test_a_channel_that_sent_a_message_does_not_send_it_again(home: Path, tmp_path: Path) -> None:
    """As after a run was cleared, and ended in the same way; test_up sees what is remembered."""
    sent = json.dumps([["spira_continuous_training", tmp_path.name, "failed", "spira_smtp"]])
    with receiving() as received:
        end(home, tmp_path, received, AIRFLOW_VAR_SPIRA_NOTIFIED=sent)
    assert (len(received.mails), len(received.posts)) == (0, 1)


def test_a_failed_run_is_notified_with_the_message_of_its_step(home: Path, tmp_path: Path) -> None:
    message = "no space is left for {{ temporary }} <files>"
    with receiving() as received:
        train = record("train", "train", "failed", message=message)
        answer = record("decide", "decide", "failed", message="another person has to approve it")
        more = [replace(train, error="Stopped", message=""), answer]
        end(home, tmp_path, received, train, more=more)
    post, stopped, answered = received.posts
    assert "decide: another person has to approve it" in answered
    assert "a run was stopped" in stopped
    assert "a run failed" in post
    assert f"train: {message}" in post
    assert "no space is left for {{ temporary }} &lt;files&gt;" in received.texts[0]


def test_a_run_is_notified_as_waiting_only_where_an_approval_alone_lacks(
    home: Path, tmp_path: Path
) -> None:
    waits = Verdict("approved_by_a_person", "warn", names={"version": ("3",)})
    worse = Verdict("better_than_champion", "warn")
    promoted, kept, waiting = (
        record("promote", "promote", "done", *verdicts)
        for verdicts in ((PASSED,), (waits, worse), (waits,))
    )
    with receiving() as received:
        end(home, tmp_path, received, promoted, ends="succeeded", more=[kept, waiting])
    (post,) = received.posts
    assert "waits for the approval of a person" in post


def test_a_channel_that_fails_is_logged_without_its_address_and_stops_no_other(
    home: Path, tmp_path: Path
) -> None:
    with receiving(webhook_answers=500) as received:
        done = end(home, tmp_path, received)
    assert len(received.mails) == 1
    logged = done.stdout + done.stderr
    assert "not notified by spira_webhook (HTTPStatusError)" in logged
    assert "/services/secret" not in logged


def test_nothing_is_sent_and_nothing_logged_as_an_error_where_no_channel_is_set_up(
    home: Path, tmp_path: Path
) -> None:
    done = end(home, tmp_path, Received())
    assert "notified" not in done.stdout + done.stderr


AWAY = """
import sys; sys.path[:0] = ["dags", "plugins"]
import json
from types import SimpleNamespace
from airflow.sdk.exceptions import AirflowSkipException, TaskAwaitingInput
from spira.asking import AskOperator

class Notes(dict):
    set = dict.__setitem__

ask = AskOperator(task_id="ask")
def complete(since, **event):
    about = {"version": "3", "classifier": "sha256:3", "asked": "3f"}
    asked = about | {"excluded": ["ana"], "since": since}
    pulled = lambda task_ids, key: asked if (task_ids, key) == ("ask", "asked") else None
    ti = SimpleNamespace(dag_id="spira_continuous_training", xcom_pull=pulled)
    forged = Notes(asked=asked | {"version": "7", "excluded": []})
    context = {"run_id": "run-1", "ti": ti, "task_state_store": forged}
    try:
        return ask.execute_complete(context, event)
    except (AirflowSkipException, TaskAwaitingInput) as ended:
        return type(ended).__name__

answer = {
    "chosen_options": ["Approve"],
    "params_input": {"reason": "read together with the ward"},
    "responded_by_user": {"name": "bia"},
}
timeout = {"error_type": "timeout"}
soon, long_ago = "2999-01-01T00:00:00+00:00", "2020-01-01T00:00:00+00:00"
found = [complete(soon, **timeout), complete(soon, **answer), complete(long_ago, **timeout)]
print(json.dumps(found))
"""


def test_a_question_outlives_a_store_that_is_away_and_says_when_it_expires(
    home: Path, tmp_path: Path
) -> None:
    """What a record of the store holds is damaged; the message was sent once, as the run asked.

    The question is an XCom: a user who may clear a task may write the state of that task.
    """
    for name in ("register", "promote"):
        (tmp_path / "store/runs/run-1").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"store/runs/run-1/{name}.json").write_text("no record")
    sent = [["spira_continuous_training", "run-1", "waiting", "spira_webhook"]]
    with receiving() as received:
        done = python(
            *("-c", AWAY),
            home=home,
            SPIRA_STORE=str(tmp_path / "store"),
            AIRFLOW_VAR_SPIRA_NOTIFIED=json.dumps(sent),
            **received.connections,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    waits, answered, expired = json.loads(done.stdout.splitlines()[-1])
    assert (waits, expired) == ("TaskAwaitingInput", "AirflowSkipException")
    params = {"act": "approve", "version": "3", "classifier": "sha256:3", "asked": "3f"}
    params["reason"] = "read together with the ward"
    assert answered == {"decided": False, "params": params, "by": "bia"}
    (post,) = received.posts
    assert "waits for the approval of a person" in post
