"""What people read, in Portuguese and in English: one catalogue of texts for the whole platform.

The JSON files beside this module hold each text under a key, both languages side by side, a file a
subject.  ``Words`` picks the text of a language, fills in its ``{names}``, and writes numbers,
shares, dates and durations as the language does (Babel).

This package needs the standard library, Babel and ``spira_tasks.contract`` only, so Airflow's image
ships it without the gates.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from string import Formatter
from typing import Literal

from spira_tasks.contract.place import COMMAND
from spira_tasks.contract.verdict import MIN_CELL

Language = Literal["pt", "en"]
LANGUAGES: tuple[Language, ...] = ("pt", "en")
LOCALES = {"pt": "pt_BR", "en": "en_GB"}
HERE = Path(__file__).parent
SUBJECTS = ("pages", "airflow", "documents", "gates", "expectations", "experiments")
UNKNOWN = "–"
Catalogue = Mapping[str, Mapping[str, str]]  # key to language to text


@cache
def texts() -> Catalogue:
    """Every text: key to language to text.

    Raises
    ------
    ValueError
        When two files have the same key.
    """
    found: dict[str, Mapping[str, str]] = {}
    for subject in SUBJECTS:
        more = json.loads((HERE / f"{subject}.json").read_text("utf-8"))
        if twice := set(found) & set(more):
            raise ValueError(f"{subject}.json repeats the keys {sorted(twice)}")
        found |= more
    return found


class Words:
    """The texts of one language; ``catalogue`` takes the place of the project's, for tests."""

    def __init__(self, language: Language, catalogue: Catalogue | None = None) -> None:
        self.language = language
        self._texts = texts() if catalogue is None else catalogue
        self._locale = LOCALES[language]

    def __call__(self, key: str, **values: object) -> str:
        """Return the text, its ``{names}`` filled in; ``{command}`` is that of this place.

        Raises
        ------
        KeyError
            When the catalogue lacks the text, or a value for one of its names.
        """
        return self._texts[key][self.language].format(**{"command": COMMAND} | values)

    def has(self, key: str) -> bool:
        return key in self._texts

    def names(self, key: str) -> set[str]:
        """The names that a text has to be given."""
        parts = Formatter().parse(self._texts[key][self.language])
        return {name for _, name, _, _ in parts if name} - {"command"}

    def first(self, *keys: str, **values: object) -> str:
        """Return the first of these texts that there is; empty where there is none."""
        return next((self(key, **values) for key in keys if self.has(key)), "")

    def name(self, kind: str, value: str) -> str:
        """Name a category: ``name("sex", "F")``; one without a text is shown as it is."""
        numbered = (f"{kind}.name",) if value.startswith("#") else ()
        return self.first(f"{kind}.{value}", f"category.{value}", *numbered, name=value) or value

    def count(self, n: int | None) -> str:
        """Show a count of people; None is one of 1 to 4."""
        return f"<{MIN_CELL}" if n is None else self.number(n, 0)

    def cell(self, n: int | None) -> str:
        """Show a cell of a table: a large count is suppressed too where a small one follows."""
        return self("hidden") if n is None else self.number(n, 0)

    def number(self, value: float | None, decimals: int) -> str:
        """Write a number with so many decimals."""
        return self._written(value, "#,##0." + "0" * decimals if decimals else "#,##0")

    def digits(self, value: float | None, n: int = 3) -> str:
        """Write a number with up to ``n`` digits that count, and a whole one in full."""
        if value is None:
            return UNKNOWN
        if value == int(value):
            return self.number(value, 0)
        if abs(value) < 1e-4:
            mantissa, exponent = f"{value:.1e}".split("e")
            return f"{self.number(float(mantissa), 1)}·10^{int(exponent)}".replace("^-", "^−")
        return self._written(float(f"{value:.{n}g}"), "#,##0." + "#" * 9)

    def percent(self, share: float | None, decimals: int = 0) -> str:
        """Write a share, 0 to 1, in percent."""
        from babel.numbers import format_percent

        if share is None:
            return UNKNOWN
        places = "." + "0" * decimals if decimals else ""
        shown: str = format_percent(share, f"#,##0{places}\u00a0%", locale=self._locale)
        return _signed(shown)

    def interval(self, value: float | None, low: float | None, high: float | None) -> str:
        """``0.64 (0.34–0.94)``, or ``−0.10 (−0.21 to 0.02)``."""
        if value is None:
            return self("hidden")
        if low is None or high is None:
            return self.number(value, 2)
        return f"{self.number(value, 2)} ({self.span(self.number(low, 2), self.number(high, 2))})"

    def span(self, low: str, high: str) -> str:
        """Two written numbers with one unit: a dash would read as another minus."""
        return f"{low} {self('list.to')} {high}" if low.startswith("−") else f"{low}–{high}"

    def duration(self, seconds: float) -> str:
        """``1 h 2 min``, ``1 min 15 s`` or ``0.3 s``."""
        minutes, rest = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        if hours:
            return f"{hours}\u00a0h {minutes}\u00a0min"
        if minutes:
            return f"{minutes}\u00a0min {rest}\u00a0s"
        return self.number(seconds, 1) + "\u00a0s"

    def instant(self, at: str) -> str:
        """``2026-11-21 17:00 UTC``."""
        return f"{datetime.fromisoformat(at):%Y-%m-%d %H:%M} UTC" if at else UNKNOWN

    def moment(self, at: str) -> str:
        """``28 Nov 2026, 23:24 UTC``."""
        from babel.dates import format_datetime

        shown = format_datetime(datetime.fromisoformat(at), "d MMM y, HH:mm", locale=self._locale)
        return f"{shown} UTC"

    def day(self, at: str) -> str:
        """Write the date in words: ``21 November 2026``."""
        from babel.dates import format_date

        return format_date(datetime.fromisoformat(at), "long", self._locale) if at else UNKNOWN

    def listed(self, parts: list[str]) -> str:
        """``a, b or c``."""
        *head, last = parts
        return f"{', '.join(head)} {self('list.or')} {last}" if head else last

    def _written(self, value: float | None, pattern: str) -> str:
        from babel.numbers import format_decimal

        if value is None:
            return UNKNOWN
        return _signed(format_decimal(value, pattern, self._locale))


def _signed(written: str) -> str:
    """A number with a true minus sign, and none before a zero."""
    return written.replace("-", "−" if any(digit in written for digit in "123456789") else "")


@cache
def words_of(language: Language) -> Words:
    """The words of the project's catalogue."""
    return Words(language)
