"""The form that a collector fills in, as data: the page is drawn from it, and answers are checked.

Its fields are columns of the row contract, so that both sides and ingest judge a value alike.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from expectations.limits import IMPOSSIBLE
from expectations.personal import IDENTIFIERS, holds_personal_data
from spira_services.web import Problem
from spira_tasks.intake import pseudonyms
from spira_tasks.intake.record_contract import COLUMNS, FREE_TEXT, BadValue, value_of

VERSION = "2026-11-30"
PROMPT_VERSION = "essa_fase"
NUMBER = "patient_rgh"  # replaced by a pseudonym before anything is kept
ICD10 = re.compile(r"[A-TV-Z]\d[0-9AB](\.?[0-9A-Z]{1,4})?", re.IGNORECASE)

Words = Mapping[str, str]  # by language
Group = Literal["person", "vitals", "clinic"]


def _words(en: str, pt: str) -> Words:
    return {"en": en, "pt": pt}


@dataclass(frozen=True)
class Field:
    """One question.  Its values and range are those of the column of the same name."""

    name: str
    group: Group
    title: Words
    unit: str = ""
    required: bool = False
    titles: Mapping[str, Words] | None = None  # of the values


FIELDS = (
    Field(
        "sample_type",
        "person",
        _words("Kind of recording", "Tipo de coleta"),
        required=True,
        titles={
            "PATIENT": _words("Patient", "Paciente"),
            "CONTROL": _words("Control", "Controle"),
            "AFTERCOVID": _words("After an illness", "Após a doença"),
            "TEST": _words("Trial of the app", "Teste do aplicativo"),
        },
    ),
    Field(NUMBER, "person", _words("Hospital number", "Registro hospitalar (RGH)"), required=True),
    Field(
        "sex",
        "person",
        _words("Sex", "Sexo"),
        required=True,
        titles={
            "F": _words("Female", "Feminino"),
            "M": _words("Male", "Masculino"),
            "OTHER": _words("Other", "Outro"),
            "UNKNOWN": _words("Not said", "Não informado"),
        },
    ),
    Field("age", "person", _words("Age", "Idade"), "years", required=True),
    Field(
        "unit",
        "clinic",
        _words("Place", "Local"),
        titles={
            "WARD": _words("Ward", "Enfermaria"),
            "ICU": _words("Intensive care", "UTI"),
            "ER": _words("Emergency room", "Pronto-socorro"),
            "OUTPATIENT": _words("Outpatient", "Ambulatório"),
            "HOME": _words("At home", "Em casa"),
        },
    ),
    Field(
        "mask_type",
        "clinic",
        _words("Mask while speaking", "Máscara durante a fala"),
        titles={
            "NONE": _words("None", "Nenhuma"),
            "THIN": _words("Cloth or surgical", "Pano ou cirúrgica"),
            "THICK": _words("N95 or PFF2", "N95 ou PFF2"),
            "UNKNOWN": _words("Not known", "Não se sabe"),
        },
    ),
    Field(
        "spo2", "vitals", _words("Oxygen saturation (SpO2)", "Saturação de oxigênio (SpO2)"), "%"
    ),
    Field("spo2_at", "vitals", _words("Saturation measured at", "Saturação medida às")),
    Field("on_oxygen", "vitals", _words("Breathes extra oxygen", "Recebe oxigênio")),
    Field("fio2", "vitals", _words("Fraction of oxygen (FiO2)", "Fração de oxigênio (FiO2)")),
    Field("resp_rate", "vitals", _words("Breathing rate", "Frequência respiratória"), "/min"),
    Field("heart_rate", "vitals", _words("Heart rate", "Frequência cardíaca"), "/min"),
    Field("temp", "vitals", _words("Temperature", "Temperatura"), "°C"),
    Field(
        "bp_sys", "vitals", _words("Blood pressure, upper", "Pressão arterial, sistólica"), "mmHg"
    ),
    Field(
        "bp_dia", "vitals", _words("Blood pressure, lower", "Pressão arterial, diastólica"), "mmHg"
    ),
    Field("weight", "clinic", _words("Weight", "Peso"), "kg"),
    Field("height", "clinic", _words("Height", "Altura"), "cm"),
    Field("cid10", "clinic", _words("Diagnosis (ICD-10)", "Diagnóstico (CID-10)")),
)
# Of recordings that exist already: what no page asks for, and the contract has a column for.
GASOMETRY = tuple(
    Field(name, "clinic", _words(title, title), unit)
    for name, title, unit in (
        ("pao2", "PaO2", "mmHg"),
        ("paco2", "PaCO2", "mmHg"),
        ("ph", "pH", ""),
    )
)


@dataclass(frozen=True)
class Task:
    """What is recorded, and how long it is to be."""

    task: str
    required: bool
    min_seconds: float
    max_seconds: float
    title: Words
    prompt: Words
    instruction: Words


# The prompts are those of SPIRA, in Portuguese in both languages of the page: patients speak it.
SENTENCE = "O amor ao próximo ajuda a enfrentar essa fase com a força que a gente precisa."
RHYME = "Batatinha quando nasce, espalha a rama pelo chão."
TASKS = (
    Task(
        "AMBIENT",
        required=True,
        min_seconds=3,
        max_seconds=30,
        title=_words("The room", "O ambiente"),
        prompt=_words("Nobody speaks", "Ninguém fala"),
        instruction=_words(
            "Hold the phone as you will for the voice. Nobody speaks.",
            "Segure o celular como fará para a voz. Ninguém fala.",
        ),
    ),
    Task(
        "VOWEL",
        required=True,
        min_seconds=1,
        max_seconds=60,
        title=_words("Long vowel", "Vogal sustentada"),
        prompt=_words("aaaaaa…", "aaaaaa…"),
        instruction=_words(
            "Breathe in, and hold the vowel as long as is comfortable.",
            "Inspire e sustente a vogal enquanto for confortável.",
        ),
    ),
    Task(
        "RHYME",
        required=False,
        min_seconds=2.5,
        max_seconds=60,
        title=_words("Nursery rhyme", "Parlenda"),
        prompt=_words(RHYME, RHYME),
        instruction=_words(
            "Say the rhyme as usual. Nobody helps.",
            "Diga a parlenda como de costume. Ninguém ajuda.",
        ),
    ),
    Task(
        "SENTENCE",
        required=True,
        min_seconds=2.5,
        max_seconds=40,
        title=_words("Sentence", "Frase"),
        prompt=_words(SENTENCE, SENTENCE),
        instruction=_words(
            "Read the sentence aloud. Nobody helps.", "Leia a frase em voz alta. Ninguém ajuda."
        ),
    ),
)
BY_TASK = {task.task: task for task in TASKS}
REQUIRED_TASKS = tuple(task.task for task in TASKS if task.required)

CONSENT = {
    "version": "1",
    "scopes": ["research"],
    "text": _words(
        "I agree that my voice and the answers to these questions are kept under a pseudonym and "
        "used to teach and to test a program that listens for respiratory insufficiency. I may "
        "withdraw at any time; what was recorded is then used no more.",
        "Concordo que minha voz e as respostas a estas perguntas sejam guardadas sob um pseudônimo "
        "e usadas para ensinar e testar um programa que procura sinais de insuficiência "
        "respiratória na fala. Posso retirar o consentimento a qualquer momento; o que foi gravado "
        "deixa então de ser usado.",
    ),
}
# What the phone looks at before the next take; the server decodes and measures again.
TAKE_LIMITS = {"clipping_fraction": 0.01, "min_level_dbfs": -50.0}


def described(name: str, check_letter: bool, hospital_id: str) -> dict[str, Any]:
    """The form of a site as JSON: all that a page needs while there is no network."""
    return {
        "version": VERSION,
        "site": {"hospital_id": hospital_id, "name": name, "check_letter": check_letter},
        "fields": [_described(field) for field in FIELDS],
        "tasks": [asdict(task) for task in TASKS],
        "prompt_version": PROMPT_VERSION,
        "consent": CONSENT,
        "limits": TAKE_LIMITS,
    }


def _described(field: Field) -> dict[str, Any]:
    column, limit = COLUMNS[field.name], IMPOSSIBLE.get(field.name)
    return asdict(field) | {
        "kind": "number_of_hospital" if field.name == NUMBER else column.kind,
        "values": list(field.titles or column.values),
        "low": limit and limit.low,
        "high": limit and limit.high,
    }


def checked(
    answers: Mapping[str, Any], fields: Sequence[Field] = FIELDS
) -> tuple[dict[str, Any], list[Problem]]:
    """Answers as values of the row contract, and what is wrong with the others.

    Parameters
    ----------
    answers : mapping of str to str, int, float, bool or None
        By field; the hospital number among them, which the values returned lack.
    fields : sequence of Field
        Those that may be answered.

    Returns
    -------
    values : dict
        Those that are right, as text in the form of the contract's tables.
    problems : list of Problem
        They name fields and rules, never a value.
    """
    values: dict[str, Any] = {}
    names = {field.name for field in fields}
    problems = [Problem("form", "unknown_field") for name in answers if name not in names]
    given = {name: _text(answer) for name, answer in answers.items() if name in names}
    given = {name: text for name, text in given.items() if text}
    number = given.get(NUMBER, "")
    for field in fields:
        text = given.get(field.name)
        if text is None:
            if field.required:
                problems.append(Problem(field.name, "required"))
        elif problem := _problem(field, text, number):
            problems.append(problem)
        elif field.name != NUMBER:
            values[field.name] = text
    return values, problems


def _text(answer: Any) -> str:
    if isinstance(answer, bool):
        return str(answer).lower()
    return "" if answer is None else str(answer).strip()


def _problem(field: Field, text: str, number: str) -> Problem | None:
    column = COLUMNS[field.name]
    try:
        if field.name == NUMBER and not pseudonyms.canonical_number(text):
            raise BadValue("bad_value", "a placeholder")
        value_of(field.name, text)
    except BadValue as error:
        if error.reason == "impossible_value":
            limit = IMPOSSIBLE[field.name]
            return Problem(field.name, "range", f"{limit.low:g} – {limit.high:g}")
        is_choice = bool(column.values)
        return Problem(field.name, "values" if is_choice else "format", ", ".join(column.values))
    if field.name in FREE_TEXT and (
        holds_personal_data(text, field.name in IDENTIFIERS)
        or pseudonyms.names_number(text, number)
    ):
        return Problem(field.name, "personal_data")
    if field.name == "cid10" and not ICD10.fullmatch(text):
        return Problem(field.name, "format", "J96.0")
    return None
