"""What the checks said against a model, for its card."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from spira_tasks.reports import sentences
from spira_tasks.reports.document import Block, Table, Text
from spira_tasks.reports.facts import RunFacts
from spira_tasks.reports.texts import Texts

MARKS = {
    "warn": Text("aviso", "warning"),
    "block": Text("impede", "blocks"),
    "waived": Text("aviso: dispensada por uma pessoa", "warning: set aside by a person"),
}
CHECK = Text("Verificação", "Check")


def tables(facts: RunFacts) -> Iterator[Block]:
    """Everything that did not hold, then who answers for what would have stopped the run."""
    notable = [one for one in facts.verdicts if one["verdict"] != "pass"]
    if notable:
        yield Table(
            Text("O que as verificações disseram", "What the checks said"),
            (Text("Etapa", "Step"), CHECK, Text("Disse", "Said"), Text("Porque", "Because")),
            tuple(_found(one) for one in notable),
        )
    waived = [one for one in notable if one["waiver"]]
    if waived:
        yield Table(
            Text(
                "Teriam parado a execução, e uma pessoa as dispensou",
                "They would have stopped the run, and a person set them aside",
            ),
            (CHECK, Text("Quem", "Who"), Text("Quando", "When"), Text("Por quê", "Why")),
            tuple(_waived(one) for one in waived),
        )


def _found(verdict: Mapping[str, Any]) -> tuple[Text, ...]:
    return (
        _in_both(lambda t: t.name("step", verdict["step"])),
        _in_both(lambda t: sentences.title(t, verdict).text),
        MARKS["waived" if verdict["waiver"] else verdict["verdict"]],
        _in_both(lambda t: sentences.explain(t, verdict).text),
    )


def _waived(verdict: Mapping[str, Any]) -> tuple[Text | str, ...]:
    waiver = verdict["waiver"]
    return (
        _in_both(lambda t: sentences.title(t, verdict).text),
        waiver["by"],
        _in_both(lambda t: t.day(waiver["at"])),
        waiver["why"],
    )


def _in_both(tell: Callable[[Texts], str]) -> Text:
    return Text(tell(Texts("pt")), tell(Texts("en")))
