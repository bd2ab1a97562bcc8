"""The card of a model: the nine sections of Mitchell et al., *Model Cards* (2019).

Numbers come from the registry, the evaluation and the gates; what only people know is Markdown
under docs/governance/model_card.
"""

from __future__ import annotations

from collections.abc import Iterator

from spira_tasks.intake.record_contract import COLUMNS
from spira_tasks.reports import caveats, rates, written
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
from spira_tasks.reports.facts import Evaluation, Interval, RunFacts, setting
from spira_tasks.reports.tables import BANDS, MIN_SLICE
from spira_tasks.reports.texts import LANGUAGES, Texts

METRICS = {
    "auc": Text("AUC", "AUC"),
    "sensitivity": Text("Sensibilidade", "Sensitivity"),
    "specificity": Text("Especificidade", "Specificity"),
    "balanced_accuracy": Text("Acurácia balanceada", "Balanced accuracy"),
    "accuracy": Text("Acurácia", "Accuracy"),
    "f1": Text("F1", "F1"),
}
CONDITIONS = {
    "clean": Text("Como gravado", "As recorded"),
    "noise_all": Text("Ruído de enfermaria em todos", "Ward noise on everybody"),
    "noise_controls": Text("Ruído só nos controles", "Ward noise on controls only"),
    "noise_patients": Text("Ruído só nos pacientes", "Ward noise on patients only"),
}
GROUPS = {
    "sex": Text("Sexo", "Sex"),
    "age": Text("Idade", "Age"),
    "site": Text("Hospital", "Site"),
    "device": Text("Aparelho", "Device"),
}
NO_MODEL = Text(
    "Esta execução não registrou um modelo.", "This run did not come to register a model."
)
NO_EVALUATION = Text(
    "Esta execução não chegou a avaliar um modelo.", "This run did not come to evaluate a model."
)
INSUFFICIENT = Text("insuficiente", "insufficient")


def build(facts: RunFacts) -> Document:
    """The card of the model that a run trained."""
    sections = (
        ("details", Text("Detalhes do modelo", "Model details"), _details),
        ("intended_use", Text("Uso pretendido", "Intended use"), _intended_use),
        ("factors", Text("Fatores", "Factors"), _factors),
        ("metrics", Text("Métricas", "Metrics"), _metrics),
        ("evaluation_data", Text("Dados de avaliação", "Evaluation data"), _evaluation_data),
        ("training_data", Text("Dados de treino", "Training data"), _training_data),
        ("quantitative", Text("Análises quantitativas", "Quantitative analyses"), _quantitative),
        ("ethical", Text("Considerações éticas", "Ethical considerations"), _ethical),
        ("caveats", Text("Ressalvas e recomendações", "Caveats and recommendations"), _caveats),
    )
    return document("model_card", facts.model.version if facts.model else "", sections, facts)


def _details(facts: RunFacts) -> Iterator[Block]:
    model = facts.model
    if model is None:
        yield Missing(NO_MODEL)
    else:
        aliases: Text | str = ", ".join(model.aliases or ()) or Text("nenhum", "none")
        if model.aliases is None:
            aliases = Text("o registro não respondeu", "the registry did not answer")
        rows: list[tuple[Text | str, ...]] = [
            (Text("Nome e versão", "Name and version"), f"{model.name} {model.version}"),
            (Text("Apelidos agora", "Aliases now"), aliases),
            (Text("Classificador", "Classifier"), model.classifier),
            (Text("Execução", "Run"), facts.run_id),
            (Text("Terminada em (UTC)", "Finished at (UTC)"), facts.finished_at),
            (Text("Revisão do código", "Revision of the code"), facts.provenance.git or "–"),
            (Text("Versões instaladas", "Installed versions"), facts.provenance.lock[:12] or "–"),
        ]
        settings = {**model.feature, **model.training}
        rows += [(name, setting(value)) for name, value in sorted(settings.items())]
        yield Table(
            Text("O modelo e como foi treinado", "The model and how it was trained"),
            (Text("O quê", "What"), Text("Valor", "Value")),
            tuple(rows),
        )
    yield from written.part(
        "model_card",
        "details",
        Text("Quem responde pelo modelo, e como ser contatado.", "Who answers for it, and how."),
    )


