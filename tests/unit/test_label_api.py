"""The labelling interface: from what a phone sent to what clinicians said of it."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import httpx
from collecting import Phone, Session, served, session
from labelling import Ward, ward

from spira_services.database import now
from spira_services.labels import api, store
from spira_services.labels.agreement import report
from spira_services.labels.api import Instruction, shown
from spira_services.labels.policy import settled

__all__ = ["ward"]  # the fixture


def sent(phone: Phone, seed: int = 0) -> Session:
    one = session(seed)
    answer = phone.send(one).json()
    assert answer["status"] == "accepted", answer
    return one


def says(client: httpx.Client, label: int | None, **changes: object) -> httpx.Response:
    """Take what comes next and label it."""
    task = client.get("/labels/v1/next").json()
    given = {"session_id": task["session_id"], "label": label, "instruction_version": "1"}
    return client.post(
        "/labels/v1/answers", json={**given, "submission_id": uuid4().hex, **changes}
    )


def test_what_two_clinicians_say_of_a_session_holds(ward: Ward) -> None:
    one = sent(ward.phone())
    with ward.person("clinician") as ana, ward.person("clinician") as bia:
        task = ana.get("/labels/v1/next").json()
        assert task == {
            "session_id": str(one.session_id),
            "purpose": "label",
            "recordings": ["AMBIENT", "SENTENCE", "VOWEL"],
            "signs": {},  # this instruction shows none
            "n_open": 1,
        }
        audio = ana.get(f"/labels/v1/sessions/{one.session_id}/VOWEL")
        assert (audio.content, audio.headers["content-type"]) == (one.takes["VOWEL"], "audio/wav")
        assert says(ana, 1, confidence=0.8).json() == {"recorded": True, "pre_labels": {}}
        assert ana.get("/labels/v1/next").json() is None
        assert says(bia, 1).status_code == 200
    with ward.engine.begin() as connection:
        (row,) = settled(connection, now())
    assert (row.session_id, row.ri_clinical) == (str(one.session_id), 1)


def test_a_program_is_heard_after_the_person(ward: Ward) -> None:
    one = sent(ward.phone())
    with ward.person("clinician") as ana:
        task = ana.get("/labels/v1/next").json()
        said = store.LabelEvent("session", str(one.session_id), 1, "weak", "m 1", now(), now(), "w")
        with ward.engine.begin() as connection:
            value = {"probability": 0.7}
            store.record(connection, store.LabelEvent(**{**vars(said), "value": value}))
        assert ana.get("/labels/v1/next").json() == task
        assert says(ana, 0).json()["pre_labels"] == {"m 1": 0.7}


def test_vital_signs_are_shown_where_the_instruction_says_so(ward: Ward, tmp_path: Path) -> None:
    from spira_services.labelling import OfCollection
    from spira_services.web import create_app
    from spira_tasks.artifacts.blobs import Blobs
    from spira_tasks.artifacts.sources import open_backend

    one = sent(ward.phone())
    app = create_app("SPIRA", ward.engine)
    words = {"en": "Label", "pt": "Rotule"}
    instruction = Instruction("7", ("spo2", "resp_rate"), words, words)
    evidence = OfCollection(Blobs(open_backend(str(tmp_path / "audio"))))
    api.add_to(app, ward.engine, evidence, instruction)
    with ward.person("clinician") as ana, served(app) as address:
        ana.base_url = httpx.URL(address)
        task = ana.get("/labels/v1/next").json()
        assert task["signs"] == {"spo2": str(one.form["spo2"]), "resp_rate": None}
        assert says(ana, 1).status_code == 404  # it followed another instruction
        assert says(ana, 1, instruction_version="7").status_code == 200


def test_a_withdrawn_session_is_neither_given_nor_heard(ward: Ward) -> None:
    phone = ward.phone()
    one = sent(phone)
    with ward.person("clinician") as ana:
        assert ana.get("/labels/v1/next").json() is not None
        withdraw = f"/collection/v1/sessions/{one.session_id}/withdraw"
        assert phone.client.post(withdraw, headers=phone.headers).is_success
        assert ana.get(f"/labels/v1/sessions/{one.session_id}/VOWEL").status_code == 404
        assert ana.get("/labels/v1/next").json() is None


def test_who_may_not_gets_what_is_not_there(ward: Ward) -> None:
    one = sent(ward.phone())
    audio = f"/labels/v1/sessions/{one.session_id}/VOWEL"
    paths = ("/labels/v1/next", "/labels/v1/instruction", "/labels/v1/agreement", audio)
    assert [httpx.get(ward.address + path).status_code for path in paths] == [401] * 4
    with ward.person("collector", "data_manager") as other:
        assert [other.get(path).status_code for path in paths] == [404] * 4
        answer = {"session_id": str(one.session_id), "label": 1, "instruction_version": "1"}
        answer["submission_id"] = uuid4().hex
        assert other.post("/labels/v1/answers", json=answer).status_code == 404
    with ward.person("clinician") as ana:
        assert ana.get(audio).status_code == 404  # not given to her yet
        assert ana.post("/labels/v1/answers", json=answer).status_code == 404
        assert ana.get("/labels/v1/agreement").status_code == 404
        assert ana.get("/labels/v1/next").status_code == 200
        assert ana.get(audio).status_code == 200
    with ward.person("governance") as officer:
        assert officer.get("/labels/v1/agreement").status_code == 200
        assert officer.get("/labels/v1/next").status_code == 404


def test_the_pages_are_there_and_no_other_file_is(ward: Ward) -> None:
    for name in ("", "agreement", *api.PARTS):
        found = httpx.get(f"{ward.address}/labels/{name}")
        assert found.status_code == 200
        assert "default-src 'self'" in found.headers["content-security-policy"]
    for name in ("index.html", "..%2Fapi.py", "store.py"):
        assert httpx.get(f"{ward.address}/labels/{name}").status_code == 404


def test_what_rests_on_few_sessions_is_not_shown() -> None:
    when = {"valid_from": now(), "recorded_at": now()}

    def event(session_id: int, annotator: str, label: int) -> store.LabelEvent:
        key = f"{session_id} {annotator}"
        source = "adjudication" if annotator == "judge" else "clinician"
        fields = {"source": source, "annotator": annotator, "unique_key": key, **when}
        return store.LabelEvent("session", str(session_id), label, **fields)  # type: ignore[arg-type]

    events = [event(n, name, n % 2) for n in range(6) for name in ("ana", "bia")]
    events += [event(n, "caio", 1) for n in range(4)] + [event(0, "judge", 0)]
    found = shown(report(events), {"open": 3, "settled": 0, "disputed": 7})
    assert found.backlog == {"open": None, "settled": 0, "disputed": 7}
    ana, _, caio = found.annotators
    assert (ana["n_items"], ana["n_gold"], ana["gold_accuracy"]) == (6, None, None)
    assert {value for name, value in caio.items() if name != "annotator"} == {None}
    assert [pair["kappa"] for pair in found.pairs] == [1.0, None, None]
    few = shown(report([event(n, name, 1) for n in range(4) for name in ("ana", "bia")]), {})
    assert set(few.overall.values()) == {None}  # eight answers by two people tell of four sessions
