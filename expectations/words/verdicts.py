"""What a verdict says, in words; the only module that puts a verdict into words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from expectations.words import Language, texts, words_of
from expectations.words.suites import Description, describe, find


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


def description(verdict: Mapping[str, Any], language: Language) -> Description | None:
    """What a verdict is about; None for an expectation or a gate that is no more."""
    if verdict["name"] in gates():
        return describe_gate(str(verdict["name"]), language)
    kind, _, rest = str(verdict["name"]).removesuffix(")").partition("(")
    column, _, aspect = rest.partition(", ")
    found = find(verdict["name"], verdict.get("suite", ""), kind, (column,), aspect)
    if found is None:
        return None
    return describe(found[1], found[0], language, verdict.get("threshold"))