def _intended_use(facts: RunFacts) -> Iterator[Block]:
    if facts.synthetic:
        yield Paragraph(SYNTHETIC)
    yield from written.part(
        "model_card",
        "intended_use",
        Text("Para que serve, para quem, e para que não.", "For what and for whom, and what not."),
    )
    yield Paragraph(Text("Não validado para:", "Not validated for:"))
    yield Bullets(tuple(not_validated_for(facts)))


def not_validated_for(facts: RunFacts) -> Iterator[Text]:
    """What the test subjects of this run cannot speak for."""
    if facts.evaluation is None:
        yield Text("nada: nenhuma avaliação foi feita", "anything: nothing was evaluated")
        return
    if facts.synthetic:
        yield Text("pessoas: as gravações são sintéticas", "people: the recordings are synthetic")
    task = str(facts.model.training.get("task", "")) if facts.model else ""
    others = ", ".join(name for name in COLUMNS["task"].values if name != task)
    yield Text(f"outras falas que {task}: {others}", f"other speech than {task}: {others}")
    slices = facts.evaluation.slices
    known = {
        "sex": [name for name in COLUMNS["sex"].values if name != "UNKNOWN"],
        "age": list(BANDS),
        "site": [one.group for one in slices if one.by == "site"],
        "device": [one.group for one in slices if one.by == "device"],
    }
    for by, groups in known.items():
        told = {one.group for one in slices if one.by == by and one.sensitivity and one.specificity}
        weak = ", ".join(group for group in groups if group not in told)
        if weak:
            yield Text(
                f"{GROUPS[by].pt.lower()}: {weak} (menos de {MIN_SLICE} pessoas de teste de uma "
                "das classes)",
                f"{GROUPS[by].en.lower()}: {weak} (fewer than {MIN_SLICE} test subjects of a "
                "class)",
            )
    yield Text(
        "hospitais, aparelhos e aplicativos que não estão neste conjunto",
        "sites, devices and apps that are not in this dataset",
    )


def _factors(facts: RunFacts) -> Iterator[Block]:
    yield Paragraph(
        Text(
            "Avaliado por sexo, idade, hospital e aparelho, onde há pessoas suficientes, e com "
            "ruído de enfermaria somado a todos, só aos controles e só aos pacientes.",
            "Evaluated by sex, age, site and device, where there are people enough, and with ward "
            "noise put on everybody, on controls only and on patients only.",
        )
    )
    yield from written.part(
        "model_card",
        "factors",
        Text(
            "Outros fatores que podem importar: doenças, dialetos, ambientes.",
            "Other factors that may matter: illnesses, dialects, surroundings.",
        ),
    )


def _metrics(facts: RunFacts) -> Iterator[Block]:
    if facts.evaluation is None:
        yield Missing(NO_EVALUATION)
        return
    point = f"{facts.evaluation.operating_point:.3f}"
    yield Paragraph(
        Text(
            f"Ponto de operação: {_comma(point)}, escolhido nas pessoas de validação. Intervalos "
            "de 95 % por reamostragem de pessoas.",
            f"Operating point: {point}, chosen on the validation subjects. 95 % intervals by "
            "resampling people.",
        )
    )
    yield Table(
        Text("Calibração", "Calibration"),
        (Text("Medida", "Measure"), Text("Valor", "Value")),
        (
            (
                Text("Erro de calibração esperado", "Expected calibration error"),
                _localised(f"{facts.evaluation.expected_calibration_error:.3f}"),
            ),
            (
                Text("Escore de Brier", "Brier score"),
                _localised(f"{facts.evaluation.brier_score:.3f}"),
            ),
        ),
    )


