"""The audit log: what is done is kept, and a change of it is found."""

from __future__ import annotations

import json
import os
import pwd
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Run

from spira_tasks.artifacts import Documents, Store
from spira_tasks.cli import main
from spira_tasks.contract.record import Result
from spira_tasks.contract.run import StepRecord
from spira_tasks.contract.verdict import Verdict
from spira_tasks.errors import ConfigError
from spira_tasks.governance import audit, decisions, retention
from spira_tasks.governance.verification import verify

WHY = "asked for it in writing, folder 12"


def test_many_writers_at_once_make_one_chain(place: str) -> None:
    stores = [Store(place) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: audit.record(stores[n % 4], "gate", {"n": n}), range(24)))
    found = verify(Store(place))
    assert (found.n_events, found.problems) == (24, [])
    assert sorted(event.details["n"] for event in audit.events(Store(place))) == list(range(24))


@pytest.fixture
def log(tmp_path: Path) -> Store:
    store = Store(str(tmp_path / "store"))
    for number in range(5):
        audit.record(store, "gate", {"n": number})
    return store


def event(store: Store, number: int) -> Path:
    file = Path(store.url) / f"audit/{number:012d}.json"
    file.chmod(0o644)
    return file


def test_a_changed_event_is_found(log: Store) -> None:
    content = json.loads(event(log, 3).read_text())
    content["details"]["n"] = 7
    event(log, 3).write_text(json.dumps(content))
    assert verify(log).problems == ["event 3 was changed: its content has another hash"]


def test_a_changed_event_with_a_hash_made_to_match_is_found(log: Store) -> None:
    content = json.loads(event(log, 3).read_text())
    content["details"]["n"] = 7
    forged = audit.Event(**content)
    content["hash"] = forged.true_hash()
    event(log, 3).write_text(json.dumps(content))
    assert verify(log).problems == ["event 4 does not follow the one before it"]


def test_an_event_taken_out_of_the_middle_is_found(log: Store) -> None:
    event(log, 2).unlink()
    assert any("event 2 is expected here" in problem for problem in verify(log).problems)


def test_a_log_cut_off_at_its_end_is_found_by_what_quotes_it(log: Store) -> None:
    anchor = audit.record(log, "promotion", {})
    log.runs.write("r", StepRecord("promote", "promote", "done", "2026", 0.0, audit=anchor))
    event(log, 6).unlink()
    assert verify(log).problems == ["event 6, which runs/r/promote quotes, is gone"]
    assert verify(Store(log.url), {"a pack": anchor}).problems[0].startswith("event 6")


def test_the_command_says_whether_the_log_is_whole(
    log: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "verify", "--store", log.url]) == 0
    assert "5 events" in capsys.readouterr().out
    event(log, 1).write_text("{}")
    assert main(["audit", "verify", "--store", log.url]) == 65
    assert main(["audit", "verify", "--store", log.url, "--anchor", "x"]) == 78


def test_where_no_log_is_nothing_is_called_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = tmp_path / "typed" / "wrong"
    for form in ([], ["--json"]):
        assert main(["audit", "verify", *form, "--store", str(nowhere)]) == 78
        said = capsys.readouterr()
        assert f"no audit log at {nowhere}" in said.err
        assert "SPIRA_STORE" in said.err
        assert said.out == ""
    assert not list(tmp_path.iterdir())


