"""Folders of recordings become one table; every row that does not get there has a reason."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from spira_tasks.artifacts import Store
from spira_tasks.contract import Step
from spira_tasks.errors import ConfigError, GateRejected
from spira_tasks.intake.listener import pools
from spira_tasks.intake.record_contract import COLUMNS, typed
from spira_tasks.runner import run_step
from spira_tasks.speech.audio import read_pcm16

AS_OF = "2026-11-01"
Row = dict[str, Any]


def voice(number: int, seconds: float = 1.5, rate_hz: int = 16_000) -> bytes:
    """A WAV file that no other number has."""
    rng = np.random.default_rng([7, number])
    times = np.arange(round(seconds * rate_hz)) / rate_hz
    samples = 0.2 * np.sin(2 * np.pi * (120 + number) * times) + rng.normal(0, 0.01, times.size)
    content = io.BytesIO()
    soundfile.write(content, samples, rate_hz, format="WAV", subtype="PCM_16")
    return content.getvalue()


class Cohort:
    """A folder in the canonical layout that a test can spoil."""

    def __init__(self, folder: Path, n_rows: int = 12) -> None:
        self.folder = folder
        self.rows: list[Row] = []
        (folder / "audio").mkdir(parents=True)
        for number in range(n_rows):
            self.add(number)

    def add(self, number: int, **changes: Any) -> None:
        name = f"audio/{1234567 + number // 2}A-{number}.wav"  # file names tell, as in real life
        (self.folder / name).write_bytes(voice(number))
        row = {
            "record_id": f"r{number:03d}",
            "task": ("VOWEL", "SENTENCE")[number % 2],
            "audio_uri": name,
            "patient_rgh": f"{1234567 + number // 2}A",
            "session_id": f"s{number // 2}",
            "hospital_id": ("site-a", "site-b")[number // 2 % 2],
            "collected_at": "2026-03-04T10:20:30-03:00",
            "sex": ("F", "M")[number // 2 % 2],
            "age": 40 + number % 40,
            "spo2": 95,
            "sample_type": ("PATIENT", "CONTROL")[number // 2 % 2],
            "ri_clinical": 1 - number // 2 % 2,
            "consent_status": "granted",
        }
        self.rows.append(row | changes)

    def write(self, **options: Any) -> str:
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        with (self.folder / "recordings.csv").open("w", newline="", **options) as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.rows)
        return f"folder:{self.folder}"


class Ingested:
    """What a run of ingest left, whether it blocked or not."""

    def __init__(self, data: str, store: Store, run_id: str = "r", **config: Any) -> None:
        step = Step("ingest", "ingest", {"data": data}, {"as_of": AS_OF} | config)
        self.blocked = False
        try:
            run_step(step, run_id, store)
        except GateRejected:
            self.blocked = True
        record = store.read_record(run_id, "ingest")
        assert record is not None
        self.digests = record["outputs"]
        self.metrics = record["metrics"]
        self.verdicts = {verdict["name"]: verdict for verdict in record["verdicts"]}
        self.record = record
        self.store = store

    def table(self, output: str, name: str | None = None) -> pd.DataFrame:
        directory = self.store.directory(self.digests[output])
        return pd.read_parquet(directory.path(f"{name or output}.parquet"))

    @property
    def reasons(self) -> dict[str, str]:
        table = self.table("quarantine")
        return dict(zip(table["record_id"], table["reason"], strict=True))


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return Cohort(tmp_path / "data")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def test_a_clean_folder_becomes_one_table(cohort: Cohort, store: Store) -> None:
    made = Ingested(cohort.write(), store)
    table = made.table("recordings")
    assert list(table["record_id"]) == [f"r{number:03d}" for number in range(12)]
    assert table["subject_id"].nunique() == 6
    assert table["subject_id"].str.fullmatch("[0-9a-f]{64}").all()
    assert set(table["label"]) == {0, 1}
    assert table["collected_at"].iloc[0] == datetime(2026, 3, 4, 13, 20, 30, tzinfo=UTC)
    assert (table["duration_seconds"] == 1.5).all()
    waveform = read_pcm16(store.blobs.read(table["waveform"].iloc[0]))
    assert waveform.shape == (24_000,)
    assert not made.blocked
    assert made.table("quarantine").empty
    assert made.table("ward_noise").empty
    assert made.metrics["n_seconds_of_audio"] == 18.0


def test_columns_that_nobody_sent_are_there_and_empty(cohort: Cohort, store: Store) -> None:
    table = Ingested(cohort.write(), store).table("recordings")
    dropped = {"patient_rgh", "patient_pid", "audio_uri"}
    assert set(COLUMNS) - dropped <= set(table)
    assert not dropped & set(table)
    assert table["heart_rate"].isna().all()
    assert str(table["on_oxygen"].dtype) == "boolean"
    assert str(table["age"].dtype) == "Int64"
    assert str(table["label"].dtype) == "Int8"


def test_no_hospital_number_and_no_file_name_leaves_ingest(
    cohort: Cohort, store: Store, tmp_path: Path
) -> None:
    cohort.rows[3]["session_id"] = f"visit-of-{cohort.rows[3]['patient_rgh'].lower()}"
    cohort.rows[5]["record_id"] = "Maria da Silva"
    made = Ingested(cohort.write(), store)
    assert made.metrics["n_quarantined"] == 2
    for path in (tmp_path / "store").rglob("*"):
        if path.is_file() and "corrupt" not in path.parts:
            content = path.read_bytes().lower()
            for row in cohort.rows:
                assert row["patient_rgh"].lower().encode() not in content, path
            assert b"maria" not in content, path


def cut(row: Row, cohort: Cohort) -> None:
    path = cohort.folder / row["audio_uri"]
    path.write_bytes(path.read_bytes()[:20_000])


def overwrite(content: bytes) -> Callable[[Row, Cohort], None]:
    return lambda row, cohort: (cohort.folder / row["audio_uri"]).write_bytes(content) and None


def set_to(**cells: Any) -> Callable[[Row, Cohort], None]:
    return lambda row, _: row.update(cells)


def not_finite() -> bytes:
    content = io.BytesIO()
    soundfile.write(content, np.full(32_000, np.nan), 16_000, format="WAV", subtype="FLOAT")
    return content.getvalue()


FAULTS: list[tuple[str, Callable[[Row, Cohort], None]]] = [
    ("missing_value", set_to(session_id="")),
    ("missing_value", set_to(age=" ")),
    ("missing_value", set_to(patient_rgh="")),
    ("bad_value", set_to(task="COUGH")),
    ("bad_value", set_to(sex="f")),
    ("bad_value", set_to(age="forty")),
    ("bad_value", set_to(spo2="0.93")),
    ("bad_value", set_to(ri_clinical="2")),
    ("bad_value", set_to(record_id="a/b")),
    ("bad_value", set_to(patient_pid="12345")),
    ("impossible_value", set_to(age="450")),
    ("impossible_value", set_to(age="12")),
    ("impossible_value", set_to(temp="98.6")),
    ("impossible_value", set_to(height="1.75")),
    ("decimal_comma", set_to(temp="36,5")),
    ("naive_timestamp", set_to(collected_at="2026-03-04T10:20:30")),
    ("naive_timestamp", set_to(spo2_at="2026-03-04")),
    ("bad_timestamp", set_to(collected_at="04/03/2026 10:20")),
    ("bad_timestamp", set_to(collected_at="2027-03-04T10:20:30Z")),
    ("bad_timestamp", set_to(retention_until="soon")),
    ("consent_pending", set_to(consent_status="pending")),
    ("consent_withdrawn", set_to(consent_status="withdrawn")),
    ("retention_expired", set_to(retention_until="2026-10-31")),
    ("personal_data_in_text", set_to(device_model="Moto G (CPF 000.000.001-91)")),
    ("personal_data_in_text", set_to(x_comment="call +55 11 98765-4321")),
    ("personal_data_in_text", set_to(x_comment="someone@example.org")),
    ("missing_audio", set_to(audio_uri="audio/never-came.wav")),
    ("missing_audio", set_to(audio_uri="../secrets.wav")),
    ("missing_audio", set_to(audio_uri="/etc/passwd")),
    ("checksum_mismatch", set_to(sha256="0" * 64)),
    ("truncated", cut),
    ("empty", overwrite(b"")),
    ("unknown_container", overwrite(b"<!doctype html><title>Login</title>")),
    ("undecodable", overwrite(b"OggS" + bytes(100))),
    ("constant", overwrite(voice(0)[:44] + bytes(48_000))),
    ("not_finite", overwrite(not_finite())),
    ("low_sample_rate", overwrite(voice(90, rate_hz=8_000))),
    ("too_short", overwrite(voice(91, seconds=0.5))),
    ("too_long", overwrite(voice(92, seconds=3))),
    ("duplicate_record_id", set_to(record_id="r000")),
    ("duplicate_session_task", set_to(session_id="s0")),
]


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Row], Ingested]:
    """A cohort in which every fault above has its own row, among as many good ones."""
    folder = tmp_path_factory.mktemp("spoiled")
    cohort = Cohort(folder / "data", n_rows=2 + 2 * len(FAULTS))
    for number, (_, spoil) in enumerate(FAULTS):
        spoil(cohort.rows[2 + 2 * number], cohort)
    made = Ingested(cohort.write(), Store(str(folder / "store")), max_duration_seconds=2.0)
    return cohort.rows, made


@pytest.mark.parametrize("number", range(len(FAULTS)), ids=lambda n: f"{n}-{FAULTS[n][0]}")
def test_a_bad_row_goes_to_quarantine_with_its_reason(
    number: int, spoiled: tuple[list[Row], Ingested]
) -> None:
    rows, made = spoiled
    quarantine = made.table("quarantine").set_index("row")
    position = 2 + 2 * number
    assert quarantine.loc[position + 1, "reason"] == FAULTS[number][0]
    for value in (rows[position].get("device_model"), rows[position].get("x_comment"), "98.6"):
        assert not value or value not in quarantine.loc[position + 1, "detail"]


def test_good_rows_stay_where_others_are_bad(spoiled: tuple[list[Row], Ingested]) -> None:
    rows, made = spoiled
    kept = set(made.table("recordings")["record_id"])
    good = {"r000", "r001"} | {f"r{3 + 2 * number:03d}" for number in range(len(FAULTS))}
    assert kept == good
    assert made.metrics["n_rows"] == len(rows)
    total = sum(made.metrics[name] for name in ("n_recordings", "n_quarantined", "n_excluded"))
    assert total == len(rows)


def test_too_many_bad_rows_block(spoiled: tuple[list[Row], Ingested]) -> None:
    _, made = spoiled
    assert made.blocked
    verdict = made.verdicts["quarantine_share"]
    assert verdict["verdict"] == "block"
    n_not_permitted = 3  # pending, withdrawn, expired: nobody's mistake
    assert verdict["n"] == 2 + 2 * len(FAULTS) - n_not_permitted
    assert "2 truncated" not in verdict["reason"]
    assert "1 truncated" in verdict["reason"]


def test_what_is_stored_and_logged_quotes_no_cell(
    spoiled: tuple[list[Row], Ingested], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cohort = Cohort(tmp_path / "data")
    planted = ["forty-two-planted", "planted/record", "Rua Planted 12", "planted,5"]
    columns = ["age", "record_id", "sex", "temp"]
    for row, column, text in zip(cohort.rows, columns, planted, strict=False):
        row[column] = text
    with caplog.at_level(logging.DEBUG, "spira_tasks"):
        made = Ingested(cohort.write(), Store(str(tmp_path / "store")))
    assert made.metrics["n_quarantined"] == 4
    report = made.store.directory(made.digests["report"]).path("ingest.json").read_text()
    table = made.table("quarantine").to_csv()
    assert "planted" not in (caplog.text + json.dumps(made.record) + report + table).lower()


def test_one_bad_file_in_a_small_cohort_is_tolerated(cohort: Cohort, store: Store) -> None:
    cut(cohort.rows[4], cohort)
    made = Ingested(cohort.write(), store)  # 8 %, but of twelve that says nothing
    assert not made.blocked
    assert made.reasons == {"r004": "truncated"}


def test_nothing_left_blocks_however_tolerant_one_is(cohort: Cohort, store: Store) -> None:
    for row in cohort.rows:
        row["consent_status"] = "pending"
    made = Ingested(cohort.write(), store, max_quarantine_fraction=1.0)
    assert made.blocked
    assert "nothing is left" in made.verdicts["quarantine_share"]["reason"]
    assert len(made.table("recordings")) == 0
    assert set(COLUMNS) & set(made.table("recordings"))  # an empty table has its columns


def test_a_bad_site_blocks_where_the_share_in_all_does_not(tmp_path: Path, store: Store) -> None:
    cohort = Cohort(tmp_path / "data", n_rows=60)
    for row in cohort.rows[:6]:
        row["hospital_id"], row["age"] = "site-c", ""
    made = Ingested(cohort.write(), store, max_quarantine_fraction=0.1)
    assert made.verdicts["quarantine_share"]["verdict"] == "pass"
    assert made.verdicts["quarantine_share_by_site"]["verdict"] == "block"


def test_trials_of_the_app_are_excluded_and_counted(cohort: Cohort, store: Store) -> None:
    cohort.rows[0]["sample_type"] = "TEST"
    cohort.rows[1] |= {"sample_type": "TEST", "age": "whatever"}
    made = Ingested(cohort.write(), store)
    counted = {name: made.metrics[name] for name in ("n_recordings", "n_excluded", "n_quarantined")}
    assert counted == {"n_recordings": 10, "n_excluded": 2, "n_quarantined": 0}


def test_the_same_upload_counts_once(cohort: Cohort, store: Store) -> None:
    cohort.rows.append(cohort.rows[3] | {"record_id": "again", "session_id": "s-again"})
    made = Ingested(cohort.write(), store)
    assert made.reasons == {"again": "duplicate_audio"}


@pytest.mark.parametrize(
    ("on_disk", "in_table"),
    [
        ("audio/Sa\u0303o.wav", "audio/S\u00e3o.wav"),  # a Mac takes accents apart
        ("audio/a.wav", "audio\\a.wav"),
        ("audio/a.wav", "./audio//a.wav"),
    ],
)
def test_a_path_is_found_as_other_systems_write_it(
    cohort: Cohort, store: Store, on_disk: str, in_table: str
) -> None:
    (cohort.folder / cohort.rows[0]["audio_uri"]).rename(cohort.folder / on_disk)
    cohort.rows[0]["audio_uri"] = in_table
    assert Ingested(cohort.write(), store).reasons == {}


def test_one_voice_under_two_names_is_nobodys(cohort: Cohort, store: Store) -> None:
    """Which of the two has the other's label, nobody can tell."""
    cohort.add(50)
    cohort.rows[-1]["audio_uri"] = cohort.rows[0]["audio_uri"]
    made = Ingested(cohort.write(), store)
    assert made.reasons == {"r000": "audio_of_two_subjects", "r050": "audio_of_two_subjects"}


