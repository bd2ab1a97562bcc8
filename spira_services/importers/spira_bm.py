"""Patients of SPIRA-BM, the application since 2024: its documents and files.

The documents are as the application sends them and its server gives them, with ``id``; the files
are ``<id>/{ambient_noise,sustentained_vowel,rhyme,phrase}.*``.

The application could put a recording to another patient when it tried again: a file that is there
under two patients is refused with both.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from spira_services.importers.found import (
    Asked,
    Document,
    Files,
    Found,
    Stated,
    Unusable,
    documents,
    filled,
    moment,
    with_diagnosis,
)
from spira_tasks.artifacts.sources import Directory

TASKS = {
    "ambient_noise": "AMBIENT",
    "sustentained_vowel": "VOWEL",  # as the application writes it
    "rhyme": "RHYME",
    "phrase": "SENTENCE",
}
SEX = {1: "M", 2: "F", 3: "OTHER"}
UNIT = {1: "ICU", 2: "WARD"}
# Line of study: asthma, respiratory insufficiency, smoking, control.
KIND = {1: "PATIENT", 2: "PATIENT", 3: "PATIENT", 4: "CONTROL"}
LABEL = {2: 1, 4: 0}
NO_PLACE = ("comorbidityIds", "otherComorbidities", "smokerId", "smokingData")
NO_PLACE_THERE = ("hospitalizationDays", "respiratoryInsufficiencyTypeId", "hemodynamicAssessment")


def read(source: Directory, asked: Asked) -> Iterator[Found | Unusable]:
    """The sessions of an export."""
    files = Files(source)
    for document in documents(source):
        if isinstance(document, Unusable):
            yield document
        elif "studyTypeId" in document and document.get("id") is not None:
            yield _found(document, files, asked)
        else:
            yield Unusable("not_a_document")


def _found(document: Document, files: Files, asked: Asked) -> Found:
    given = document.get("respiratoryInsufficiency")
    clinic: Document = given if isinstance(given, dict) else {}
    upper, _, lower = str(document.get("bloodPressure") or "").partition("/")
    study = document["studyTypeId"]
    answers = {
        "patient_rgh": document.get("identifier"),
        "sample_type": _named(KIND, study),
        "sex": _named(SEX, document.get("genderId")),
        "age": document.get("age"),
        "weight": document.get("weight"),
        "height": document.get("height"),
        "heart_rate": document.get("heartRate"),
        "resp_rate": document.get("respiratoryRate"),
        "spo2": document.get("saturation"),
        "bp_sys": upper,
        "bp_dia": lower,
        "unit": _named(UNIT, clinic.get("hospitalizationSiteId")),
        "pao2": clinic.get("gasometryPaO2"),
        "paco2": clinic.get("gasometryPaCo2"),
        "ph": clinic.get("gasometryPH"),
    }
    left_out = [*filled(document, NO_PLACE), *filled(clinic, NO_PLACE_THERE)]
    if with_diagnosis(answers, clinic.get("medicalDiagnosis")):
        left_out.append("medicalDiagnosis")
    label = LABEL.get(study) if isinstance(study, int) else None
    collector = document.get("collectorUserId")
    return Found(
        form=answers,
        files=files.beside(str(document["id"]), TASKS),
        recorded_at=moment(document.get("collectionDate"), asked),
        hospital=str(document.get("collectionSite") or ""),
        collector="" if collector is None else str(collector),
        prompt_version="essa_fase",
        label=None if label is None else Stated(label, "hospital_record", {"studyTypeId": study}),
        left_out=left_out,
    )


def _named(names: dict[int, str], number: Any) -> Any:
    """What a number stands for; the number where nobody knows, for the form to refuse."""
    return names.get(number, number) if isinstance(number, int) else number