def test_a_log_that_is_gone_altogether_is_reported_by_what_quotes_it(
    log: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    anchor = audit.head(log.documents)
    log.runs.write("r", StepRecord("promote", "promote", "done", "2026", 0.0, audit=anchor))
    for number in range(1, 6):
        event(log, number).unlink()
    assert main(["audit", "verify", "--store", log.url]) == 65
    out = capsys.readouterr().out
    assert "event 5, which runs/r/promote quotes, is gone" in out
    assert log.url in out


@pytest.mark.parametrize(
    "command", [["audit", "list"], ["quarantine", "list"], ["waive", "list"], ["erase", "--list"]]
)
def test_a_list_with_nothing_in_it_says_which_store_it_looked_at(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = tmp_path / "typed" / "wrong"
    assert main([*command, "--store", str(nowhere)]) == 0
    assert str(nowhere) in capsys.readouterr().out.replace("\n", "")
    assert main([*command, "--store", str(nowhere), "--json"]) == 0
    assert not list(tmp_path.iterdir())


def test_every_gate_and_what_came_in_is_in_the_log_of_a_run(finished: Run) -> None:
    mine = [e for e in audit.events(finished.store) if e.details.get("run") == finished.run_id]
    mine = [event for event in mine if event.action != "test_read"]  # of no step
    found = [(event.action, event.details["step"]) for event in mine]
    assert found[0] == ("ingest", "ingest")
    assert ("gate", "check_recordings") in found
    assert ("gate", "check_training_set") in found
    assert ("gate", "check_features") in found
    assert found[-1] == ("promotion", "promote")
    blocked = mine[-1].details["blocked_by"]
    assert blocked
    assert verify(finished.store).problems == []
    assert verify(finished.store).n_anchors >= 5


def test_the_actor_is_the_user_that_airflow_names(
    log: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPIRA_ACTOR", "airflow:ana")
    audit.record(log, "gate", {})
    assert [event.actor for event in audit.events(log)][-1] == "airflow:ana"


def test_a_person_who_types_a_command_acts_in_no_other_name(
    log: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = str(retention.PACKAGED)
    command = ["retention", "adopt", policy, "--why", "signed on paper, folder 12"]
    mine = f"cli:{pwd.getpwuid(os.getuid()).pw_name}"
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "dr.x")
    for forged in ("airflow:dr.x", "cli:dr.x", "dr.x", "cli:", ""):
        monkeypatch.setenv("SPIRA_ACTOR", forged)
        assert main([*command, "--store", log.url]) == 0
        assert [event.actor for event in audit.events(log)][-1] == mine


def test_a_step_that_airflow_starts_acts_in_the_name_of_its_user(
    log: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPIRA_ACTOR", "airflow:ana")
    data = f"folder:{tmp_path / 'data'}"
    step = {"name": "ingest", "stage": "ingest", "inputs": {"data": data}, "config": {}}
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "recordings.csv").write_text("")
    assert main(["run", json.dumps(step), "--run-id", "r", "--store", log.url]) == 65
    assert [event.actor for event in audit.events(log)][-1] == "airflow:ana"


def test_where_an_account_has_no_name_the_host_says_who_typed(
    log: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container; the number of the account stands where nobody says."""

    def nameless(uid: int) -> pwd.struct_passwd:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", nameless)
    command = ["retention", "adopt", str(retention.PACKAGED), "--store", log.url]
    number = f"cli:{os.getuid()}"
    for given, actor in (("cli:ana", "cli:ana"), ("airflow:ana", number), ("cli:a\nb", number)):
        monkeypatch.setenv("SPIRA_ACTOR", given)
        assert main([*command, "--why", "signed on paper, folder 12"]) == 0
        assert [event.actor for event in audit.events(log)][-1] == actor


def test_a_decision_is_kept_once_with_its_reason_and_can_be_taken_back(log: Store) -> None:
    about = {"record": "r1", "reason": "too_short"}
    why = "the patient could only speak for a moment"
    made, new = decisions.decide(log, "releases", about, why)
    again, newer = decisions.decide(log, "releases", about, "said differently this time")
    assert (new, newer) == (True, False)
    assert again == made
    assert [one.why for one in decisions.known(log, "releases")] == [why]
    assert decisions.withdraw(log, "releases", about, "it was the wrong recording")
    assert decisions.known(log, "releases") == []
    actions = [event.action for event in audit.events(log)][-2:]
    assert actions == ["release", "withdrawal"]
    assert verify(log).problems == []


def test_a_reason_is_written_and_names_nobody(log: Store) -> None:
    with pytest.raises(ConfigError, match="at least 10 characters"):
        decisions.decide(log, "waivers", {"expectation": "e"}, "ok")
    with pytest.raises(ConfigError, match="looks like a personal number"):
        decisions.decide(log, "waivers", {"expectation": "e"}, "call 11 98765-4321 for more")


# Decisions are applied as the log records them


@pytest.fixture
def decided(log: Store, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The document of a tombstone."""
    monkeypatch.setattr(decisions, "PAUSE_SECONDS", 0.0)
    made, _ = decisions.decide(log, "erasures", {"tag": "ab" * 16}, WHY)
    file = Path(log.url) / decisions.name_of("erasures", made.about)
    file.chmod(0o644)
    assert decisions.in_force(log, "erasures").names == (file.name,)
    return file


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda file: file.unlink(), "is missing, but event 6 records it.*erase again"),
        (lambda file: file.write_text(file.read_text().replace("abab", "cdcd")), "was changed"),
        (lambda file: file.write_text("[]"), "is not the one that event 6 records"),
        (lambda file: file.write_text("no JSON"), "is not the one that event 6 records"),
        (lambda file: file.write_text('{"about": 7}'), "is not the one that event 6 records"),
        (lambda file: shutil.copy(file, file.with_name(f"{'0' * 32}.json")), "no event records it"),
    ],
)
def test_a_decision_that_is_not_as_the_log_has_it_is_refused_with_what_to_do(
    change: Callable[[Path], object], said: str, decided: Path, log: Store
) -> None:
    change(decided)
    with pytest.raises(ConfigError, match=f"(?s)not as the audit log records them.*{said}"):
        decisions.in_force(log, "erasures")
    assert decisions.in_force(log, "waivers").names == ()
    decisions.known(log, "erasures")  # a list stays readable


def test_a_decision_and_its_event_removed_together_are_refused(decided: Path, log: Store) -> None:
    audit.record(log, "gate", {})
    decided.unlink()
    event(log, 6).unlink()
    with pytest.raises(ConfigError, match="event 7 of the audit log was changed: restore the log"):
        decisions.in_force(log, "erasures")


def test_a_file_that_is_no_decision_is_not_applied_and_verify_names_it(
    decided: Path, log: Store
) -> None:
    decided.with_name("notes.txt").write_text("call the ward")
    assert decisions.in_force(log, "erasures").names == (decided.name,)
    assert [problem for problem in verify(log).problems if "notes.txt" in problem]


def test_of_a_long_log_only_the_new_events_are_read(
    decided: Path, log: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decisions, "N_NEW", 3)
    decisions.in_force(log, "erasures")
    audit.record(log, "gate", {})
    read: list[str] = []
    real = audit.read

    def counted(documents: Documents, name: str) -> audit.Event:
        read.append(name)
        return real(documents, name)

    monkeypatch.setattr(audit, "read", counted)
    assert decisions.in_force(log, "erasures").names == (decided.name,)
    assert sorted(read) == [audit.name_of(6), audit.name_of(7)]
    decided.unlink()
    with pytest.raises(ConfigError, match="is missing"):
        decisions.in_force(log, "erasures")


def test_a_log_cut_off_before_what_was_read_of_it_is_refused(
    decided: Path, log: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decisions, "N_NEW", 1)
    decisions.in_force(log, "erasures")
    decided.unlink()
    event(log, 6).unlink()
    with pytest.raises(ConfigError, match="event 6 of the audit log is gone"):
        decisions.in_force(log, "erasures")


# What is no event


def test_a_stray_file_beside_the_events_stops_nothing_and_is_named(log: Store) -> None:
    for name in (".DS_Store", "notes.txt", "zz.json"):
        (Path(log.url) / "audit" / name).write_text("?")
    assert audit.record(log, "gate", {}).number == 6
    assert len([*audit.events(log)]) == 6
    decisions.in_force(log, "erasures")
    assert sorted(verify(log).problems) == [
        f"audit/{name} is no event, and no step reads it: remove it"
        for name in (".DS_Store", "notes.txt", "zz.json")
    ]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"number": 5}', "null"])