def test_a_second_upload_replaces_a_broken_first(cohort: Cohort, store: Store) -> None:
    cohort.rows.append(cohort.rows[3] | {"record_id": "again"})
    again = cohort.folder / "audio/again.wav"
    again.write_bytes((cohort.folder / cohort.rows[3]["audio_uri"]).read_bytes())
    cohort.rows[-1]["audio_uri"] = "audio/again.wav"
    cut(cohort.rows[3], cohort)
    made = Ingested(cohort.write(), store)
    assert made.reasons == {"r003": "truncated"}
    assert "again" in set(made.table("recordings")["record_id"])


def test_hospital_and_number_make_a_person(cohort: Cohort, store: Store) -> None:
    cohort.rows[0]["patient_rgh"] = "1234567a"  # the check digit is typed in both cases
    cohort.rows[2] |= {"patient_rgh": "1234567A"}  # the same number in another hospital
    cohort.rows[4] |= {"patient_rgh": "", "patient_pid": "ab" * 32}
    table = Ingested(cohort.write(), store).table("recordings").set_index("record_id")
    assert table.loc["r000", "subject_id"] == table.loc["r001", "subject_id"]
    assert table.loc["r002", "subject_id"] != table.loc["r000", "subject_id"]
    assert table.loc["r004", "subject_id"] == "ab" * 32


