"""From a hospital's records to facts, label events and a snapshot's labels, each of them once."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from collecting import ANSWERS, Collection, Session, session
from databases import HAS_POSTGRES, migrated, server
from hospital import BEGIN, DAY, ENTRIES, MAPPING, SYSTEM, Hospital, served
from sqlalchemy import Engine, create_engine, func, select, text

from spira_services import events, snapshot
from spira_services.__main__ import main
from spira_services.collection.sessions import LINKAGE_KEY
from spira_services.forgetting import forget
from spira_services.hospital_sync import Report, sync_hospitals
from spira_services.hospitals import fhir
from spira_services.hospitals.kept import FACTS, SYNCS
from spira_services.hospitals.reading import Reading
from spira_services.hospitals.rows import Entry
from spira_services.hospitals.sources import VARIABLE
from spira_services.hospitals.watch import Alert
from spira_services.labelling import OfCollection, facts
from spira_services.labels import store
from spira_services.labels.policy import settled
from spira_tasks.artifacts import Store
from spira_tasks.contract.exits import EXIT_CONFIG, EXIT_REJECTED, EXIT_UNAVAILABLE
from spira_tasks.contract.pipelines import HOSPITAL_SYNC
from spira_tasks.errors import ConfigError, ServiceUnavailable
from spira_tasks.intake import pseudonyms
from spira_tasks.intake.pseudonyms import tombstone_tag
from spira_tasks.runner import run_step

KEY = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
AT = BEGIN + timedelta(hours=2)
LOCAL = Hospital(n_people=2, days=1, base="http://127.0.0.1:9/fhir")
ILL, OTHER = LOCAL.number(1), LOCAL.number(0)  # J96.0, J18.9
CONFIGURATION = """
[hc]
connector = "fhir"
address = "{address}"
system = "{system}"
entry_system = "{entries}"
secret_file = "hc.secret"
wards = {{ "UTI-3" = "ICU" }}
"""
FILES = {
    "hl7": '[hc]\nconnector = "hl7"\nfolder = "."\nwards = { UTI = "ICU" }\n',
    "csv": '[hc]\nconnector = "csv"\nfolder = "."\nmapping = "mapping.toml"\n',
}


def of(number: str, seed: int) -> Session:
    form = ANSWERS | {"patient_rgh": number, "cid10": None, "spo2": None, "temp": None}
    return session(seed, form=form, recorded_at=AT)


@pytest.fixture
def collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Collection]:
    monkeypatch.setenv(LINKAGE_KEY, KEY)
    with Collection.at(tmp_path / "collection", keeps_numbers=True) as running:
        monkeypatch.setenv("SPIRA_SERVICES_DATABASE", str(running.engine.url))
        phone = running.device()
        for seed, number in enumerate((ILL, OTHER)):
            assert phone.send(of(number, seed)).json()["status"] == "accepted"
        yield running


@pytest.fixture
def hospital() -> Iterator[Hospital]:
    hospital = Hospital(n_people=2, days=1, now=BEGIN + 2 * DAY)
    with served(hospital):
        yield hospital


def configured(folder: Path, hospital: Hospital, text: str = CONFIGURATION) -> str:
    file, secret = folder / "hospitals.toml", folder / "hc.secret"
    file.write_text(text.format(address=hospital.base, system=SYSTEM, entries=ENTRIES))
    secret.touch(mode=0o600)
    secret.write_text("Bearer of-the-server\n")
    return str(file)


def count(engine: Engine) -> dict[str, int]:
    with engine.connect() as connection:
        return {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in (FACTS, SYNCS, store.EVENTS)
        }


def labels(engine: Engine, as_of: datetime | None = None) -> dict[str, tuple[int, str]]:
    with engine.begin() as connection:
        rows = settled(connection, as_of or datetime.now(UTC))
    return {row.session_id: (row.ri_clinical, row.label_source) for row in rows}


def test_what_a_hospital_says_labels_a_session_once_by_whatever_wire(
    collection: Collection,
    hospital: Hospital,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(VARIABLE, configured(tmp_path, hospital))
    assert main(["hospitals", "sync", "hc", "--dry-run"]) == 0
    assert count(collection.engine) == {FACTS.name: 0, SYNCS.name: 0, store.EVENTS.name: 0}
    before = datetime.now(UTC)
    assert main(["hospitals", "sync"]) == 0
    after = datetime.now(UTC)
    stored = count(collection.engine)
    assert stored[store.EVENTS.name] == 14  # 12 saturations and 2 diagnoses
    assert stored[FACTS.name] == len(hospital.known())

    for kind, configuration in FILES.items():  # the same facts, so nothing is new
        hospital.write_hl7(tmp_path)
        hospital.write_csv(tmp_path)
        (tmp_path / "mapping.toml").write_text(MAPPING)
        (tmp_path / f"{kind}.toml").write_text(configuration)
        assert main(["hospitals", "sync", "--config", str(tmp_path / f"{kind}.toml")]) == 0
    assert main(["hospitals", "sync"]) == 0
    assert count(collection.engine) == stored | {SYNCS.name: 4}
    said = capsys.readouterr().out
    assert said.count("2 of 2 participants found; stored: 0 new facts, 0 label events") == 3
    assert "stale: nothing new for days" in said
    assert ILL[:-1] not in said

    with pytest.raises(ConfigError, match="nothing was accepted and labelled"):
        snapshot.write(collection.engine, collection.blobs, str(tmp_path / "snapshots"), before)
    made = snapshot.write(collection.engine, collection.blobs, str(tmp_path / "snapshots"), after)
    table = (Path(made.place) / "recordings.csv").read_text()
    assert made.about["n_subjects_by_label"] == {"1": 1}
    assert table.count(",hospital_record,") == 3
    who = pseudonyms.known_as(pseudonyms.key(), "hc", ILL)
    assert {row.split(",")[4] for row in table.splitlines()[1:]} == {who}
    with collection.engine.begin() as connection:
        (event,) = (e for e in store.events_as_of(connection, after, store.LABEL) if e.label == 1)
        alerts = select(events.EVENTS.c.details).where(events.EVENTS.c.action == "hospital_alert")
        kept = connection.execute(alerts).scalars().all()
    assert (event.source, event.instruction_version) == ("hospital_record", "hospital-diagnoses/1")
    assert (event.value["rule"], event.value["rationale"]) == ("J96.0", "acute respiratory failure")
    assert {one["code"] for one in kept} == {"stale"}


def test_what_the_form_leaves_open_is_seen_in_the_hospital(
    collection: Collection, hospital: Hospital, tmp_path: Path
) -> None:
    config = configured(tmp_path, hospital)
    assert main(["hospitals", "sync", "--config", config]) == 0
    near = next(s for s in hospital.sayings if (s.number, s.quantity) == (ILL, "spo2"))
    sent = replace(of(ILL, 7), recorded_at=near.at + timedelta(minutes=9))
    collection.device().send(sent)
    with collection.engine.begin() as connection:
        signs = OfCollection(collection.blobs).signs(connection, str(sent.session_id))
        _, known = facts(connection)[str(sent.session_id)]
    assert (known["spo2"], known["on_oxygen"], known["cid10"]) == (near.value, False, "J96.0")
    assert (signs["spo2"], signs["spo2_at"]) == (f"{near.value:g}", near.at.isoformat())
    assert (signs["cid10"], signs["unit"], signs["on_oxygen"]) == ("J96.0", "WARD", "false")


@pytest.mark.parametrize(
    ("fault", "status"), [("server_down", EXIT_UNAVAILABLE), ("access_denied", EXIT_REJECTED)]
)
def test_a_sync_that_found_nobody_says_whether_a_later_one_may(
    fault: str,
    status: int,
    collection: Collection,
    hospital: Hospital,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hospital.fault = fault
    config = configured(tmp_path, hospital, CONFIGURATION + "tries = 1\n")
    assert main(["hospitals", "sync", "--config", config]) == status
    assert f"\n  {fault}" in (said := capsys.readouterr().out)
    assert "next:" in said
    assert count(collection.engine) == {FACTS.name: 0, SYNCS.name: 1, store.EVENTS.name: 0}


def test_only_who_consents_is_asked_about(
    collection: Collection, hospital: Hospital, tmp_path: Path
) -> None:
    phone = collection.device()
    sent = of(hospital.number(1), 9)
    phone.send(sent)
    config = configured(tmp_path, hospital)
    with collection.engine.begin() as connection:
        theirs = "UPDATE collection_consents SET status = 'pending'"
        connection.execute(text(theirs))
    assert main(["hospitals", "sync", "--config", config]) == 0
    assert hospital.requests == []


@pytest.mark.parametrize(
    ("change", "says_what"),
    [
        (("entry_system", "entry_sytem"), "hc.fhir.entry_sytem"),
        (('connector = "fhir"', 'connector = "soap"'), "hc: Input tag 'soap'"),
        (("hc.secret", "hc.secrets"), "hc.secrets cannot be read"),
        (('"ICU"', '"ROOF"'), "ROOF"),
        (("[hc]", "[another]"), r"no \[hc\]; it has another"),
    ],
)
def test_a_configuration_that_is_wrong_is_refused_with_its_place(
    change: tuple[str, str], says_what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configured(tmp_path, LOCAL, CONFIGURATION.replace(*change))
    assert main(["hospitals", "sync", "hc", "--config", config]) == EXIT_CONFIG
    assert re.search(says_what, capsys.readouterr().err)


def test_a_secret_that_everybody_can_read_is_not_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configured(tmp_path, LOCAL)
    (tmp_path / "hc.secret").chmod(0o644)
    assert main(["hospitals", "sync", "--config", config]) == EXIT_CONFIG
    said = capsys.readouterr().err
    assert "chmod 600" in said
    assert "of-the-server" not in said


class Said:
    """A connector of entries that are there already."""

    hospital_id, source = "hc", "hc:said"

    def __init__(self, *entries: Entry) -> None:
        self.entries = entries

    def read(self, participants: Any, since: Any) -> Reading:  # noqa: ARG002
        found = {person.subject_id for person in participants}
        return Reading(self.source, [*self.entries], found=found)


def entry(quantity: Any, value: Any, source_id: str, days: int = 0, **of: Any) -> Entry:
    who = pseudonyms.known_as(pseudonyms.key(), "hc", ILL)
    said: dict[str, Any] = {"at": AT, "status": "final", "updated": AT + days * DAY} | of
    return Entry(who, quantity, "field", value, None, source_id=source_id, **said)


def test_the_label_follows_what_the_hospital_says_now(collection: Collection) -> None:
    def label(*entries: Entry) -> list[int]:
        sync_hospitals(collection.engine, [Said(*entries)], "cli:test")
        return [ri for ri, _ in labels(collection.engine).values()]

    ill, pneumonia = entry("diagnosis", "J96.0", "1"), entry("diagnosis", "J18.9", "2")
    assert label(ill, pneumonia) == [1]  # both at one time
    then = datetime.now(UTC)
    later = {"at": AT + timedelta(hours=3)}
    assert label(entry("diagnosis", "J96.0", "1", 1, status="refuted", **later), pneumonia) == []
    assert label(entry("diagnosis", "J96.0", "1", 2)) == [1]  # as it was at first
    assert label(entry("diagnosis", "J96.0", "1", 3, status="preliminary")) == []
    assert label(entry("diagnosis", "J96.0", "1", 4, status="corrected")) == [1]
    assert label(entry("diagnosis", "S72.0", "1", 5, status="corrected")) == []
    assert label(entry("diagnosis", "S72.0", "1", 5, status="corrected")) == []
    assert [ri for ri, _ in labels(collection.engine, then).values()] == [1]
    assert count(collection.engine)[FACTS.name] == 7


def test_oxygen_that_is_recorded_later_is_another_event_of_the_saturation(
    collection: Collection,
) -> None:
    saturation, oxygen = entry("spo2", 91, "1"), entry("on_oxygen", True, "2")
    found = [
        sync_hospitals(collection.engine, [Said(*said)], "cli:test")[0].n_label_events
        for said in ((saturation,), (saturation, oxygen), (saturation, oxygen))
    ]
    assert found == [1, 1, 0]
    with collection.engine.begin() as connection:
        events_of = store.events_as_of(connection, datetime.now(UTC), "spo2")
    assert [event.value["oxygen"] for event in events_of] == [None, True]


def test_a_sync_that_another_one_overtook_stores_nothing(collection: Collection) -> None:
    class Slow(Said):
        def read(self, participants: Any, since: Any) -> Reading:
            sync_hospitals(collection.engine, [Said(*self.entries)], "cli:test")
            return super().read(participants, since)

    with pytest.raises(ServiceUnavailable, match="run it again"):
        sync_hospitals(collection.engine, [Slow(entry("spo2", 91, "1"))], "cli:test")
    assert count(collection.engine) == {FACTS.name: 1, SYNCS.name: 1, store.EVENTS.name: 1}


def test_a_person_who_is_erased_while_a_hospital_is_read_leaves_nothing(
    collection: Collection, tmp_path: Path
) -> None:
    tag = pseudonyms.tombstone_tag(pseudonyms.known_as(pseudonyms.key(), "hc", ILL))
    said = entry("diagnosis", "J96.0", "1")

    def erase() -> dict[str, int]:
        under = str(tmp_path / "snapshots")
        return forget(collection.engine, collection.blobs, under, tag, "cli:test")

    class Slow(Said):
        def read(self, participants: Any, since: Any) -> Reading:
            counts = erase()
            assert (counts["n_facts"], counts["n_label_events"]) == (1, 1)
            return super().read(participants, since)

    sync_hospitals(collection.engine, [Said(said)], "cli:test")
    more = entry("diagnosis", "J96.0", "2")
    sync_hospitals(collection.engine, [Slow(said, more)], "cli:test")
    assert count(collection.engine) == {FACTS.name: 0, SYNCS.name: 2, store.EVENTS.name: 0}


def test_facts_cannot_be_changed(collection: Collection) -> None:
    sync_hospitals(collection.engine, [Said(entry("spo2", 91, "1"))], "cli:test")
    with pytest.raises(Exception, match="append-only"), collection.engine.begin() as connection:
        connection.execute(FACTS.update().values(unit="?"))


@pytest.mark.skipif(not HAS_POSTGRES, reason="no Postgres here")
def test_a_sync_that_is_killed_while_it_stores_leaves_nothing_and_the_next_one_all(
    hospital: Hospital, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LINKAGE_KEY, KEY)
    config = configured(tmp_path, hospital)
    with (
        server("postgresql") as address,
        migrated(address, tmp_path) as made,
        Collection.at(tmp_path, str(made.url), keeps_numbers=True) as collection,
    ):
        monkeypatch.setenv("SPIRA_SERVICES_DATABASE", str(made.url))
        assert collection.device().send(of(ILL, 1)).json()["status"] == "accepted"
        command = ["-m", "spira_services", "hospitals", "sync", "--config", config]
        with collection.engine.connect() as holding:
            holding.execute(text("LOCK TABLE events IN EXCLUSIVE MODE"))  # of what is stored last
            with subprocess.Popen([sys.executable, *command]) as syncing:
                waits = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
                with create_engine(made.url).connect() as watching:
                    while not watching.execute(waits).scalar_one():
                        assert syncing.poll() is None
                        time.sleep(0.05)
                        watching.rollback()
                os.kill(syncing.pid, signal.SIGKILL)
        assert count(made) == {FACTS.name: 0, SYNCS.name: 0, store.EVENTS.name: 0}
        assert [main([*command[2:]]) for _ in "12"] == [0, 0]
        theirs = [one for one in hospital.known() if one.number == ILL]
        assert count(made) == {FACTS.name: len(theirs), SYNCS.name: 2, store.EVENTS.name: 7}
        assert [ri for ri, _ in labels(made).values()] == [1]


def test_a_report_without_anybody_to_ask_is_a_success() -> None:
    nothing = (Alert("no_files", "hc:csv"),)
    assert Report("hc:csv", 0, 3, 0, 0, 0, 0, nothing).exit_status == 0
    assert Report("hc:csv", 1, 3, 0, 0, 0, 0, nothing).exit_status == EXIT_REJECTED


def test_the_step_syncs_a_folder_and_an_erasure_reaches_what_it_kept(
    collection: Collection, hospital: Hospital, tmp_path: Path
) -> None:
    folder = tmp_path / "hospitals"
    folder.mkdir()
    configured(folder, hospital)
    step = HOSPITAL_SYNC.configure(data=str(folder)).step("sync")
    result = run_step(step, "one", Store(str(tmp_path / "store")))
    stored = count(collection.engine)
    assert result.metrics["n_facts"] == stored[FACTS.name] > 0
    assert result.metrics["n_label_events"] == stored[store.EVENTS.name] > 0
    with collection.engine.connect() as connection:
        tags = {*map(tombstone_tag, connection.execute(select(FACTS.c.subject_id)).scalars())}
    under = str(tmp_path / "snapshots")
    gone = [forget(collection.engine, collection.blobs, under, tag, "cli:test") for tag in tags]
    assert sum(one["n_facts"] for one in gone) == stored[FACTS.name]
    left = count(collection.engine)
    assert (left[FACTS.name], left[store.EVENTS.name]) == (0, 0)


def test_a_step_that_finds_nobody_ends_as_its_alerts_say(
    collection: Collection, hospital: Hospital, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fhir, "FIRST_WAIT_SECONDS", 0.0)
    configured(tmp_path, replace(hospital, base="http://127.0.0.1:9/fhir"))
    step = HOSPITAL_SYNC.configure(data=str(tmp_path)).step("sync")
    with pytest.raises(ServiceUnavailable, match="nobody was found"):
        run_step(step, "one", Store(str(tmp_path / "store")))
