"""What a model must show before it becomes the champion: each rule with its reason and owner.

The thresholds are engineering proposals checked on synthetic cohorts; a clinician has to sign them
before any of them means something for a patient.  Each looks at intervals, not at point values:
with a hundred test recordings an accuracy of 0.88 is anything between 0.81 and 0.93.

Standard library only, so that a decision can be read, tested and repeated without any of the
machinery that made the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spira_tasks.contract.verdict import Verdict

OWNER = "clinical lead (not yet signed)"

MIN_SUBJECTS_PER_CLASS = 10
"""Below this no interval is worth reading: nothing can be said, so nothing is promoted."""

MIN_AUC_LOW = 0.60
"""Lower bound of the AUC.  Without any signal it exceeds 0.60 in far less than 1 run of 40."""

MAX_NOISE_DROP = 0.05
"""Loss of balanced accuracy under ward noise that is tolerated.  SPIRA's confounded network lost
0.47 when noise was put on the controls."""

MIN_SENSITIVITY, MIN_SPECIFICITY = 0.80, 0.75
"""Floors for triage, for the lower bound of the interval.  With fewer than 100 subjects in a class
the interval is too wide to demand that (the best published network, 47 of 54 patients found, has a
lower bound of 0.76): such a model can be champion, but is provisional, and says so."""

MIN_SUBJECTS_TO_VALIDATE = 100

CALIBRATION_MARGIN = 0.03
"""Added to what a perfectly calibrated model shows at the same n: 1.27/sqrt(n) is the 95th
percentile of the ECE of 10 bins (0.122 at n = 108, 0.072 at 300, 0.040 at 1000, by simulation)."""

MIN_CONFIDENCE_OF_GAIN = 0.80
"""Share of resamples in which the challenger's AUC exceeds the champion's.  Significance at 5 %
would keep a worse champion for years: with 108 subjects, 88 % against 92 % is seen once in five."""

MAX_SENSITIVITY_LOSS = 0.05
"""A better AUC does not pay for patients missed at the operating point."""


def judge(evaluation: Mapping[str, Any]) -> list[Verdict]:
    """Is the model sound?  ``evaluation`` is the content of ``evaluation.json``."""
    return [
        enough_subjects(evaluation),
        above_chance(evaluation),
        ward_noise_counterfactual(evaluation),
        not_degenerate(evaluation),
        floor(evaluation, "sensitivity", MIN_SENSITIVITY, evaluation["n_patients"]),
        floor(evaluation, "specificity", MIN_SPECIFICITY, evaluation["n_controls"]),
        calibrated(evaluation),
    ]


def enough_subjects(evaluation: Mapping[str, Any]) -> Verdict:
    n = min(evaluation["n_patients"], evaluation["n_controls"])
    return Verdict(
        name="enough_test_subjects",
        verdict="pass" if n >= MIN_SUBJECTS_PER_CLASS else "block",
        statistic=n,
        threshold=MIN_SUBJECTS_PER_CLASS,
        n=evaluation["n_subjects"],
        reason=f"{evaluation['n_patients']} patients and {evaluation['n_controls']} controls to "
        f"test on; at least {MIN_SUBJECTS_PER_CLASS} of each are needed",
    )


def above_chance(evaluation: Mapping[str, Any]) -> Verdict:
    auc = evaluation["conditions"]["clean"]["auc"]
    return Verdict(
        name="auc_above_chance",
        verdict="pass" if auc["low"] > MIN_AUC_LOW else "block",
        statistic=auc["value"],
        low=auc["low"],
        high=auc["high"],
        threshold=MIN_AUC_LOW,
        n=evaluation["n_subjects"],
        reason=f"AUC {_interval(auc)}; its lower bound must exceed {MIN_AUC_LOW}",
    )


def ward_noise_counterfactual(evaluation: Mapping[str, Any]) -> Verdict:
    """The decisive one: put ward noise on some people and see whether the answer follows it."""
    drops = evaluation["drop_in_balanced_accuracy"]
    if not drops:
        return Verdict(
            name="ward_noise_counterfactual",
            verdict="block",
            threshold=MAX_NOISE_DROP,
            n=evaluation["n_subjects"],
            reason="no ward noise came with the data, so nobody knows whether the model hears the "
            "illness or the ward; add ward_noise.csv",
        )
    condition, worst = max(drops.items(), key=lambda item: (item[1]["low"], item[1]["value"]))
    verdict = "block" if worst["low"] > MAX_NOISE_DROP else "pass"
    if verdict == "pass" and max(drop["value"] for drop in drops.values()) > MAX_NOISE_DROP:
        verdict = "warn"
    return Verdict(
        name="ward_noise_counterfactual",
        verdict=verdict,  # type: ignore[arg-type]
        statistic=worst["value"],
        low=worst["low"],
        high=worst["high"],
        threshold=MAX_NOISE_DROP,
        n=evaluation["n_subjects"],
        reason=f"with {condition.replace('_', ' on ')} balanced accuracy falls by "
        f"{_interval(worst)}; more than {MAX_NOISE_DROP} is not tolerated",
    )


def not_degenerate(evaluation: Mapping[str, Any]) -> Verdict:
    counts, n = evaluation["confusion"], evaluation["n_recordings"]
    rate = (counts["true_positives"] + counts["false_positives"]) / n
    clean = evaluation["conditions"]["clean"]
    worst = min(clean["sensitivity"]["value"], clean["specificity"]["value"])
    return Verdict(
        name="not_degenerate",
        verdict="pass" if 0.1 <= rate <= 0.9 and worst > 0.5 else "block",
        statistic=worst,
        threshold=0.5,
        n=n,
        reason=f"{rate:.0%} are called positive (10–90 % allowed); sensitivity and specificity are "
        f"at least {worst:.2f} (more than 0.5 demanded)",
    )


def floor(evaluation: Mapping[str, Any], metric: str, minimum: float, n: int) -> Verdict:
    estimate = evaluation["conditions"]["clean"][metric]
    if estimate["low"] >= minimum:
        verdict, meaning = "pass", "reached"
    elif n >= MIN_SUBJECTS_TO_VALIDATE:
        verdict, meaning = "block", "not reached"
    else:
        verdict, meaning = "warn", f"provisional, for {n} subjects of the class cannot tell"
    return Verdict(
        name=f"{metric}_floor",
        verdict=verdict,  # type: ignore[arg-type]
        statistic=estimate["value"],
        low=estimate["low"],
        high=estimate["high"],
        threshold=minimum,
        n=n,
        reason=f"{metric} {_interval(estimate)} against a floor of {minimum} "
        f"for the lower bound: {meaning}",
    )


def calibrated(evaluation: Mapping[str, Any]) -> Verdict:
    error, n = evaluation["expected_calibration_error"], evaluation["n_recordings"]
    limit = 1.27 / n**0.5 + CALIBRATION_MARGIN
    return Verdict(
        name="calibration",
        verdict="pass" if error <= limit else "warn",
        statistic=error,
        threshold=round(limit, 4),
        n=n,
        reason=f"expected calibration error {error:.3f}; up to {limit:.3f} is tolerated at this n",
    )


def nobody_erased(n_erased: int) -> Verdict:
    """Did the model learn from somebody who has had their data erased (LGPD art. 18)?"""
    return Verdict(
        name="contains_erased_subject",
        verdict="block" if n_erased else "pass",
        statistic=float(n_erased),
        threshold=0.0,
        n=n_erased,
        reason=f"people in its data who have been erased since: {n_erased}; train again"
        if n_erased
        else "nobody in its data has been erased",
        severity="critical",
    )


def behind_its_gates(missed: Sequence[str]) -> Verdict:
    """Did every gate hand on what the model was trained and tested on?

    The pipeline is wired so.  A step that is run by hand may read anything.
    """
    return Verdict(
        name="behind_its_gates",
        verdict="block" if missed else "pass",
        statistic=float(len(missed)),
        threshold=0.0,
        reason=f"no record says that its data came through {', '.join(missed)}; train by the "
        "pipeline"
        if missed
        else "its data came through every gate",
        severity="critical",
    )


def compare(comparison: Mapping[str, Any]) -> Verdict:
    """Is a sound challenger better than the champion, on the same people?

    ``comparison`` holds ``champion`` (version), ``n_subjects``, ``gain`` (difference of the AUCs
    with its interval), ``confidence`` (share of resamples with a gain) and ``sensitivity_loss``.
    Never blocks: a challenger that is no better is kept as challenger.
    """
    gain, confidence = comparison["gain"], comparison["confidence"]
    better = confidence >= MIN_CONFIDENCE_OF_GAIN
    misses = comparison["sensitivity_loss"] > MAX_SENSITIVITY_LOSS
    reason = (
        f"AUC differs from that of champion version {comparison['champion']} by {_interval(gain)}, "
        f"a gain in {confidence:.0%} of resamples ({MIN_CONFIDENCE_OF_GAIN:.0%} demanded)"
    )
    if misses:
        reason += f"; sensitivity is {comparison['sensitivity_loss']:.2f} lower"
    return Verdict(
        name="better_than_champion",
        verdict="pass" if better and not misses else "warn",
        statistic=gain["value"],
        low=gain["low"],
        high=gain["high"],
        threshold=MIN_CONFIDENCE_OF_GAIN,
        n=comparison["n_subjects"],
        reason=reason,
    )


def _interval(estimate: Mapping[str, float]) -> str:
    return f"{estimate['value']:.2f} ({estimate['low']:.2f} to {estimate['high']:.2f})"
