"""Which version serves changes by recorded acts, and a person answers for what no check proves."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient
from policies import under
from test_approval import AT, NOT_FIT, WHY, Registry, prepared, registry

from expectations.words.verdicts import sentence
from spira_tasks.cli import main
from spira_tasks.contract.run import StepRecord
from spira_tasks.contract.verdict import Number, Status, Verdict, Waiver
from spira_tasks.errors import ConfigError, GateRejected, ServiceUnavailable
from spira_tasks.governance import approval, audit
from spira_tasks.governance.applied import PROMOTION, Decision, excuses, waiver_of
from spira_tasks.governance.decisions import decide
from spira_tasks.governance.verification import verify
from spira_tasks.stages import promote
from spira_tasks.tracking import CHAMPION, MODEL, Registered, Tracker

__all__ = ["prepared", "registry"]  # fixtures

SIGNED = Waiver("cli:ana", AT, "the thermometer was calibrated afterwards", "2030-01-31")


@pytest.fixture
def replacing(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Version 1 serves, and any other is better."""
    registry.add(1)
    registry.promote(1)
    registry.add(2)
    better = Verdict("better_than_champion", "pass")
    monkeypatch.setattr(promote, "beats_champion", lambda *_: better)
    return registry


def in_another_process(act: Callable[[], Any]) -> int | None:
    """Do something in a process of its own; return how it ended."""
    process = multiprocessing.get_context("fork").Process(target=act)
    process.start()
    process.join()
    return process.exitcode


