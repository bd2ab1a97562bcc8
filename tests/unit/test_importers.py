"""Recordings that exist already: through the door of the telephones, once, and nothing lost."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import compressing
import numpy as np
import pytest
import soundfile
from collecting import noise, sha
from databases import migrated
from folders import Ingested
from sqlalchemy import Engine, select

from spira_services import devices, snapshot
from spira_services.__main__ import main
from spira_services.collection.documents import CONSENTS, RECORDINGS, REVISIONS, SESSIONS
from spira_services.database import metadata
from spira_services.devices import DEVICES
from spira_services.labels.store import EVENTS as LABELS
from spira_services.server import AUDIO_VARIABLE
from spira_tasks.artifacts import Store
from spira_tasks.artifacts.blobs import Blobs
from spira_tasks.artifacts.sources import open_backend
from spira_tasks.contract.exits import EXIT_CONFIG, EXIT_REJECTED
from spira_tasks.intake import pseudonyms

NUMBER = "77123499K"
WHEN = "2022-03-04T10:00:00-03:00"
MILLISECONDS = 1_646_400_000_000  # of dc2: 2022-03-04T13:20Z
TASKS = {"SUSTENTADA": "VOWEL", "FRASE": "SENTENCE"}
RNG = np.random.default_rng(20)


@dataclass
class Place:
    """A collection, and a folder that is to come into it."""

    engine: Engine
    blobs: Blobs
    folder: Path
    capsys: pytest.CaptureFixture[str]

    def write(self, name: str, content: bytes | str) -> bytes:
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        written = content.encode() if isinstance(content, str) else content
        (self.folder / name).write_bytes(written)
        return written

    def bring(self, kind: str, *more: str) -> tuple[int, str]:
        """Exit status and summary of an import."""
        status = main(["import", kind, str(self.folder), "--site", "hc", *more])
        said = self.capsys.readouterr()
        assert "Traceback" not in said.err
        return status, said.out + said.err

    def rows(self, table: Any) -> list[Any]:
        with self.engine.connect() as connection:
            return [*connection.execute(select(table))]

    def everything(self) -> dict[str, list[Any]]:
        return {table.name: self.rows(table) for table in metadata.sorted_tables}


@pytest.fixture
def place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Place]:
    monkeypatch.setenv(AUDIO_VARIABLE, str(tmp_path / "audio"))
    with migrated("", tmp_path) as engine:
        monkeypatch.setenv("SPIRA_SERVICES_DATABASE", str(engine.url))
        with engine.begin() as connection:
            devices.add_site(connection, "hc", "Hospital", "cli:test")
        folder = tmp_path / "export"
        folder.mkdir()
        yield Place(engine, Blobs(open_backend(str(tmp_path / "audio"))), folder, capsys)


def sound() -> bytes:
    return noise(RNG, 3.5)


def dc2(place: Place, number: str = NUMBER, **changes: Any) -> dict[str, Any]:
    """A document of the collection of 2021, whose files are written."""
    stem = f"2022-03-04T10:00:00_Hospital das Clínicas_{number}"
    audios = {}
    for kind in ("ACEITE", *TASKS):
        place.write(f"files/{stem}_{kind}.wav", sound())
        audios[kind] = f"/var/spira/{stem}_{kind}.wav"
    collector = {
        "sampleType": "PATIENT",
        "hospitalName": "Hospital das Clínicas",
        "patientRgh": number,
        "gender": "Feminino",
        "age": 61,
        "maskType": "THIN",
        "saturacaoOxigenio": 91.0,
        "bpm": 88,
        "respiratoryFrequency": 24,
        "respiratoryInsufficiencySituation": {
            "respiratoryInsufficiencyStatus": True,
            "location": "NURSERY",
        },
        "covidSituation": {"covidStatus": "TRUE"},
        "CID": "J96.0",
        "collectionDate": [2022, 3, 4, 10, 0],
    }
    return {
        "_id": {"$oid": "6221f0"},
        "patientId": f"Hospital das Clínicas_{number}",
        "timestamp": {"$numberLong": str(MILLISECONDS)},
        "audios": audios,
        "collector": collector | changes,
    }


def control(place: Place, number: str = "1230987") -> dict[str, Any]:
    no = {"respiratoryInsufficiencyStatus": False}
    about = {"sampleType": "CONTROL", "CID": None, "respiratoryInsufficiencySituation": no}
    return dc2(place, number, **about)


def lines(place: Place, *documents: Any) -> None:
    """As mongoexport writes them."""
    place.write("samples.json", "\n".join(json.dumps(one) for one in documents))


def test_documents_come_in_as_sessions_with_their_labels(place: Place) -> None:
    lines(place, dc2(place), control(place))
    status, said = place.bring("dc2")
    assert status == 0, said
    assert "2 accepted" in said
    assert "covidSituation (2)" in said
    by_kind = {row.document["values"]["sample_type"]: row for row in place.rows(REVISIONS)}
    patient, other = by_kind["PATIENT"], by_kind["CONTROL"]
    assert patient.subject_id == pseudonyms.known_as(pseudonyms.key(), "hc", NUMBER)
    assert patient.document["values"] == {
        "sample_type": "PATIENT",
        "sex": "F",
        "age": "61",
        "unit": "WARD",
        "mask_type": "THIN",
        "spo2": "91.0",
        "resp_rate": "24",
        "heart_rate": "88",
        "cid10": "J96.0",
    }
    at = datetime.fromtimestamp(MILLISECONDS / 1000, UTC)
    assert {row.recorded_at for row in place.rows(RECORDINGS)} == {at}
    said_of = {row.item_id: row for row in place.rows(LABELS)}
    assert said_of[patient.session_id].label == 1
    assert said_of[other.session_id].label == 0
    assert {(row.source, row.annotator, row.valid_from) for row in said_of.values()} == {
        ("hospital_record", "dc2/1", at)
    }
    assert "nsufficiency" not in json.dumps(patient.document)  # a label is no column


def test_files_are_kept_byte_for_byte_with_codec_and_rate_and_the_spoken_consent(
    place: Place,
) -> None:
    document = dc2(place)
    lines(place, document)
    place.bring("dc2")
    there = {path.name.rpartition("_")[2][:-4]: path for path in place.folder.rglob("*.wav")}
    takes = {row.task: row for row in place.rows(RECORDINGS)}
    for kind, task in TASKS.items():
        content = there[kind].read_bytes()
        assert place.blobs.read(f"sha256:{takes[task].sha256}") == content
        assert takes[task].about["codec"] == "pcm16"
        assert takes[task].about["native_sample_rate_hz"] == 16_000
    (revision,) = place.rows(REVISIONS)
    spoken = there["ACEITE"].read_bytes()
    assert revision.document["consent_sha256"] == sha(spoken)
    assert place.blobs.read(f"sha256:{sha(spoken)}") == spoken
    assert [(row.status, row.version) for row in place.rows(CONSENTS)] == [("granted", "spoken")]


def test_importing_twice_changes_nothing(place: Place) -> None:
    lines(place, dc2(place), control(place), dc2(place, "5550001", age=7))
    assert place.bring("dc2")[0] == EXIT_REJECTED
    before = place.everything()
    status, said = place.bring("dc2")
    assert status == EXIT_REJECTED
    assert "2 there already" in said
    assert "1 refused, and kept" in said
    assert place.everything() == before


def test_a_dry_run_says_the_same_and_writes_nothing(place: Place, tmp_path: Path) -> None:
    lines(place, dc2(place), dc2(place, "5550001", age=7))
    before = place.everything()
    status, said = place.bring("dc2", "--dry-run")
    assert place.everything() == before
    assert not (tmp_path / "audio").exists()
    assert place.bring("dc2") == (status, said.partition(":\n")[2])


def test_one_bad_document_or_file_never_stops_the_rest(place: Place) -> None:
    without, damaged, absent = dc2(place, "5550001"), dc2(place, "5550002"), dc2(place, "5550003")
    without["audios"] = None
    (cut,) = place.folder.glob("files/*5550002_FRASE.wav")
    cut.write_bytes(cut.read_bytes()[:2000])
    (gone,) = place.folder.glob("files/*5550003_FRASE.wav")
    gone.unlink()
    nobody = dc2(place, "S-N")
    lines(place, without, damaged, absent, nobody, dc2(place), {"nothing": 1})
    with (place.folder / "samples.json").open("a") as file:
        file.write('\n{"collector": {"patientRgh"')
    status, said = place.bring("dc2")
    assert status == EXIT_REJECTED
    words = [line.split(maxsplit=1) for line in said.splitlines()]
    counted = {title: int(n) for n, title in words if n.isdigit()}
    assert counted["accepted"] == 1
    assert counted["SENTENCE truncated"] == 1
    assert counted["SENTENCE missing_audio"] == 1
    assert counted["patient_rgh format"] == 1
    assert counted["document no_audio"] == 1
    assert counted["document not_a_document"] == 2
    kept = {row.status for row in place.rows(REVISIONS)}
    assert (kept, len(place.rows(REVISIONS))) == ({"accepted", "refused"}, 4)


@pytest.mark.parametrize("kind", ["dc2", "spira-bm"])
def test_whatever_stands_in_a_document_is_judged(place: Place, kind: str) -> None:
    generator = np.random.default_rng(7)
    whole = dc2(place) if kind == "dc2" else spira_bm(place, 1)
    odd: list[Any] = [
        None,
        "",
        0,
        -1,
        True,
        10**30,
        1e300,
        float("nan"),
        "\ud800",
        "x" * 300,
        [],
        [[]],
        {"a": 1},
    ]
    documents = []
    for _ in range(40):
        document = inside = json.loads(json.dumps(whole))
        name = str(generator.choice([*inside]))
        while isinstance(inside[name], dict) and generator.random() < 0.7:
            inside = inside[name]
            name = str(generator.choice([*inside]))
        inside[name] = odd[generator.integers(len(odd))]
        documents.append(document)
    lines(place, *documents)
    _, said = place.bring(
        kind, "--dry-run", "--offset=-03:00", "--hospital=HC", "--hospital=hospital das clínicas"
    )
    assert "40 sessions" in said


def test_what_was_refused_is_mended_in_the_source(place: Place) -> None:
    document = dc2(place, age=7)
    lines(place, document)
    assert place.bring("dc2")[0] == EXIT_REJECTED
    document["collector"]["age"] = 70
    lines(place, document)
    assert place.bring("dc2")[0] == 0
    revisions = [(row.revision, row.status) for row in place.rows(REVISIONS)]
    assert revisions == [(1, "refused"), (2, "accepted")]
    document["collector"]["age"] = 71  # what was accepted is not changed
    lines(place, document)
    assert "1 accepted before with another content" in place.bring("dc2")[1]
    assert len(place.rows(REVISIONS)) == 2


def test_a_no_that_the_form_began_with_is_no_label_of_a_patient(place: Place) -> None:
    no = {"respiratoryInsufficiencyStatus": False}
    lines(place, dc2(place, respiratoryInsufficiencySituation=no))
    place.bring("dc2")
    (event,) = place.rows(LABELS)
    assert (event.label, event.value) == (None, {"respiratoryInsufficiencyStatus": "false"})


def test_two_hospitals_are_not_one_site(place: Place) -> None:
    other = dc2(place, "5550001", hospitalName="Einstein")
    lines(place, dc2(place), other)
    status, said = place.bring("dc2")
    assert status == EXIT_CONFIG
    assert "names 2 hospitals" in said
    assert "--hospital" in said
    _, said = place.bring("dc2", "--hospital", "hospital das clínicas")
    assert "1 accepted" in said
    assert "1 document another_hospital" in said


def test_documents_of_the_application_for_inferences(place: Place) -> None:
    for name in ("aceite", "sustentada", "parlenda"):
        place.write(f"62aa/{name}.wav", sound())
    place.write("62aa/frase.wav", b"")  # which was skipped
    document = {
        "id": "62aa",
        "rgh": NUMBER,
        "local": "hc",
        "gender": "M",
        "age": "58",
        "mask_type": "NONE",
        "spo2": "88",
        "bpm": "",
        "respiratory_frequency": "30",
        "respiratory_insufficiency_status": "true",
        "location": "ICU",
        "cid": "pneumonia",
        "created_in": "2023-02-01T12:00:00",
    }
    place.write("inferences.json", json.dumps([document]))
    assert "recorded_at naive_timestamp" in place.bring("dc2")[1]
    status, said = place.bring("dc2", "--offset", "-03:00")
    assert status == 0, said
    assert "CID (1)" in said
    (revision,) = place.rows(REVISIONS)
    assert {one["task"] for one in revision.document["files"]} == {"VOWEL", "RHYME"}
    assert revision.document["recorded_at"] == "2023-02-01T12:00:00-03:00"
    assert revision.document["values"]["unit"] == "ICU"


def spira_bm(place: Place, patient: int, **changes: Any) -> dict[str, Any]:
    for kind in ("ambient_noise", "sustentained_vowel", "phrase"):
        place.write(f"audio/{patient}/{kind}.wav", sound())
    about = {
        "id": patient,
        "collectionSite": "HC",
        "identifier": f"555000{patient}",
        "genderId": 2,
        "age": 61,
        "weight": 70.5,
        "height": 165.0,
        "comorbidityIds": [7, 10],
        "heartRate": 90,
        "respiratoryRate": 22,
        "saturation": 93.0,
        "bloodPressure": "120/80",
        "smokerId": 2,
        "studyTypeId": 2,
        "collectorUserId": 4,
        "collectionDate": "2025-05-06T09:00:00.000",
        "respiratoryInsufficiency": {
            "gasometryPaO2": 58.0,
            "gasometryPaCo2": 40.0,
            "gasometryPH": 7.41,
            "hospitalizationDays": 3,
            "hospitalizationSiteId": 1,
            "medicalDiagnosis": "J18",
        },
    }
    return about | changes


def test_patients_of_spira_bm_come_in_with_what_the_contract_has_columns_for(place: Place) -> None:
    asthma = spira_bm(place, 2, studyTypeId=1, respiratoryInsufficiency=None)
    place.write(
        "patients.json", json.dumps({"success": True, "data": [spira_bm(place, 1), asthma]})
    )
    status, said = place.bring("spira-bm", "--offset=-03:00", "--consent", "2024-02")
    assert status == 0, said
    assert "2 accepted" in said
    assert "1 with a label" in said
    values = [row.document["values"] for row in place.rows(REVISIONS)]
    ill = next(one for one in values if "pao2" in one)
    wanted = {"bp_sys": "120", "bp_dia": "80", "unit": "ICU", "ph": "7.41", "cid10": "J18"}
    assert wanted.items() <= ill.items()
    (event,) = place.rows(LABELS)
    (device,) = place.rows(DEVICES)
    assert (event.label, event.annotator) == (1, device.collector)
    assert len(device.collector) == 64  # a pseudonym
    assert device.ended_at is not None
    assert {(row.status, row.version) for row in place.rows(CONSENTS)} == {("granted", "2024-02")}


def test_a_file_of_two_patients_is_nobodys(place: Place) -> None:
    first, second, third = (spira_bm(place, number) for number in (1, 2, 3))
    vowel = (place.folder / "audio/1/sustentained_vowel.wav").read_bytes()
    place.write("audio/2/sustentained_vowel.wav", vowel)
    place.write("patients.json", json.dumps([first, second, third]))
    status, said = place.bring("spira-bm", "--offset=-03:00")
    assert status == EXIT_REJECTED
    assert "1 accepted" in said
    assert "2 VOWEL duplicate_audio" in said


def published(place: Place) -> None:
    place.write("metadata_train.csv", "file_path,class,sexo,idade\na.wav,1,F,60\nb.wav,0,M,50\n")
    place.write("metadata_test.csv", "file_path,class,sexo,idade\nc.wav,1,,\n")
    for name in "abc":
        place.write(f"{name}.wav", sound())


def test_people_of_the_published_dataset_have_the_pseudonyms_that_ingest_gives_them(
    place: Place, tmp_path: Path
) -> None:
    published(place)
    assert "3 recorded_at required" in place.bring("published")[1]
    status, said = place.bring("published", "--recorded-at", "2020-07-01T12:00-03:00")
    assert status == EXIT_REJECTED  # the third tells neither sex nor age
    assert "2 accepted" in said
    assert "2 whose consent is pending" in said
    ingested = Ingested(f"folder:{place.folder}", Store(str(tmp_path / "store")))
    known = {row.audio_sha256: row.subject_id for row in ingested.table("recordings").itertuples()}
    subjects = {row.session_id: row.subject_id for row in place.rows(REVISIONS)}
    for row in place.rows(RECORDINGS):
        assert subjects[row.session_id] == known[row.sha256]


def test_a_consent_that_was_pending_is_given_by_importing_again(place: Place) -> None:
    published(place)
    when = ("--recorded-at", "2020-07-01T12:00-03:00")
    place.bring("published", *when)
    _, said = place.bring("published", *when, "--consent", "CC BY-SA 4.0")
    assert "2 there already" in said
    place.bring("published", *when)  # does not take it back
    accepted = {row.session_id for row in place.rows(REVISIONS) if row.status == "accepted"}
    given = [row.status for row in place.rows(CONSENTS) if row.session_id in accepted]
    assert sorted(given) == ["granted", "granted", "pending", "pending"]


def opus() -> bytes:
    content = io.BytesIO()
    samples = RNG.normal(0, 0.05, 48_000 * 3)
    soundfile.write(content, samples, 48_000, format="OGG", subtype="OPUS")
    return content.getvalue()


HEADER = "audio_uri,patient_rgh,collected_at,sample_type,sex,age,task,ri_clinical,label_source"


def test_voice_notes_come_in_by_their_table_and_reach_a_training(
    place: Place, tmp_path: Path
) -> None:
    rows = [
        f"PTT-1.opus,{NUMBER},{WHEN},PATIENT,F,61,SENTENCE,1,hospital_record",
        f"PTT-2.opus,{NUMBER},{WHEN},PATIENT,F,61,VOWEL,1,hospital_record",
        f"PTT-3.opus,1230987,{WHEN},CONTROL,M,50,,0,hospital_record",
        f"PTT-4.opus,5550001,{WHEN},PATIENT,F,61,,1,guess",
        f"PTT-5.opus,5550002,{WHEN},PATIENT,F",
    ]
    place.write("notes.csv", "\n".join([HEADER, *rows]))
    for number in range(1, 6):
        place.write(f"PTT-{number}.opus", opus())
    status, said = place.bring("whatsapp", "--consent", "1")
    assert status == EXIT_REJECTED
    assert "2 accepted" in said
    assert "1 document wrong_number_of_cells" in said
    assert "1 document bad_value" in said
    assert len(place.rows(SESSIONS)) == 2
    now = datetime.now(UTC)
    made = snapshot.write(place.engine, place.blobs, str(tmp_path / "snapshots"), now)
    store = Store(str(tmp_path / "store"))
    ingested = Ingested(f"folder:{made.place}", store, as_of=now.date().isoformat())
    table = ingested.table("recordings")
    assert ingested.table("quarantine").empty
    assert set(table["codec_original"]) == {"opus"}
    assert set(table["app"]) == {"whatsapp"}
    assert sorted(zip(table["task"], table["label"], strict=True)) == [
        ("SENTENCE", 0),
        ("SENTENCE", 1),
        ("VOWEL", 1),
    ]


def test_a_file_that_needs_the_decoder_is_kept_and_read_once_it_is_installed(place: Place) -> None:
    with compressing.installed() as av:
        content = compressing.encoded(av, "ipod", "aac", 44_100, {}, seconds=3.0)
    place.write("n.m4a", content)
    place.write("notes.csv", f"{HEADER}\nn.m4a,{NUMBER},{WHEN},CONTROL,F,61,,0,")
    status, said = place.bring("whatsapp")
    assert status == EXIT_REJECTED
    assert "1 SENTENCE unsupported_container" in said
    assert "pip install -r requirements-importers.txt" in said
    assert place.blobs.read(f"sha256:{sha(content)}") == content
    before = place.everything()
    place.bring("whatsapp")
    assert place.everything() == before
    with compressing.installed():
        assert place.bring("whatsapp")[0] == 0
    accepted = [row for row in place.rows(RECORDINGS) if row.status == "accepted"]
    assert [row.about["codec"] for row in accepted] == ["aac"]


def test_an_erased_person_goes_with_the_spoken_consent_and_does_not_come_back(
    place: Place, tmp_path: Path
) -> None:
    lines(place, dc2(place), control(place))
    place.bring("dc2")
    tag = pseudonyms.tombstone_tag(pseudonyms.known_as(pseudonyms.key(), "hc", NUMBER))
    theirs = [sha(path.read_bytes()) for path in place.folder.rglob(f"*{NUMBER}_*.wav")]
    assert main(["erase", tag, "--snapshots", str(tmp_path / "snapshots")]) == 0
    assert len(theirs) == 3
    assert not any(place.blobs.exists(f"sha256:{digest}") for digest in theirs)
    status, said = place.bring("dc2")
    assert status == EXIT_REJECTED
    assert "1 person erased" in said
    assert "1 there already" in said
    assert not any(place.blobs.exists(f"sha256:{digest}") for digest in theirs)


def test_no_row_and_no_word_holds_a_hospital_number_or_the_name_of_a_file(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    bad = dc2(place, "88123499X", CID="88123499X", gender="88123499X", bpm={"88123499X": 1})
    other = dc2(place, "99123499X", CID="99123499X", age="99123499X")
    lines(place, dc2(place), bad, other)
    with caplog.at_level("DEBUG"):
        _, said = place.bring("dc2", "--dry-run")
        said += place.bring("dc2")[1]
    kept = [said, caplog.text, *(str(rows) for rows in place.everything().values())]
    for number in (NUMBER, "88123499X", "99123499X"):
        assert not [text for text in kept if number in text or number[:-1] in text]
    assert "1 form.heart_rate malformed" in said


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["dc3", "{}", "--site", "hc"], "dc2, spira-bm, published, whatsapp"),
        (["dc2", "{}/none", "--site", "hc"], "does not exist"),
        (["dc2", "{}", "--site", "hc"], ".json or .jsonl"),
        (["whatsapp", "{}", "--site", "hc"], "notes.csv"),
        (["published", "{}", "--site", "hc"], "metadata_train.csv"),
        (["dc2", "{}", "--site", "none"], "sites add"),
        (["dc2", "{}", "--site", "hc", "--offset", "3"], "-03:00"),
        (["dc2", "{}", "--site", "hc", "--recorded-at", "2020-07-01"], "offset"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(
    place: Place, arguments: list[str], names: str
) -> None:
    place.write("readme.txt", "nothing here")
    given = [one.replace("{}", str(place.folder)) for one in arguments]
    assert main(["import", *given]) == EXIT_CONFIG
    said = place.capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert names in said
