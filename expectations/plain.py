"""What expectations and gates say, in plain words, in Portuguese and in English.

The words are in ``plain_en.json`` and ``plain_pt.json``: a template for each kind of expectation,
names of columns, translations of reasons and owners, and a text for each statistical gate.  The
numbers come from the committed catalogue and from the verdict.  Only the standard library is
needed, so pages of reports can be made without Great Expectations.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, Literal

from expectations import catalogue
from expectations.catalogue import Entry

Language = Literal["pt", "en"]
LANGUAGES: tuple[Language, ...] = ("en", "pt")

# Kinds whose bounds are values of the column; and columns that hold a share of one.
IN_UNITS = {"expect_column_values_to_be_between", "expect_column_mean_to_be_between"}
SHARES = {"clipping_fraction", "dc_offset", "speech_fraction", "fio2", "label", "peak"}
# Kinds that look at each task on its own, where they are not about one.
WITHIN_TASKS = {
    *("expect_association_with_label_to_be_weak", "expect_no_level_of_one_class"),
    *("expect_classes_to_be_alike", "expect_both_classes_in_every_level"),
}
# Parameters that sentences name: numbers with their units, and names of units.
NUMBERS = {"min_cosine": "share", "max_minutes": ""}
UNITS = ("unit", "slip")


@dataclass(frozen=True)
class Plain:
    """What is expected, why, and who answers for it; whole sentences but for title and owner."""

    title: str
    sentence: str
    rationale: str
    owner: str


def describe(name: str, language: Language, verdict: Mapping[str, Any] | None = None) -> Plain:
    """Tell an expectation or a gate in plain words.

    Parameters
    ----------
    name : str
        As verdicts have it.
    language : {"pt", "en"}
    verdict : mapping, optional
        The verdict as a run stores it: its ``suite`` tells namesakes apart, its ``threshold`` is
        the one of that run's table.  Without it, the thresholds are those of the catalogue.

    Returns
    -------
    Plain
        For a name that the platform no longer has (an old run), the name, and as the sentence the
        verdict's own reason.
    """
    verdict = verdict or {}
    words = load(language)
    if name in words["gates"]:
        return _gate(words["gates"][name], verdict, words)
    found = _find(name, str(verdict.get("suite", "")))
    if found is None or not all(_named(column, words) for column in found[1].columns):
        return Plain(name, str(verdict.get("reason", "")), "", "")
    return tell(found[1], found[0], language, verdict.get("threshold"))


def tell(entry: Entry, suite: str, language: Language, allowed: float | None = None) -> Plain:
    """Tell an expectation of the catalogue.

    Parameters
    ----------
    entry : Entry
    suite : str
    language : {"pt", "en"}
    allowed : float, optional
        The share of rows that was allowed to be otherwise, where the expectation is about rows;
        by default that of the entry.

    Raises
    ------
    KeyError
        When a word is not translated; the argument says which.
    """
    words = load(language)
    facts = _facts(entry, suite, words, allowed)
    short = f"{entry.type}({', '.join(entry.columns)})"
    templates = words["expectations"]
    key = next((key for key in (entry.name, short, entry.type) if key in templates), None)
    if key is None:
        raise KeyError(f"expectations: {entry.name}, or {entry.type}")
    title, sentence = templates[key]
    aspect = _aspect(entry, words)
    heading = title.format_map(facts) + (f": {aspect}" if aspect else "")
    return Plain(
        title=_capital(heading),
        sentence=_capital(sentence.format_map(facts)),
        rationale=_rationale(entry.rationale, words),
        owner=_look_up(words, "owners", entry.owner),
    )


def limit(entry: Entry, language: Language) -> str:
    """The threshold of an expectation, short: bounds, and the share of rows that must keep them."""
    facts = _facts(entry, "", load(language), None)
    share = entry.parameters.get("mostly", 1)
    parts = [facts["bounds"]] if facts["bounds"] else []
    parts += [f"≥ {facts['share']}"] if share < 1 else []
    return "; ".join(parts)


def untold() -> list[str]:
    """What the committed catalogue says and the words do not, in either language."""
    lacking = []
    for language in LANGUAGES:
        for (suite, name), entry in catalogue.committed().items():
            try:
                tell(entry, suite, language)
            except KeyError as error:
                lacking.append(f"plain_{language}.json lacks {error.args[0]} ({suite}: {name})")
    return lacking


@cache
def load(language: Language) -> dict[str, Any]:
    """The words of a language."""
    file = Path(__file__).with_name(f"plain_{language}.json")
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def _find(name: str, suite: str) -> tuple[str, Entry] | None:
    """Suite and entry of a name; in another suite where this one does not have it.

    Some expectations are made for whatever columns there are (a site's own, what drifts).  One that
    the catalogue lacks is told as its kind is, where that says the same of every column.
    """
    known = catalogue.committed()
    found = [(of, entry) for (of, key), entry in known.items() if key == name]
    if found:
        return next((one for one in found if one[0] == suite), found[0])
    kind, _, rest = name.removesuffix(")").partition("(")
    column, _, aspect = rest.partition(", ")
    alike = [
        (of, entry)
        for (of, _), entry in known.items()
        if (entry.type, entry.aspect, len(entry.columns)) == (kind, aspect, 1) and suite in {"", of}
    ]
    if len({entry.rationale for _, entry in alike}) != 1:
        return None
    of, entry = alike[0]
    return of, replace(entry, name=name, columns=(column,))


def _gate(texts: Mapping[str, str], verdict: Mapping[str, Any], words: Mapping[str, Any]) -> Plain:
    sentence, threshold = texts["sentence"], verdict.get("threshold")
    if threshold is not None and "unit" in texts:
        shown = _quantity(threshold, texts["unit"], words)
        sentence = f"{sentence[:-1]} ({words['limit']}: {shown})."
    return Plain(texts["title"], sentence, texts["rationale"], words["owners"][texts["owner"]])


def _facts(
    entry: Entry, suite: str, words: Mapping[str, Any], allowed: float | None
) -> dict[str, str]:
    """What the templates may name."""
    given = entry.parameters
    share = given.get("mostly", 1) if allowed is None else 1 - allowed
    rows = words["rows"].get(suite, words["rows"][""])
    group = _group(given.get("row_condition") or _of_task(given.get("task")), words)
    shown = _quantity(share, "share", words)
    names = [
        _named(column, words) or _look_up(words, "columns", column) for column in entry.columns
    ]
    unit = ""
    if entry.type in IN_UNITS:
        (column,) = entry.columns
        unit = "share" if column in SHARES else words["units"].get(column, "")
    values = [str(value) for value in given.get("value_set") or ()]
    regex = given.get("regex")
    told = {
        key: _quantity(given[key], unit, words) for key, unit in NUMBERS.items() if key in given
    }
    told |= {key: _look_up(words, "told_units", given[key]) for key in UNITS if key in given}
    return told | {
        "scope": (rows["all"] if share >= 1 else rows["share"]).format(group=group, share=shown),
        "rows": rows["many"].format(group=group),
        "no_two": rows["no_two"],
        "share": shown,
        "group": group,
        "each_task": words["each_task"] if entry.type in WITHIN_TASKS and not group else "",
        "column": names[0] if names else "",
        "bare": _bare(names[0]) if names else "",
        "other": names[1] if len(names) > 1 else "",
        "bare_other": _bare(names[1]) if len(names) > 1 else "",
        "columns": ", ".join(_bare(name) for name in names),
        "bounds": _bounds(given, unit, words),
        "max_share": _quantity(given.get("max_value"), "share", words),
        "first_day": str(given.get("min_value"))[:10],
        "values": words["one_value" if len(values) == 1 else "some_values"].format(
            _listed(values, words)
        ),
        "form": _look_up(words, "forms", regex) if regex else "",
        "compared": words["not_below" if given.get("or_equal") else "above"],
    }


def _aspect(entry: Entry, words: Mapping[str, Any]) -> str:
    """What tells apart expectations of one kind on one column, besides the group of rows."""
    aspects: Mapping[str, str] = words["aspects"]
    last_word = entry.aspect.rpartition(" ")[2]
    found = aspects.get(entry.aspect, aspects.get(last_word, ""))
    if entry.aspect and not found and not entry.parameters.get("row_condition"):
        raise KeyError(f"aspects: {entry.aspect}")
    return found


def _of_task(task: str | None) -> Mapping[str, Any] | None:
    """A condition on the task, for an expectation that takes it as a parameter."""
    if not task:
        return None
    return {"type": "comparison", "column": {"name": "task"}, "operator": "IN", "parameter": [task]}


def _group(condition: Mapping[str, Any] | None, words: Mapping[str, Any]) -> str:
    """The rows that an expectation is about, as words that follow "recordings"."""
    if condition is None:
        return ""
    if condition["type"] == "and":
        return "".join(_group(one, words) for one in condition["conditions"])
    column, value = condition["column"]["name"], condition.get("parameter")
    if isinstance(value, list):
        listed = _listed([words["values"].get(one, str(one)) for one in value], words)
        return " " + str(_look_up(words, "groups", column)).format(listed)
    told = f"{column} {condition['operator']} {json.dumps(value)}"
    return " " + str(_look_up(words, "groups", told))


def _listed(parts: list[str], words: Mapping[str, Any]) -> str:
    """``a, b or c``."""
    head = ", ".join(parts[:-1])
    return f"{head} {words['or']} {parts[-1]}" if head else "".join(parts)


def _bounds(given: Mapping[str, Any], unit: str, words: Mapping[str, Any]) -> str:
    low, high = given.get("min_value"), given.get("max_value")
    if low is None and high is None:
        return ""
    kind = "at_most" if low is None else "at_least" if high is None else "between"
    if low == high:
        kind = "exactly"
    elif kind == "at_least" and given.get("strict_min"):
        kind = "more_than"
    low_text = "" if low is None else _quantity(low, unit, words)
    high_text = "" if high is None else _quantity(high, unit, words)
    if kind == "between" and low_text.partition(" ")[2] == high_text.partition(" ")[2]:
        low_text = low_text.partition(" ")[0]  # the unit once
    template: str = words["bounds"][kind]
    return template.format(low_text, high_text)


def _quantity(value: Any, unit: str, words: Mapping[str, Any]) -> str:
    """A number as it is written in the language, with its unit."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if unit == "share":
        value, unit = 100 * value, "%"
    return f"{number(value, words)} {unit}".strip()


def number(value: float, words: Mapping[str, Any]) -> str:
    """Four digits that count, with the language's marks."""
    text = format(Decimal(f"{value:.4g}"), ",f")
    return text.translate(str.maketrans(",.", ".,")) if words["decimal"] == "," else text


def _rationale(text: str, words: Mapping[str, Any]) -> str:
    """A whole sentence; in English, where nothing better is written, the one of the code."""
    translated = words["rationales"].get(text)
    if translated is None and words["language"] != "en":
        raise KeyError(f"rationales: {text}")
    sentence = _capital(translated or text)
    return sentence if sentence.endswith(".") else f"{sentence}."


def _look_up(words: Mapping[str, Any], part: str, key: str) -> str:
    try:
        return str(words[part][key])
    except KeyError:
        raise KeyError(f"{part}: {key}") from None


def _named(column: str, words: Mapping[str, Any]) -> str:
    """A column in words, with its article; empty where there are none."""
    if column.startswith("x_"):
        return str(words["own_column"]).format(column)
    return str(words["columns"].get(column, ""))


def _bare(name: str) -> str:
    """A noun without its article, which is its first word."""
    return name.partition(" ")[2]


def _capital(text: str) -> str:
    """The text as a sentence begins; ``pH`` and ``mmHg`` stay as they are."""
    return text if re.match(r"\w*[A-Z]", text) else text[:1].upper() + text[1:]
