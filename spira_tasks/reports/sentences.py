"""What a run came to, in the sentences of the verdict page: what, why, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from expectations.words import Words, verdicts
from expectations.words.suites import Description
from spira_tasks.reports.facts import Evaluation, Interval, RunFacts

OWN_REASONS = "en"  # verdicts and errors carry reasons of their own in this language


@dataclass(frozen=True)
class Said:
    """A sentence, and the language it is in."""

    text: str
    language: str


@dataclass(frozen=True)
class Headline:
    """``others``: what else stopped the run."""

    word: str
    explanation: str
    why: Said
    others: tuple[Said, ...]
    next: str


@dataclass(frozen=True)
class Waived:
    """A check that would have stopped the run, and the person who answers for its not doing so."""

    check: Said
    found: Said
    by: str
    on: str
    why: str


def headline(t: Words, facts: RunFacts) -> Headline:
    stopping = [one for one in facts.verdicts if one["verdict"] == "block"]
    return Headline(
        word=t(f"outcome.{facts.outcome}"),
        explanation=_explanation(t, facts),
        why=_why(t, facts, stopping),
        others=tuple(explain(t, one) for one in stopping[1:]),
        next=_next(t, facts, stopping),
    )


def warnings(t: Words, facts: RunFacts) -> list[Said]:
    """What did not hold and only warns by its own rule; the model card carries the same."""
    return [
        explain(t, one) for one in facts.verdicts if one["verdict"] == "warn" and not one["waiver"]
    ]


def waived(t: Words, facts: RunFacts) -> list[Waived]:
    """What would have stopped the run, had not a person set it aside."""
    return [
        Waived(title(t, one), explain(t, one), *_who(t, one))
        for one in facts.verdicts
        if one["waiver"]
    ]


def waived_by(t: Words, verdict: Mapping[str, Any]) -> str:
    """Who set a check aside, when and why; empty where nobody did."""
    if not verdict["waiver"]:
        return ""
    by, on, why = _who(t, verdict)
    return t("verdict.waived_by", by=by, at=on, why=why)


def explain(t: Words, verdict: Mapping[str, Any]) -> Said:
    """Say why a verdict is what it is: in plain words where there are any."""
    if (written := _written(t, verdict)) is not None:
        return written
    plain = details(t, verdict)
    if plain is None:
        return Said(f"{verdict['name']}: {verdict['reason']}", OWN_REASONS)
    words = [t("why.expectation", sentence=plain.sentence, rationale=plain.rationale)]
    if verdict["statistic"] is not None and verdict["threshold"] is not None:
        observed, limit = t.digits(verdict["statistic"]), t.digits(verdict["threshold"])
        words.append(t("why.observed", observed=observed, limit=limit))
    return Said(" ".join(words), t.language)


def in_full(t: Words, verdict: Mapping[str, Any]) -> Said | None:
    """What is to be said beside title and details of a verdict that is no pass."""
    if (written := _written(t, verdict)) is not None:
        return written
    return None if details(t, verdict) else Said(str(verdict["reason"]), OWN_REASONS)


def title(t: Words, verdict: Mapping[str, Any]) -> Said:
    """What an expectation or a gate looks at; the bare name of one that is no more."""
    found = details(t, verdict)
    return Said(found.title, t.language) if found else Said(str(verdict["name"]), OWN_REASONS)


def details(t: Words, verdict: Mapping[str, Any]) -> Description | None:
    """What an expectation says, why, and who answers for it; None of one that is no more."""
    return verdicts.description(verdict, t.language)


def owner(t: Words, name: str) -> str:
    """Who answers for thresholds."""
    return t.first(f"owner.{name}") or name


def in_words(t: Words, evaluation: Evaluation) -> list[str]:
    """Sensitivity, specificity and AUC as recorded, for readers who do not know the terms."""
    if not evaluation.is_published:
        return [t("verdict.few_people")]
    clean = evaluation.conditions.get("clean", {})
    sentences = [
        t(f"words.{metric}", n=t.count(n), **_of_hundred(t, clean[metric]))
        for metric, n in (
            ("sensitivity", evaluation.n_patients),
            ("specificity", evaluation.n_controls),
            ("auc", evaluation.n_subjects),
        )
        if metric in clean
    ]
    worst = max(evaluation.drops.values(), key=lambda drop: drop.value or 0.0, default=None)
    if worst is None:
        sentences.append(t("words.no_noise"))
    elif worst.value is not None and worst.value > 0:
        sentences.append(t("words.drop", **_of_hundred(t, worst)))
    else:
        sentences.append(t("words.no_drop"))
    return sentences


def _who(t: Words, verdict: Mapping[str, Any]) -> tuple[str, str, str]:
    waiver = verdict["waiver"]
    return waiver["by"], t.day(waiver["at"]), waiver["why"]


def _written(t: Words, verdict: Mapping[str, Any]) -> Said | None:
    """The sentence of the catalogue for this verdict of a gate, if it has one."""
    measured = "" if verdict["statistic"] is not None else ".unmeasured"
    for kind in (verdict["verdict"], "why"):
        key = f"gate.{verdict['name']}.{kind}{measured}"
        if t.has(key):
            return Said(t(key, **_numbers(t, verdict)), t.language)
    return None


def _explanation(t: Words, facts: RunFacts) -> str:
    if facts.outcome == "blocked":
        trained = facts.model is not None or facts.evaluation is not None
        return t("explanation.blocked_model" if trained else "explanation.blocked_data")
    return t(f"explanation.{facts.outcome}")


def _why(t: Words, facts: RunFacts, stopping: Sequence[Mapping[str, Any]]) -> Said:
    if facts.outcome == "blocked" and stopping:
        return explain(t, stopping[0])
    if facts.outcome in {"kept", "promoted"}:
        against = [one for one in facts.verdicts if one["name"] == "better_than_champion"]
        compared = [explain(t, one) for one in against[:1]]
        if facts.outcome == "promoted":
            return Said(" ".join([*(one.text for one in compared), _passed(t, facts)]), t.language)
        if compared:
            return Said(t("why.waits"), t.language) if _waits(facts) else compared[0]
    failed = next((step for step in facts.steps if step.state == "failed"), None)
    if facts.outcome == "failed" and failed is not None:
        key = f"error.{failed.error}"
        words = t(key if t.has(key) else "error.other", step=t.name("step", failed.name))
        return Said(words, t.language)
    waiting = next((step for step in facts.steps if step.state == "waiting"), None)
    if facts.outcome == "running" and waiting is not None:
        return Said(t("why.running", step=t.name("step", waiting.name)), t.language)
    return Said(t(f"why.{facts.outcome}"), t.language)


def _waits(facts: RunFacts) -> bool:
    """Whether nothing but a person's approval is missing."""
    lacking = {one["name"] for one in facts.verdicts if one["verdict"] == "warn"}
    gates = {"better_than_champion", "approved_by_a_person"}
    return facts.outcome == "kept" and lacking & gates == {"approved_by_a_person"}


