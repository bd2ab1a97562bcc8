"""The suites as a page of Markdown for people, in Portuguese or in English."""

from __future__ import annotations

from expectations.words import Language, verdicts, words_of
from expectations.words.catalogue import N_ROWS, Entry, Suite
from expectations.words.suites import describe, limit

COLUMNS = ("expected", "severity", "action", "limit", "rationale", "owner")


def page(suites: list[Suite], language: Language) -> str:
    """One table a suite and one of the statistical gates; ends with a line break.

    Raises
    ------
    KeyError
        When a text is missing; the argument is its key.
    """
    words = words_of(language)
    parts = [
        f"# {words('suites_page.title')}",
        words("suites_page.made_by", language=language),
        words("suites_page.intro", n=words.number(N_ROWS, 0)),
    ]
    for suite in suites:
        rows = [row(entry, suite.name, language) for entry in suite.expectations]
        version = f", {words('suites_page.version')} {suite.version}" if suite.version else ""
        about = words.first(f"suite_about.{suite.name}") or suite.name
        parts += [f"## {about} (`{suite.name}`{version})", _table(columns(language), rows)]
    gates = [verdicts.describe_gate(gate, language) for gate in verdicts.gates()]
    rows = [[gate.sentence, gate.rationale, gate.owner] for gate in gates]
    header = columns(language, ("expected", "rationale", "owner"))
    parts += [f"## {words('suites_page.gates')}", words("suites_page.about_gates")]
    return "\n\n".join([*parts, _table(header, rows)]) + "\n"


def columns(language: Language, names: tuple[str, ...] = COLUMNS) -> list[str]:
    return [words_of(language)(f"suites_page.column.{name}") for name in names]


def row(entry: Entry, suite: str, language: Language) -> list[str]:
    """What is expected, severity, what follows, limit, why, and owner."""
    words = words_of(language)
    one = describe(entry, suite, language)
    severity, action = words(f"severity.{entry.severity}"), words(f"action.{entry.action}")
    return [one.sentence, severity, action, limit(entry, language), one.rationale, one.owner]


def _table(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )
