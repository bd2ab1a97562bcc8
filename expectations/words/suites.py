"""Words for the expectations of the suites: what is expected, why, and who answers for it.

The texts are in ``expectations.json``: a title and a sentence for each kind of expectation, and
names of columns, units and rationales.  The numbers come from the committed catalogue.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from expectations.words import Language, Words, catalogue, words_of
from expectations.words.catalogue import Entry

# Kinds whose bounds are values of the column; and columns that hold a share of one.
IN_UNITS = {"expect_column_values_to_be_between", "expect_column_mean_to_be_between"}
SHARES = {"clipping_fraction", "dc_offset", "speech_fraction", "fio2", "label", "peak"}
# Kinds that look at each task on its own, where they are not about one.
WITHIN_TASKS = {
    *("expect_association_with_label_to_be_weak", "expect_no_level_of_one_class"),
    *("expect_classes_to_be_alike", "expect_both_classes_in_every_level"),
}
# Parameters that sentences name: numbers with their units, and names of units.
NUMBERS = {"min_cosine": "share", "max_minutes": "", "max_years": ""}
UNITS = ("unit", "slip")


@dataclass(frozen=True)
class Description:
    """What is expected, why, and who answers for it; whole sentences but for title and owner."""

    title: str
    sentence: str
    rationale: str
    owner: str


def find(
    name: str, suite: str = "", kind: str = "", columns: tuple[str, ...] = (), aspect: str = ""
) -> tuple[str, Entry] | None:
    """Suite and entry of an expectation; in another suite where this one does not have it.

    Some expectations are made for whatever columns there are (a site's own, what drifts).  One that
    the catalogue lacks is described as its kind is, where the kind means the same for every column.
    """
    known = catalogue.committed()
    found = [(of, entry) for (of, key), entry in known.items() if key == name]
    if found:
        return next((one for one in found if one[0] == suite), found[0])
    alike = [
        (of, entry)
        for (of, _), entry in known.items()
        if (entry.type, entry.aspect, len(entry.columns)) == (kind, aspect, len(columns))
        and suite in {"", of}
    ]
    if len(columns) != 1 or len({entry.rationale for _, entry in alike}) != 1:
        return None
    of, entry = alike[0]
    of_column = replace(entry, name=name, columns=columns)
    return (of, of_column) if _named(columns[0], words_of("en")) else None


def title_of_reason(code: str, language: Language) -> str:
    """What an expectation looks at, by the code under which it put rows into quarantine."""
    for (suite, _), entry in catalogue.committed().items():
        of_entry = f"{entry.type}:{'+'.join(entry.columns)}"
        if of_entry == code and entry.action == "quarantine":
            return describe(entry, suite, language).title
    return code


def describe(
    entry: Entry, suite: str, language: Language, allowed: float | None = None
) -> Description:
    """Describe an expectation of the catalogue.

    ``allowed`` is the share of rows that may differ, where the expectation is about rows; by
    default that of the entry.

    Raises
    ------
    KeyError
        When a text is missing; the argument is its key.
    """
    words = words_of(language)
    facts = _facts(entry, suite, words, allowed)
    short = f"{entry.type}({', '.join(entry.columns)})"
    key = next(
        (one for one in (entry.name, short) if words.has(f"expectation.{one}.title")), entry.type
    )
    aspect = _aspect(entry, words)
    heading = words(f"expectation.{key}.title", **facts) + (f": {aspect}" if aspect else "")
    rationale = words(f"rationale.{entry.rationale}")
    return Description(
        title=_capital(heading),
        sentence=_capital(words(f"expectation.{key}.sentence", **facts)),
        rationale=rationale if rationale.endswith(".") else f"{rationale}.",
        owner=words(f"owner.{entry.owner}"),
    )


def limit(entry: Entry, language: Language) -> str:
    """The threshold of an expectation, short: bounds, and the share of rows that must keep them."""
    facts = _facts(entry, "", words_of(language), None)
    share = entry.parameters.get("mostly", 1)
    parts = [facts["bounds"]] if facts["bounds"] else []
    parts += [f"≥ {facts['share']}"] if share < 1 else []
    return "; ".join(parts)


def _facts(entry: Entry, suite: str, words: Words, allowed: float | None) -> dict[str, str]:
    """What the texts may name."""
    given = entry.parameters
    share = given.get("mostly", 1) if allowed is None else 1 - allowed
    rows = f"rows.{suite}" if words.has(f"rows.{suite}.many") else "rows"
    group = _group(given.get("row_condition") or _of_task(given.get("task")), words)
    shown = _quantity(share, "share", words)
    names = [_named(column, words) or words(f"field.{column}") for column in entry.columns]
    unit = ""
    if entry.type in IN_UNITS:
        (column,) = entry.columns
        unit = "share" if column in SHARES else words.first(f"field_unit.{column}")
    values = [str(value) for value in given.get("value_set") or ()]
    regex = given.get("regex")
    facts = {
        key: _quantity(given[key], unit, words) for key, unit in NUMBERS.items() if key in given
    }
    facts |= {key: words(f"written_in.{given[key]}") for key in UNITS if key in given}
    return facts | {
        "scope": words(f"{rows}.{'all' if share >= 1 else 'share'}", group=group, share=shown),
        "rows": words(f"{rows}.many", group=group),
        "no_two": words(f"{rows}.no_two"),
        "share": shown,
        "group": group,
        "each_task": words("within_each_task") if entry.type in WITHIN_TASKS and not group else "",
        "column": names[0] if names else "",
        "bare": _bare(names[0]) if names else "",
        "other": names[1] if len(names) > 1 else "",
        "bare_other": _bare(names[1]) if len(names) > 1 else "",
        "columns": ", ".join(_bare(name) for name in names),
        "bounds": _bounds(given, unit, words),
        "max_share": _quantity(given.get("max_value"), "share", words),
        "first_day": str(given.get("min_value"))[:10],
        "values": words(
            "values.one" if len(values) == 1 else "values.some", values=words.listed(values)
        )
        if values
        else "",
        "form": words(f"form.{regex}") if regex else "",
        "compared": words(f"compared.{'not_below' if given.get('or_equal') else 'above'}"),
    }


def _aspect(entry: Entry, words: Words) -> str:
    """What tells apart expectations of one kind on one column, besides the group of rows."""
    last_word = entry.aspect.rpartition(" ")[2]
    if not entry.aspect:
        return ""
    found = words.first(f"aspect.{entry.aspect}", f"aspect.{last_word}")
    if not found and not entry.parameters.get("row_condition"):
        raise KeyError(f"aspect.{entry.aspect}")
    return found


def _of_task(task: str | None) -> Mapping[str, Any] | None:
    """A condition on the task, for an expectation that takes it as a parameter."""
    if not task:
        return None
    return {"type": "comparison", "column": {"name": "task"}, "operator": "IN", "parameter": [task]}


def _group(condition: Mapping[str, Any] | None, words: Words) -> str:
    """The rows that an expectation is about, as words that follow "recordings"."""
    if condition is None:
        return ""
    if condition["type"] == "and":
        return "".join(_group(one, words) for one in condition["conditions"])
    column, value = condition["column"]["name"], condition.get("parameter")
    if isinstance(value, list):
        names = [words.first(f"field_value.{one}") or str(one) for one in value]
        return " " + words(f"rows_of.{column}", names=words.listed(names))
    return " " + words(f"rows_of.{column} {condition['operator']} {json.dumps(value)}")


def _bounds(given: Mapping[str, Any], unit: str, words: Words) -> str:
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
    return words(f"bounds.{kind}", low=low_text, high=high_text)


def _quantity(value: Any, unit: str, words: Words) -> str:
    """A number as it is written in the language, with its unit."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if unit == "share":
        value, unit = 100 * value, "%"
    return f"{words.digits(float(f'{value:.4g}'), 4)} {unit}".strip()


def _named(column: str, words: Words) -> str:
    """A column in words, with its article; empty where there are none."""
    if column.startswith("x_"):
        return words("field.own", name=column)
    return words.first(f"field.{column}")


def _bare(name: str) -> str:
    """A noun without its article, which is its first word."""
    return name.partition(" ")[2]


def _capital(text: str) -> str:
    """The text as a sentence begins; ``pH`` and ``mmHg`` stay as they are."""
    return text if re.match(r"\w*[A-Z]", text) else text[:1].upper() + text[1:]
