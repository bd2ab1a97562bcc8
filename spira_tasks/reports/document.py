"""Documents in two languages: what the datasheet and the model card have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from spira_tasks.contract.verdict import MIN_CELL
from spira_tasks.reports.facts import Count, Counts, RunFacts


@dataclass(frozen=True)
class Text:
    """The same in Portuguese and in English."""

    pt: str
    en: str


@dataclass(frozen=True)
class Paragraph:
    text: Text
    by_hand: bool = False  # whether a person wrote it: ``text`` is Markdown then


@dataclass(frozen=True)
class Bullets:
    items: tuple[Text, ...]


@dataclass(frozen=True)
class Table:
    """Cells are strings for every reader, or texts in two languages; a hidden count is "<5"."""

    caption: Text
    columns: tuple[Text, ...]
    rows: tuple[tuple[Text | str, ...], ...]


@dataclass(frozen=True)
class CountsTable:
    """A table of counts; the pages draw it as they draw those of ``RunFacts``."""

    caption: Text
    counts: Counts


@dataclass(frozen=True)
class Missing:
    """A part that a person has to write, and where; or one that this run does not have."""

    what: Text
    path: str = ""  # of the Markdown file, from the root of the project


Block = Paragraph | Bullets | Table | CountsTable | Missing


@dataclass(frozen=True)
class Section:
    """``key`` is stable, such as ``"composition"``; it becomes the anchor in the page."""

    key: str
    title: Text
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Document:
    """A datasheet or a model card."""

    kind: Literal["datasheet", "model_card"]
    subject: str  # digest of the dataset; version of the model, or ""
    sections: tuple[Section, ...]


SYNTHETIC = Text(
    "As gravações são sintéticas, de pessoas inventadas: verificam a plataforma, não a medicina.",
    "The recordings are synthetic: of invented people, to verify the platform, not the medicine.",
)
NOT_REACHED = Text(
    "Esta execução não chegou a um conjunto de treino, ou a tabela não existe mais.",
    "This run did not come to a training set, or its table is not there any more.",
)
CAPTIONS = {
    ("label",): Text("Pessoas por classe", "People by class"),
    ("sex",): Text("Pessoas por sexo", "People by sex"),
    ("age",): Text("Pessoas por idade", "People by age"),
    ("site",): Text("Pessoas por hospital", "People by site"),
    ("device",): Text("Pessoas por aparelho", "People by device"),
    ("sex", "label"): Text("Pessoas por sexo e classe", "People by sex and class"),
    ("age", "label"): Text("Pessoas por idade e classe", "People by age and class"),
    ("site", "label"): Text("Pessoas por hospital e classe", "People by site and class"),
    ("split", "label"): Text("Pessoas por divisão e classe", "People by split and class"),
}


def document(
    kind: Literal["datasheet", "model_card"],
    subject: str,
    sections: Iterable[tuple[str, Text, Callable[[RunFacts], Iterable[Block]]]],
    facts: RunFacts,
) -> Document:
    """Fill the sections (key, title, what makes its blocks) from the facts of a run."""
    filled = [Section(key, title, tuple(blocks(facts))) for key, title, blocks in sections]
    return Document(kind, subject, tuple(filled))


def number(count: Count) -> str:
    """A count as it is shown."""
    return f"<{MIN_CELL}" if count is None else str(count)
