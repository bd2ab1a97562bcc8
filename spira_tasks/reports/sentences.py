"""The sentences of the verdict page: the outcome of a run, the reason, and what to do next."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from expectations.words import UNKNOWN, Words
from expectations.words.verdicts import next_step, sentence, title
from spira_tasks.contract.verdict import Verdict
from spira_tasks.intake.record_contract import COLUMNS
from spira_tasks.reports.facts import Evaluation, Interval, RunFacts, RunSummary, StepFacts, tone
from spira_tasks.reports.tables import BANDS

PARTS = ("policy", "plan", "suites")  # files of limits
N_OPEN = 2  # checks that the first screen names
N_GROUPS = 4  # of a dimension, as many as the first screen names
ELSEWHERE = ("unseen_sites", "cross_cohort")  # verdicts that name where it is not shown to hold


@dataclass(frozen=True)
class Headline:
    shown_as: str  # the outcome whose colour it has, or ``provisional``
    word: str  # whether the model may serve
    explanation: str
    why: str
    others: tuple[str, ...]  # further reasons
    whom: tuple[str, ...]  # for whom it may not serve
    next: str


@dataclass(frozen=True)
class Waived:
    """A check that would have stopped the run, and the person who waived it."""

    check: str
    found: str
    by: str
    on: str
    until: str  # the last day
    why: str


def name_of(t: Words, run: RunFacts | RunSummary) -> str:
    """When a run began and who started it; its id says that to nobody."""
    if not run.started_at:
        return run.run_id
    who = run.triggered_by.partition(":")[2]
    if who.startswith("training:"):  # the decision on a snapshot
        return t("run.woken", at=t.moment(run.started_at), snapshot=who.partition(":")[2])
    kind = "scheduled" if who == "scheduler" else "by" if who else "at"
    return t(f"run.{kind}", at=t.moment(run.started_at), who=who)


def headline(t: Words, facts: RunFacts) -> Headline:
    stopping = [one for one in facts.checks if one.stops]
    ending = _ending(facts)
    # A check of what serves could not tell.
    is_open = ending == "approved" or (ending == "promoted" and _n_open(facts) > 0)
    shown_as = "kept" if ending == "replaced" else facts.outcome
    return Headline(
        shown_as="provisional" if is_open else shown_as,
        word=t("answer.provisional" if is_open else f"answer.{ending}"),
        explanation=_explanation(t, facts),
        why=_why(t, facts, stopping),
        others=tuple(sentence(one, t.language) for one in stopping[1:]),
        whom=tuple(_whom(t, facts)),
        next=t("next.provisional") if is_open else _next(t, facts, stopping),
    )


def warnings(t: Words, facts: RunFacts, but: Collection[str] = ()) -> list[str]:
    """The checks that warn, or that have too little to tell, without those of some ids."""
    return [
        sentence(one, t.language)
        for one in facts.checks
        if tone(one) == "warn" and not one.waiver and one.id not in but
    ]


def waived(t: Words, facts: RunFacts) -> list[Waived]:
    """The checks that would have stopped the run, and that a person waived."""
    return [
        Waived(
            title(one, t.language),
            sentence(one, t.language),
            one.waiver.by,
            t.day(one.waiver.at),
            t.day(one.waiver.until) if one.waiver.until else t("waived.no_end"),
            one.waiver.why,
        )
        for one in facts.checks
        if one.waiver
    ]


def owner(t: Words, facts: RunFacts, name: str, part: str) -> str:
    """Who answers for a limit and, of a clinician, whether the file that it is in is signed."""
    if name != t("owner.clinical lead"):
        return name or UNKNOWN
    one = facts.signatures.get(part)
    if one is None:
        return t("owner.unsigned", owner=name)
    return t("owner.signed", owner=name, by=one.by, at=t.day(one.at))


def signed(t: Words, facts: RunFacts) -> str:
    """Who signed the limits that this run was judged by."""
    found = [
        t(f"signed.{part}", by=one.by, at=t.day(one.at))
        if (one := facts.signatures.get(part))
        else t(f"unsigned.{part}")
        for part in PARTS
    ]
    return " ".join(found) if facts.signatures else t("footer.thresholds")


def in_words(t: Words, evaluation: Evaluation) -> list[str]:
    """Sensitivity, specificity and AUC without added noise, for readers who know no such terms."""
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
    for prevalence, one in evaluation.measured.get("predictive_values", {}).items():
        values = {
            f"{name}{end}": t.number(100 * one[name][of], 0)
            for name in ("ppv", "npv")
            for end, of in (("", "value"), ("_low", "low"), ("_high", "high"))
        }
        sentences.append(t("words.predictive", n=t.number(100 * float(prevalence), 0), **values))
    worst = max(evaluation.drops.values(), key=lambda drop: drop.value or 0.0, default=None)
    possible = max(0.0, (worst and worst.high) or 0.0)
    if worst is None:
        sentences.append(t("words.no_noise"))
    elif worst.value is not None and worst.value > 0:
        sentences.append(t("words.drop", **_of_hundred(t, worst)))
    else:
        sentences.append(t("words.no_drop", high=t.number(100 * possible, 0)))
    return sentences


def _explanation(t: Words, facts: RunFacts) -> str:
    key = f"explanation.{_ending(facts)}"
    if facts.outcome == "blocked":
        trained = facts.model is not None or facts.evaluation is not None
        key += "_model" if trained else "_data"
    kind = getattr(_first(facts, "failed"), "error", "") if facts.outcome == "failed" else ""
    version = facts.model.version if facts.model else UNKNOWN
    said = t.first(f"explanation.error.{kind}", key, version=version)
    if _waits(facts) or (facts.outcome == "promoted" and facts.champion == version):
        return said
    return f"{said} {in_use(t, facts)}"


def in_use(t: Words, facts: RunFacts) -> str:
    """Which version serves, as the registry answered when the page was made."""
    state = "unknown" if facts.champion is None else "in_use" if facts.champion else "none"
    return t(f"champion.{state}", model=t("who.version", name="spira", version=facts.champion))


def _why(t: Words, facts: RunFacts, stopping: Sequence[Verdict]) -> str:
    if facts.outcome == "blocked" and stopping:
        return sentence(stopping[0], t.language)
    if facts.outcome in {"kept", "promoted"}:
        deciding = {"better_than_champion", "rolled_back_by_a_person"}
        against = [one for one in facts.checks if one.id in deciding]
        compared = [sentence(one, t.language) for one in against[:1]]
        if facts.outcome == "promoted" or _waits(facts):
            waits = facts.outcome != "promoted"
            first = [] if against and against[0].observed else compared  # there was no champion
            begins = [_open(t, facts)] if waits else [*first, _passed(t, facts)]
            return " ".join([*begins, *_rates(t, facts.evaluation)])
        if compared:
            return compared[0]
    failed, waiting = _first(facts, "failed"), _first(facts, "waiting")
    if facts.outcome == "failed" and failed is not None:
        return t.first(f"error.{failed.error}", "error.other", step=t.name("step", failed.name))
    if facts.outcome == "running" and waiting is not None:
        return t("why.running", step=t.name("step", waiting.name))
    return t(f"why.{facts.outcome}")


def _open(t: Words, facts: RunFacts) -> str:
    """What a person has to decide on, or has decided on since."""
    left_open = [one for one in facts.checks if one.waiver or one.status == "insufficient"]
    if not left_open:
        return t("why.waits")
    said = t("why.open_since" if _ending(facts) == "approved" else "why.open")
    return f"{said} {_not_shown(t, left_open)}"


def _not_shown(t: Words, checks: Sequence[Verdict]) -> str:
    """What some checks were to show, each in quotes: a title says how it should be."""
    names = [f"“{title(one, t.language)}”" for one in checks]
    if len(names) > N_OPEN:
        names[N_OPEN:] = [t("whom.more", n=len(names) - N_OPEN)]
    return t("why.left_open", checks=", ".join(names))


def _rates(t: Words, evaluation: Evaluation | None) -> Iterator[str]:
    """How many patients are found, and how many others alarmed, where that is published."""
    clean = evaluation.conditions.get("clean", {}) if evaluation else {}
    if {"sensitivity", "specificity"} <= set(clean):
        found, right = (_of_hundred(t, clean[name]) for name in ("sensitivity", "specificity"))
        yield t(
            "why.numbers",
            found=found["value"],
            found_low=found["low"],
            found_high=found["high"],
            alarmed=right["missed"],
            alarmed_low=right["missed_low"],
            alarmed_high=right["missed_high"],
        )


def group_name(t: Words, by: str, group: str) -> str:
    """Name a group of test people beside the name of its dimension; of tasks, all of them."""
    if group.startswith("#"):
        return group
    parts = group.split("+") if by == "tasks" else ()
    return " + ".join(t.name("task", one) for one in parts) or t.name(by, group)


def too_few(facts: RunFacts) -> dict[str, list[str]]:
    """Groups in which too few people were tested for a rate, by dimension."""
    slices = facts.evaluation.slices if facts.evaluation else ()
    known = {
        "sex": [name for name in COLUMNS["sex"].values if name != "UNKNOWN"],
        "age": list(BANDS),
        "site": [one.group for one in slices if one.by == "site"],
        "device": [one.group for one in slices if one.by == "device"],
    }
    enough = {(one.by, one.group) for one in slices if one.sensitivity and one.specificity}
    found = {by: [one for one in known[by] if (by, one) not in enough] for by in known}
    return {by: groups for by, groups in found.items() if groups}


def _whom(t: Words, facts: RunFacts) -> Iterator[str]:
    """For whom the model may not serve, short enough for the first screen."""
    if facts.evaluation is None:
        yield t("whom.not_known")
    elif _ending(facts) not in ("promoted", "waits", "approved"):
        yield t("whom.nobody")
    else:
        if facts.synthetic:
            yield t("whom.invented")
        parts = []
        for by, groups in too_few(facts).items():
            shown = _some(t, [group_name(t, by, group) for group in groups])
            parts.append(t("whom.of", by=t(f"by.{by}").lower(), groups=shown))
        if parts:
            yield t("whom.groups", groups=", ".join(parts))
        for one in facts.checks:
            if one.id in ELSEWHERE and one.names.get("left_open"):
                names = one.names["left_open"]
                if one.id == "unseen_sites":
                    names = tuple(t.name("site", name) for name in names)
                yield t(f"whom.{one.id}", groups=_some(t, names))
        task = str(facts.model.training.get("task", "")) if facts.model else ""
        yield t("whom.elsewhere", task=t.name("task", task) if task else "–")


def _some(t: Words, names: Sequence[str]) -> str:
    """As many of some names as the first screen has place for."""
    more = [t("whom.more", n=len(names) - N_GROUPS)] if len(names) > N_GROUPS else []
    return ", ".join([*names[:N_GROUPS], *more])


def _first(facts: RunFacts, state: str) -> StepFacts | None:
    return next((step for step in facts.steps if step.state == state), None)


def _waits(facts: RunFacts) -> bool:
    """Whether nothing but a person's approval is missing."""
    lacking = {one.id for one in facts.checks if one.status == "warn"}
    gates = {"better_than_champion", "rolled_back_by_a_person", "approved_by_a_person"}
    return facts.outcome == "kept" and lacking & gates == {"approved_by_a_person"}