def test_an_event_that_cannot_be_read_is_a_clear_error(content: str, log: Store) -> None:
    event(log, 5).write_text(content)
    for read in (
        lambda: audit.record(log, "gate", {}),
        lambda: [*audit.events(log)],
        lambda: decisions.in_force(log, "erasures"),
    ):
        with pytest.raises(ConfigError, match=r"audit/0+5.json is no event .*restore the log"):
            read()
    assert "audit/000000000005.json is not an event" in verify(log).problems


def test_an_event_put_far_behind_the_others_is_not_followed(log: Store) -> None:
    content = json.loads(event(log, 5).read_text()) | {"number": 999_999_999_999}
    (Path(log.url) / audit.name_of(999_999_999_999)).write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"follows no event.*move that file away"):
        audit.record(log, "gate", {})


# Results, memory and records


def test_what_was_changed_and_sealed_again_is_found_by_the_log(log: Store) -> None:
    result = Result("validate", "a" * 64, {}, verdicts=(Verdict("limit", "block"),))
    anchor = audit.record(log, "gate", audit.details_of(result))
    record = StepRecord("check", "validate", "blocked", "2026", 0.0, key=result.key, audit=anchor)
    log.save_result(result)
    log.runs.write("r", replace(record, verdicts=result.verdicts))
    assert verify(log).problems == []
    log.forget_result(result.key)
    shutil.rmtree(Path(log.url) / "corrupt")
    log.save_result(replace(result, verdicts=()))
    log.runs.write("r", replace(record, metrics={"n": 1.0}))
    assert sorted(verify(log).problems) == [
        f"results/{result.key}: blocked_by is not what event 6 has",
        "runs/r/check: metrics, blocked_by is not what event 6 has",
    ]


