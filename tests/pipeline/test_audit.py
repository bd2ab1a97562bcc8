"""The audit log: what is done is kept, and a change of it is found."""

from __future__ import annotations

import json
import os
import pwd
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import Run

from spira_tasks.artifacts import Store
from spira_tasks.cli import main
from spira_tasks.contract.run import StepRecord
from spira_tasks.errors import ConfigError
from spira_tasks.governance import audit, decisions, retention
from spira_tasks.governance.verification import verify


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