def _passed(t: Words, facts: RunFacts) -> str:
    """How a promoted model came through the checks; no more than is true."""
    n_warned, n_waived = len(warnings(t, facts)), len(waived(t, facts))
    if not n_warned and not n_waived:
        return t("why.promoted")
    if not n_waived:
        return t("why.promoted_warned", warned=t.count(n_warned))
    return t("why.promoted_noted", warned=t.count(n_warned), waived=t.count(n_waived))


def _next(t: Words, facts: RunFacts, stopping: Sequence[Mapping[str, Any]]) -> str:
    if facts.outcome == "blocked" and stopping:
        key = f"gate.{stopping[0]['name']}.next"
        if t.has(key):
            return t(key)
        if any(_is_firm(one) for one in stopping):
            return t("next.blocked_firm")
        return t("next.blocked_suite" if stopping[0].get("suite") else "next.blocked")
    if _waits(facts):
        return t("next.waits")
    failed = next((step for step in facts.steps if step.state == "failed"), None)
    if facts.outcome == "failed" and failed is not None and t.has(f"next.error.{failed.error}"):
        return t(f"next.error.{failed.error}")
    return t(f"next.{facts.outcome}")


def _is_firm(verdict: Mapping[str, Any]) -> bool:
    """Whether no waiver would count against a check."""
    return bool(verdict["firm"])


def _numbers(t: Words, verdict: Mapping[str, Any]) -> dict[str, str]:
    """Numbers of a verdict in every form that a sentence may want."""
    words = {"n": t.count(verdict["n"])}  # of people: hidden where few
    for name in ("statistic", "low", "high", "threshold"):
        value = verdict[name]
        words[name] = t.digits(value)
        words[f"{name}_percent"] = t.percent(value, 1)
        words[f"{name}_hundred"] = t.number(None if value is None else 100 * value, 0)
    return words


def _of_hundred(t: Words, one: Interval) -> dict[str, str]:
    ends = {"value": one.value, "low": one.low, "high": one.high}
    words = {name: t.number(None if end is None else 100 * end, 0) for name, end in ends.items()}
    missed = {name: None if end is None else 100 - 100 * end for name, end in ends.items()}
    words["missed"] = t.number(missed["value"], 0)
    words["missed_low"] = t.number(missed["high"], 0)
    words["missed_high"] = t.number(missed["low"], 0)
    return words
