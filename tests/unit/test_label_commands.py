"""The commands on labels, on a collection with sessions."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pandas as pd
import pytest
from collecting import ANSWERS, Collection, Session, session
from sqlalchemy import Connection, select

from spira_services import people
from spira_services.__main__ import main
from spira_services.labelling import OfCollection
from spira_services.labels import assignment, store
from spira_services.people import Person
from spira_tasks.artifacts.sources import NEWEST
from spira_tasks.contract.exits import EXIT_CONFIG

WELL = {"spo2": 98, "unit": "HOME", "cid10": None, "resp_rate": 14, "sample_type": "CONTROL"}
ILL = {"spo2": 85, "unit": "ICU", "resp_rate": 33}


@pytest.fixture
def collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Collection]:
    with Collection.at(tmp_path / "collection") as running:
        monkeypatch.setenv("SPIRA_SERVICES_DATABASE", str(running.engine.url))
        monkeypatch.setenv("SPIRA_COLLECTION_AUDIO", str(running.folder / "audio"))
        yield running


def sent(collection: Collection) -> list[Session]:
    """Five who are well and five who are ill, the well first."""
    phone = collection.device()
    forms = [ANSWERS | about for about in [WELL] * 5 + [ILL] * 5]
    sessions = [session(n, 3.0, form=form | number(n)) for n, form in enumerate(forms)]
    assert {phone.send(one).json()["status"] for one in sessions} == {"accepted"}
    return sessions


def number(n: int) -> dict[str, str]:
    return {"patient_rgh": str(1_000_000 + n)}


def test_weak_labels_are_recorded_once_and_come_into_a_snapshot_when_asked_for(
    collection: Collection, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sent(collection)
    under = str(tmp_path / "snapshots")
    assert [main(["labels", "weak"]) for _ in "12"] == [0, 0]
    first, again = capsys.readouterr().out.split("10 sessions")[1:]
    assert "10 new or changed" in first
    assert "0 new or changed" in again
    (row,) = [line.split() for line in first.splitlines() if line.startswith("breathing")]
    assert row[:3] == ["breathing", "1", "100%"]
    assert main(["snapshot", under]) == EXIT_CONFIG
    assert main(["snapshot", under, "--with-weak"]) == 0
    output = capsys.readouterr().out
    assert "Too few sessions have two labels" in output
    place = Path(output.split()[1])
    assert "| sessions by weak | 10 |" in (place / "datasheet.md").read_text()
    assert not (Path(under) / NEWEST).exists()  # the schedule trains on labels of people
    table = pd.read_csv(place / "recordings.csv")
    assert set(table["label_source"]) == {"weak"}
    assert set(table["label_version"]) == {2}
    assert table.groupby("sample_type")["ri_clinical"].unique().map(list).to_dict() == {
        "CONTROL": [0],
        "PATIENT": [1],
    }


def says(connection: Connection, person: Person, one: Session, label: int) -> None:
    assert assignment.next_item(connection, person) is not None
    answer = assignment.Answer("session", str(one.session_id), label, None, "1", uuid4().hex)
    assert assignment.submit(connection, person, answer)


def test_labels_that_signs_or_a_model_speak_against_are_adjudicated(
    collection: Collection, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sessions = sent(collection)
    with collection.engine.begin() as connection:
        OfCollection(collection.blobs).prepare(connection)
        for name in ("ana", "bia"):
            for n, one in enumerate(sessions):
                label = 1 if n == 0 or n > 5 else 0  # of the first and the sixth not what is known
                says(connection, Person(name, frozenset({"clinician"})), one, label)
    probabilities = [0.1, 0.2, 0.1, 0.15, 0.1, 0.9, 0.8, 0.9, 0.95, 0.1]  # and the last one
    file = tmp_path / "predictions.parquet"
    rows = {"record_id": [f"{one.session_id}-sentence" for one in sessions], "clean": probabilities}
    pd.DataFrame(rows).to_parquet(file)
    assert [main(["labels", "relabel", "--predictions", str(file)]) for _ in "12"] == [0, 0]
    assert capsys.readouterr().out.splitlines() == [
        "signs: fewer than 5 suspects, fewer than 5 asked anew",
        "model: fewer than 5 suspects, fewer than 5 asked anew",
        "signs: fewer than 5 suspects, 0 asked anew",
        "model: fewer than 5 suspects, 0 asked anew",
    ]
    with collection.engine.begin() as connection:
        assert assignment.backlog(connection)["disputed"] == 3
        asked = store.events_as_of(connection, datetime.now(UTC), assignment.REVIEW)
        assert {one.item_id: one.value["reason"] for one in asked} == {
            str(sessions[n].session_id): reason
            for n, reason in ((0, "signs"), (5, "signs"), (9, "model"))
        }
    with collection.engine.begin() as connection:
        eva = people.add(connection, "eva", ["adjudicator"], None, "cli:test")
        gold = assignment.next_item(connection, Person(eva, frozenset({"adjudicator"})))
    assert gold is not None
    for status, is_settled in ((EXIT_CONFIG, False), (0, True)):
        if is_settled:
            with collection.engine.begin() as connection:
                answer = assignment.Answer("session", gold.item_id, 1, None, "1", uuid4().hex)
                judge = Person(eva, frozenset({"adjudicator"}))
                assert assignment.submit(connection, judge, answer)
        assert main(["labels", "gold", gold.item_id, "--adjudicator", "eva"]) == status
    assert main(["labels", "gold", gold.item_id, "--adjudicator", "ana"]) == EXIT_CONFIG
    with collection.engine.begin() as connection:
        known = select(assignment.TASKS.c.item_id).where(assignment.TASKS.c.is_gold)
        assert connection.execute(known).scalars().all() == [gold.item_id]
    capsys.readouterr()
    assert main(["labels", "relabel", "--predictions", str(tmp_path)]) == EXIT_CONFIG
    assert "predictions.parquet" in capsys.readouterr().err
