"""Can the label be told from what is not the illness?  What probes heard, against the policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from expectations.gates.bounds import number_of
from expectations.policy import MetadataBaseline, PermutedLabel, Probe, Rules
from spira_tasks.contract.verdict import Number, Status, Verdict

SUITE = "confounds"
ORDER: tuple[Status, ...] = ("block", "insufficient", "pass")  # the worst first
Heard = Mapping[str, Any]  # a ``probes.Heard`` as JSON


def verdicts(found: Mapping[str, Any], rules: Rules) -> list[Verdict]:
    """``found`` holds ``probes``, ``unheard`` and ``permuted``: see stage confounds."""
    return [
        told("noise_only_control", found, ("ambient", "edges"), rules.noise_only_control),
        told("channel_heard", found, ("channel",), rules.channel_heard),
        told("metadata_alone", found, ("metadata",), rules.metadata_alone),
        permuted_label(found["permuted"], rules.permuted_label),
    ]


def told(id: str, found: Mapping[str, Any], sources: Sequence[str], rule: Probe) -> Verdict:
    """Whether a probe tells patients from controls; of several the worst counts.

    Where one class hardly has what a probe listens to, who has it tells the label: that is open.
    """
    probes: Mapping[str, Heard] = found["probes"]
    unheard = tuple(name for name in sources if name in found["unheard"])
    heard = [(of_probe(probes[name], rule), name) for name in sources if name in probes]
    if not heard:
        return Verdict(id, "insufficient", severity="warning", suite=SUITE)
    status, name = min(heard, key=lambda one: (ORDER.index(one[0]), -probes[one[1]]["low"]))
    if status == "pass" and unheard:
        names = {"state": ("unheard",), "heard_in": unheard}
        return Verdict(id, "insufficient", names=names, severity="warning", suite=SUITE)
    worst = probes[name]
    return Verdict(
        id,
        status,
        observed=Number(worst["auc"], "statistic", worst["low"], worst["high"]),
        threshold=rule.max_low,
        n=min(worst["n_patients"], worst["n_controls"]),
        n_unit="people",
        numbers={"chance": Number(worst["chance"])},
        names={"heard_in": (worst["view"] or name,)},
        # What is proven stops a run; what few people leave open asks for a person's approval.
        severity="critical" if status == "block" else "warning",
        suite=SUITE,
    )


def of_probe(heard: Heard, rule: Probe) -> Status:
    """Proven where chance does not explain it; excluded where it would have been seen."""
    if min(heard["n_patients"], heard["n_controls"]) < rule.min_per_class:
        return "insufficient"
    is_high = heard["low"] > rule.max_low or heard["auc"] >= rule.max_auc
    if is_high and heard["by_chance"] <= rule.max_by_chance:
        return "block"
    is_chance = heard["high"] < rule.max_auc and heard["auc"] <= heard["chance"]
    return "pass" if is_chance or heard["high"] <= rule.max_low else "insufficient"


def permuted_label(found: Mapping[str, Any] | None, rule: PermutedLabel) -> Verdict:
    """Whether labels that nobody can learn are learned all the same."""
    if found is None:
        return Verdict("permuted_label", "insufficient", severity="warning", suite=SUITE)
    number = number_of(found["auc"])
    lowest, highest = 0.5 - rule.max_deviation, 0.5 + rule.max_deviation
    status: Status = "insufficient"
    if number.low is not None and number.high is not None:
        if lowest <= number.low and number.high <= highest:
            status = "pass"
        elif number.low > highest or number.high < lowest:
            status = "block"
    return Verdict(
        "permuted_label",
        status,
        observed=number,
        threshold=highest,
        n=min(found["n_patients"], found["n_controls"]),
        n_unit="people",
        severity="critical" if status == "block" else "warning",
        suite=SUITE,
        firm=True,  # a fault of the platform or of its data, which nobody can answer for
    )


def metadata_baseline(evaluation: Mapping[str, Any], rule: MetadataBaseline) -> Verdict:
    """Whether the model knows more than who is recorded, where and by which device."""
    found = evaluation["metadata_baseline"]
    gain = found["gain"]
    status: Status = "insufficient"
    if gain["low"] > 0 and gain["value"] >= rule.min_gain:
        status = "pass"
    elif gain["high"] < rule.min_gain:
        status = "block"
    return Verdict(
        "metadata_baseline",
        status,
        observed=number_of(gain),
        threshold=rule.min_gain,
        n=min(found["n_patients"], found["n_controls"]),
        n_unit="people",
        numbers={name: number_of(found[name]) for name in ("model", "baseline")},
        severity="critical" if status == "block" else "warning",
    )
