"""Documents of the collection of 2021 to 2023, and of the application that asked for inferences.

* SPIRA-data-collection-api-v2: ``{collector: {…}, timestamp, audios: {TYPE: path}}``, and the
  files under the names in ``audios``;
* SPIRA-API: ``{id, rgh, local, …}``, and the files ``<id>/{aceite,sustentada,parlenda,frase}.*``.

Neither recorded the room, nor whether the browser changed the sound.  The time is that of the
receipt: the first of them overwrote the one of the recording.  Where one person came twice, it put
the audio of the second visit to the document of the first; then the second has none.
"""

from __future__ import annotations

from collections.abc import Iterator

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

CONSENT = "ACEITE"
TASKS = {CONSENT: CONSENT, "SUSTENTADA": "VOWEL", "PARLENDA": "RHYME", "FRASE": "SENTENCE"}
SEX = {"masculino": "M", "feminino": "F", "m": "M", "f": "F"}
UNIT = {"NURSERY": "WARD", "ICU": "ICU"}
# Of SPIRA-API to the names in the other's ``collector``.
SAME = {
    "local": "hospitalName",
    "rgh": "patientRgh",
    "gender": "gender",
    "age": "age",
    "mask_type": "maskType",
    "spo2": "saturacaoOxigenio",
    "bpm": "bpm",
    "respiratory_frequency": "respiratoryFrequency",
    "cid": "CID",
    "covid_status": "covidSituation",
    "created_in": "at",
    "respiratory_insufficiency_status": "insufficiency",
    "location": "location",
}


def read(source: Directory, asked: Asked) -> Iterator[Found | Unusable]:
    """The sessions of an export."""
    files = Files(source)
    for document in documents(source):
        if isinstance(document, Unusable):
            yield document
        elif isinstance(document.get("collector"), dict):
            yield _collected(document, files, asked)
        elif "rgh" in document:
            yield _inference(document, files, asked)
        else:
            yield Unusable("not_a_document")


def _collected(document: Document, files: Files, asked: Asked) -> Found:
    collector = document["collector"]
    audios = document.get("audios")
    named = audios.items() if isinstance(audios, dict) else ()
    takes = {TASKS[str(kind)]: files.called(str(path)) for kind, path in named if kind in TASKS}
    status = collector.get("respiratoryInsufficiencySituation")
    clinic = status if isinstance(status, dict) else {}
    more = {
        "at": document.get("timestamp") or collector.get("collectionDate"),
        "insufficiency": clinic.get("respiratoryInsufficiencyStatus"),
        "location": clinic.get("location"),
    }
    return _found({**collector, **more}, takes, asked)


def _inference(document: Document, files: Files, asked: Asked) -> Found:
    collector = {name: document.get(theirs) for theirs, name in SAME.items()}
    # The application was used on patients alone, and did not ask.
    collector["sampleType"] = "PATIENT"
    folder = str(document.get("id") or document.get("_id"))
    takes = files.beside(folder, {kind.lower(): task for kind, task in TASKS.items()})
    return _found(collector, takes, asked)


def _found(collector: Document, takes: dict[str, str | None], asked: Asked) -> Found:
    consent_file = takes.pop(CONSENT, None)
    kind, location = collector.get("sampleType"), collector.get("location")
    sex = str(collector.get("gender") or "").strip()
    answers = {
        "patient_rgh": collector.get("patientRgh"),
        "sample_type": kind,
        "sex": SEX.get(sex.lower(), sex),
        "age": collector.get("age"),
        "mask_type": collector.get("maskType"),
        "spo2": collector.get("saturacaoOxigenio"),
        "heart_rate": collector.get("bpm"),
        "resp_rate": collector.get("respiratoryFrequency"),
        "unit": UNIT.get(str(location), location),
    }
    left_out = filled(collector, ["covidSituation"])
    if with_diagnosis(answers, collector.get("CID")):
        left_out.append("CID")
    return Found(
        form=answers,
        files=takes,
        recorded_at=moment(collector.get("at"), asked),
        hospital=str(collector.get("hospitalName") or ""),
        consent="granted" if consent_file else "",
        consent_version="spoken" if consent_file else "",
        consent_file=consent_file,
        prompt_version="essa_fase",
        label=_label(str(collector.get("insufficiency")).lower(), str(kind)),
        left_out=left_out,
    )


def _label(insufficiency: str, kind: str) -> Stated | None:
    """Whether the person was in hospital for respiratory insufficiency.

    The form began with "no".  So a "no" counts where the person is a control, and says nothing of
    a patient.
    """
    if insufficiency not in ("true", "false"):
        return None
    label = 1 if insufficiency == "true" else 0 if kind == "CONTROL" else None
    return Stated(label, "hospital_record", {"respiratoryInsufficiencyStatus": insufficiency})
