"""What people decide about a model: approved or refused, applied by the gate, kept and shown."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from in_use import put_into_use
from mlflow import MlflowClient
from policies import under
from test_promotion import LABELS, evaluation, scores

from expectations.words.verdicts import sentence
from spira.store import StoreReader
from spira_tasks import package, show
from spira_tasks.artifacts import Store
from spira_tasks.cli import main
from spira_tasks.contract.pipelines import ROLLBACK
from spira_tasks.contract.record import Result
from spira_tasks.contract.run import State, StepRecord
from spira_tasks.contract.step import Step
from spira_tasks.contract.verdict import Verdict
from spira_tasks.errors import ConfigError, GateRejected, ServiceUnavailable
from spira_tasks.governance import audit, evidence
from spira_tasks.governance.decisions import MOVES, read_history
from spira_tasks.governance.verification import verify
from spira_tasks.runner import run_step
from spira_tasks.stages import promote
from spira_tasks.tracking import CHALLENGER, MODEL, Tracker

WHY = "read the model card together with the ward"
READ = ("recordings", "features", "ward_noise")  # by a training
AT = "2026-11-21T10:00:00+00:00"
NOT_FIT = "misses too many patients who wear a mask"
WORSE = "many more positives since this morning"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with what a run left of a sound model, and a registry without a version."""
    place = tmp_path_factory.mktemp("approval") / "store"
    store = Store(str(place))
    Tracker(store.tracking_uri).client.create_registered_model(MODEL)
    outputs = place.parent / "outputs"
    for name in ("recordings", "report", "provisional", "model"):
        (outputs / name).mkdir(parents=True)
    (outputs / "model/MLmodel").write_text("flavors: {}")
    people = pd.DataFrame({"subject_id": [f"{number:064x}" for number in range(len(LABELS))]})
    people = people.assign(task="SENTENCE", split="test", label=LABELS, x_synthetic="true")
    people.to_parquet(outputs / "recordings/recordings.parquet")
    for name, n_wrong in (("report", 0), ("provisional", 7)):
        clean = scores(n_missed=n_wrong, n_false_alarms=n_wrong)
        report = evaluation(clean, clean * 0.98, LABELS) | {"synthetic": True}
        (outputs / name / "evaluation.json").write_text(json.dumps(report))
        people.assign(clean=clean).to_parquet(outputs / name / "predictions.parquet")
    for name in ("recordings", "report", "provisional"):
        store.put_directory(outputs / name)
    return place.parent


