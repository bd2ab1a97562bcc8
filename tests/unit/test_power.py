"""The gates see a planted fault, and leave a sound model alone, as often as they say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from expectations import policy
from expectations.gates import model
from spira_tasks.contract.verdict import Verdict
from spira_tasks.evaluation import power

RULES = policy.read().rules


def judge(evaluation: Mapping[str, Any]) -> Iterator[Verdict]:
    yield model.ward_noise_counterfactual(evaluation, RULES.ward_noise_counterfactual)
    yield model.ward_noise_flips(evaluation, RULES.ward_noise_flips)
    yield model.ward_noise_shift(evaluation, RULES.ward_noise_shift)
    yield model.stratified_auc(evaluation, RULES.stratified_auc)
    yield model.slice_floor(evaluation, RULES.slice_floor)
    yield model.slice_gap(evaluation, RULES.slice_gap)
    yield model.behaviour(evaluation, RULES.behaviour)
    yield model.calibration_slope(evaluation, RULES.calibration_slope)


def test_a_sound_model_is_not_blocked() -> None:
    found = power.shares(judge, "ward", 0.0, 108, range(10))
    assert {id: one.get("block", 0.0) for id, one in found.items()} == dict.fromkeys(found, 0.0)
    assert found["ward_noise_shift"]["pass"] > 0.8


@pytest.mark.parametrize(
    ("fault", "size", "n", "gate"),
    [
        ("ward", 0.6, 108, "ward_noise_shift"),
        ("ward", 0.8, 108, "ward_noise_counterfactual"),
        ("restless", 8.0, 108, "ward_noise_flips"),
        ("sex", 1.0, 108, "stratified_auc"),
        ("group", 1.0, 300, "slice_gap"),
        ("sound", 8.0, 108, "behaviour"),
        ("sure", 3.0, 108, "calibration_slope"),
    ],
)
def test_a_large_fault_is_seen_by_its_gate(
    fault: power.Fault, size: float, n: int, gate: str
) -> None:
    found = power.shares(judge, fault, size, n, range(6))
    assert found[gate].get("block", 0.0) > 0.8


def test_the_smallest_fault_that_is_seen_is_found_among_the_sizes() -> None:
    found = power.smallest(judge, "ward", 108, sizes=[0.0, 0.5, 1.0], seeds=range(4))
    assert found["ward_noise_shift"] == 0.5
    assert found["behaviour"] is None


def test_the_noises_and_the_rooms_are_a_sample_as_in_an_evaluation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def widths() -> dict[str, float]:
        found = power.simulated("restless", 4.0, 200, seed=1, n_resamples=300)["shifts"]
        controls = {cell: by["controls"] for cell, by in found.items() if "controls" in by}
        return {cell: one["high"] - one["low"] for cell, one in controls.items()}

    of_eight = widths()
    monkeypatch.setattr(power, "N_NOISES", 1)
    of_one = widths()  # which is never another in a resample
    assert set(of_one) == {"noise_all", "noise_controls", "noise_swapped"}
    assert all(of_eight[cell] > 1.1 * of_one[cell] for cell in of_one)
