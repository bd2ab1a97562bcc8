"""The study of the gates: no confound is left out of it, and it works at a small size."""

from __future__ import annotations

import argparse
import subprocess
import sys
from typing import Any

import pytest

from benchmarks import gates, power
from benchmarks.switches import CONTROLS, SWITCHES, Switch, Trip
from spira_tasks.cohort.people import CONFOUNDS
from spira_tasks.contract.pipelines import TRAINING
from spira_tasks.contract.verdict import Verdict
from spira_tasks.provenance import ROOT


def test_every_confound_of_the_cohorts_has_a_gate_that_it_has_to_trip() -> None:
    planted = {name for one in SWITCHES.values() for name in one.cohort.get("confounds", ())}
    assert planted == set(CONFOUNDS)
    assert all(switch.trips for switch in SWITCHES.values())


@pytest.mark.slow
def test_the_study_works_with_few_people() -> None:
    names = ["clean_published", "channel"]
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.gates", "--small", "--switch"]
    done = subprocess.run([*command, *names], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == names


SAID = Trip("check_training_set", "expect_classes_to_be_alike(sex, limit)", ("sex",))
FOUND = Verdict(
    SAID.verdict,
    "block",
    suite="training_set",
    kind="expect_classes_to_be_alike",
    columns=("sex",),
    aspect="limit",
)


def test_a_confound_counts_as_found_by_its_verdict_and_by_its_name_in_the_sentence() -> None:
    def is_found(trip: Trip, step: str = SAID.step) -> bool:
        return gates.is_tripped(gates.tripped(trip, [(step, FOUND)]))

    assert is_found(SAID)
    assert not is_found(Trip(SAID.step, SAID.verdict, ("microphone",)))
    assert not is_found(Trip(SAID.step, SAID.verdict, SAID.says, "warn"))
    assert not is_found(SAID, "check_features")


def drawn(switch: str, **fields: Any) -> dict[str, Any]:
    of_none = {"stops": [], "raised": {}, "trips": [], "promoted": False, "is_trained": True}
    return {"switch": switch, **of_none, **fields}


def test_a_clean_cohort_that_is_stopped_and_a_model_of_nothing_that_is_not_are_misses() -> None:
    assert not gates.missed(drawn("clean"))
    assert gates.missed(drawn("clean", stops=["a check"]))
    assert not gates.missed(drawn("zero_signal", stops=["a check"]))
    assert gates.missed(drawn("zero_signal", stops=[gates.PLAN]))  # which refuses all of the study


def test_the_steps_of_a_planted_confound_read_what_came_before_the_gates() -> None:
    names = {gate.name for gate in TRAINING.gates}
    behind = [gates.ungated(step) for step in TRAINING]
    read = {one.partition(".") for step in behind for one in step.inputs.values()}
    assert {step for step, _, output in read if step in names and output != "report"} == set()


def test_a_draw_takes_the_gates_that_it_is_about() -> None:
    def steps(switch: Switch, name: str, is_trained: bool = False) -> set[str]:
        return gates.needed(switch, gates.Draw(name, 1, is_trained, 40, "own"))

    assert steps(SWITCHES["sex"], "sex") >= {"ingest", "split", "check_training_set"}
    assert "train" not in steps(CONTROLS["clean"], "clean")
    assert {gate.name for gate in TRAINING.gates} <= steps(CONTROLS["clean"], "clean", True)


def test_seeds_are_one_after_another_and_controls_have_their_own_number() -> None:
    names = ["clean", "clean_large", "zero_signal"]
    given = argparse.Namespace(
        seeds=2, trained=1, zero_signal=3, people=40, voices="own", switch=names
    )
    plan = [(one.switch, one.seed, one.is_trained) for one in gates.planned(given)]
    assert plan[:2] == [("clean", 1, False), ("clean", 2, False)]
    assert plan[2:] == [
        ("clean_large", 1, True),
        *(("zero_signal", seed, True) for seed in (1, 2, 3)),
    ]


def test_the_document_has_what_was_measured() -> None:
    text = gates.DOCUMENT.read_text(encoding="utf-8")
    for name, made in gates.tables(gates.kept(), power.kept()).items():
        assert f"<!-- {name} -->\n{made}\n<!-- end of {name} -->" in text


def test_a_fault_that_grows_is_seen_from_some_size_on() -> None:
    gate = next(one for one in power.GATES if one.draw is power.goes_with_the_label)
    few, many = (power.row(gate, n, 20) for n in (54, 300))
    assert 0.4 < many["blocked"] <= few["blocked"]
    assert few["none_blocked"] == many["none_blocked"] == 0
    assert many["not_passed"] < many["blocked"]


def test_a_fault_that_is_not_seen_often_enough_has_no_smallest_size() -> None:
    assert power.smallest([0.0, 0.5, 1.0], lambda place: [0.3 * place], 0) is None
    assert power.smallest([0.0, 0.5, 1.0], lambda place: [0.4 * place], 0) == 1.0
    assert power.smallest([0.0, 0.5, 1.0], lambda _: [0.9], 0) == 0.0
