"""Decisions and certificates are as the audit log tells, or the check of the log says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from erasing import erase, filled, store, subject, table

from spira_tasks.artifacts import Store
from spira_tasks.cli import main
from spira_tasks.governance import audit, decisions, retention
from spira_tasks.governance.applied import Kind
from spira_tasks.governance.erasure import certificate_name
from spira_tasks.governance.verification import verify

__all__ = ["filled", "store", "subject"]  # the fixtures

WHY = "the ward has one telephone yet"
ABOUT: dict[Kind, dict[str, str]] = {
    "releases": {"record": "r1", "reason": "too_short"},
    "waivers": {"suite": "training_set", "expectation": "near"},
    "erasures": {"tag": "ab" * 16},
    "approvals": {"version": "1", "classifier": "sha256:1"},
    "refusals": {"version": "2", "classifier": "sha256:2"},
}


@pytest.fixture
def ward(tmp_path: Path) -> Store:
    """A store with a decision of every kind."""
    made = Store(str(tmp_path / "ward"))
    for kind, about in ABOUT.items():
        decisions.decide(made, kind, about, WHY)
    retention.adopt_policy(made, str(retention.PACKAGED), WHY)
    return made


def document(store: Store, name: str) -> Path:
    file = Path(store.url) / name
    if file.exists():
        file.chmod(0o644)
    return file


def change(file: Path, **fields: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def problem(store: Store, name: str) -> str:
    """The one problem, which is about this document."""
    (found,) = verify(store).problems
    assert found.startswith(name)
    return found


NAMES = [*(decisions.name_of(kind, about) for kind, about in ABOUT.items()), retention.ADOPTED]


def test_decisions_as_they_were_made_agree_with_the_log(ward: Store) -> None:
    found = verify(ward)
    assert (found.problems, found.notes, found.n_documents) == ([], [], len(NAMES))


@pytest.mark.parametrize("field", ["by", "why", "at"])
@pytest.mark.parametrize("name", NAMES)
def test_a_decision_that_was_changed_is_found(ward: Store, name: str, field: str) -> None:
    change(document(ward, name), **{field: "cli:dr.x"})
    assert "was changed" in problem(ward, name)


@pytest.mark.parametrize("name", NAMES)
def test_a_decision_that_was_deleted_is_found(ward: Store, name: str) -> None:
    document(ward, name).unlink()
    assert "is missing" in problem(ward, name)


@pytest.mark.parametrize("quoted", [None, {"number": 2}, "event 2"])
def test_a_decision_that_nobody_made_is_found(ward: Store, quoted: object) -> None:
    name = decisions.name_of("waivers", {"suite": "training_set", "expectation": "other"})
    planted = json.loads(document(ward, NAMES[1]).read_text()) | {"audit": quoted}
    planted["about"] = {"suite": "training_set", "expectation": "other"}
    document(ward, name).write_text(json.dumps(planted))
    assert "no event records it" in problem(ward, name)


def test_a_decision_under_the_event_of_another_is_found(ward: Store) -> None:
    other = json.loads(document(ward, NAMES[2]).read_text())["audit"]
    change(document(ward, NAMES[1]), audit=other)
    assert "is not the one that event 2 records" in problem(ward, NAMES[1])


@pytest.mark.parametrize("content", ["", "[1]", "null", "{}", '{"audit": 3}'])
def test_what_is_no_decision_any_more_is_found(ward: Store, content: str) -> None:
    document(ward, NAMES[1]).write_text(content)
    problem(ward, NAMES[1])


def test_a_decision_that_comes_back_after_it_was_taken_back_is_found(ward: Store) -> None:
    """As a backup of an earlier day brings it back."""
    file = document(ward, NAMES[1])
    content = file.read_text()
    assert decisions.withdraw(ward, "waivers", ABOUT["waivers"], "there are two of them now")
    assert verify(ward).problems == []
    file.write_text(content)
    assert "event 7 withdrew it" in problem(ward, NAMES[1])
    assert decisions.withdraw(ward, "waivers", ABOUT["waivers"], "there are two of them now")
    assert verify(ward).problems == []


def test_an_older_policy_in_the_place_of_the_newest_is_found(ward: Store, tmp_path: Path) -> None:
    file = document(ward, retention.ADOPTED)
    older = file.read_text()
    retention.adopt_policy(ward, str(retention.PACKAGED), "signed once more, folder 13")
    document(ward, retention.ADOPTED).write_text(older)
    assert "adopt the policy again" in problem(ward, retention.ADOPTED)


Act = Callable[[Store], Any]
ACTS: dict[str, Act] = {
    "decide": lambda store: decisions.decide(store, "waivers", {"expectation": "new"}, WHY),
    "withdraw": lambda store: decisions.withdraw(store, "waivers", ABOUT["waivers"], WHY),
    "adopt": lambda store: retention.adopt_policy(store, str(retention.PACKAGED), WHY),
}


@pytest.mark.parametrize("act", ACTS)
def test_a_command_killed_behind_its_event_is_reported_and_finished_by_running_it_again(
    ward: Store, act: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        for name in ("write", "write_once", "delete"):
            original = getattr(ward.documents, name)

            def but_for_the_log(name: str, *rest: Any, original: Any = original) -> Any:
                return original(name, *rest) if name.startswith("audit/") else killed()

            patch.setattr(ward.documents, name, but_for_the_log)
        with pytest.raises(KeyboardInterrupt):
            ACTS[act](ward)
    (found,) = verify(ward).problems
    assert "again" in found
    assert "killed" in found
    ACTS[act](ward)
    assert verify(ward).problems == []


def test_deciding_again_puts_a_changed_decision_right_and_a_true_one_stays(ward: Store) -> None:
    file = document(ward, NAMES[1])
    before = file.read_bytes()
    assert decisions.decide(ward, "waivers", ABOUT["waivers"], "said in other words")[1] is False
    assert file.read_bytes() == before
    change(file, by="cli:dr.x")
    made, new = decisions.decide(ward, "waivers", ABOUT["waivers"], "said in other words")
    assert (new, made.why) == (True, "said in other words")
    assert verify(ward).problems == []


def test_the_event_of_a_release_does_not_tell_of_which_recording(ward: Store) -> None:
    assert "r1" not in json.dumps([dict(event.details) for event in audit.events(ward)])


def test_the_command_names_what_disagrees_and_ends_with_65(
    ward: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "verify", "--store", ward.url]) == 0
    assert (
        "the log is whole; decisions, certificates and records are as it has them"
        in capsys.readouterr().out
    )
    change(document(ward, NAMES[1]), by="cli:dr.x")
    assert main(["audit", "verify", "--store", ward.url]) == 65
    said = capsys.readouterr().out
    assert NAMES[1] in said
    assert "the log is whole" not in said


def test_a_release_that_goes_with_an_erased_person_is_in_the_log(
    store: Store, subject: str
) -> None:
    rows = table(store, "recordings")
    own = rows.loc[rows["subject_id"] == subject, "record_id"].iloc[0]
    about = {"record": own, "reason": "too_short"}
    decisions.decide(store, "releases", about, "it is whole, I have listened")
    certificate, _ = erase(store, subject)
    assert decisions.known(store, "releases") == []
    found = verify(store)
    assert (found.problems, found.notes) == ([], [])

    name = certificate_name(str(certificate["tag"]))
    true = document(store, name).read_text()
    change(document(store, name), removed={"n_recordings": 0})
    assert "was changed" in problem(store, name)
    change(document(store, name), **json.loads(true))
    signature = {**json.loads(true)["signature"], "value": "00" * 64}
    change(document(store, name), signature=signature)
    assert "signature does not fit" in problem(store, name)
    document(store, name).unlink()
    assert "erase again" in problem(store, name)
    document(store, name).write_text(true)

    tombstone = decisions.name_of("erasures", {"tag": str(certificate["tag"])})
    document(store, tombstone).unlink()
    assert "erase again" in problem(store, tombstone)
    erase(store, subject)
    assert verify(store).problems == []
    document(store, name).write_text(true)  # true, but another took its place
    assert "is not the one that event" in problem(store, name)
    erase(store, subject)
    assert verify(store).problems == []


def test_whose_key_signed_is_said_to_be_unknown_where_it_is(
    store: Store, subject: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPIRA_SIGNING_KEY", "1" * 64)
    erase(store, subject)
    assert verify(store).notes == []
    monkeypatch.setenv("SPIRA_SIGNING_KEY", "2" * 64)
    assert "another key" in verify(store).notes[0]
    monkeypatch.delenv("SPIRA_SIGNING_KEY")
    found = verify(store)
    assert "another key" in found.notes[0]
    assert found.problems == []
