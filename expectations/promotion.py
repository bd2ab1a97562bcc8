"""The policy of promotion: what a model must show to become the champion, and why.

Every run obeys it, scheduled or started by hand: no setting of a run changes a rule.  Who wants
another rule changes it here, by a review.

The thresholds are engineering proposals checked on synthetic cohorts; a clinician has to sign them
before any of them means something for a patient.  Each looks at intervals, not at point values:
with a hundred test recordings an accuracy of 0.88 is anything between 0.81 and 0.93.

Standard library only, so that a decision can be read, tested and repeated without any of the
machinery that made the numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from spira_tasks.contract.verdict import Number, Status, Unit, Verdict, is_small

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
lower bound of 0.76): such a model is provisional, and says so."""

MIN_SUBJECTS_TO_VALIDATE = 100

APPROVAL: Literal["provisional", "always"] = "provisional"
"""Which models a person has to approve: provisional ones, or all.  Where too few people were tested
no program decides, so there is no value that asks nobody."""

CALIBRATION_MARGIN = 0.03
"""Added to what a perfectly calibrated model shows at the same n: 1.27/sqrt(n) is the 95th
percentile of the ECE of 10 bins (0.122 at n = 108, 0.072 at 300, 0.040 at 1000, by simulation)."""

MIN_CONFIDENCE_OF_GAIN = 0.80
"""Share of resamples in which the challenger's AUC exceeds the champion's.  Significance at 5 %
would keep a worse champion for years: with 108 subjects, 88 % against 92 % is seen once in five."""

N_RESAMPLES, SEED = 2000, 0
"""Of the test subjects, for that share: with another seed a close comparison may end otherwise."""

MAX_SENSITIVITY_LOSS = 0.05
"""A better AUC does not pay for patients missed at the operating point."""


def verdicts(evaluation: Mapping[str, Any]) -> list[Verdict]:
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
        "enough_test_subjects",
        "pass" if n >= MIN_SUBJECTS_PER_CLASS else "insufficient",
        observed=Number(n, "people"),
        threshold=MIN_SUBJECTS_PER_CLASS,
        n=n,
        n_unit="people",
        numbers={name: Number(evaluation[name], "people") for name in ("n_patients", "n_controls")},
        severity="critical",
    )


def above_chance(evaluation: Mapping[str, Any]) -> Verdict:
    auc = evaluation["conditions"]["clean"]["auc"]
    status: Status = "pass" if auc["low"] > MIN_AUC_LOW else "block"
    return _verdict(evaluation, "auc_above_chance", status, _estimate(auc), MIN_AUC_LOW)


def ward_noise_counterfactual(evaluation: Mapping[str, Any]) -> Verdict:
    """The decisive one: put ward noise on some people and see whether the answer follows it.

    Without ward noise nobody knows whether the model hears the illness or the ward.
    """
    drops = evaluation["drop_in_balanced_accuracy"]
    status: Status = "insufficient"
    observed: Number | None = None
    condition: tuple[str, ...] = ()
    if drops:
        name, worst = max(drops.items(), key=lambda item: (item[1]["low"], item[1]["value"]))
        observed, condition = _estimate(worst, "rate"), (name,)
        status = "block" if worst["low"] > MAX_NOISE_DROP else "pass"
        if status == "pass" and max(drop["value"] for drop in drops.values()) > MAX_NOISE_DROP:
            status = "warn"
    found = _verdict(evaluation, "ward_noise_counterfactual", status, observed, MAX_NOISE_DROP)
    return replace(found, names={"condition": condition}, severity="critical")


def not_degenerate(evaluation: Mapping[str, Any]) -> Verdict:
    """Whether the model answers both ways, and finds more than half of each class."""
    counts, n = evaluation["confusion"], evaluation["n_recordings"]
    rate = (counts["true_positives"] + counts["false_positives"]) / n
    clean = evaluation["conditions"]["clean"]
    worst = min(clean["sensitivity"]["value"], clean["specificity"]["value"])
    status: Status = "pass" if 0.1 <= rate <= 0.9 and worst > 0.5 else "block"
    found = _verdict(evaluation, "not_degenerate", status, Number(worst, "rate"), 0.5)
    return replace(found, numbers={"positive": Number(rate, "rate")})