class Registry:
    """Versions of the model, each of a run of its own, and the gate that decides on them."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.store = Store(str(place / "store"))
        self.tracker = Tracker(self.store.tracking_uri)

    def add(self, n: int, **tags: str) -> None:
        """Register version ``n`` as a run leaves it: as challenger."""
        digest = f"sha256:{n:064x}"
        run_id = self.tracker.run_of(digest, "model")
        files = self.place / "outputs/model"
        sealed = package.tags_of(digest, self.store.put_directory(files))
        version = self.tracker.client.create_model_version(
            MODEL,
            files.as_uri(),
            run_id,
            tags={"spira.classifier": digest, "spira.servable": "true", **sealed},
        )
        assert version.version in (n, str(n))
        self.tracker.tag(str(n), {name.replace("_", ".", 1): v for name, v in tags.items()})
        self.tracker.client.set_registered_model_alias(MODEL, CHALLENGER, str(n))
        folder = self.place / f"registration-{n}"
        folder.mkdir()
        content = {"name": MODEL, "version": str(n), "classifier": digest}
        (folder / "registration.json").write_text(json.dumps(content))
        outputs = {"registration": self.store.put_directory(folder)}
        record = StepRecord("register", "register", "done", AT, 0.0, key="0" * 64)
        record = replace(record, inputs={"classifier": digest}, outputs=outputs)
        self.store.runs.write(f"run-{n}", record)
        self.make(n, digest)

    def make(
        self, n: int, classifier: str, but: str = "", state: State = "done", **training: Any
    ) -> None:
        """Record the steps that made a classifier; a gate that is left out did not see its data."""
        read = {name: f"sha256:{digit * 64}" for name, digit in zip(READ, "abc", strict=True)}
        model = f"sha256:{n:063x}f"
        suites = {"check_training_set": "recordings", "check_features": "features"}
        suites |= {"check_ward_noise": "ward_noise"}
        checked = f"sha256:{'d' * 64}"
        sources = dict.fromkeys(suites, checked) | {"check_features": read["recordings"]}
        steps: list[Any] = [
            (
                name,
                "validate",
                {"source": sources[name]},
                {"table": read[table]},
                {"gate": name[6:]},
            )
            for name, table in suites.items()
        ]
        suite, recordings = {"gate": "recordings"}, {"recordings": read["recordings"]}
        steps += [("check_recordings", "validate", {}, {"table": checked}, suite)]
        steps += [
            ("check_drift", "drift", recordings, recordings, {}),
            ("check_confounds", "confounds", recordings, recordings, {}),
            ("train", "train", read, {"model": model}, training),
            ("evaluate", "evaluate", {**read, "model": model}, {"classifier": classifier}, {}),
        ]
        for name, stage, inputs, outputs, config in steps:
            record = StepRecord(name, stage, state if name == but else "done", AT, 0.0)
            record = replace(record, inputs=inputs, outputs=outputs, config=config, key="0" * 64)
            if name != but or state != "done":
                self.store.runs.write(f"made-{n}", record)

    def promote(self, n: int, report: str = "report", **config: Any) -> Result:
        outputs = self.place / "outputs"
        inputs = {
            "recordings": self.store.put_directory(outputs / "recordings"),
            "registration": "register.registration",
            "report": self.store.put_directory(outputs / report),
        }
        return run_step(Step("promote", "promote", inputs, config), f"run-{n}", self.store)

    def champion(self) -> str | None:
        found = self.tracker.champion()
        return found.version if found else None

    def model(self, *arguments: str) -> int:
        return main(["model", *arguments, "--store", self.store.url])

    def actions(self) -> list[str]:
        return [event.action for event in self.events()]

    def events(self) -> list[audit.Event]:
        """Without the moves of aliases that the acts lead to, and the ledger of the test people."""
        besides = (*MOVES, evidence.READ)
        return [event for event in audit.events(self.store) if event.action not in besides]

    def moves(self) -> list[tuple[str, str, str]]:
        """Act, champion and previous of every move."""
        return [
            (one.details["act"], one.details["champion"], one.details["previous"])
            for one in read_history(self.store).moves
        ]


@pytest.fixture
def registry(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Versions of which no experiment is asked for: what a person decides is the subject here.

    Scores without an error are calibrated to nothing.
    """
    lax = {"calibration": {"margin": 1.0}, "calibration_slope": {"max_slope": 1000.0}}
    under(monkeypatch, experiments={"required": []}, **lax)
    place = tmp_path / "copy"
    shutil.copytree(prepared, place)
    return Registry(place)


def test_a_challenger_whose_files_were_changed_is_not_promoted(registry: Registry) -> None:
    registry.add(1)
    (registry.place / "outputs/model/code.py").write_text("print('planted')")
    with pytest.raises(ConfigError, match=r"a file that was not registered: code.py"):
        registry.promote(1)
    assert registry.champion() is None


def test_a_refusal_that_somebody_removed_brings_no_version_back(registry: Registry) -> None:
    registry.add(1, spira_was_champion="true")
    registry.add(2, spira_was_champion="true")
    put_into_use(registry.tracker, "2")
    assert registry.model("refuse", "1", "--why", NOT_FIT) == 0
    for file in (registry.place / "store/decisions/refusals").iterdir():
        file.unlink()
    assert registry.model("refuse", "2", "--why", NOT_FIT) == 0
    assert registry.champion() is None


