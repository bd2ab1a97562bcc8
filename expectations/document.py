"""The suites as a page of Markdown for people, in Portuguese or in English."""

from __future__ import annotations

from expectations import plain
from expectations.catalogue import N_ROWS, Entry, Suite
from expectations.plain import Language


def page(suites: list[Suite], language: Language) -> str:
    """One table a suite and one of the statistical gates; ends with a line break.

    Raises
    ------
    KeyError
        When a word is not translated; the argument says which.
    """
    words = plain.load(language)
    texts = words["document"]
    parts = [
        f"# {texts['title']}",
        texts["made_by"].format(language=language),
        texts["intro"].format(n=plain.number(N_ROWS, words)),
    ]
    for suite in suites:
        rows = [row(entry, suite.name, language) for entry in suite.expectations]
        version = f", {texts['version']} {suite.version}" if suite.version else ""
        about = words["suites"].get(suite.name, suite.name)
        parts += [f"## {about} (`{suite.name}`{version})", _table(texts["columns"], rows)]
    gates = [plain.describe(name, language) for name in sorted(words["gates"])]
    rows = [[gate.sentence, gate.rationale, gate.owner] for gate in gates]
    parts += [f"## {texts['gates']}", texts["about_gates"], _table(texts["gate_columns"], rows)]
    return "\n\n".join(parts) + "\n"


def row(entry: Entry, suite: str, language: Language) -> list[str]:
    """What is expected, severity, what follows, limit, why, and owner."""
    words = plain.load(language)
    told = plain.tell(entry, suite, language)
    severity, action = words["severities"][entry.severity], words["actions"][entry.action]
    limit = plain.limit(entry, language)
    return [told.sentence, severity, action, limit, told.rationale, told.owner]


def _table(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )
