"""What a person may set aside: which check, how bad, and until when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta

import pytest
from gating import CONFOUND, ERASED, Gate, few_expectations, gate
from suites import Table, recordings, split

from spira_tasks.artifacts import Store
from spira_tasks.cli import main
from spira_tasks.contract.verdict import Number, Verdict
from spira_tasks.errors import GateRejected
from spira_tasks.governance import decisions
from spira_tasks.governance.applied import excuses, waiver_of
from spira_tasks.governance.decisions import decide
from spira_tasks.intake.pseudonyms import tombstone_tag

WHY = "the thermometer of that ward was calibrated afterwards"
__all__ = ["few_expectations", "gate"]  # the fixtures
pytestmark = pytest.mark.usefixtures("few_expectations")


def confounded(share: float = 1.0) -> Table:
    """A training set in which this share of the people can be recognised by their device."""
    table = split(recordings()).drop(columns="erased")
    person = table.index // 2
    of_class = (table["label"] == 1) ^ (person // 2 % 20 >= 20 * share)
    table["device_model"] = of_class.map({False: "one", True: "other"}).astype("str")
    return table


def refuse(gate: Gate, table: Table) -> None:
    with pytest.raises(GateRejected, match=r"device_model, strong\)"):
        gate(table, "training_set")


def sign(store: Store, *names: str, options: Sequence[str] = (), code: int = 0) -> None:
    for name in names or CONFOUND[:1]:
        command = ["waive", "check", "training_set", name, "--why", WHY, *options]
        assert main([*command, "--store", store.url]) == code


def test_a_waiver_turns_a_block_into_a_warning_that_says_who(store: Store, gate: Gate) -> None:
    table = confounded()
    refuse(gate, table)
    sign(store, *CONFOUND)
    result = gate(table, "training_set")
    assert result.metrics["n_blocked"] == 0
    waived = [verdict for verdict in result.verdicts if verdict.waiver]
    assert [verdict.status for verdict in waived] == ["warn", "warn"]
    assert all(verdict.waiver and verdict.waiver.why == WHY for verdict in waived)
    report = store.directory(result.outputs["report"]).read("validation.json")
    assert report.count(WHY.encode()) == 2


def test_nobody_waives_an_erased_person(store: Store, gate: Gate) -> None:
    table = split(recordings()).drop(columns="erased")
    tag = tombstone_tag(table.loc[0, "subject_id"])
    decide(store, "erasures", {"tag": tag}, "she asked for it in writing")
    with pytest.raises(GateRejected, match=r"in_set\(erased\)"):
        gate(table, "training_set")
    verdicts = store.runs.read("r").steps["check"].verdicts
    (verdict,) = [v for v in verdicts if v.id.endswith("in_set(erased)")]
    assert verdict.numbers == {"n_unexpected": Number(2, "rows")}
    about = waiver_of(verdict, "2999-12-31")  # by somebody who goes round the command
    assert about is not None
    decide(store, "waivers", about, WHY)
    with pytest.raises(GateRejected, match=r"in_set\(erased\)"):
        gate(table, "training_set")


def test_a_waiver_excuses_what_was_seen_and_nothing_worse(store: Store, gate: Gate) -> None:
    refuse(gate, confounded(0.9))
    sign(store)
    gate(confounded(0.9), "training_set")
    gate(confounded(0.8), "training_set")
    refuse(gate, confounded(0.95))


def test_a_waiver_may_say_how_much_worse_it_may_get(
    store: Store, gate: Gate, capsys: pytest.CaptureFixture[str]
) -> None:
    refuse(gate, confounded(0.8))
    sign(store, options=["--limit", "0.55"], code=78)
    assert "less than that" in capsys.readouterr().err
    sign(store, options=["--limit", "inf"], code=78)
    sign(store, options=["--limit", "0.85"])
    gate(confounded(0.9), "training_set")
    refuse(gate, confounded())


def test_a_waiver_ends_by_itself_and_can_be_signed_again(
    store: Store, gate: Gate, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = confounded(0.8)
    refuse(gate, table)
    sign(store, options=["--days", "367"], code=78)
    sign(store, options=["--days", "5"])
    (waiver,) = decisions.known(store, "waivers")
    assert gate(table, "training_set").metrics["n_blocked"] == 0
    day = date.fromisoformat(decisions.today())
    assert waiver.about["until"] == (day + timedelta(days=5)).isoformat()
    monkeypatch.setattr(decisions, "today", (day + timedelta(days=5)).isoformat)
    gate(table, "training_set")
    monkeypatch.setattr(decisions, "today", (day + timedelta(days=6)).isoformat)
    refuse(gate, table)
    assert store.runs.read("r").steps["check"].decisions["waivers"] == ()
    assert main(["waive", "list", "--store", store.url]) == 0
    assert "(over)" in capsys.readouterr().out
    sign(store)
    gate(table, "training_set")
    command = ["waive", "withdraw", "training_set", CONFOUND[0], "--why", WHY]
    assert main([*command, "--store", store.url]) == 0
    assert decisions.known(store, "waivers") == []
    refuse(gate, table)


def test_a_check_that_held_nothing_back_cannot_be_waived(
    store: Store, gate: Gate, capsys: pytest.CaptureFixture[str]
) -> None:
    gate(confounded(0.5), "training_set")
    sign(store, code=78)
    assert "held back none of the newest runs" in capsys.readouterr().err
    sign(store, options=["--run", "r"], code=78)
    assert "not the run 'r'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seen", "threshold", "excused", "refused"),
    [
        (0.55, 0.5, (0.55, 0.51), (0.56, 1.0, 0.4)),
        (0.10, 0.2, (0.10, 0.19), (0.09, 0.0, 0.9)),
        (3.0, None, (3.0,), (2.0, 4.0)),
        (0.5, 0.5, (0.5,), (0.4, 0.6)),
    ],
)
def test_the_side_of_the_threshold_decides_what_is_worse_than_signed(
    seen: float, threshold: float | None, excused: tuple[float, ...], refused: tuple[float, ...]
) -> None:
    def verdict(statistic: float | None) -> Verdict:
        return Verdict("e", "block", Number(statistic), threshold=threshold, suite="s")

    about = waiver_of(verdict(seen), "2999-12-31")
    assert about is not None
    assert all(excuses(about, verdict(value)) for value in excused)
    assert not any(excuses(about, verdict(value)) for value in (*refused, None, float("nan")))
    assert waiver_of(verdict(None), "2999-12-31") is None


@pytest.mark.parametrize(
    ("kind", "suite", "name"),
    [
        ("training_set", "training_set", ERASED),
        ("recordings", "metadata", "expect_column_values_to_hold_no_personal_data(cid10)"),
        ("training_set", "training_set_gate", "rows_conserved"),
    ],
)
def test_a_firm_check_cannot_be_waived(
    store: Store, gate: Gate, capsys: pytest.CaptureFixture[str], kind: str, suite: str, name: str
) -> None:
    table = split(recordings()).drop(columns="erased") if kind == "training_set" else recordings()
    gate(table, kind)
    record = store.runs.read("r").steps["check"]
    (planted,) = [verdict for verdict in record.verdicts if verdict.id == name]
    verdicts = (*record.verdicts, replace(planted, status="block"))
    store.runs.write("r", replace(record, verdicts=verdicts))
    assert main(["waive", "check", suite, name, "--why", WHY, "--store", store.url]) == 78
    assert "nobody may waive it" in capsys.readouterr().err
