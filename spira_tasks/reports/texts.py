"""Words and numbers of the pages, in Portuguese and in English.

``texts.json`` holds every text in both languages side by side.  Categories that the platform knows
have a text too (``sex.F``, ``reason.truncated``); what has none is shown as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

LANGUAGES = ("pt", "en")
Catalogue = Mapping[str, Mapping[str, str]]  # key to language to text
HIDDEN = "<5"  # a count too small to be told
UNKNOWN = "–"


@cache
def catalogue() -> Catalogue:
    content: Catalogue = json.loads(Path(__file__).with_name("texts.json").read_text("utf-8"))
    return content


class Texts:
    """The texts of one language.

    Parameters
    ----------
    language : {"pt", "en"}
    texts : mapping, optional
        Another catalogue than the project's; for tests.
    """

    def __init__(self, language: str, texts: Catalogue | None = None) -> None:
        self.language = language
        self._texts = catalogue() if texts is None else texts
        self._marks = (".", ",") if language == "pt" else (",", ".")  # thousands, decimals

    def __call__(self, key: str, **values: object) -> str:
        """Return the text, its ``{names}`` filled in.

        Raises
        ------
        KeyError
            When the catalogue lacks the text, or a value for one of its names.
        """
        return self._texts[key][self.language].format(**values)

    def has(self, key: str) -> bool:
        return key in self._texts

    def name(self, kind: str, value: str) -> str:
        """Name a category: ``name("sex", "F")``."""
        for key in (f"{kind}.{value}", f"category.{value}"):
            if self.has(key):
                return self(key)
        if value.startswith("#") and self.has(f"{kind}.name"):
            return self(f"{kind}.name", name=value)
        return value

    def count(self, n: int | None) -> str:
        return HIDDEN if n is None else self.number(n, 0)

    def cell(self, n: int | None) -> str:
        """Show a cell of a table.  A large one is hidden too where it would tell of a small one."""
        return self("hidden") if n is None else self.number(n, 0)

    def number(self, value: float | None, decimals: int) -> str:
        if value is None:
            return UNKNOWN
        thousands, point = self._marks
        text = f"{value:,.{decimals}f}".replace("-", "−")
        return text.replace(",", "\0").replace(".", point).replace("\0", thousands)

    def statistic(self, value: float | None) -> str:
        """Show a number of any size: whole ones whole, others with three digits that count."""
        if value is None:
            return UNKNOWN
        if value == int(value):
            return self.number(value, 0)
        shown = Decimal(f"{value:.3g}")
        if abs(shown) < Decimal("1e-4"):
            mantissa, exponent = f"{value:.1e}".split("e")
            return f"{self.number(float(mantissa), 1)}·10^{int(exponent)}".replace("^-", "^−")
        return self.number(float(shown), max(0, -int(shown.normalize().as_tuple().exponent)))

    def percent(self, share: float | None, decimals: int = 0) -> str:
        return UNKNOWN if share is None else self.number(100 * share, decimals) + "\u00a0%"

    def interval(self, value: float | None, low: float | None, high: float | None) -> str:
        """``0.64 (0.34–0.94)``, or ``0.80 to 1.00`` of a rate that is told coarsely."""
        if value is None and low is not None and high is not None:  # a rate that is told coarsely
            return self("rate.coarse", low=self.number(low, 2), high=self.number(high, 2))
        if value is None:
            return self("hidden")
        if low is None or high is None:
            return self.number(value, 2)
        return f"{self.number(value, 2)} ({self.number(low, 2)}–{self.number(high, 2)})"

    def duration(self, seconds: float) -> str:
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

    def day(self, at: str) -> str:
        """Write the date in words."""
        if not at:
            return UNKNOWN
        moment = datetime.fromisoformat(at)
        return self("day", day=moment.day, month=self(f"month.{moment.month}"), year=moment.year)

    def pick(self, text: Any) -> str:
        """Return a ``facts.Text`` in this language; a plain string is for every reader."""
        return text if isinstance(text, str) else str(getattr(text, self.language))
