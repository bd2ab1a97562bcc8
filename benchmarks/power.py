"""The smallest fault that each gate sees, and what it says of none: ``python -m benchmarks.power``.

Scores and measures are drawn, and judged by the gates' own functions under the committed policy.  A
fault grows from none in steps.  For each number of people, half of them patients, the table tells

* the smallest fault that is not passed in 80 % of the draws: no program promotes such a model;
* the smallest fault that is blocked in 80 % of the draws: no person can overlook it;
* how often a sound model or cohort is blocked, and how often it is left open (insufficient).

``--small`` takes few draws.  Nothing here trains or listens.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import norm

from expectations import limits, policy
from expectations.gates import model
from expectations.suites.drift import MAX_EFFECT, MIN_PSI
from spira_tasks import drift_rows
from spira_tasks.contract.verdict import Status
from spira_tasks.evaluation import association, counterfactuals, slices
from spira_tasks.speech import metrics

Array = NDArray[np.float64]
Rng = np.random.Generator

SIZES = (54, 108, 300)
N_RESAMPLES = 400  # of people; the stages take 2000, which changes the second digit of a bound
N_REFERENCE = 300  # people whom a champion learned from
SOUND_AUC = 0.93  # of SPIRA's networks without the noise that they heard
POWER = 0.8
RULES = policy.read().rules


@dataclass(frozen=True)
class Gate:
    """How a gate is asked about a fault of a given size."""

    id: str
    fault: str  # what grows
    sizes: Sequence[float]  # of the fault; the first is none
    draw: Callable[[int, float, Rng], Status]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--gate", nargs="+", choices=[gate.id for gate in GATES])
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args()
    print("| gate | fault | people | not passed | blocked | none: blocked | none: open |")
    print("|---|---|---|---|---|---|---|")
    for gate in GATES:
        if not given.gate or gate.id in given.gate:
            for n in SIZES[1:2] if given.small else SIZES:
                print(row(gate, n, 20 if given.small else given.draws), flush=True)


def row(gate: Gate, n: int, n_draws: int) -> str:
    known: dict[int, tuple[float, float]] = {}

    def rates(place: int) -> tuple[float, float]:
        """How often a fault is not passed, and how often it is blocked."""
        if place not in known:
            seed = [n, place, sum(map(ord, gate.id))]
            states = [
                gate.draw(n, gate.sizes[place], np.random.default_rng([*seed, number]))
                for number in range(n_draws)
            ]
            known[place] = (
                float(np.mean([state != "pass" for state in states])),
                float(np.mean([state == "block" for state in states])),
            )
        return known[place]

    seen = [smallest(gate.sizes, rates, kind) for kind in (0, 1)]
    stopped, blocked = rates(0)
    cells = [f"`{gate.id}`", gate.fault, str(n), *seen]
    return f"| {' | '.join(cells)} | {blocked:.1%} | {stopped - blocked:.1%} |"


def smallest(sizes: Sequence[float], rates: Callable[[int], Sequence[float]], kind: int) -> str:
    """The first size that is seen often enough; rates grow, so halves are left out."""
    low, high = 0, len(sizes) - 1
    if rates(high)[kind] < POWER:
        return "–"
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if rates(middle)[kind] >= POWER else (middle, high)
    return "any" if rates(0)[kind] >= POWER else f"{sizes[high]:g}"


def classes(n: int) -> Array:
    return np.asarray(np.arange(n) % 2, float)


def scored(n: int, auc: float, rng: Rng) -> tuple[Array, Array, Array]:
    """Labels, log-odds of a calibrated model, and resamples of the people."""
    labels, apart = classes(n), float(np.sqrt(2) * norm.ppf(auc))
    logits = apart * (apart * (labels - 0.5) + rng.standard_normal(n))
    people = np.arange(n).astype(str)
    return (
        labels,
        logits,
        metrics.subject_resamples(people, N_RESAMPLES, int(rng.integers(1 << 30))),
    )


def evaluation(n: int, **measured: Any) -> dict[str, Any]:
    return {"n_patients": n // 2, "n_controls": n - n // 2, "n_recordings": n, **measured}


def above_chance(n: int, auc: float, rng: Rng) -> Status:
    labels, logits, weights = scored(n, auc, rng)
    found = metrics.estimate(metrics.measure(labels, expit(logits), 0.5, weights)["auc"])
    conditions = {"clean": {"auc": asdict(found)}}
    return model.above_chance(evaluation(n, conditions=conditions), RULES.auc_above_chance).status


def floor(n: int, sensitivity: float, rng: Rng) -> Status:
    labels, logits, weights = scored(n, SOUND_AUC, rng)
    # the true threshold with this sensitivity
    apart = np.sqrt(2) * norm.ppf(SOUND_AUC)
    threshold = expit(apart * (apart / 2 - norm.ppf(sensitivity)))
    samples = metrics.measure(labels, expit(logits), float(threshold), weights)
    found = metrics.estimates(samples, n // 2, n - n // 2)["sensitivity"]
    conditions = {"clean": {"sensitivity": asdict(found)}}
    return model.floor(
        evaluation(n, conditions=conditions), "sensitivity", RULES.sensitivity_floor, n // 2
    ).status


def noise_on_controls(judge: Callable[[dict[str, Any]], Status]) -> Callable[..., Status]:
    """Ward noise moves controls by a share of the distance of the classes; it moves nobody else.

    Each draw of noise adds a little of its own, a tenth of the distance.
    """

    def draw(n: int, shift: float, rng: Rng) -> Status:
        labels, logits, weights = scored(n, SOUND_AUC, rng)
        distance = 2 * norm.ppf(SOUND_AUC) ** 2
        moved = shift * distance * (labels == 0)
        noisy = logits + moved + 0.1 * distance * rng.standard_normal((8, n))
        clean, noise = expit(logits), expit(noisy)
        cells = counterfactuals.cells(labels, clean, noise, None)
        found = counterfactuals.measure(
            labels, clean, cells, 0.5, weights=weights, n_people=(n - n // 2, n // 2)
        )
        return judge(evaluation(n, **found))

    return draw


def within_groups(n: int, share: float, rng: Rng) -> Status:
    """A model that hears the sex: ``share`` of the patients are women, as many controls men.

    It hears the illness too, as well as a sound model does.
    """
    labels, logits, weights = scored(n, SOUND_AUC, rng)
    woman = rng.random(n) < np.where(labels == 1, share, 1 - share)
    logits = logits + 4.0 * (woman - 0.5)
    groups = pd.DataFrame({"sex": np.where(woman, "F", "M").astype(object)})
    found = slices.measure(
        groups,
        pd.Series(np.arange(n).astype(str)),
        labels,
        expit(logits),
        threshold=0.5,
        weights=weights,
    )
    return model.stratified_auc(evaluation(n, **found), RULES.stratified_auc).status


def worst_group(n: int, loss: float, rng: Rng) -> Status:
    """Half of the people are of a group in which the AUC is lower by ``loss``."""
    labels, logits, weights = scored(n, SOUND_AUC, rng)
    worse = rng.random(n) < 0.5
    _, others, _ = scored(n, SOUND_AUC - loss, rng)
    groups = pd.DataFrame({"sex": np.where(worse, "F", "M").astype(object)})
    found = slices.measure(
        groups,
        pd.Series(np.arange(n).astype(str)),
        labels,
        expit(np.where(worse, others, logits)),
        threshold=0.5,
        weights=weights,
    )
    return model.slice_gap(evaluation(n, **found), RULES.slice_gap).status


def too_sure(n: int, times: float, rng: Rng) -> Status:
    """Log-odds that are ``times`` as large as they should be."""
    labels, logits, _ = scored(n, SOUND_AUC, rng)
    error = metrics.expected_calibration_error(labels, expit(times * logits))
    found = evaluation(n, expected_calibration_error=error)
    return model.calibrated(found, RULES.calibration).status


def goes_with_the_label(n: int, v: float, rng: Rng) -> Status:
    """A column of two values, as each channel is judged in check_training_set."""
    patient = classes(n) == 1
    level = rng.random(n) < np.where(patient, 0.5 + v / 2, 0.5 - v / 2)
    table = pd.crosstab(patient, level).astype(float)
    found, chance = association.cramers_v(table)
    if found > max(limits.STRONG_ASSOCIATION, chance):
        return "block"
    return "warn" if found > max(limits.WEAK_ASSOCIATION, chance) else "pass"


def not_alike(n: int, apart: float, rng: Rng) -> Status:
    """The age, in standard deviations, as check_training_set judges it."""
    patient = classes(n) == 1
    numbers = pd.DataFrame({0: rng.standard_normal(n) + apart * patient})
    found, chance = association.difference(numbers, pd.Series(patient))
    if found > max(limits.LARGE_DIFFERENCE, chance):
        return "block"
    return "warn" if found > max(limits.SMALL_DIFFERENCE, chance) else "pass"


def new_number(n: int, apart: float, rng: Rng) -> Status:
    """One number of twelve moves by so many standard deviations; ``n`` are the new people."""
    rows = []
    for number in range(12):
        here = rng.standard_normal(n) + apart * (number == 0)
        there = rng.standard_normal(N_REFERENCE)
        new, old = (
            pd.DataFrame({"subject_id": np.arange(len(values)), "age": values})
            for values in (here, there)
        )
        rows.append(drift_rows.number_row(new, old, "age", 30))
    drift_rows.discover(rows, 0.05)
    seen = [one["significant"] and one["effect"] > MAX_EFFECT for one in rows]
    return "warn" if (seen[0] if apart else any(seen)) else "pass"


def new_category(n: int, more: float, rng: Rng) -> Status:
    """A category of half the people becomes more frequent; ``n`` are the new people."""
    new, old = (
        pd.DataFrame(
            {"subject_id": np.arange(size), "sex": np.where(rng.random(size) < share, "F", "M")}
        )
        for size, share in ((n, 0.5 + more), (N_REFERENCE, 0.5))
    )
    found = drift_rows.category_row(
        new, old, "sex", 30, n_resamples=500, seed=int(rng.integers(1 << 30))
    )
    return "warn" if found["effect"] > max(MIN_PSI, found["null99"]) else "pass"


def steps(first: float, last: float, step: float) -> list[float]:
    return [round(float(one), 6) for one in np.arange(first, last + step / 2, step)]


def counterfactual(found: dict[str, Any]) -> Status:
    return model.ward_noise_counterfactual(found, RULES.ward_noise_counterfactual).status


def flips(found: dict[str, Any]) -> Status:
    return model.ward_noise_flips(found, RULES.ward_noise_flips).status


def shift(found: dict[str, Any]) -> Status:
    return model.ward_noise_shift(found, RULES.ward_noise_shift).status


V, SHIFT = "Cramér's V of two values", "shift of controls in noise, of the distance of the classes"
MERIT = steps(0.95, 0.5, -0.05)
GATES = (
    Gate("training_set: association", V, steps(0, 1, 0.05), goes_with_the_label),
    Gate("training_set: alike", "difference of age, SD", steps(0, 3, 0.1), not_alike),
    Gate("drift: number", "shift of new people, SD", steps(0, 1.5, 0.05), new_number),
    Gate("drift: category", "share more than before", steps(0, 0.5, 0.05), new_category),
    Gate("auc_above_chance", "true AUC", MERIT, above_chance),
    Gate("sensitivity_floor", "true sensitivity", MERIT, floor),
    Gate("ward_noise_counterfactual", SHIFT, steps(0, 1, 0.05), noise_on_controls(counterfactual)),
    Gate("ward_noise_flips", SHIFT, steps(0, 1, 0.05), noise_on_controls(flips)),
    Gate("ward_noise_shift", SHIFT, steps(0, 1, 0.05), noise_on_controls(shift)),
    Gate("stratified_auc", "women among patients", steps(0.5, 0.95, 0.05), within_groups),
    Gate("slice_gap", "AUC lower in half the people", steps(0, 0.4, 0.05), worst_group),
    Gate("calibration", "log-odds too large, times", steps(1, 8, 0.5), too_sure),
)


if __name__ == "__main__":
    main()