def test_verify_names_a_record_that_was_changed_and_moves_nothing(log: Store) -> None:
    log.save_result(Result("validate", "a" * 64, {}, verdicts=(Verdict("limit", "block"),)))
    file = Path(log.url) / "results" / f"{'a' * 64}.json"
    file.chmod(0o644)
    file.write_text(file.read_text().replace("block", "pass"))
    (problem,) = verify(log).problems
    assert "results/" in problem
    assert file.exists()
    assert log.find_result("a" * 64) is None
    (problem,) = verify(log).problems
    assert "corrupt/results/" in problem


def test_a_store_older_than_seals_is_sealed_by_a_person(
    log: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log.save_result(Result("stage", "b" * 64, {}))
    log.runs.write("r", StepRecord("train", "train", "done", "2026", 0.0))
    monkeypatch.setenv("SPIRA_SEALING_KEY", "1" * 64)
    assert main(["audit", "verify", "--store", log.url]) == 65
    assert "2 results, memories and records are sealed with another key" in capsys.readouterr().out
    assert main(["audit", "seal", "--store", log.url, "--why", "ok"]) == 78
    assert main(["audit", "seal", "--store", log.url, "--why", "the key was replaced"]) == 0
    assert "sealed: 2 records, 0 versions" in capsys.readouterr().out
    assert log.find_result("b" * 64) is not None
    assert log.runs.step("r", "train") is not None
    assert verify(log).problems == []
    assert [event.action for event in audit.events(log)][-1] == "sealing"


def test_after_a_person_vouched_for_a_broken_log_decisions_are_applied_again(
    decided: Path, log: Store
) -> None:
    event(log, 2).unlink()
    with pytest.raises(ConfigError, match="event 3 of the audit log was changed"):
        decisions.in_force(log, "erasures")
    assert main(["audit", "seal", "--store", log.url, "--why", "no backup has event two"]) == 0
    assert decisions.in_force(log, "erasures").names == (decided.name,)
    decided.unlink()
    with pytest.raises(ConfigError, match="is missing"):
        decisions.in_force(log, "erasures")
