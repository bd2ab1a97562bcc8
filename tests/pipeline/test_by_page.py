"""What a decision that comes by Airflow may do: one DAG's acts, once, in one name."""

from __future__ import annotations

import runpy
import shutil
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from policies import under
from test_approval import AT, NOT_FIT, WHY, Registry, prepared, registry

from expectations.words import LANGUAGES
from spira import links
from spira.asking import of_data, problem_of, question
from spira.outcome import configured_step
from spira.store import asked_about
from spira_tasks.artifacts import Store
from spira_tasks.contract.pipelines import DATA_DECISION, MODEL_DECISION, TRAINING
from spira_tasks.contract.run import StepRecord
from spira_tasks.contract.verdict import Verdict, Waiver
from spira_tasks.errors import ConfigError, GateRejected
from spira_tasks.governance import approval, audit, signatures
from spira_tasks.provenance import ROOT
from spira_tasks.runner import run_step

__all__ = ["prepared", "registry"]  # fixtures

APPROVE = {"act": "approve", "version": "1", "reason": WHY}


def test_a_run_takes_nothing_that_the_form_of_its_dag_does_not_have() -> None:
    """Airflow passes undeclared parameters, and settings override the fields."""
    dag = runpy.run_path(str(ROOT / "dags/spira_data_decision.py"))["dag"]
    asked = {"act": "release", "record": "rec-1", "code": "", "reason": WHY}
    assert configured_step("decide", DATA_DECISION, {"dag": dag, "params": asked})
    params = asked | {"settings": {"decide.act": "approve", "decide.version": "3"}}
    with pytest.raises(AirflowFailException, match="unknown parameters settings: the form of"):
        configured_step("decide", DATA_DECISION, {"dag": dag, "params": params})


def test_no_run_of_a_person_passes_for_one_of_an_experiment() -> None:
    """Those are on no overview, and read no test people."""
    dag = runpy.run_path(str(ROOT / "dags/spira_continuous_training.py"))["dag"]
    context = {"dag": dag, "params": dict(dag.params), "run_id": "manual-1"}
    assert configured_step("ingest", TRAINING, context)
    for run_id in ("trial@mine", "experiment@mine"):
        with pytest.raises(AirflowFailException, match="give it another id"):
            configured_step("ingest", TRAINING, context | {"run_id": run_id})


