"""The questions that the gates of a model answer, in the order in which a clinician asks them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from spira_tasks.contract.verdict import Verdict
from spira_tasks.reports.facts import RunFacts

OTHER: Final = "other"
OF_MODEL = ("evaluate", "register", "judge", "promote")  # steps that judge a model
STEPS = ("check_confounds", *OF_MODEL)  # those that answer the questions
# Question to ids of verdicts.  What stands under none is shown under OTHER.
QUESTIONS: Mapping[str, tuple[str, ...]] = {
    "illness": (
        *("ward_noise_counterfactual", "ward_noise_flips", "ward_noise_shift"),
        *("noise_only_control", "channel_heard", "permuted_label"),
        *(
            "metadata_alone",
            "metadata_baseline",
            "stratified_auc",
            "behaviour",
            "label_blind_augmentation",
        ),
    ),
    "right": (
        *("enough_test_subjects", "auc_above_chance", "not_degenerate"),
        *("sensitivity_floor", "specificity_floor", "operating_point"),
        *("calibration", "calibration_slope", "label_quality"),
        *("test_budget", "seed_stability"),
    ),
    "whom": ("slice_floor", "slice_gap", "missingness", "unseen_sites", "cross_cohort"),
    "instead": ("better_than_champion",),
    "made": (
        *("within_plan", "behind_its_gates", "contains_erased_subject", "replaces_its_kind"),
        "checked_for_serving",
        *("serving_parity", "serving_latency", "serving_memory", "serving_size"),
    ),
    "people": (
        *("documents_written", "approved_by_a_person", "refused_by_a_person"),
        "rolled_back_by_a_person",
    ),
    OTHER: (),
}


def by_question(facts: RunFacts) -> dict[str, list[Verdict]]:
    """The verdicts on the model, by question; where two steps gave the same one, the later one."""
    found = {
        verdict.id: verdict
        for step in STEPS
        for verdict in facts.verdicts.get(step, ())
        if not verdict.kind  # no expectation of the data
    }
    place = {id: (question, n) for question, ids in QUESTIONS.items() for n, id in enumerate(ids)}
    grouped: dict[str, list[Verdict]] = {question: [] for question in QUESTIONS}
    for id, verdict in sorted(found.items(), key=lambda item: place.get(item[0], (OTHER, 0))[1]):
        grouped[place.get(id, (OTHER, 0))[0]].append(verdict)
    return {question: verdicts for question, verdicts in grouped.items() if verdicts}
