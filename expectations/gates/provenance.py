"""How the model was made: by whom it learned, through which gates, with which augmentation."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from spira_tasks.contract.verdict import Number, Verdict


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


def replaces_its_kind(is_synthetic: bool, champion_is_synthetic: bool | None) -> Verdict:
    """Would a model of invented people take the place of one of real people?

    ``champion_is_synthetic`` is None where no champion serves.
    """
    is_other = is_synthetic and champion_is_synthetic is False
    return Verdict("replaces_its_kind", "block" if is_other else "pass", severity="critical")


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