def test_a_question_says_who_waived_what_until_when_and_what_is_open_of_the_data(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPIRA_STORE", registry.store.url)
    signed = Waiver("cli:ana", AT, "see [here](https://example.org) of *ward 2*", "2027-02-19")
    left = (
        Verdict("channel_heard", "insufficient", suite="confounds"),
        Verdict("metadata_alone", "warn", suite="confounds", waiver=signed),
        Verdict("noise_only_control", "pass", suite="confounds"),
    )
    gate = StepRecord("check_confounds", "confounds", "done", AT, 0.0, verdicts=left)
    registry.store.runs.write("run-1", gate)
    waits = Verdict("approved_by_a_person", "warn", names={"version": ("1",)})
    promotion = StepRecord("promote", "promote", "done", AT, 0.0, verdicts=(waits,))
    subject, body = question("run-1", promotion, of_data("run-1"))
    assert subject == "May version 1 of the model serve?"
    assert body.count("(channel_heard). ") == len(LANGUAGES)
    assert "noise_only_control" not in body
    assert "waived by cli:ana on 21 November 2026 (last day: 19 February 2027): see" in body
    assert r"\[here\](https://example.org) of \*ward 2\*" in body


def test_the_step_decides_only_what_its_dag_is_for(registry: Registry) -> None:
    registry.add(1)
    step = DATA_DECISION.from_params({"settings": decide(APPROVE)}).step("decide")
    with pytest.raises(ConfigError, match="takes release, hold, and not approve"):
        run_step(step, "decision-1", registry.store)
    assert registry.actions() == []
    with pytest.raises(ValueError, match=r"the pipeline sets acts"):
        MODEL_DECISION.from_params({"settings": {"decide.acts": ["release"]}})


def decide(params: dict[str, Any]) -> dict[str, Any]:
    return {f"decide.{name}": value for name, value in params.items()}


def test_an_answer_that_is_run_again_withdraws_nothing_that_was_decided_meanwhile(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow lets anybody who may start a training clear a task of it."""
    registry.add(1)
    monkeypatch.setenv("SPIRA_ACTOR", "airflow:ana")
    step = MODEL_DECISION.from_params(APPROVE).step("decide")
    run_step(step, "decision-1", registry.store)
    assert registry.model("refuse", "1", "--why", NOT_FIT) == 0
    before = registry.actions()
    run_step(step, "decision-1", registry.store)
    assert registry.actions() == before
    (standing,) = approval.standings(registry.store)
    assert (standing.approval, standing.registered.is_refused) == (None, True)
    other = MODEL_DECISION.from_params(APPROVE | {"reason": f"{WHY} once more"}).step("decide")
    run_step(other, "decision-1", registry.store)
    assert registry.actions()[len(before) :] == ["approval", "withdrawal"]


def test_a_number_that_came_to_mean_another_model_is_not_decided_on(registry: Registry) -> None:
    """A registry that was made anew, or restored, counts its versions anew."""
    registry.add(1)
    for act in ("approve", "refuse"):
        params = APPROVE | {"act": act, "classifier": f"sha256:{9:064x}"}
        step = MODEL_DECISION.from_params(params).step("decide")
        with pytest.raises(ConfigError, match="version 1 is not the model that was read"):
            run_step(step, "decision-1", registry.store)
    assert registry.actions() == []


def test_limits_are_signed_as_they_were_read_and_not_as_another_version_has_them(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPIRA_ACTOR", "airflow:ana")
    read = signatures.digest("policy")
    params = {"act": "sign", "part": "policy", "reason": WHY}
    other = MODEL_DECISION.from_params(params | {"digest": "0" * 64}).step("decide")
    with pytest.raises(ConfigError, match=r"policy\.yaml is not here as it was read"):
        run_step(other, "decision-1", store)
    assert not signatures.signatures(store, {"policy": read})
    run_step(MODEL_DECISION.from_params(params | {"digest": read}).step("decide"), "d-2", store)
    assert signatures.signatures(store, {"policy": read})["policy"].by == "airflow:ana"


def test_an_answer_counts_for_what_was_read_and_not_for_what_another_promotion_left_open(
    registry: Registry,
) -> None:
    registry.add(1)
    worse = registry.place / "outputs/worse"  # the same checks are open, with other numbers
    shutil.copytree(registry.place / "outputs/provisional", worse)
    (worse / "evaluation.json").write_text(f"{(worse / 'evaluation.json').read_text()}\n")
    reports = ("worse", "provisional")
    read, now = (asked_about(registry.promote(1, one).verdicts[-1]) for one in reports)
    step = MODEL_DECISION.from_params(APPROVE | read).step("decide")
    with pytest.raises(ConfigError, match="version 1 was judged again since it was read"):
        run_step(step, "decision-1", registry.store)
    assert "approval" not in registry.actions()
    run_step(MODEL_DECISION.from_params(APPROVE | now).step("decide"), "d-2", registry.store)
    assert registry.promote(1, "worse").metrics["kept"]
    assert registry.promote(1, "provisional").metrics["promoted"]


def test_who_started_a_run_is_known_also_after_it_was_run_again(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    under(monkeypatch, second_person="always", approval="always")
    registry.add(1)
    record = registry.store.runs.step("made-1", "evaluate")
    assert record is not None
    for who, run_id in (("ana", "made-1"), ("bia", "again-1")):
        monkeypatch.setenv("SPIRA_ACTOR", f"airflow:{who}")
        audit.record(registry.store, "ingest", {"run": run_id, "step": "ingest"})
    classifier = record.outputs["classifier"]
    registry.store.runs.write("again-1", replace(record, found=True))
    assert approval.started_by(registry.store, classifier) == {"airflow:ana"}
    registry.store.runs.write("made-1", replace(record, found=True))
    monkeypatch.setenv("SPIRA_ACTOR", "airflow:ana")
    audit.record(registry.store, "gate", {"run": "made-1", "step": "check_drift"})
    assert approval.started_by(registry.store, classifier) == {"airflow:ana", "airflow:bia"}
    with pytest.raises(ConfigError, match="another person has to approve it"):
        approval.approve(registry.store, "1", WHY)


def test_in_production_a_run_that_nobody_is_known_to_have_started_excludes_everybody(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.add(1)
    assert approval.started_by(registry.store, f"sha256:{1:064x}") == set()
    monkeypatch.setattr(approval, "in_production", lambda _: True)  # as of a bucket
    with pytest.raises(ConfigError, match="does not say who started the run"):
        approval.approve(registry.store, "1", WHY)
    assert registry.actions() == []


@pytest.mark.parametrize(
    ("act", "by", "reason", "problem"),
    [
        ("approve", "bia", WHY, ""),
        ("refuse", "ana", WHY, ""),
        ("approve", "ana", WHY, "another person has to approve"),
        ("refuse", "bia", "ok", "fewer than 10 characters"),
        ("refuse", "bia", "ask on 11 91234-5678", "looks like a personal number"),
        ("approve", "bia", "as maria@example.org said", "looks like a personal number"),
    ],
)
def test_an_answer_that_the_step_would_refuse_is_asked_for_again(
    act: str, by: str, reason: str, problem: str
) -> None:
    assert problem in problem_of(act, by, reason, ("ana",))
    assert bool(problem) == bool(problem_of(act, by, reason, ("ana",)))


def test_the_button_of_a_promotion_that_a_person_answered_leads_to_its_verdict(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a task that refused Airflow has nothing: its record is in the store."""
    registry.add(1)
    assert registry.model("refuse", "1", "--why", NOT_FIT) == 0
    with pytest.raises(GateRejected):
        registry.promote(1)
    monkeypatch.setenv("SPIRA_STORE", registry.store.url)
    monkeypatch.setattr(links, "_result", lambda _: None)
    task = SimpleNamespace(dag_id="training", run_id="run-1", task_id="promote_approved")
    (blocked,) = [one for one in links.LINKS if one.name == "Verdict: blocked"]
    address = blocked.address(task)
    assert address == "/dags/training/runs/run-1/tasks/promote_approved/plugin/verdict"