def _evaluation_data(facts: RunFacts) -> Iterator[Block]:
    one = facts.evaluation
    if one is None:
        yield Missing(NO_EVALUATION)
        return
    numbers = (
        (Text("Pessoas", "People"), one.n_subjects),
        (Text("Pacientes", "Patients"), one.n_patients),
        (Text("Controles", "Controls"), one.n_controls),
        (Text("Gravações", "Recordings"), one.n_recordings),
    )
    yield Table(
        Text("Pessoas de teste", "Test subjects"),
        (Text("O quê", "What"), Text("Quantas", "How many")),
        tuple((name, number(n)) for name, n in numbers),
    )
    yield from written.part(
        "model_card",
        "evaluation_data",
        Text("Por que estas pessoas servem de prova.", "Why these people are a fair test of it."),
    )


def _training_data(facts: RunFacts) -> Iterator[Block]:
    if facts.dataset is None:
        yield Missing(NOT_REACHED)
        return
    yield Paragraph(
        Text(
            f"O conjunto {facts.dataset.digest[:19]}…, descrito na sua ficha de dados.",
            f"The dataset {facts.dataset.digest[:19]}…, which its datasheet describes.",
        )
    )
    if facts.dataset.by_split is not None:
        yield CountsTable(CAPTIONS["split", "label"], facts.dataset.by_split)


def _quantitative(facts: RunFacts) -> Iterator[Block]:
    if facts.evaluation is None:
        yield Missing(NO_EVALUATION)
        return
    yield _by_condition(facts.evaluation)
    if facts.evaluation.slices:
        yield _by_slice(facts.evaluation)
    told = [rate for one in facts.evaluation.slices for rate in (one.sensitivity, one.specificity)]
    for estimates in facts.evaluation.conditions.values():
        told += estimates.values()
    if any(rates.is_coarse(rate) for rate in told):
        yield Paragraph(Text(*(Texts(language)("figure.coarse") for language in LANGUAGES)))
    yield CountsTable(
        Text("Acertos e erros, como gravado", "Right and wrong, as recorded"),
        facts.evaluation.confusion,
    )


def _by_condition(one: Evaluation) -> Table:
    conditions = [name for name in CONDITIONS if name in one.conditions]
    return Table(
        Text("Com e sem ruído de enfermaria", "With and without ward noise"),
        (Text("Medida", "Measure"), *(CONDITIONS[name] for name in conditions)),
        tuple(
            (title, *(_interval(one.conditions[name].get(metric)) for name in conditions))
            for metric, title in METRICS.items()
        ),
    )


def _by_slice(one: Evaluation) -> Table:
    return Table(
        Text(
            "Por grupo das pessoas de teste (intervalos de Wilson)",
            "By group of the test subjects (Wilson's intervals)",
        ),
        (
            Text("Grupo", "Group"),
            Text("Pacientes", "Patients"),
            Text("Controles", "Controls"),
            METRICS["sensitivity"],
            METRICS["specificity"],
        ),
        tuple(
            (
                Text(f"{GROUPS[part.by].pt}: {part.group}", f"{GROUPS[part.by].en}: {part.group}"),
                number(part.n_patients),
                number(part.n_controls),
                _interval(part.sensitivity),
                _interval(part.specificity),
            )
            for part in one.slices
        ),
    )


def _ethical(facts: RunFacts) -> Iterator[Block]:
    yield from written.part(
        "model_card",
        "ethical",
        Text(
            "Riscos para pacientes, e o que se faz contra eles.",
            "Risks to patients, and what is done against them.",
        ),
    )


def _caveats(facts: RunFacts) -> Iterator[Block]:
    yield from caveats.tables(facts)
    yield from written.part(
        "model_card",
        "caveats",
        Text("O que quem usa o modelo precisa saber.", "What whoever uses the model must know."),
    )


def _interval(one: Interval | None) -> Text:
    if one is None:
        return INSUFFICIENT
    if one.value is None:
        return Text(*(Texts(language).interval(None, one.low, one.high) for language in LANGUAGES))
    if one.low is None or one.high is None:
        return _localised(f"{one.value:.2f}")
    low, high = f"{one.low:.2f}", f"{one.high:.2f}"
    english = f"{one.value:.2f} ({low} to {high})"
    return Text(_comma(f"{one.value:.2f} ({low} a {high})"), english)


def _localised(number: str) -> Text:
    return Text(_comma(number), number)


def _comma(text: str) -> str:
    return text.replace(".", ",")