def _ending(facts: RunFacts) -> str:
    """The outcome of the run, ``waits``, or what came of its model since.

    ``replaced`` where it is not in use any more, ``approved`` where a person was waited for.
    """
    aliases = facts.model.aliases if facts.model else None
    if facts.outcome == "promoted" and aliases is not None and "champion" not in aliases:
        return "replaced"
    if _waits(facts):
        return "approved" if "champion" in (aliases or ()) else "waits"
    return facts.outcome


def _passed(t: Words, facts: RunFacts) -> str:
    """Who approved a promoted model, what is not shown, and how much warns or was waived."""
    n_open = _n_open(facts)
    n_warned, n_waived = len(warnings(t, facts)) - n_open, len(waived(t, facts))
    kind = "_noted" if n_waived else "_warned" if n_warned else ""
    said = t(f"why.promoted{kind}", warned=t.count(n_warned), waived=t.count(n_waived))
    if not n_open:
        return said
    # "it passed every check" would be untrue; a champion that is judged again needs no approval
    approvals = [one for one in facts.checks if one.id == "approved_by_a_person"]
    actors = [one.names.get("by", (UNKNOWN,))[0] for one in approvals]
    by = [t("why.approved", by=actor.partition(":")[2] or actor) for actor in actors]
    left_open = _not_shown(t, [one for one in facts.checks if one.status == "insufficient"])
    return " ".join([*by, left_open, *([said] if kind else [])])