def test_another_key_gives_other_pseudonyms_and_another_result(
    cohort: Cohort, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("SPIRA_PSEUDONYM_KEY", raising=False)
    data = cohort.write()
    first = Ingested(data, store)
    assert "SPIRA_PSEUDONYM_KEY is not set" in caplog.text
    monkeypatch.setenv("SPIRA_PSEUDONYM_KEY", "0123456789abcdef" * 2)
    second = Ingested(data, store, run_id="r2")
    assert first.record["key"] != second.record["key"]
    assert not set(first.table("recordings")["subject_id"]) & set(
        second.table("recordings")["subject_id"]
    )


def test_a_step_never_runs_with_another_key_than_it_names(
    cohort: Cohort, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="is not the one of this step"):
        Ingested(cohort.write(), store, pseudonym_key_id="12345678")
    monkeypatch.setenv("SPIRA_PSEUDONYM_KEY", "short")
    with pytest.raises(ConfigError, match="shorter than 16 bytes"):
        Ingested(cohort.write(), store)


def test_only_new_recordings_are_decoded(cohort: Cohort, tmp_path: Path, store: Store) -> None:
    Ingested(cohort.write(), store)
    memories = set((tmp_path / "store/memo").rglob("*.json"))
    assert len(memories) == 12
    cohort.add(70)
    second = Ingested(cohort.write(), store, run_id="r2")
    assert second.metrics["n_recordings"] == 13
    assert len(set((tmp_path / "store/memo").rglob("*.json")) - memories) == 1


def test_the_order_of_rows_and_the_run_change_no_byte(
    cohort: Cohort, store: Store, tmp_path: Path
) -> None:
    first = Ingested(cohort.write(), store)
    cohort.rows.reverse()
    second = Ingested(cohort.write(), Store(str(tmp_path / "other")))
    assert first.record["key"] != second.record["key"]
    for output in ("recordings", "ward_noise", "report"):
        assert first.digests[output] == second.digests[output]


def test_a_new_day_is_another_result_with_the_same_table(cohort: Cohort, store: Store) -> None:
    """Retention is judged every day; nothing downstream is computed again for it."""
    cohort.rows[0]["retention_until"] = "2026-11-02"
    data = cohort.write()
    days = [Ingested(data, store, run_id=f"d{day}", as_of=f"2026-11-0{day}") for day in (1, 2, 3)]
    assert days[0].digests["recordings"] == days[1].digests["recordings"]
    assert days[2].reasons == {"r000": "retention_expired"}


def test_parquet_and_csv_say_the_same(cohort: Cohort, store: Store, tmp_path: Path) -> None:
    for row in cohort.rows:
        row |= {"on_oxygen": "true", "temp": "36.6", "label_version": ""}
    cohort.rows[4]["spo2"] = ""  # makes a float column of whole numbers
    from_csv = Ingested(cohort.write(), store)
    frame = pd.DataFrame(cohort.rows)
    frame["collected_at"] = pd.to_datetime(frame["collected_at"])
    frame["on_oxygen"] = True
    frame["temp"] = 36.6
    frame["spo2"] = pd.to_numeric(frame["spo2"])
    frame["label_version"] = None
    (cohort.folder / "recordings.csv").unlink()
    frame.to_parquet(cohort.folder / "recordings.parquet")
    from_parquet = Ingested(f"folder:{cohort.folder}", store, run_id="r2")
    assert from_parquet.digests["recordings"] == from_csv.digests["recordings"]


def test_a_byte_order_mark_is_no_part_of_the_first_name(cohort: Cohort, store: Store) -> None:
    made = Ingested(cohort.write(encoding="utf-8-sig"), store)
    assert made.metrics["n_recordings"] == 12


def test_columns_with_x_are_carried_along_and_others_refused(cohort: Cohort, store: Store) -> None:
    for row in cohort.rows:
        row["x_room"] = "3"
    assert set(Ingested(cohort.write(), store).table("recordings")["x_room"]) == {"3"}
    for row in cohort.rows:
        row["blood_type"] = "A"
    with pytest.raises(GateRejected, match="does not know: blood_type; remove them, or"):
        run_step(Step("ingest", "ingest", {"data": cohort.write()}), "r2", store)


def refused(data: str, store: Store) -> str:
    with pytest.raises(GateRejected) as error:
        run_step(Step("ingest", "ingest", {"data": data}), "r", store)
    return str(error.value)


def test_a_table_that_is_none_is_refused_with_what_to_do(cohort: Cohort, store: Store) -> None:
    data = cohort.write()
    path = cohort.folder / "recordings.csv"
    text = path.read_text()
    path.write_text(text.replace(",", ";"))
    assert "separated by semicolons" in refused(data, store)
    path.write_bytes(text.replace("site-a", "São José").encode("latin-1"))
    assert "not UTF-8" in refused(data, store)
    path.write_text(text.replace("consent_status", "x_consent"))
    assert "lacks the required columns consent_status" in refused(data, store)
    path.write_text(text.replace("spo2", "age"))
    assert "names a column twice" in refused(data, store)
    path.write_text(text.replace("patient_rgh", "x_number"))
    assert "neither patient_pid nor patient_rgh" in refused(data, store)
    path.write_text("")
    assert "is empty" in refused(data, store)


def test_a_table_without_a_header_is_not_quoted(cohort: Cohort, store: Store) -> None:
    """Its "names" are the first patient's values."""
    data = cohort.write()
    path = cohort.folder / "recordings.csv"
    path.write_text(path.read_text().split("\n", 1)[1])
    message = refused(data, store)
    assert "is not a header of this layout" in message
    assert "1234567A" not in message
    assert "r000" not in message


def test_a_line_with_an_unquoted_comma_costs_that_line(cohort: Cohort, store: Store) -> None:
    data = cohort.write()
    path = cohort.folder / "recordings.csv"
    lines = path.read_text().splitlines()
    lines[5] = lines[5].replace("95", "9,5")
    path.write_text("\n".join(lines))
    quarantine = Ingested(data, store).table("quarantine")
    assert list(quarantine["row"]) == [5]
    assert list(quarantine["reason"]) == ["wrong_number_of_cells"]


def test_a_folder_without_a_table_says_what_was_looked_for(tmp_path: Path, store: Store) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/notes.txt").write_text("nothing here")
    with pytest.raises(ConfigError, match=r"recordings\.csv.*metadata_train\.csv"):
        run_step(Step("ingest", "ingest", {"data": f"folder:{tmp_path}/data"}), "r", store)


def test_two_tables_are_not_chosen_between(cohort: Cohort, store: Store) -> None:
    data = cohort.write()
    (cohort.folder / "metadata_train.csv").write_text("file_path,class\n")
    with pytest.raises(ConfigError, match="not clear which one"):
        run_step(Step("ingest", "ingest", {"data": data}), "r", store)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """The layout of the released SPIRA data: 3 + 2 + 2 rows, noises without a header."""
    folder = tmp_path / "released"
    (folder / "audio").mkdir(parents=True)
    (folder / "noise").mkdir()
    for number in range(7):
        (folder / f"audio/PTT-20200405-WA{number}.wav").write_bytes(voice(number))
    for number in range(4):
        (folder / f"noise/{number}.wav").write_bytes(voice(100 + number, seconds=2))
    path = "audio/PTT-20200405-WA{}.wav"
    train = [f"{path.format(n)},{n % 2},{'Mf'[n % 2]},{50 + n},{5 * (n % 2)}" for n in range(3)]
    (folder / "metadata_train.csv").write_text(
        "\n".join(["file_path,class,sexo,idade,nivel_falta_de_ar", *train])
    )
    for name, numbers in (("eval", (3, 4)), ("test", (5, 6))):
        lines = [f"{path.format(n)},{n % 2}" for n in numbers]
        (folder / f"metadata_{name}.csv").write_text("\n".join(["file_path,class", *lines]))
    (folder / "noise_data.csv").write_text("".join(f"noise/{n}.wav\n" for n in range(4)))
    return folder


def test_the_published_layout_keeps_every_row_and_its_given_split(
    published: Path, store: Store
) -> None:
    made = Ingested(f"folder:{published}", store)
    table = made.table("recordings")
    assert made.metrics["n_rows"] == len(table) == 7  # SPIRA's own scripts lost the first
    assert table["split_given"].value_counts().to_dict() == {"train": 3, "validation": 2, "test": 2}
    assert table["label"].sum() == 3
    assert set(table["task"]) == {"SENTENCE"}
    assert table["subject_id"].nunique() == 7
    assert table["age"].notna().sum() == 3
    assert table["hospital_id"].isna().all()
    assert not table["record_id"].str.contains("PTT|audio").any()
    assert made.metrics["n_ward_noises"] == 4  # and the first noise


def test_a_noise_list_may_have_a_header(published: Path, store: Store) -> None:
    path = published / "noise_data.csv"
    path.write_text("file_path\n" + path.read_text())
    assert Ingested(f"folder:{published}", store).metrics["n_ward_noises"] == 4


def test_published_files_of_one_cookie_are_one_person(published: Path, store: Store) -> None:
    cookie = "0f8fad5b-d9cb-469f-a165-70867728950e"
    for number in (0, 1):
        (published / f"audio/PTT-20200405-WA{number}.wav").rename(
            published / f"audio/{cookie}_{number}.wav"
        )
    path = published / "metadata_train.csv"
    text = path.read_text()
    for number in (0, 1):
        text = text.replace(f"PTT-20200405-WA{number}", f"{cookie}_{number}")
    path.write_text(text)
    table = Ingested(f"folder:{published}", store).table("recordings")
    assert table["subject_id"].nunique() == 6


def test_audio_in_two_published_splits_stays_in_the_first(published: Path, store: Store) -> None:
    (published / "audio/PTT-20200405-WA6.wav").write_bytes(voice(0))
    made = Ingested(f"folder:{published}", store)
    assert list(made.reasons.values()) == ["duplicate_audio"]
    assert made.table("recordings")["split_given"].value_counts()["train"] == 3


def add_ward_noise(cohort: Cohort, lines: list[str]) -> None:
    (cohort.folder / "ward_noise").mkdir()
    for number in range(5):
        path = cohort.folder / f"ward_noise/{number}.wav"
        path.write_bytes(voice(200 + number, seconds=2))
    (cohort.folder / "ward_noise.csv").write_text("\n".join(lines))


def test_ward_noises_keep_the_pool_they_were_given(cohort: Cohort, store: Store) -> None:
    pool = ["train", "train", "evaluation", "train", "tryout"]
    lines = [f"ward_noise/{number}.wav,{pool[number]}" for number in range(5)]
    add_ward_noise(cohort, ["file_path,x_pool", *lines])
    made = Ingested(cohort.write(), store)
    bank = made.table("ward_noise")
    assert list(bank.columns) == [
        "noise_id",
        "pool",
        "waveform",
        "duration_seconds",
        "level_dbfs",
        "peak",
    ]
    assert bank["pool"].value_counts().to_dict() == {"train": 3, "evaluation": 1}
    assert list(made.table("quarantine", "ward_noise")["reason"]) == ["bad_value"]
    assert made.verdicts["ward_noise_files"]["verdict"] == "warn"
    assert not made.blocked


def test_a_broken_ward_noise_is_put_aside(cohort: Cohort, store: Store) -> None:
    add_ward_noise(cohort, ["file_path", *(f"ward_noise/{number}.wav" for number in range(6))])
    (cohort.folder / "ward_noise/1.wav").write_bytes(b"RIFF")
    (cohort.folder / "ward_noise/2.wav").write_bytes(voice(200, seconds=2))
    made = Ingested(cohort.write(), store)
    reasons = made.table("quarantine", "ward_noise").set_index("row")["reason"].to_dict()
    assert reasons == {2: "unknown_container", 3: "duplicate_audio", 6: "missing_audio"}
    assert set(made.table("ward_noise")["pool"]) == {"train", "evaluation"}


@given(st.integers(2, 40), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_both_pools_of_ward_noise_hold_something(n: int, fraction: float) -> None:
    sha256 = pd.Series([hashlib.sha256(bytes([number])).hexdigest() for number in range(n)])
    free = pd.Series(None, index=sha256.index, dtype="str")
    assert set(pools(sha256, free, fraction)) == {"train", "evaluation"}


def test_a_ward_noise_keeps_its_pool_as_the_bank_grows() -> None:
    sha256 = pd.Series([hashlib.sha256(bytes([number])).hexdigest() for number in range(60)])
    free = pd.Series(None, index=sha256.index, dtype="str")
    some, more = pools(sha256[:20], free[:20], 0.3), pools(sha256, free, 0.3)
    assert (some == more[:20]).all()


@given(st.dictionaries(st.sampled_from(sorted(COLUMNS)), st.text(max_size=30)))
@settings(max_examples=60, deadline=None)
def test_any_text_in_any_cell_is_a_value_or_a_fault(cells: dict[str, str]) -> None:
    rows = pd.DataFrame([cells], dtype="str")
    rows = rows.where(rows != "")
    table, faults = typed(rows, required=())
    assert list(table.columns) == list(COLUMNS)
    for name, cell in rows.iloc[0].dropna().items():
        assert 0 in faults or pd.notna(table.loc[0, name]), (name, cell)
    for _, detail in faults.values():
        assert detail.split(":")[0] in COLUMNS


def test_the_stage_is_imported_without_what_it_works_with() -> None:
    """A step that finds its result never waits for numpy, let alone torch."""
    program = (
        "import sys, spira_tasks.stages.ingest, spira_tasks.stages.validate;"
        "heavy = {'pandas', 'numpy', 'soundfile', 'torch', 'great_expectations'};"
        "print(heavy & set(sys.modules))"
    )
    process = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == "set()"
