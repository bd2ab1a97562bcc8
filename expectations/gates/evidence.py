"""What speaks for a model beside its own test: the ledger, experiments, labels and the registry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from expectations.gates.bounds import at_least, at_most, number_of
from expectations.policy import (
    Elsewhere,
    LabelQuality,
    Missingness,
    Rules,
    SeedStability,
    TestBudget,
)
from spira_tasks.contract.verdict import Number, Status, Verdict


def verdicts(found: Mapping[str, Any], rules: Rules) -> list[Verdict]:
    """Judge what ``governance.evidence.collect`` found about a model."""
    of_experiments = (
        unseen_sites(found["unseen_sites"], rules.unseen_sites),
        cross_cohort(found["cross_cohort"], rules.cross_cohort),
        seed_stability(found["seed_stability"], found["seed"], rules.seed_stability),
    )
    return [
        checked_for_serving(found["is_checked"]),
        budget_left(found["test_budget"], rules.test_budget),
        label_quality(found["label_quality"], rules.label_quality),
        missingness(found["missingness"], rules.missingness),
        *(
            replace(one, names={**one.names, "evidence": _digest(found[one.id])})
            for one in of_experiments
            if found[one.id] is not None or one.id in rules.experiments.required
        ),
    ]


def _digest(found: Mapping[str, Any] | None) -> tuple[str, ...]:
    return (found["digest"],) if found else ()


def checked_for_serving(is_checked: bool) -> Verdict:
    """Did the version answer, when it was registered, as it was measured, and fast enough?"""
    status: Status = "pass" if is_checked else "block"
    return Verdict("checked_for_serving", status, severity="critical", firm=True)


def budget_left(found: Mapping[str, Any], rule: TestBudget) -> Verdict:
    """Is the model better than chance although the same people were used for others before?

    It does not control which of several models that are looks best on these people.

    Blocks where earlier models have spent what the policy allows; insufficient where this claim
    does not hold at the part that one read may spend.
    """
    n_left = found["n_left"]
    status: Status = "pass" if found["holds"] else "insufficient"
    return Verdict(
        "test_budget",
        status if n_left >= 1 else "block",
        observed=Number(n_left, "items"),
        threshold=1.0,
        numbers={
            "n_reads": Number(found["n_reads"], "items"),
            "max_reads": Number(rule.max_reads, "items"),
            "alpha": Number(found["alpha"]),
        },
        names={"several": (str(found["n_reads"]),) if found["n_reads"] > 1 else ()},
        severity="critical" if n_left < 1 else "warning",
    )


def unseen_sites(found: Mapping[str, Any] | None, rule: Elsewhere) -> Verdict:
    """Does the recipe answer at a hospital that no network has heard?"""
    if found is None:
        return Verdict("unseen_sites", "insufficient", severity="warning")
    return Verdict("unseen_sites", **_elsewhere(found, rule))


def cross_cohort(found: Mapping[str, Any] | None, rule: Elsewhere) -> Verdict:
    """Does the recipe answer about another study than the one that it learned from?"""
    if found is None:
        return Verdict("cross_cohort", "insufficient", severity="warning")
    return Verdict("cross_cohort", **_elsewhere(found, rule))


def _elsewhere(found: Mapping[str, Any], rule: Elsewhere) -> dict[str, Any]:
    """The fields of a verdict: the worst level that has enough people, and those left open.

    A level that fails, or has too few people, leaves the question open for that level only; the
    model is blocked where it fails at all of them.
    """
    measured = {
        level: number_of(one["balanced_accuracy"], "rate")
        for level, one in found["levels"].items()
        if "balanced_accuracy" in one and min(one["n_patients"], one["n_controls"]) >= rule.min_cell
    }
    statuses = {level: at_least(one, rule.min_balanced_accuracy) for level, one in measured.items()}
    left_open = [name for name in found["levels"] if statuses.get(name) != "pass"]
    status: Status = "insufficient" if left_open else "pass"
    if statuses and set(statuses.values()) == {"block"}:
        status = "block"
    worst = min(measured, key=lambda level: (measured[level].low or 0.0, level), default=None)
    fields: dict[str, Any] = {
        "status": status if measured else "insufficient",
        "threshold": rule.min_balanced_accuracy,
        "numbers": {f"level.{level}": one for level, one in measured.items()},
        "names": {
            "left_open": tuple(left_open),
            "experiment": (found["experiment"],),
            "state": () if measured else ("few",),
        },
        "severity": "warning",
    }
    if worst is not None:
        people = found["levels"][worst]
        fields |= {"observed": measured[worst], "n_unit": "people"}
        fields |= {"n": min(people["n_patients"], people["n_controls"])}
        fields["names"]["worst"] = (worst,)
    return fields


def seed_stability(
    found: Mapping[str, Any] | None, seed: int | None, rule: SeedStability
) -> Verdict:
    """Is what was measured a property of the recipe, or luck with random numbers?"""
    if found is None:
        return Verdict("seed_stability", "insufficient", severity="warning")
    values, middle = found["values"], str(found["median_seed"])
    if set(values) != {str(one) for one in rule.seeds}:
        names = {
            "state": ("other_seeds",),
            "declared": tuple(map(str, rule.seeds)),
            "measured": tuple(values),
            "experiment": (found["experiment"],),
        }
        return Verdict("seed_stability", "insufficient", names=names, severity="warning")
    deviation = number_of(found["deviation"])
    status, own = at_most(deviation, rule.max_deviation), str(seed)
    is_lucky = own in values and values[own] > values[middle]
    return Verdict(
        "seed_stability",
        "insufficient" if is_lucky and status == "pass" else status,
        observed=deviation,
        threshold=rule.max_deviation,
        numbers={"n_seeds": Number(len(values), "items")},
        names={
            "middle": (middle,),
            "lucky": (own,) if is_lucky else (),
            "not_measured": (own,) if own not in values else (),
            "experiment": (found["experiment"],),
        },
        severity="warning",
    )


def label_quality(found: Mapping[str, Any], rule: LabelQuality) -> Verdict:
    """Are the labels right that the model is measured by?  A person looks where they may not be.

    Or where those who labelled disagree, or most labels rest on one of them.
    """
    suspects = number_of(found["suspects"], "share") if found["suspects"] else None
    status = at_most(suspects, rule.max_suspects) if suspects else "insufficient"
    state = {"block": "many", "pass": "doubted" if found["is_doubted"] else ""}.get(status, "")
    numbers = {name: Number(found[name], "people") for name in ("n_patients", "n_controls")}
    for name in ("contradicted", "grey", "not_by_clinician", "alone", "agreement"):
        if found[name] is not None:
            numbers[name] = Number(found[name], "statistic" if name == "agreement" else "rate")
    return Verdict(
        "label_quality",
        "insufficient" if state or status != "pass" else "pass",
        observed=suspects,
        threshold=rule.max_suspects,
        n=found["n"],
        n_unit="people",
        numbers=numbers,
        names={"state": (state,) if state else ()},
        severity="warning",
    )


def missingness(found: Mapping[str, Any], rule: Missingness) -> Verdict:
    """Does a task that is missing tell the label?  Where it does, a person decides."""
    tells = found["value"] > max(rule.max_association, found["chance"])
    return Verdict(
        "missingness",
        "insufficient" if tells else "pass",
        observed=Number(found["value"]),
        threshold=rule.max_association,
        n=found["n"],
        n_unit="people",
        names={"task": (found["task"],) if tells else ()},
        severity="warning",
    )
