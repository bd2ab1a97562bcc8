"""The items of TRIPOD+AI, and where the pages and the documents answer each.

Collins et al., "TRIPOD+AI statement", BMJ 2024; 385: e078378.  The texts are short forms in our own
words.  Run as a program it prints ``docs/tripod_ai.md``.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from expectations.words import Language, Words
from spira_tasks.reports import documents

FILE = Path(__file__).with_suffix(".json")
HEAD = """\
# TRIPOD+AI

Where each item of the reporting guideline for prediction models (Collins et al., BMJ 2024; 385:
e078378) is answered: on a page of each run, or in a document. The same list, with links and with
what is still to be written, is at the end of the model card. `make document` writes this file from
`spira_tasks/reports/tripod.json`; a test follows every place.

| item | about | where |
|---|---|---|
"""


@dataclass(frozen=True)
class Item:
    """``where``: ``"<page>#<section>"`` of the site, or the path of a document."""

    item: str
    en: str
    pt: str
    where: tuple[str, ...]

    def about(self, language: Language) -> str:
        return self.pt if language == "pt" else self.en


@cache
def items() -> tuple[Item, ...]:
    found = json.loads(FILE.read_text("utf-8"))
    return tuple(Item(one["item"], one["en"], one["pt"], tuple(one["where"])) for one in found)


def unwritten(place: str) -> bool:
    """Whether a place is a section that people have to write and nobody wrote."""
    page, _, section = place.partition("#")
    return f"{page.replace('-', '_')}/{section}" in documents.missing()


def markdown() -> str:
    """The list as a document; ends with a line break."""
    t = Words("en")
    lines = []
    for one in items():
        places = [
            f"`{place}`" if place.startswith("docs/") else f"page {place.replace('#', ', ')}"
            for place in one.where
        ]
        lines.append(f"| {one.item} | {one.en} | {'; '.join(places) or t('tripod.nowhere')} |")
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(markdown())
