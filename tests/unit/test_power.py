"""The gates see a planted fault, and leave a sound model alone, as often as they say."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks import faulty_models, power
from benchmarks.faulty_models import Fault


def shares(fault: Fault, size: float, n: int, n_draws: int) -> dict[str, dict[str, float]]:
    """How often each verdict has each status, as a share of the draws."""
    counts: dict[str, Counter[str]] = {}  # of draws
    for seed in range(n_draws):
        for id, status in power.simulated(fault, size, n, seed).items():
            counts.setdefault(id, Counter())[status] += 1
    return {id: {one: n / n_draws for one, n in by.items()} for id, by in counts.items()}


def test_a_sound_model_is_not_blocked() -> None:
    found = shares("ward", 0.0, 108, 10)
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
def test_a_large_fault_is_seen_by_its_gate(fault: Fault, size: float, n: int, gate: str) -> None:
    assert shares(fault, size, n, 6)[gate].get("block", 0.0) > 0.8


def test_the_smallest_fault_that_is_seen_is_found_among_the_sizes() -> None:
    gates = power.of_model("ward", [0.0, 0.5, 1.0], "ward_noise_shift", "behaviour")
    found = {gate.id: power.row(gate, 108, 4)["blocked"] for gate in gates}
    assert found["ward_noise_shift"] == 0.5
    assert found["behaviour"] is None


def test_the_noises_and_the_rooms_are_a_sample_as_in_an_evaluation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def widths() -> dict[str, float]:
        found = faulty_models.simulated("restless", 4.0, 200, seed=1, n_resamples=300)["shifts"]
        controls = {cell: by["controls"] for cell, by in found.items() if "controls" in by}
        return {cell: one["high"] - one["low"] for cell, one in controls.items()}

    of_eight = widths()
    monkeypatch.setattr(faulty_models, "N_NOISES", 1)
    of_one = widths()  # which is never another in a resample
    assert set(of_one) == {"noise_all", "noise_controls", "noise_swapped"}
    assert all(of_eight[cell] > 1.1 * of_one[cell] for cell in of_one)