def test_a_refused_challenger_is_blocked_and_one_approved_after_all_is_promoted(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.add(1)
    assert registry.model("refuse", "1", "--why", NOT_FIT) == 0
    assert "what serves is as before" in capsys.readouterr().out
    refusal = f"refused_by_a_person: .* refused version 1 .*{NOT_FIT}"
    with pytest.raises(GateRejected, match=refusal):
        registry.promote(1)
    (version,) = registry.tracker.versions()
    assert version.tags["spira.blocked_by"] == "refused_by_a_person"
    assert version.is_refused
    assert registry.champion() is None

    assert registry.model("approve", "spira/1", "--why", WHY) == 0
    assert "is lifted" in capsys.readouterr().out
    assert not registry.tracker.version("1").is_refused
    registry.promote(1)
    assert registry.champion() == "1"
    found = ["refusal", "promotion", "approval", "withdrawal", "promotion"]
    assert registry.actions() == found
    assert verify(registry.store).problems == []


def test_refusing_the_champion_puts_the_newest_earlier_one_that_may_serve_in_its_place(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    promoted = {"spira_was_champion": "true"}
    registry.add(1, **promoted)
    registry.add(2, **promoted)
    registry.add(3, **promoted, spira_contains_erased="true")
    registry.add(4, spira_outcome="kept")
    registry.add(5, **promoted)
    put_into_use(registry.tracker, "5")
    registry.add(6, spira_outcome="kept")
    assert registry.model("refuse", "2", "--why", NOT_FIT) == 0
    assert registry.champion() == "5"
    assert registry.model("refuse", "5", "--why", NOT_FIT) == 0
    assert "the champion is version 1 again" in capsys.readouterr().out
    assert registry.champion() == "1"
    assert registry.tracker.versions()[5].aliases == (CHALLENGER,)  # it waits as it did
    *_, demotion = registry.events()
    assert (demotion.action, demotion.details["champion"]) == ("demotion", "1")
    with pytest.raises(GateRejected, match="refused_by_a_person"):
        registry.promote(5)
    assert registry.champion() == "1"

    assert registry.model("refuse", "1", "--why", NOT_FIT) == 0
    assert "there is no champion now" in capsys.readouterr().out
    assert registry.champion() is None
    assert registry.model("approve", "5", "--why", WHY) == 0
    registry.promote(5)
    assert registry.champion() == "5"  # it was stopped and not replaced, so it may come back


def test_a_refusal_that_was_killed_half_way_is_finished_by_another(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.add(1)
    registry.promote(1)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Tracker, "assign", killed)
        assert registry.model("refuse", "1", "--why", NOT_FIT) == 130
    assert registry.champion() == "1"
    assert registry.model("refuse", "1", "--why", NOT_FIT) == 0
    assert registry.champion() is None


def test_a_refused_version_is_neither_champion_nor_previous(served: Registry) -> None:
    registry = served
    assert registry.tracker.aliases() == {"champion": "3", "previous": "2"}
    assert registry.model("refuse", "2", "--why", NOT_FIT) == 0
    assert registry.tracker.aliases() == {"champion": "3", "previous": "1"}
    assert registry.model("refuse", "3", "--why", NOT_FIT) == 0
    assert registry.tracker.aliases() == {"champion": "1"}


@pytest.fixture
def served(registry: Registry) -> Registry:
    """Versions 1, 2 and 3 were promoted in this order; the last is the champion."""
    for n in (1, 2, 3):
        registry.add(n, spira_was_champion="true")
        put_into_use(registry.tracker, str(n))
    return registry


def test_a_rollback_puts_the_version_before_in_use_and_is_recorded_before_it_acts(
    served: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    assert served.model("rollback", "--why", WORSE) == 0
    assert "rolled back: version 3" in capsys.readouterr().out
    assert served.tracker.aliases() == {"champion": "2", "previous": "1"}
    (event,) = served.events()
    assert (event.action, event.details["version"], event.details["to"]) == ("rollback", "3", "2")
    assert served.model("rollback", "--reason", WORSE) == 0  # the same again
    assert "it was rolled back already: version 3" in capsys.readouterr().out
    assert served.actions() == ["rollback"]
    assert served.model("rollback", "--why", "and this one too, since Monday") == 0
    assert served.tracker.aliases() == {"champion": "1"}
    assert served.model("rollback", "--why", "and the very first one as well") == 78
    assert "no earlier version may serve" in capsys.readouterr().err
    assert served.model("list") == 0
    listed = " ".join(capsys.readouterr().out.split())
    assert listed.count("rolled back") == 2
    assert verify(served.store).problems == []


@pytest.mark.parametrize(
    ("to", "n_moves"), [((), 0), ((), 1), (("--to", "2"), 1), (("--to", "1"), 1)]
)
def test_a_rollback_that_was_killed_is_completed_by_the_same_command(
    to: tuple[str, ...], n_moves: int, served: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, move = iter(range(n_moves)), MlflowClient.set_registered_model_alias

    def killed(*arguments: Any) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        move(*arguments)

    command = ("rollback", *to, "--why", WORSE)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_registered_model_alias", killed)
        patch.setattr(MlflowClient, "delete_registered_model_alias", killed)
        assert served.model(*command) == 130
    assert served.champion() == ("3" if n_moves == 0 else (to or "2")[-1])
    assert served.model(*command) == 0
    expected = {"champion": "2", "previous": "1"} if "1" not in to else {"champion": "1"}
    assert served.tracker.aliases() == expected
    assert served.actions() == ["rollback"]


def test_no_run_promotes_what_was_rolled_back_and_a_person_may_go_back_to_it(
    served: Registry,
) -> None:
    assert served.model("rollback", "--why", WORSE) == 0
    kept = served.promote(3)
    assert kept.metrics["kept"]
    (verdict,) = [one for one in kept.verdicts if one.id.startswith("rolled_back")]
    assert "rolled version 3 back to version 2" in sentence(verdict, "en")
    assert "fez voltar da versão 3 para a versão 2" in sentence(verdict, "pt")
    assert served.champion() == "2"
    assert served.model("rollback", "--to", "3", "--why", "it was the microphone, not it") == 0
    assert served.tracker.aliases() == {"champion": "3", "previous": "1"}
    assert served.promote(3).metrics["promoted"]  # it is the champion
    assert verify(served.store).problems == []


def test_nothing_is_rolled_back_to_a_version_that_may_not_serve(
    served: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    served.add(4)
    assert served.model("refuse", "2", "--why", NOT_FIT) == 0
    served.tracker.tag("1", {"spira.contains_erased": "true"})
    for to, why_not in (
        ("1", "learned from a person who was erased"),
        ("2", "a person refused it"),
        ("3", "is the champion already"),
        ("4", "was never champion"),
        ("9", "has no version '9'"),
    ):
        assert served.model("rollback", "--to", to, "--why", WORSE) == 78
        assert why_not in capsys.readouterr().err
    assert served.model("rollback", "--why", WORSE) == 78
    assert served.model("approve", "4", "--why", WHY) == 0
    assert served.model("rollback", "--to", "4", "--why", WORSE) == 78  # no gate let it pass
    assert "was never champion" in capsys.readouterr().err
    served.tracker.tag("4", {"spira.was_champion": "true"})
    (served.place / "outputs/model/code.py").write_text("print('planted')")
    assert served.model("rollback", "--to", "4", "--why", WORSE) == 78
    assert "a file that was not registered: code.py" in capsys.readouterr().err
    (served.place / "outputs/model/code.py").unlink()
    assert "rollback" not in served.actions()
    assert served.model("rollback", "--to", "4", "--why", WORSE) == 0
    assert served.tracker.aliases() == {"champion": "4"}


@pytest.mark.slow
def test_airflow_rolls_back_in_the_name_of_who_started_it(served: Registry, tmp_path: Path) -> None:
    from test_dags import airflow

    home = tmp_path / "airflow"
    assert airflow("db", "migrate", home=home).returncode == 0
    dag, conf = ("dags", "test", "spira_rollback"), json.dumps({"to": "1", "reason": WORSE})
    process = airflow(*dag, "-c", conf, home=home, SPIRA_STORE=served.store.url)
    assert process.returncode == 0, process.stdout[-2000:]
    assert served.tracker.aliases() == {"champion": "1"}
    (event,) = served.events()
    assert (event.action, event.actor.partition(":")[0]) == ("rollback", "airflow")


def test_the_step_of_the_dag_rolls_back_and_a_retry_of_it_no_further(served: Registry) -> None:
    step = ROLLBACK.from_params({"to": "", "reason": WORSE}).step("rollback")
    assert run_step(step, "r", served.store).metrics == {"out_of_use": 3.0, "champion": 2.0}
    assert run_step(step, "r", served.store).metrics == {"out_of_use": 3.0, "champion": 2.0}
    assert served.actions() == ["rollback"]


@pytest.mark.parametrize(
    ("policy", "report"), [("provisional", "provisional"), ("always", "report")]
)
def test_a_version_for_which_the_policy_asks_a_person_is_promoted_once_one_approved(
    policy: str, report: str, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    under(monkeypatch, approval=policy)
    registry.add(1)
    waiting = registry.promote(1, report)
    assert waiting.metrics["kept"]
    (verdict,) = [one for one in waiting.verdicts if one.id == "approved_by_a_person"]
    assert verdict.status == "warn"
    assert verdict.names["version"] == ("1",)
    assert registry.champion() is None
    assert registry.model("approve", "1", "--why", WHY) == 0
    assert registry.champion() is None  # a person says yes, the gate acts
    done = registry.promote(1, report)
    assert done.metrics["promoted"]
    assert {one.id: one.status for one in done.verdicts}["approved_by_a_person"] == "pass"
    assert registry.champion() == "1"


def test_an_approval_counts_for_the_checks_that_were_open_and_not_for_one_waived_after_it(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.add(1)
    assert registry.model("approve", "1", "--why", WHY) == 0  # before anything was judged
    reader = StoreReader(registry.store.url, {})  # Airflow's, which waits for the answer
    for _ in range(2):
        waiting = registry.promote(1, "provisional")
        assert waiting.metrics["kept"]
        asked = waiting.verdicts[-1]
        assert "approved it before these checks were open" in sentence(asked, "en")
        assert "isso já não vale" in sentence(asked, "pt")
        assert reader.decided("run-1", *asked.names["asked"]) == ""
        assert registry.model("approve", "1", "--why", WHY) == 0
        assert reader.decided("run-1", *asked.names["asked"]) == "approve"
        under(monkeypatch, sensitivity_floor={"min_people": 10})
        if not asked.names["waived"]:
            with pytest.raises(GateRejected, match="sensitivity_floor"):
                registry.promote(1, "provisional")
            waive = ("waive", "check", "promotion", "sensitivity_floor", "--why", WHY)
            assert main([*waive, "--store", registry.store.url]) == 0
    assert registry.promote(1, "provisional").metrics["promoted"]
    assert verify(registry.store).problems == []


def test_promotion_asks_nobody_about_a_model_that_enough_people_tested(registry: Registry) -> None:
    registry.add(1)
    result = registry.promote(1)
    assert registry.champion() == "1"
    assert not [one for one in result.verdicts if one.id.endswith("by_a_person")]


@pytest.mark.parametrize(
    ("setting", "value"), [("require_approval", False), ("n_resamples", 200), ("seed", 1)]
)
def test_no_setting_of_a_run_changes_the_policy(
    setting: str, value: int, registry: Registry
) -> None:
    registry.add(1)
    with pytest.raises(ConfigError, match=setting):
        registry.promote(1, "provisional", **{setting: value})
    assert registry.champion() is None


def test_a_version_that_was_deleted_in_mlflow_says_which_step_to_run_again(
    registry: Registry,
) -> None:
    registry.add(1)
    registry.tracker.client.delete_registered_model(MODEL)
    with pytest.raises(ConfigError, match=r"no longer has version 1; .* run the step register"):
        registry.promote(1)


def test_a_run_is_shown_also_where_the_registry_cannot_be_read(registry: Registry) -> None:
    registry.add(1)
    (registry.place / "store/mlflow/mlflow.db").write_bytes(b"no database" * 500)
    found = show.describe("run-1", registry.store)["model"]
    assert found == {"name": MODEL, "version": "1", "aliases": []}


def test_the_run_of_the_champion_shows_its_outcome_in_mlflow_also_after_a_refusal(
    registry: Registry,
) -> None:
    registry.add(1)
    registry.promote(1)
    champion = registry.tracker.champion()
    assert champion is not None
    assert registry.tracker.client.get_run(champion.run_id).data.tags["spira.outcome"] == "promoted"
    assert registry.model("refuse", "1", "--why", NOT_FIT) == 0
    tags = registry.tracker.client.get_run(champion.run_id).data.tags
    assert (tags["spira.outcome"], tags["spira.blocked_by"]) == ("blocked", "refused_by_a_person")


def test_an_approval_overrides_neither_a_gate_nor_an_erasure(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.add(1, spira_contains_erased="true", spira_n_erased="1")
    assert registry.model("approve", "1", "--why", WHY) == 0
    assert "it stays blocked: it learned from people" in capsys.readouterr().out
    with pytest.raises(GateRejected, match="contains_erased_subject"):
        registry.promote(1)
    registry.add(2, spira_outcome="blocked", spira_blocked_by="auc_above_chance")
    assert registry.model("approve", "2", "--why", WHY) == 0
    assert "it stays blocked by auc_above_chance" in capsys.readouterr().out
    assert registry.champion() is None


def test_who_was_champion_and_was_replaced_stays_so_however_often_it_is_run(
    registry: Registry,
) -> None:
    registry.add(1)
    registry.promote(1)
    registry.tracker.assign(None, None)  # somebody moved the alias
    for _ in range(2):
        again = registry.promote(1)
        assert again.metrics["kept"]
        assert again.verdicts[-1].names["was_champion"] == ("1",)


def test_the_list_and_the_trace_tell_what_people_said(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.add(1)
    registry.promote(1)
    registry.add(2)
    registry.model("refuse", "1", "--why", NOT_FIT)
    registry.model("approve", "1", "--why", WHY)
    registry.model("refuse", "2", "--why", "of another, and of no other")
    capsys.readouterr()
    assert registry.model("list") == 0
    assert WHY in " ".join(capsys.readouterr().out.split())
    assert registry.model("list", "--json") == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["approval"]["why"], first["refusal"]) == (WHY, None)
    assert second["approval"] is None
    assert main(["trace", "spira/1", "--json", "--store", registry.store.url]) == 0
    reported = json.loads(capsys.readouterr().out)
    found = [(one["action"], one["why"], bool(one["withdrawn"])) for one in reported["by_persons"]]
    assert found == [("refusal", NOT_FIT, True), ("approval", WHY, False)]
    assert "demotion" in {event["action"] for event in reported["events"]}
    assert main(["trace", "spira/1", "--store", registry.store.url]) == 0
    assert WHY in " ".join(capsys.readouterr().out.split())


def test_a_version_that_is_not_there_and_a_reason_that_is_none_are_reported(
    registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.add(1)
    assert registry.model("approve", "7", "--why", WHY) == 78
    assert "has no version '7' of the model; it has: 1" in capsys.readouterr().err
    assert registry.model("approve", "1", "--why", "ok") == 78
    assert registry.actions() == []
    nowhere = tmp_path / "typed" / "wrong"
    assert main(["model", "list", "--store", str(nowhere)]) == 0
    assert str(nowhere) in capsys.readouterr().out
    assert main(["model", "refuse", "1", "--why", WHY, "--store", str(nowhere)]) == 78
    assert "it has: none yet" in capsys.readouterr().err
    assert not nowhere.parent.exists()


def test_an_erasure_during_the_comparison_takes_the_promotion_back(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.add(1)
    registry.promote(1)
    registry.add(2)
    move = Tracker.assign

    def marked_meanwhile(self: Tracker, champion: str | None, previous: str | None) -> None:
        self.tag("2", {"spira.contains_erased": "true", "spira.n_erased": "1"})
        move(self, champion, previous)

    better = Verdict("better_than_champion", "pass")
    monkeypatch.setattr(promote, "beats_champion", lambda *_: better)
    with monkeypatch.context() as patch:
        patch.setattr(Tracker, "assign", marked_meanwhile)
        with pytest.raises(ServiceUnavailable, match="was erased, while this promotion"):
            registry.promote(2)
    assert registry.champion() == "1"
    with pytest.raises(GateRejected, match="contains_erased_subject"):
        registry.promote(2)
    assert registry.tracker.aliases() == {"champion": "1"}


@pytest.mark.parametrize("gate", ["check_recordings", "check_confounds", "check_features"])
@pytest.mark.parametrize("state", ["done", "blocked"])
def test_a_model_of_data_that_a_gate_did_not_hand_on_is_not_promoted(
    registry: Registry, gate: str, state: State
) -> None:
    """As trained by hand, on what ingest left, or on what a gate has blocked."""
    registry.add(1)
    shutil.rmtree(registry.place / "store/runs/made-1")
    registry.make(1, f"sha256:{1:064x}", but=gate, state=state)
    with pytest.raises(GateRejected, match="behind_its_gates"):
        registry.promote(1)
    record = registry.store.runs.step("run-1", "promote")
    assert record is not None
    assert [dict(verdict.names) for verdict in record.stopping] == [{"gates": (gate,)}]
    assert registry.champion() is None
    registry.make(1, f"sha256:{1:064x}")  # the same data came through it after all
    assert registry.promote(1).metrics["promoted"]


def test_a_model_of_invented_people_takes_the_place_of_none_of_real_people(
    registry: Registry,
) -> None:
    registry.add(1, spira_synthetic="false")
    assert registry.promote(1).metrics["promoted"]
    registry.add(2, spira_synthetic="true")
    with pytest.raises(GateRejected, match="learned from invented people, and the one in use from"):
        registry.promote(2)
    assert registry.champion() == "1"


@pytest.mark.parametrize(
    ("settings", "blocked"),
    [
        ({"patient_noises": [0, 0]}, True),
        ({"patient_noises": [0, 0], "preset": "acl2021-2.3"}, True),
        ({"patient_noises": [1, 1], "preset": "acl2021-3.1"}, False),
        ({"patient_noises": None}, False),
    ],
)
def test_a_model_whose_training_noise_tells_the_label_is_not_promoted_whoever_approves_it(
    registry: Registry, settings: dict[str, Any], blocked: bool
) -> None:
    registry.add(1)
    shutil.rmtree(registry.place / "store/runs/made-1")
    registry.make(1, f"sha256:{1:064x}", min_noises=1, max_noises=1, **settings)
    assert registry.model("approve", "1", "--why", WHY) == 0
    if not blocked:
        assert registry.promote(1).metrics["promoted"]
        return
    reason = r"label_blind_augmentation: .*got another number of ward noises"
    with pytest.raises(GateRejected, match=reason):
        registry.promote(1)
    record = registry.store.runs.step("run-1", "promote")
    assert record is not None
    (verdict,) = record.stopping
    assert verdict.severity == "critical"
    presets = {"preset": settings["preset"]} if "preset" in settings else {}
    assert dict(verdict.names) == {"presets": tuple(presets.values())}
    assert all(name in sentence(verdict, "pt") for name in presets.values())
    assert registry.champion() is None


def test_a_model_that_nobody_knows_the_making_of_is_not_promoted(registry: Registry) -> None:
    registry.add(1)
    shutil.rmtree(registry.place / "store/runs/made-1")
    with pytest.raises(GateRejected, match="behind_its_gates"):
        registry.promote(1)
    assert registry.champion() is None


def test_a_version_without_a_record_of_the_checks_of_its_registration_never_serves(
    registry: Registry,
) -> None:
    """As where a person runs the promotion by hand after the step register refused the model."""
    registry.add(1, spira_servable="false")
    with pytest.raises(GateRejected, match="No record says that this version passed the checks"):
        registry.promote(1)
    assert registry.champion() is None


def test_every_model_that_a_promotion_judges_is_in_the_ledger_of_the_test_people(
    registry: Registry,
) -> None:
    registry.add(1)
    registry.promote(1, "provisional")
    registry.promote(1, "provisional")
    registry.add(2)
    registry.promote(2, "provisional")
    reads = [one.details for one in audit.events(registry.store) if one.action == evidence.READ]
    of_promotions = [one["classifier"] for one in reads if one["run"].startswith("run-")]
    assert of_promotions == [f"sha256:{n:064x}" for n in (1, 2)]


def test_without_evidence_of_experiments_a_model_is_provisional(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    required = ["unseen_sites", "cross_cohort", "seed_stability"]
    under(monkeypatch, experiments={"required": required})
    registry.add(1)
    result = registry.promote(1)
    statuses = {one.id: one.status for one in result.verdicts}
    assert {statuses[kind] for kind in required} == {"insufficient"}
    assert statuses["approved_by_a_person"] == "warn"
    assert registry.champion() is None