def floor(evaluation: Mapping[str, Any], metric: str, minimum: float, n: int) -> Verdict:
    """Whether the lower bound of a rate reaches its floor, where ``n`` people can show that.

    No rate is shown of one class where the other one has too few people for that.
    """
    estimate = evaluation["conditions"]["clean"][metric]
    status: Status = "insufficient"
    if estimate["low"] >= minimum:
        status = "pass"
    elif n >= MIN_SUBJECTS_TO_VALIDATE:
        status = "block"
    found = _verdict(evaluation, f"{metric}_floor", status, _estimate(estimate, "rate"), minimum)
    return replace(found, n=found.n if is_small(found.n) else n, severity="warning")


def calibrated(evaluation: Mapping[str, Any]) -> Verdict:
    error, n = evaluation["expected_calibration_error"], evaluation["n_recordings"]
    limit = 1.27 / n**0.5 + CALIBRATION_MARGIN
    status: Status = "pass" if error <= limit else "warn"
    return _verdict(evaluation, "calibration", status, Number(error), round(limit, 4))


def needs_approval(verdicts: Sequence[Verdict]) -> bool:
    """Whether a person has to approve a model that no verdict stops."""
    return APPROVAL == "always" or any(verdict.status == "insufficient" for verdict in verdicts)


def nobody_erased(n_erased: int) -> Verdict:
    """Did the model learn from somebody who has had their data erased (LGPD art. 18)?"""
    return Verdict(
        "contains_erased_subject",
        "block" if n_erased else "pass",
        observed=Number(n_erased, "people"),
        threshold=0.0,
        severity="critical",
    )


def behind_its_gates(missed: Sequence[str]) -> Verdict:
    """Did every gate hand on what the model was trained and tested on?

    The pipeline is wired so.  A step that is run by hand may read anything.
    """
    return Verdict(
        "behind_its_gates",
        "block" if missed else "pass",
        observed=Number(len(missed), "items"),
        threshold=0.0,
        names={"gates": tuple(missed)},
        severity="critical",
    )


def label_blind_augmentation(label_was_seen: bool, presets: Collection[str]) -> Verdict:
    """Was ward noise inserted without looking at the label?

    Where patients get another number of noises than controls, a network learns the class from the
    noise.  Published experiments did so, and presets repeat them, to be compared and never used.
    """
    return Verdict(
        "label_blind_augmentation",
        "block" if label_was_seen else "pass",
        names={"presets": tuple(sorted(presets))},
        severity="critical",
    )


def compare(comparison: Mapping[str, Any]) -> Verdict:
    """Is a sound challenger better than the champion, on the same people?

    ``comparison`` holds ``champion`` (version), ``n`` (people of the smaller class), ``gain``
    (difference of the AUCs with its interval), ``confidence`` (share of resamples with a gain) and
    ``sensitivity_loss``.
    Never blocks: a challenger that is no better is kept as challenger.
    """
    loss, confidence = comparison["sensitivity_loss"], comparison["confidence"]
    misses = {"sensitivity_loss": Number(loss, "rate")} if loss > MAX_SENSITIVITY_LOSS else {}
    better = confidence >= MIN_CONFIDENCE_OF_GAIN
    return Verdict(
        "better_than_champion",
        "pass" if better and not misses else "warn",
        observed=_estimate(comparison["gain"]),
        threshold=MIN_CONFIDENCE_OF_GAIN,
        n=comparison["n"],
        n_unit="people",
        numbers={"confidence": Number(confidence, "rate")} | misses,
        names={"champion": (str(comparison["champion"]),)},
    )


def _estimate(estimate: Mapping[str, float], unit: Unit = "statistic") -> Number:
    return Number(estimate["value"], unit, estimate["low"], estimate["high"])


def _verdict(
    evaluation: Mapping[str, Any],
    id: str,
    status: Status,
    observed: Number | None,
    threshold: float,
) -> Verdict:
    """A verdict on both classes: it rests on the smaller one, which decides what may be shown."""
    n = min(evaluation["n_patients"], evaluation["n_controls"])
    return Verdict(id, status, observed, threshold, n, "people")
