"""A verdict in words: the only module that puts one into words.

``gates.json`` has the texts of a gate under ``gate.<id>``: ``title``, ``expected``, ``rationale``,
``owner`` and ``next``, and one sentence for each status, such as ``gate.<id>.block``.  A sentence
may name ``{observed}``, ``{low}``, ``{high}``, ``{threshold}``, ``{n}``, and every key of
``numbers`` and ``names``; ``_of_100`` and ``_percent`` after a number write it as a rate.  A more
specific sentence is taken first:

* ``.<state>``, where the verdict names a ``state``;
* ``.unmeasured``, where nothing was observed;
* ``.suppressed``, where the plain sentence names a rate, share or statistic that is suppressed.

``gate.<id>.with.<name>`` is added where the verdict has a number or name that is not zero or empty,
``gate.<id>.without.<name>`` where the number is zero.  Expectations of the suites share their
sentences (``verdict.failed``, …).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from expectations.words import UNKNOWN, Language, Words, texts, words_of
from expectations.words.suites import Description, describe, find, title_of_reason
from spira_tasks.contract.verdict import COUNTS, MIN_CELL, Number, Unit, Verdict, suppress

# Name to kind of category.
NAMES = {
    "condition": "condition",
    "missing": "condition",
    "gates": "step",
    "task": "task",
    "who": "who",
    "by": "by",
    "unclear_by": "by",
    "change": "change",
    "heard_in": "heard",
}
PERCENT = "\u00a0%"
CHECKS = ("waived", "insufficient")  # names that hold ids of checks


def gates() -> list[str]:
    """Ids of the statistical gates that have words, sorted."""
    return sorted(
        key.removeprefix("gate.").removesuffix(".expected")
        for key in texts()
        if key.startswith("gate.") and key.endswith(".expected")
    )


def describe_gate(gate: str, language: Language) -> Description:
    """What a gate looks at, what it expects, why, and who answers for it."""
    words = words_of(language)
    parts = ("title", "expected", "rationale", "owner")
    return Description(*(words(f"gate.{gate}.{part}") for part in parts))


def description(verdict: Verdict, language: Language) -> Description | None:
    """What a verdict is about; None for a check that the platform no longer has."""
    if f"gate.{verdict.id}.expected" in texts():
        return describe_gate(verdict.id, language)
    found = find(verdict.id, verdict.suite, verdict.kind, verdict.columns, verdict.aspect)
    return describe(found[1], found[0], language, verdict.threshold) if found else None


def title(verdict: Verdict, language: Language) -> str:
    """What a verdict is about, short; the bare id where there are no words for it."""
    found = description(verdict, language)
    return found.title if found else verdict.id


def rationale(verdict: Verdict, language: Language) -> str:
    found = description(verdict, language)
    return found.rationale if found else ""


def owner(verdict: Verdict, language: Language) -> str:
    """Who answers for the threshold."""
    found = description(verdict, language)
    return found.owner if found else ""


def next_step(verdict: Verdict, language: Language) -> str:
    """What to do about a verdict that ends a run; empty where there is nothing special to do."""
    return words_of(language).first(f"gate.{verdict.id}.next")


def sentence(verdict: Verdict, language: Language) -> str:
    """What a check found, in whole sentences, without any small count."""
    verdict, words = suppress(verdict), words_of(language)
    if gate := _gate(verdict, words):
        return gate
    described = description(verdict, language)
    if described is None:
        about = words("verdict.unknown", id=verdict.id, mark=mark(verdict, language))
    else:
        kind = {"pass": "passed", "insufficient": "insufficient"}.get(verdict.status, "failed")
        parts = {"expected": described.sentence, "rationale": described.rationale}
        about = words(f"verdict.{kind}", **parts)
    return " ".join([about, *_numbers(verdict, words)])


def found(verdict: Verdict, language: Language) -> str:
    """What a check found, beside its description; empty where the numbers say it all."""
    verdict, words = suppress(verdict), words_of(language)
    return _gate(verdict, words) or " ".join(_numbers(verdict, words))


def mark(verdict: Verdict, language: Language) -> str:
    """The status in a word or two."""
    return words_of(language)(f"mark.{'waived' if verdict.waiver else verdict.status}")


def waived_by(verdict: Verdict, language: Language) -> str:
    """Who waived a check, when, until when and why; empty where no person did."""
    if verdict.waiver is None:
        return ""
    words, waiver = words_of(language), verdict.waiver
    until = words.day(waiver.until) if waiver.until else words("waived.no_end")
    by, at = waiver.by, words.day(waiver.at)
    return words("verdict.waived_by", by=by, at=at, until=until, why=waiver.why)


def observed(verdict: Verdict, language: Language) -> str:
    """The observed number, as tables show it."""
    return _shown(suppress(verdict).observed, words_of(language))


def estimate(verdict: Verdict, language: Language) -> str:
    """The observed number with its interval, where it has one."""
    number, words = suppress(verdict).observed, words_of(language)
    shown = _shown(number, words)
    if number is None or number.value is None or number.low is None or number.high is None:
        return shown
    if number.unit not in {"share", "rate"}:
        return words.interval(number.value, number.low, number.high)
    low, high = (_shown(replace(number, value=end), words) for end in (number.low, number.high))
    return f"{shown} ({words.span(low.removesuffix(PERCENT), high)})"


def limit(verdict: Verdict, language: Language) -> str:
    """What the observed number was compared with, in its unit."""
    return _shown(_threshold(verdict), words_of(language))


def n(verdict: Verdict, language: Language) -> str:
    """How many people, rows, … the verdict rests on."""
    words = words_of(language)
    return UNKNOWN if verdict.n is None else words.count(suppress(verdict).n)


def reason(code: str, language: Language) -> str:
    """Why a recording is in quarantine, in words."""
    words = words_of(language)
    if code.startswith("expect_"):
        return words("reason.of_gate", what=title_of_reason(code, language))
    return words.name("reason", code)


def _gate(verdict: Verdict, words: Words) -> str:
    """The sentences of a gate for its status; empty where there are none."""
    facts = _facts(verdict, words)
    key = f"gate.{verdict.id}.{verdict.status}"
    keys = [f"{key}.{state}" for state in verdict.names.get("state", ())]
    keys += [f"{key}.unmeasured"] if verdict.observed is None else []
    numbers = [*verdict.numbers.values(), *([verdict.observed] if verdict.observed else [])]
    is_suppressed = any(number.value is None for number in numbers)
    keys += [key, f"{key}.suppressed"] if is_suppressed else [key]

    def fits(one: str) -> bool:
        return words.has(one) and words.names(one) <= set(facts)

    main = next(filter(fits, keys), None)
    if main is None:
        return ""
    zero = {name for name, one in verdict.numbers.items() if one.value == 0}
    given = {*verdict.numbers, *(name for name, some in verdict.names.items() if some)}
    more = [f"gate.{verdict.id}.with.{name}" for name in sorted(given - zero)]
    more += [f"gate.{verdict.id}.without.{name}" for name in sorted(zero)]
    return " ".join(words(one, **facts) for one in [main, *filter(fits, more)])


def _numbers(verdict: Verdict, words: Words) -> Iterator[str]:
    """What an expectation observed."""
    facts, number = _facts(verdict, words), verdict.observed
    if "n_unexpected" in verdict.numbers:
        yield words("verdict.rows", **facts)
    elif number is not None and number.value is None and number.unit not in COUNTS:
        yield words("verdict.found.suppressed")
    elif number is not None:
        part = ".task" if verdict.names.get("task") else ".limit"
        yield words(f"verdict.found{part if 'threshold' in facts else ''}", **facts)


def _facts(verdict: Verdict, words: Words) -> dict[str, str]:
    """What the texts may name; a suppressed rate, share or statistic is left out."""
    facts = {}
    numbers: dict[str, Number | None] = dict(verdict.numbers)
    numbers |= {"threshold": _threshold(verdict), "n": Number(verdict.n, verdict.n_unit)}
    if one := verdict.observed:
        numbers |= {"observed": one, "low": replace(one, value=one.low)}
        numbers |= {"high": replace(one, value=one.high)}
    for name, number in numbers.items():
        if number is None or (number.value is None and number.unit not in COUNTS):
            continue
        facts[name] = _shown(number, words, in_sentence=True)
        if number.value is not None:
            facts[f"{name}_of_100"] = words.number(100 * number.value, 0)
            facts[f"{name}_percent"] = words.percent(number.value)
    for name, some in verdict.names.items():
        facts[name] = ", ".join(_named(name, one, words) for one in some)
    if limits := verdict.names.get("limits"):
        facts["limits"] = "; ".join(_setting(one, verdict, words) for one in limits)
    return facts


def _named(name: str, value: str, words: Words) -> str:
    if name == "reasons":
        return reason(value, words.language)
    if name == "at":
        return words.day(value)
    if name == "sections":  # "<document>/<section>"
        document, _, section = value.partition("/")
        page = words.first(f"page.{document.replace('_', '-')}")
        return f"{page}: {words.first(f'{document}.{section}')}"
    if name in CHECKS:
        return title(Verdict(value, "warn"), words.language)
    return words.name(NAMES[name], value) if name in NAMES else value


def _setting(name: str, verdict: Verdict, words: Words) -> str:
    """One limit that was changed, with its standard where it is a number."""
    if name not in verdict.numbers:
        return words.first(f"limit.{name}") or name
    value, standard = (
        words.digits(verdict.numbers[one].value) for one in (name, f"{name}.standard")
    )
    return words("limit.set", name=name, value=value, standard=standard)


def _threshold(verdict: Verdict) -> Number | None:
    if verdict.threshold is None:
        return None
    unit: Unit = verdict.observed.unit if verdict.observed else "statistic"
    # a limit counts no people, so it is never suppressed
    return Number(verdict.threshold, "items" if unit in COUNTS else unit)


def _shown(number: Number | None, words: Words, *, in_sentence: bool = False) -> str:
    """A number as its unit asks for; a suppressed count as "fewer than 5" or "<5"."""
    if number is None or (number.value is None and number.unit not in COUNTS):
        return UNKNOWN
    if number.value is None:
        return words("few", n=MIN_CELL) if in_sentence else words.count(None)
    if number.unit in {"share", "rate"}:
        return words.percent(number.value, 1 if number.unit == "share" else 0)
    return words.digits(number.value)
