"""Is the model sound?  What was measured on the test subjects, against the policy.

Each gate looks at intervals, not at point values: with a hundred test recordings an accuracy of
0.88 is anything between 0.81 and 0.93.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from expectations.gates import confounds
from expectations.gates.bounds import at_least, at_most, number_of
from expectations.policy import (
    AucAboveChance,
    Behaviour,
    Calibration,
    CalibrationSlope,
    EnoughTestSubjects,
    Floor,
    NotDegenerate,
    Rules,
    SliceFloor,
    SliceGap,
    StratifiedAuc,
    WardNoise,
    WardNoiseFlips,
    WardNoiseShift,
)
from spira_tasks.contract.verdict import Number, Status, Verdict, is_small

SWAPPED = "noise_swapped"
SEVERE: tuple[Status, ...] = ("pass", "insufficient", "block")


def verdicts(evaluation: Mapping[str, Any], rules: Rules) -> list[Verdict]:
    """Is the model sound?  ``evaluation`` is the content of ``evaluation.json``."""
    n_patients, n_controls = evaluation["n_patients"], evaluation["n_controls"]
    return [
        enough_subjects(evaluation, rules.enough_test_subjects),
        above_chance(evaluation, rules.auc_above_chance),
        ward_noise_counterfactual(evaluation, rules.ward_noise_counterfactual),
        ward_noise_flips(evaluation, rules.ward_noise_flips),
        ward_noise_shift(evaluation, rules.ward_noise_shift),
        not_degenerate(evaluation, rules.not_degenerate),
        floor(evaluation, "sensitivity", rules.sensitivity_floor, n_patients),
        floor(evaluation, "specificity", rules.specificity_floor, n_controls),
        stratified_auc(evaluation, rules.stratified_auc),
        slice_floor(evaluation, rules.slice_floor),
        slice_gap(evaluation, rules.slice_gap),
        calibrated(evaluation, rules.calibration),
        calibration_slope(evaluation, rules.calibration_slope),
        operating_point(evaluation),
        behaviour(evaluation, rules.behaviour),
        confounds.metadata_baseline(evaluation, rules.metadata_baseline),
    ]


def enough_subjects(evaluation: Mapping[str, Any], rule: EnoughTestSubjects) -> Verdict:
    n = min(evaluation["n_patients"], evaluation["n_controls"])
    return Verdict(
        "enough_test_subjects",
        "pass" if n >= rule.min_per_class else "insufficient",
        observed=Number(n, "people"),
        threshold=rule.min_per_class,
        n=n,
        n_unit="people",
        numbers={name: Number(evaluation[name], "people") for name in ("n_patients", "n_controls")},
        severity="critical",
    )


def above_chance(evaluation: Mapping[str, Any], rule: AucAboveChance) -> Verdict:
    auc = evaluation["conditions"]["clean"]["auc"]
    status: Status = "pass" if auc["low"] > rule.min_auc else "block"
    return _verdict(evaluation, "auc_above_chance", status, number_of(auc), rule.min_auc)


def ward_noise_counterfactual(evaluation: Mapping[str, Any], rule: WardNoise) -> Verdict:
    """The decisive one: put ward noise on some people and see whether the answer follows it."""
    drops = evaluation["drop_in_balanced_accuracy"]
    found: dict[tuple[str, ...], Any] = {(cell,): drop for cell, drop in drops.items()}
    return _under_noise(evaluation, "ward_noise_counterfactual", found, rule.max_drop)


def ward_noise_flips(evaluation: Mapping[str, Any], rule: WardNoiseFlips) -> Verdict:
    """How often ward noise changes the answer about somebody."""
    return _under_noise(
        evaluation, "ward_noise_flips", _by_cell(evaluation["flips"]), rule.max_flips
    )


def ward_noise_shift(evaluation: Mapping[str, Any], rule: WardNoiseShift) -> Verdict:
    """How far ward noise moves a class towards the other one."""
    found = _by_cell(evaluation["shifts"])
    return _under_noise(evaluation, "ward_noise_shift", found, rule.max_shift)


def _by_cell(found: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, ...], Any]:
    return {(cell, who): one for cell, by in found.items() for who, one in by.items()}


def _under_noise(
    evaluation: Mapping[str, Any], id: str, found: Mapping[tuple[str, ...], Any], limit: float
) -> Verdict:
    """Whether every cell is below the limit; the worst is shown.

    Without ward noise nobody knows whether the model hears the illness or the ward, and nobody can
    approve that.  Where few people leave it open, a person may.  Without ambient tracks, as in the
    published layout, nothing is put into the rooms of the other class: that is said, and no more.
    """
    if not found:
        verdict = _verdict(evaluation, id, "insufficient", None, limit)
        return replace(verdict, severity="critical")
    where, worst = _worst(found, limit)
    status = at_most(worst, limit)
    verdict = _verdict(evaluation, id, status, worst, limit)
    names = {name: (one,) for name, one in zip(("condition", "who"), where, strict=False)}
    if not any(cell == SWAPPED for cell, *_ in found):
        names["missing"] = (SWAPPED,)
    return replace(verdict, names=names, severity="critical" if status == "block" else "warning")


def _worst(found: Mapping[tuple[str, ...], Any], limit: float) -> tuple[tuple[str, ...], Number]:
    numbers = {where: number_of(one, "rate") for where, one in found.items()}
    return max(
        numbers.items(),
        key=lambda one: (SEVERE.index(at_most(one[1], limit)), one[1].low, one[1].value),
    )


def not_degenerate(evaluation: Mapping[str, Any], rule: NotDegenerate) -> Verdict:
    """Whether the model answers both ways, and finds more than half of each class."""
    counts, n = evaluation["confusion"], evaluation["n_recordings"]
    rate = (counts["true_positives"] + counts["false_positives"]) / n
    clean = evaluation["conditions"]["clean"]
    worst = min(clean["sensitivity"]["value"], clean["specificity"]["value"])
    status: Status = (
        "pass"
        if rule.min_positive <= rate <= rule.max_positive and worst > rule.min_found
        else "block"
    )
    found = _verdict(evaluation, "not_degenerate", status, Number(worst, "rate"), rule.min_found)
    return replace(found, numbers={"positive": Number(rate, "rate")})


def floor(evaluation: Mapping[str, Any], metric: str, rule: Floor, n: int) -> Verdict:
    """Whether the lower bound of a rate reaches its floor, where ``n`` people can show that.

    It blocks where they can and it does not, or where the upper bound is below the floor already.
    No rate is shown of one class where the other one has too few people for that.
    """
    estimate = evaluation["conditions"]["clean"][metric]
    rate = number_of(estimate, "rate")
    status = at_least(rate, rule.min_rate)
    if status == "insufficient" and n >= rule.min_people:
        status = "block"
    found = _verdict(evaluation, f"{metric}_floor", status, rate, rule.min_rate)
    return replace(found, n=found.n if is_small(found.n) else n, severity="warning")


def stratified_auc(evaluation: Mapping[str, Any], rule: StratifiedAuc) -> Verdict:
    """Whether the model tells patients from controls of the same group, whatever the groups.

    A way of grouping that nearly parts the classes, so that few pairs are of one group, is open.
    """
    found, unseen = {}, []
    for way, one in evaluation["within"].items():
        if "auc" not in one:
            unseen.append(way)
            continue
        auc, explained = number_of(one["auc"]), number_of(one["explained"])
        statuses = at_least(auc, rule.min_auc), at_most(explained, rule.max_explained)
        worst = max(statuses, key=SEVERE.index)
        found[way] = SEVERE.index(worst), explained.value, auc, explained, one["n"]
    if unseen and not any(severe for severe, *_ in found.values()):  # the others pass
        names = {"state": ("unseen",), "by": tuple(unseen)}
        return replace(_open(evaluation, "stratified_auc", rule.min_auc), names=names)
    if not found:
        return _open(evaluation, "stratified_auc", rule.min_auc)
    way, (severe, _, auc, explained, n) = max(found.items(), key=lambda one: one[1][:2])
    return Verdict(
        "stratified_auc",
        SEVERE[severe],
        auc,
        rule.min_auc,
        n,
        "people",
        numbers={"explained": explained, "tolerated": Number(rule.max_explained)},
        names={"by": (way,)},
        severity="warning",
    )


def slice_floor(evaluation: Mapping[str, Any], rule: SliceFloor) -> Verdict:
    """Whether the model tells patients from controls in the worst group with people enough."""
    found = _slices(evaluation, "auc")
    if not found:
        return _open(evaluation, "slice_floor", rule.min_auc)
    (way, group), (auc, n) = min(found.items(), key=lambda one: (one[1][0].low, one[0]))
    names = {"by": (way,), "group": (group,)}
    status = at_least(auc, rule.min_auc)
    return Verdict(
        "slice_floor", status, auc, rule.min_auc, n, "people", names=names, severity="warning"
    )


def slice_gap(evaluation: Mapping[str, Any], rule: SliceGap) -> Verdict:
    """Whether any group is worse off than the others; a gap that may be chance blocks nothing."""
    found = _slices(evaluation, "apart")
    if not found:
        return _open(evaluation, "slice_gap", rule.max_gap)
    numbers = {
        where: (SEVERE.index(_gap(apart, rule.max_gap)), apart, n)
        for where, (apart, n) in found.items()
    }
    (way, group), (severe, apart, n) = max(
        numbers.items(), key=lambda one: (one[1][0], one[1][1].value, one[0])
    )
    names = {"by": (way,), "group": (group,)}
    return Verdict(
        *("slice_gap", SEVERE[severe], apart, rule.max_gap, n, "people"),
        names=names,
        severity="warning",
    )


def _gap(apart: Number, limit: float) -> Status:
    """A gap above the limit that is no chance blocks; the interval counts the groups."""
    is_one = (apart.value or 0) > limit and (apart.low or 0) > 0
    return "block" if is_one else at_most(apart, limit)


def _slices(
    evaluation: Mapping[str, Any], measure: str
) -> dict[tuple[str, str], tuple[Number, int | None]]:
    """A measure of each group with people enough, and the people of its smaller class.

    How many these are is not known where it would tell how few another group has.
    """
    found: dict[tuple[str, str], tuple[Number, int | None]] = {}
    for way, groups in evaluation["slices"].items():
        for group, one in groups.items():
            if measure in one:
                n = one["n_patients"], one["n_controls"]
                found[way, group] = number_of(one[measure]), None if None in n else min(n)
    return found


def _open(evaluation: Mapping[str, Any], id: str, limit: float) -> Verdict:
    """Too few people to look at: a person has to decide."""
    return replace(_verdict(evaluation, id, "insufficient", None, limit), severity="warning")


def calibrated(evaluation: Mapping[str, Any], rule: Calibration) -> Verdict:
    error, n = evaluation["expected_calibration_error"], evaluation["n_recordings"]
    limit = rule.scale / n**0.5 + rule.margin
    status: Status = "pass" if error <= limit else "insufficient"
    found = _verdict(evaluation, "calibration", status, Number(error), round(limit, 4))
    return replace(found, severity="warning")


def calibration_slope(evaluation: Mapping[str, Any], rule: CalibrationSlope) -> Verdict:
    """Whether the model is as sure as it may be.

    One that is too sure blocks.  One that is too unsure hides nothing: a person decides,
    also where the model separates the classes without an error: then no slope can be fitted.
    """
    slope = number_of(evaluation["calibration"]["slope"])
    too_sure, too_unsure = at_least(slope, rule.min_slope), at_most(slope, rule.max_slope)
    status: Status = (
        "insufficient" if too_unsure == "block" else max(too_sure, too_unsure, key=SEVERE.index)
    )
    limit = rule.min_slope if too_sure == status else rule.max_slope
    found = _verdict(evaluation, "calibration_slope", status, slope, limit)
    limits = {"least": Number(rule.min_slope), "most": Number(rule.max_slope)}
    names = {"state": ("unsure",) if too_unsure == "block" else ()}
    return replace(found, numbers=limits, names=names, severity="warning")


def operating_point(evaluation: Mapping[str, Any]) -> Verdict:
    """Whether the threshold was chosen on other people than those whom the model is tested on.

    One that somebody set may have been chosen by looking at the test.
    """
    status: Status = "insufficient"
    if evaluation["operating_point_from"] == "validation":
        status = "pass"
    point = Number(evaluation["operating_point"])
    found = _verdict(evaluation, "operating_point", status, point, None)
    return replace(found, severity="warning")


def behaviour(evaluation: Mapping[str, Any], rule: Behaviour) -> Verdict:
    """Whether the answer stays when the sound changes and the person does not."""
    flips = _by_cell({name: one["flips"] for name, one in evaluation["behaviour"].items()})
    where, worst = _worst(flips, rule.max_flips)
    found = _verdict(evaluation, "behaviour", at_most(worst, rule.max_flips), worst, rule.max_flips)
    names = {name: (one,) for name, one in zip(("change", "who"), where, strict=True)}
    return replace(found, names=names, severity="warning")


def _verdict(
    evaluation: Mapping[str, Any],
    id: str,
    status: Status,
    observed: Number | None,
    threshold: float | None,
) -> Verdict:
    """A verdict on both classes: it rests on the smaller one, which decides what may be shown."""
    n = min(evaluation["n_patients"], evaluation["n_controls"])
    return Verdict(id, status, observed, threshold, n, "people")