def test_a_challenger_is_compared_with_the_champion_and_with_the_first_version_in_use(
    replacing: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that a person refused is no measure of anything."""
    replacing.promote(2)
    replacing.add(3)
    monkeypatch.undo()
    described: dict[str, Any] = dict.fromkeys(
        ("app_version", "sex", "mask_type", "hospital_id", "device_model", "ri_cause"), "one"
    )
    for file in (replacing.place / "outputs").glob("*/*.parquet"):
        table = pd.read_parquet(file)
        table.assign(record_id=table["subject_id"], age=50, snr_db=20.0, **described).to_parquet(
            file
        )
    asked = []

    def score(version: Registered, _: Tracker, recordings: pd.DataFrame, __: object) -> Any:
        """What these versions say: their files are no model."""
        asked.append(version.version)
        answers = {"champion": recordings["label"], "champion_point": 0.5}
        return pd.DataFrame(answers).set_index(recordings["subject_id"])

    def compared() -> dict[str, Any]:
        verdicts = {one.id: one for one in replacing.promote(3, "provisional").verdicts}
        return dict(verdicts["better_than_champion"].names)

    monkeypatch.setattr(promote, "score", score)
    found = compared()
    assert (found["champion"], found["first"]) == (("2",), ("1",))
    assert sorted(asked) == ["1", "2"]
    assert replacing.model("refuse", "1", "--why", NOT_FIT) == 0
    assert "first" not in compared()


@pytest.mark.parametrize("n_done", range(4))
def test_a_promotion_that_was_killed_is_completed_by_the_next_try_and_recorded_once(
    n_done: int, replacing: Registry
) -> None:
    """Killed before either alias moves, before it is no challenger, and before the last event."""
    registry = replacing

    def killed_after() -> None:
        left = iter(range(n_done))

        def counted(act: Callable[..., Any], *, also: Callable[..., bool]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                if also(*arguments) and next(left, None) is None:
                    os.kill(os.getpid(), signal.SIGKILL)
                return act(*arguments, **options)

            return call

        for name in ("set_registered_model_alias", "delete_registered_model_alias"):
            act = getattr(MlflowClient, name)
            setattr(MlflowClient, name, counted(act, also=lambda *_: True))
        audit.record = counted(audit.record, also=lambda _, action, *__: action == "moved")
        registry.promote(2)

    assert in_another_process(killed_after) == -signal.SIGKILL
    assert registry.moves()[1:] == [("promotion", "2", "1")]
    assert registry.promote(2).metrics["promoted"]
    assert registry.tracker.aliases() == {"champion": "2", "previous": "1"}
    assert registry.moves()[1:] == [("promotion", "2", "1")]
    assert registry.tracker.version("2").tags["spira.outcome"] == "promoted"
    assert verify(registry.store).problems == []


def test_an_alias_that_somebody_moved_in_mlflow_is_found(registry: Registry) -> None:
    registry.add(1)
    registry.promote(1)
    registry.add(2)
    assert verify(registry.store).problems == []
    registry.tracker.client.set_registered_model_alias(MODEL, CHAMPION, "2")
    (problem,) = verify(registry.store).problems
    assert problem.startswith("champion in MLflow is version 2, but event ")
    assert "made it 1: no act is on record" in problem
    assert registry.model("rollback", "--to", "1", "--why", NOT_FIT) == 0
    assert verify(registry.store).problems == []


def test_a_killed_promotion_of_a_version_that_was_refused_meanwhile_is_undone(
    replacing: Registry,
) -> None:
    registry = replacing

    def killed() -> None:
        act = MlflowClient.set_registered_model_alias

        def call(self: MlflowClient, name: str, alias: str, version: str) -> None:
            act(self, name, alias, version)
            if alias == "champion":
                os.kill(os.getpid(), signal.SIGKILL)

        MlflowClient.set_registered_model_alias = call
        registry.promote(2)

    assert in_another_process(killed) == -signal.SIGKILL
    assert registry.champion() == "2"
    registry.tracker.tag("2", {"spira.refused": "true"})  # the first thing that a refusal does
    assert registry.promote(1).metrics["promoted"]
    assert registry.tracker.aliases() == {"champion": "1", "challenger": "2"}
    assert registry.model("refuse", "2", "--why", NOT_FIT) == 0
    with pytest.raises(GateRejected, match="refused_by_a_person"):
        registry.promote(2)


def test_a_waiver_that_is_nobodys_to_sign_counts_for_nothing() -> None:
    """As one that was signed before the policy called the check firm."""
    verdict = Verdict("a", "block", Number(0.3), 0.2, suite=PROMOTION)
    about = waiver_of(verdict, "2999-01-01")
    assert about is not None
    signed = Decision("waivers", about, WHY, "cli:ana", AT)
    assert promote.waived(replace(verdict, suite=""), [signed], []).waiver
    assert promote.waived(replace(verdict, suite=""), [signed], ["a"]).stops


@pytest.mark.parametrize("interval", [(0.76, 0.93), (None, None)])
def test_a_waiver_of_what_nobody_could_tell_excuses_that_measurement_alone(
    interval: tuple[float | None, float | None],
) -> None:
    """Its value may be on the good side of the limit: a better model would be refused."""
    status: Status = "block" if interval[0] else "insufficient"
    verdict = Verdict("a", status, Number(0.87, "rate", *interval), 0.8, severity="critical")
    about = waiver_of(verdict, "2999-01-01")
    assert about is not None
    assert excuses(about, verdict)
    for value in (0.82, 0.88):
        assert not excuses(about, replace(verdict, observed=Number(value, "rate", *interval)))


def test_of_two_promotions_at_once_one_wins_and_the_other_is_compared_anew(
    replacing: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = replacing
    registry.add(3)
    compared = []

    def meanwhile(challenger: Registered, champion: Registered | None, *_: object) -> Verdict:
        assert champion is not None
        compared.append((challenger.version, champion.version))
        if challenger.version == "2" and champion.version == "1":
            registry.promote(3)
        return Verdict("better_than_champion", "pass")

    monkeypatch.setattr(promote, "beats_champion", meanwhile)
    with pytest.raises(ServiceUnavailable, match="changed by another act"):
        registry.promote(2)
    assert registry.tracker.aliases() == {"champion": "3", "previous": "1"}
    assert not registry.tracker.version("2").was_champion
    assert registry.promote(2).metrics["promoted"]
    assert registry.tracker.aliases() == {"champion": "2", "previous": "3"}
    assert compared == [("2", "1"), ("3", "1"), ("2", "3")]
    assert registry.moves()[1:] == [("promotion", "3", "1"), ("promotion", "2", "3")]


def test_what_a_slow_act_moved_too_late_is_put_right_by_itself(
    replacing: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process completed its move, and moved on, while it slept before the aliases."""
    registry, act = replacing, Tracker.assign
    registry.add(3)

    def slow(self: Tracker, champion: str | None, previous: str | None) -> None:
        monkeypatch.setattr(Tracker, "assign", act)
        registry.promote(3)
        act(self, champion, previous)

    monkeypatch.setattr(Tracker, "assign", slow)
    registry.promote(2)
    assert registry.moves()[1:] == [("promotion", "2", "1"), ("promotion", "3", "2")]
    assert registry.tracker.aliases() == {"champion": "3", "previous": "2"}


def waive(registry: Registry, name: str) -> int:
    why = "for the pilot in ward 2 alone"
    command = ["waive", "check", "promotion", name, "--why", why, "--store", registry.store.url]
    return main(command)


def test_a_waived_gate_of_promotion_needs_the_approval_of_a_person_and_is_in_the_decision(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    under(monkeypatch, sensitivity_floor={"min_people": 10})
    registry.add(1)
    with pytest.raises(GateRejected, match="sensitivity_floor"):
        registry.promote(1, "provisional")
    assert waive(registry, "sensitivity_floor") == 0
    waiting = registry.promote(1, "provisional")
    assert waiting.metrics["kept"]
    asked = waiting.verdicts[-1]
    assert asked.names["waived"] == ("sensitivity_floor",)
    assert "Waived: Finds the patients." in sentence(asked, "en")
    content = registry.store.directory(waiting.outputs["decision"]).read("decision.json")
    (first,) = json.loads(content)["waivers"]
    assert (first["suite"], first["id"]) == ("promotion", "sensitivity_floor")
    assert first["until"] > first["at"]
    assert registry.model("approve", "1", "--why", WHY) == 0
    assert registry.promote(1, "provisional").metrics["promoted"]


@pytest.mark.parametrize("name", ["auc_above_chance", "ward_noise_counterfactual"])
def test_nobody_may_waive_what_the_policy_calls_firm(
    name: str,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rules = {
        "auc_above_chance": {"min_auc": 0.999},
        "ward_noise_counterfactual": {"max_drop": -1.0},
    }
    under(monkeypatch, **{name: rules[name]})
    registry.add(1)
    with pytest.raises(GateRejected, match=name):
        registry.promote(1, "provisional")
    assert waive(registry, name) == 78
    assert "nobody may waive it" in capsys.readouterr().err


def test_a_waived_check_of_the_data_needs_the_approval_of_another_person(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    under(monkeypatch, second_person="always")
    registry.add(1)
    record = registry.store.runs.step("made-1", "check_training_set")
    assert record is not None
    waived = Verdict(
        "classes",
        "warn",
        Number(0.3),
        0.5,
        suite="training_set",
        severity="critical",
        waiver=SIGNED,
    )
    registry.store.runs.write("made-1", replace(record, verdicts=(waived,)))
    kept = registry.promote(1)
    assert kept.metrics["kept"]

    monkeypatch.setenv("SPIRA_ACTOR", "airflow:ana")  # who signed the waiver
    with pytest.raises(ConfigError, match="signed a waiver that it needs: another person has to"):
        approval.approve(registry.store, "1", WHY)
    about = approval.standings(registry.store)[0].about
    asked = kept.verdicts[-1].names["asked"][0]
    decide(registry.store, "approvals", about | {"asked": asked}, WHY)  # past the command
    kept = registry.promote(1)
    assert kept.metrics["kept"]
    assert "airflow:ana approved it, and also" in sentence(kept.verdicts[-1], "en")
    assert "airflow:ana aprovou, e também" in sentence(kept.verdicts[-1], "pt")

    monkeypatch.setenv("SPIRA_ACTOR", "airflow:bia")
    approval.approve(registry.store, "1", WHY)
    assert registry.promote(1).metrics["promoted"]


def test_what_the_probes_of_the_data_leave_open_needs_the_approval_of_a_person(
    registry: Registry,
) -> None:
    registry.add(1)
    record = registry.store.runs.step("made-1", "check_confounds")
    assert record is not None
    unknown = Verdict("noise_only_control", "insufficient", suite="confounds", severity="warning")
    registry.store.runs.write("made-1", replace(record, verdicts=(unknown,)))
    kept = registry.promote(1)
    assert kept.metrics["kept"]
    assert kept.verdicts[-1].names["insufficient"] == ("noise_only_control",)
    assert registry.model("approve", "1", "--why", WHY) == 0
    assert registry.promote(1).metrics["promoted"]


@pytest.mark.parametrize(("rule", "may"), [("always", False), ("production", True)])
def test_nobody_approves_their_own_run_in_production(
    rule: str, may: bool, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store of this test is a folder: a laptop's."""
    under(monkeypatch, second_person=rule, approval="always")
    registry.add(1)
    monkeypatch.setenv("SPIRA_ACTOR", "airflow:ana")
    began = audit.record(registry.store, "ingest", {"run": "made-1", "step": "ingest"})
    ingest = StepRecord("ingest", "ingest", "done", "2026-11-21T09:00:00+00:00", 0.0, audit=began)
    registry.store.runs.write("made-1", ingest)
    assert registry.promote(1).metrics["kept"]
    if may:
        approval.approve(registry.store, "1", WHY)
        assert registry.promote(1).metrics["promoted"]
        return
    for same_person in ("airflow:ana", "airflow:Ana"):
        monkeypatch.setenv("SPIRA_ACTOR", same_person)
        with pytest.raises(ConfigError, match="another person has to approve it"):
            approval.approve(registry.store, "1", WHY)
    monkeypatch.setenv("SPIRA_ACTOR", "airflow:bia")
    approval.approve(registry.store, "1", WHY)
    assert registry.promote(1).metrics["promoted"]
