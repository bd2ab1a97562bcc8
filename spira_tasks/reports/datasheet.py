"""The datasheet of a dataset: the seven sections of Gebru et al., *Datasheets for Datasets* (2021).

A dataset is the table that a model is trained on, behind all gates; its digest names it.  Counts
come from the run; what only people know is Markdown under docs/governance/datasheet.
"""

from __future__ import annotations

from collections.abc import Iterator

from spira_tasks.reports import written
from spira_tasks.reports.document import (
    CAPTIONS,
    NOT_REACHED,
    SYNTHETIC,
    Block,
    Bullets,
    CountsTable,
    Document,
    Missing,
    Paragraph,
    Table,
    Text,
    document,
    number,
)
from spira_tasks.reports.facts import RunFacts


def build(facts: RunFacts) -> Document:
    """The datasheet of the training set of a run."""
    sections = (
        ("motivation", Text("Motivação", "Motivation"), _motivation),
        ("composition", Text("Composição", "Composition"), _composition),
        ("collection", Text("Coleta", "Collection process"), _collection),
        (
            "preprocessing",
            Text("Pré-processamento e rótulos", "Preprocessing, cleaning and labelling"),
            _preprocessing,
        ),
        ("uses", Text("Usos", "Uses"), _uses),
        ("distribution", Text("Distribuição", "Distribution"), _distribution),
        ("maintenance", Text("Manutenção", "Maintenance"), _maintenance),
    )
    return document("datasheet", facts.dataset.digest if facts.dataset else "", sections, facts)


def _motivation(facts: RunFacts) -> Iterator[Block]:
    if facts.synthetic:
        yield Paragraph(SYNTHETIC)
    yield from written.part(
        "datasheet",
        "motivation",
        Text(
            "Para que o conjunto foi criado, por quem, e quem o financiou.",
            "For what the dataset was made, by whom, and who paid for it.",
        ),
    )


def _composition(facts: RunFacts) -> Iterator[Block]:
    if facts.dataset is None:
        yield Missing(NOT_REACHED)
        return
    yield Paragraph(
        Text(
            f"{number(facts.dataset.n_recordings)} gravações de "
            f"{number(facts.dataset.n_subjects)} pessoas. Números de 1 a 4 não são mostrados, nem "
            "os que permitiriam calculá-los.",
            f"{number(facts.dataset.n_recordings)} recordings of "
            f"{number(facts.dataset.n_subjects)} people. Numbers from 1 to 4 are not shown, nor "
            "those from which they could be computed.",
        )
    )
    tables = [*([facts.dataset.by_split] if facts.dataset.by_split else []), *facts.composition]
    for counts in tables:
        yield CountsTable(CAPTIONS[counts.by], counts)
    yield from written.part(
        "datasheet",
        "composition",
        Text(
            "O que falta no conjunto: grupos, hospitais, doenças que não estão representados.",
            "What the dataset lacks: groups, hospitals, illnesses that are not represented.",
        ),
    )


def _collection(facts: RunFacts) -> Iterator[Block]:
    if facts.intake is not None:
        yield Table(
            Text("O que chegou", "What came in"),
            (Text("O quê", "What"), Text("Quanto", "How many")),
            (
                (Text("Linhas recebidas", "Rows received"), number(facts.intake.n_rows)),
                (Text("Gravações aceitas", "Recordings taken"), number(facts.intake.n_recordings)),
                (Text("Pessoas", "People"), number(facts.intake.n_subjects)),
                (Text("Hospitais", "Sites"), str(facts.intake.n_sites)),
                (Text("Em quarentena", "In quarantine"), number(facts.intake.n_quarantined)),
                (
                    Text("Testes do aplicativo", "Trials of the app"),
                    number(facts.intake.n_excluded),
                ),
            ),
        )
    yield from written.part(
        "datasheet",
        "collection",
        Text(
            "Como, onde e quando foi gravado; consentimento; parecer do comitê de ética (CAAE).",
            "How, where and when it was recorded; consent; approval of the ethics committee.",
        ),
    )


def _preprocessing(facts: RunFacts) -> Iterator[Block]:
    done = [step for step in facts.steps if step.outputs]
    if done:
        yield Table(
            Text("O que foi feito, nesta ordem", "What was done, in this order"),
            (
                Text("Etapa", "Step"),
                Text("Estado", "State"),
                Text("Código", "Code"),
                Text("Resultado", "Result"),
            ),
            tuple(
                (
                    step.name,
                    step.state,
                    facts.provenance.code.get(step.name, "")[:12],
                    step.key[:12],
                )
                for step in done
            ),
        )
    if facts.quarantine is not None and facts.quarantine.by_reason is not None:
        yield CountsTable(
            Text("Gravações recusadas por motivo", "Recordings refused by reason"),
            facts.quarantine.by_reason,
        )
    yield from written.part(
        "datasheet",
        "preprocessing",
        Text(
            "Quem deu os rótulos, com que critério, e quanto os avaliadores concordam.",
            "Who gave the labels, by what criterion, and how far the raters agree.",
        ),
    )


def _uses(facts: RunFacts) -> Iterator[Block]:
    if facts.synthetic:
        yield Paragraph(SYNTHETIC)
    yield from written.part(
        "datasheet",
        "uses",
        Text(
            "Para que pode e para que não pode ser usado.", "What it may and may not be used for."
        ),
    )


def _distribution(facts: RunFacts) -> Iterator[Block]:
    yield from written.part(
        "datasheet",
        "distribution",
        Text(
            "A quem é entregue, sob que termos, e até quando.",
            "To whom it is given, on what terms, and until when.",
        ),
    )


def _maintenance(facts: RunFacts) -> Iterator[Block]:
    yield Bullets(
        (
            Text(
                f"Pessoas apagadas a pedido (LGPD art. 18) até hoje: {number(facts.n_erasures)}.",
                f"People erased on demand (LGPD art. 18) until today: {number(facts.n_erasures)}.",
            ),
            Text(
                f"Registro de auditoria: evento {facts.anchor.number}, {facts.anchor.hash[:16]}….",
                f"Audit log: event {facts.anchor.number}, {facts.anchor.hash[:16]}….",
            ),
        )
    )
    yield from written.part(
        "datasheet",
        "maintenance",
        Text(
            "Quem responde pelo conjunto, como se corrige um erro, e por quanto tempo é guardado.",
            "Who answers for it, how an error is corrected, and how long it is kept.",
        ),
    )
