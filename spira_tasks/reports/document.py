"""What the datasheet and the model card have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

from spira_tasks.reports.facts import Block, Count, Document, RunFacts, Section, Text
from spira_tasks.small_cells import MIN_CELL

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