def _n_open(facts: RunFacts) -> int:
    """How many checks had too little to tell."""
    return sum(one.status == "insufficient" for one in facts.checks)


def _next(t: Words, facts: RunFacts, stopping: Sequence[Verdict]) -> str:
    if facts.outcome == "blocked" and stopping:
        if special := next_step(stopping[0], t.language):
            return special
        if any(one.firm for one in stopping):
            return t("next.blocked_firm")
        return t("next.blocked_suite" if stopping[0].suite else "next.blocked")
    if _waits(facts):
        return t("next.waits")
    failed = _first(facts, "failed")
    if facts.outcome == "failed" and failed is not None:
        return t.first(f"next.error.{failed.error}", "next.failed")
    return t(f"next.{'kept' if _ending(facts) == 'replaced' else facts.outcome}")


def _of_hundred(t: Words, one: Interval) -> dict[str, str]:
    """An estimate and its complement, of 100 people."""
    shares = {"value": one.value, "low": one.low, "high": one.high}
    rest = {"missed": one.value, "missed_low": one.high, "missed_high": one.low}
    of_hundred = {name: None if x is None else 100 * x for name, x in shares.items()}
    of_hundred |= {name: None if x is None else 100 - 100 * x for name, x in rest.items()}
    return {name: t.number(n, 0) for name, n in of_hundred.items()}
