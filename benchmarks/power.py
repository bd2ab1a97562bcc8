"""The smallest fault that each gate sees, and what it says of none: ``python -m benchmarks.power``.

Scores and measures are drawn, and judged by the gates' own functions under the committed policy.  A
fault grows from none in steps.  For each number of people, half of them patients, a row tells

* the smallest fault that is not passed in 80 % of the draws: no program promotes such a model;
* the smallest fault that is blocked in 80 % of the draws: no person can overlook it;
* how often a sound model or cohort is blocked, and how often it is left open.

A finished row is a line of ``benchmarks/power.jsonl`` and is not made again.  ``--small`` takes few
draws and keeps nothing.  Nothing here trains or listens.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import norm

from benchmarks import faulty_models
from benchmarks.faulty_models import FAULTS, Fault
from expectations import limits, policy
from expectations.gates import champion, confounds, model
from expectations.suites.drift import MAX_EFFECT, MIN_PSI
from spira_tasks import drift_rows
from spira_tasks.contract.verdict import Status
from spira_tasks.evaluation import association, comparison, probes
from spira_tasks.speech import metrics

Array = NDArray[np.float64]
Row = dict[str, Any]

RESULTS = Path(__file__).with_suffix(".jsonl")
SIZES = (54, 108, 300)
N_DRAWS = 100
N_RESAMPLES = 400  # of people; the stages take 2000, which changes the second digit of a bound
N_REFERENCE = 300  # people whom a champion learned from
SOUND_AUC = 0.95
SENSITIVITY = 0.9  # of a champion
POWER = 0.8
RULES = policy.read().rules


@dataclass(frozen=True)
class Gate:
    """How a gate is asked about a fault of a given size."""

    id: str
    fault: str  # what grows
    sizes: Sequence[float]  # of the fault; the first is none
    draw: Callable[[int, float, int], Status]  # people, size, seed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=N_DRAWS)
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args()
    if given.small:
        print(table([row(gate, 108, 20) for gate in GATES]))
    else:
        print(table(fill(given.draws)))


def fill(n_draws: int = N_DRAWS) -> list[Row]:
    """All rows; those that are not there yet are made and kept."""
    done = kept()
    known = {(one["gate"], one["fault"], one["people"]) for one in done}
    for gate in GATES:
        for n in SIZES:
            if (gate.id, gate.fault, n) not in known:
                done.append(row(gate, n, n_draws))
                with RESULTS.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(done[-1], ensure_ascii=False) + "\n")
    return done


def kept() -> list[Row]:
    if not RESULTS.exists():
        return []
    return [json.loads(text) for text in RESULTS.read_text(encoding="utf-8").splitlines()]


def row(gate: Gate, n: int, n_draws: int) -> Row:
    """What a gate sees at one number of people; the same seeds for every size of the fault."""

    @lru_cache
    def rates(place: int) -> tuple[float, float]:
        """How often a fault is not passed, and how often it is blocked."""
        states = [gate.draw(n, gate.sizes[place], seed) for seed in range(n_draws)]
        return (
            float(np.mean([state != "pass" for state in states])),
            float(np.mean([state == "block" for state in states])),
        )

    stopped, blocked = rates(0)
    return {
        "gate": gate.id,
        "fault": gate.fault,
        "people": n,
        "draws": n_draws,
        "not_passed": smallest(gate.sizes, rates, 0),
        "blocked": smallest(gate.sizes, rates, 1),
        "none_blocked": blocked,
        "none_open": stopped - blocked,
    }


def smallest(
    sizes: Sequence[float], rates: Callable[[int], Sequence[float]], kind: int
) -> float | None:
    """The first size that is seen often enough, None where none is.

    Rates grow with the size, so halves are left out.
    """
    low, high = -1, len(sizes) - 1
    if rates(high)[kind] < POWER:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if rates(middle)[kind] >= POWER else (middle, high)
    return sizes[high]


def table(rows: Sequence[Row]) -> str:
    heads = ("gate", "fault", "people", "not passed", "blocked", "none: blocked", "none: open")
    return "\n".join([f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *lines(rows)])


def lines(rows: Sequence[Row]) -> list[str]:
    def size(value: float | None) -> str:
        return "–" if value is None else f"{value:g}"

    return [
        f"| `{one['gate']}` | {one['fault']} | {one['people']} | {size(one['not_passed'])} | "
        f"{size(one['blocked'])} | {one['none_blocked']:.1%} | {one['none_open']:.1%} |"
        for one in rows
    ]


def classes(n: int) -> Array:
    return np.asarray(np.arange(n) % 2, float)


def scored(n: int, auc: float, seed: int) -> tuple[Array, Array, Array]:
    """Labels, log-odds of a calibrated model, and resamples of the people."""
    rng = np.random.default_rng([n, seed])
    labels, apart = classes(n), float(np.sqrt(2) * norm.ppf(auc))
    logits = apart * (apart * (labels - 0.5) + rng.standard_normal(n))
    people = np.arange(n).astype(str)
    return labels, logits, metrics.subject_resamples(people, N_RESAMPLES, seed)


def challenged(n: int, loss: float, seed: int, n_since: int = 0) -> Status:
    """A challenger with a better AUC that finds fewer patients: sensitivity lower by ``loss``."""
    rng = np.random.default_rng([n, seed])
    labels, shared = classes(n), rng.standard_normal(n)
    scores: dict[str, Array | float] = {"label": labels}
    for name, auc in (("champion", SOUND_AUC - 0.05), ("challenger", SOUND_AUC)):
        apart = float(np.sqrt(2) * norm.ppf(auc))
        own = 0.8 * shared + 0.6 * rng.standard_normal(n)
        scores[name] = expit(apart * (apart * (labels - 0.5) + own))
        sensitivity = SENSITIVITY - loss * (name == "challenger")
        scores[f"{name}_point"] = float(expit(apart * (apart / 2 - norm.ppf(sensitivity))))
    rule = RULES.better_than_champion
    pairs = pd.DataFrame(scores, index=np.arange(n).astype(str))
    found = comparison.compare(
        pairs, pd.DataFrame(index=pairs.index), N_RESAMPLES, seed, rule.min_cell
    )
    status = champion.compare({"champion": "1", **found}, rule, n_since=n_since).status
    return "block" if status == "warn" else status  # it is kept, and nobody is asked


def clean(n: int, metric: str, estimate: metrics.Estimate) -> Row:
    """An evaluation of which one metric is known."""
    conditions = {"clean": {metric: asdict(estimate)}}
    return {"n_patients": n // 2, "n_controls": n - n // 2, "conditions": conditions}


def probed(n: int, auc: float, seed: int) -> Status:
    """A probe of eight measures, one of which tells the label with this AUC."""
    rng = np.random.default_rng([n, seed])
    ill = classes(n)
    measures = rng.standard_normal((n, 8))
    measures[:, 0] += np.sqrt(2) * norm.ppf(auc) * ill
    rule = RULES.probes
    heard = probes.hear(
        measures, ill, n_permutations=rule.n_permutations, n_resamples=N_RESAMPLES, seed=seed
    )
    return confounds.of_probe(asdict(heard), RULES.noise_only_control)


def above_chance(n: int, auc: float, seed: int) -> Status:
    labels, logits, weights = scored(n, auc, seed)
    found = metrics.estimate(metrics.measure(labels, expit(logits), 0.5, weights)["auc"])
    return model.above_chance(clean(n, "auc", found), RULES.auc_above_chance).status


def floor(n: int, sensitivity: float, seed: int) -> Status:
    labels, logits, weights = scored(n, SOUND_AUC, seed)
    apart = np.sqrt(2) * norm.ppf(SOUND_AUC)
    threshold = float(expit(apart * (apart / 2 - norm.ppf(sensitivity))))
    samples = metrics.measure(labels, expit(logits), threshold, weights)
    found = metrics.estimates(samples, n // 2, n - n // 2)["sensitivity"]
    rule = RULES.sensitivity_floor
    return model.floor(clean(n, "sensitivity", found), "sensitivity", rule, n // 2).status


@lru_cache(maxsize=4096)
def simulated(fault: Fault, size: float, n: int, seed: int) -> Mapping[str, Status]:
    """What the gates of a model say of one with a fault; several gates look at the same draw."""
    found = faulty_models.simulated(fault, size, n, seed, n_resamples=N_RESAMPLES)
    judged = (
        model.ward_noise_counterfactual(found, RULES.ward_noise_counterfactual),
        model.ward_noise_flips(found, RULES.ward_noise_flips),
        model.ward_noise_shift(found, RULES.ward_noise_shift),
        model.stratified_auc(found, RULES.stratified_auc),
        model.slice_floor(found, RULES.slice_floor),
        model.slice_gap(found, RULES.slice_gap),
        model.behaviour(found, RULES.behaviour),
        model.calibration_slope(found, RULES.calibration_slope),
    )
    return {one.id: one.status for one in judged}


def of_model(fault: Fault, sizes: Sequence[float], *ids: str) -> Iterator[Gate]:
    def judged(id: str, n: int, size: float, seed: int) -> Status:
        return simulated(fault, size, n, seed)[id]

    for id in ids:
        yield Gate(id, FAULTS[fault], sizes, partial(judged, id))


def goes_with_the_label(n: int, v: float, seed: int) -> Status:
    """A column of two values, as each channel is judged in check_training_set."""
    rng = np.random.default_rng([n, seed])
    patient = classes(n) == 1
    level = rng.random(n) < np.where(patient, 0.5 + v / 2, 0.5 - v / 2)
    table = pd.crosstab(patient, level).astype(float)
    found, chance = association.cramers_v(table)
    if found > max(limits.STRONG_ASSOCIATION, chance):
        return "block"
    return "warn" if found > max(limits.WEAK_ASSOCIATION, chance) else "pass"


def not_alike(n: int, apart: float, seed: int) -> Status:
    """The age, in standard deviations, as check_training_set judges it."""
    rng = np.random.default_rng([n, seed])
    patient = classes(n) == 1
    numbers = pd.DataFrame({0: rng.standard_normal(n) + apart * patient})
    found, chance = association.difference(numbers, pd.Series(patient))
    if found > max(limits.LARGE_DIFFERENCE, chance):
        return "block"
    return "warn" if found > max(limits.SMALL_DIFFERENCE, chance) else "pass"


def new_number(n: int, apart: float, seed: int) -> Status:
    """One number of twelve moves by so many standard deviations; ``n`` are the new people."""
    rng = np.random.default_rng([n, seed])
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


def new_category(n: int, more: float, seed: int) -> Status:
    """A category of half the people becomes more frequent; ``n`` are the new people."""
    rng = np.random.default_rng([n, seed])
    new, old = (
        pd.DataFrame(
            {"subject_id": np.arange(size), "sex": np.where(rng.random(size) < share, "F", "M")}
        )
        for size, share in ((n, 0.5 + more), (N_REFERENCE, 0.5))
    )
    found = drift_rows.category_row(new, old, "sex", 30, n_resamples=500, seed=seed)
    return "warn" if found["effect"] > max(MIN_PSI, found["null99"]) else "pass"


def steps(first: float, last: float, step: float) -> list[float]:
    return [round(float(one), 6) for one in np.arange(first, last + step / 2, step)]


V = "Cramér's V of two values"
MERIT = steps(0.95, 0.5, -0.05)
GATES = (
    Gate("training_set: association", V, steps(0, 1, 0.05), goes_with_the_label),
    Gate("training_set: alike", "difference of age, SD", steps(0, 3, 0.1), not_alike),
    Gate("noise_only_control and the like", "AUC of one measure", steps(0.5, 0.95, 0.025), probed),
    Gate("drift: number", "shift of new people, SD", steps(0, 1.5, 0.05), new_number),
    Gate("drift: category", "share more than before", steps(0, 0.5, 0.05), new_category),
    Gate("auc_above_chance", "true AUC", MERIT, above_chance),
    Gate("sensitivity_floor", "true sensitivity", MERIT, floor),
    Gate("better_than_champion", "lower sensitivity", steps(0, 0.4, 0.02), challenged),
    Gate(
        "better_than_champion",
        "the same, the fifth model",
        steps(0, 0.4, 0.02),
        partial(challenged, n_since=4),
    ),
    *of_model(
        "ward",
        steps(0, 1, 0.05),
        *("ward_noise_counterfactual", "ward_noise_flips", "ward_noise_shift"),
    ),
    *of_model("restless", steps(0.3, 6, 0.3), "ward_noise_flips"),
    *of_model("sex", steps(0, 1, 0.1), "stratified_auc"),
    *of_model("group", steps(0, 1, 0.1), "slice_floor", "slice_gap"),
    *of_model("sound", steps(0.3, 6, 0.3), "behaviour"),
    *of_model("sure", steps(0, 4, 0.25), "calibration_slope"),
)


if __name__ == "__main__":
    main()
