"""Folders of recordings become one table; every row that does not get there has a reason."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from folders import Cohort, Ingested, Row, cohort, voice
from stores import remembered

from spira_tasks.artifacts import Store, open_source, put_source
from spira_tasks.contract.verdict import Verdict
from spira_tasks.errors import ConfigError
from spira_tasks.intake.record_contract import COLUMNS
from spira_tasks.speech.audio import read_pcm16
from spira_tasks.stages.ingest import NOT_PERMITTED

__all__ = ["cohort"]  # the fixture


def measured(verdict: Verdict) -> float | None:
    assert verdict.observed is not None
    return verdict.observed.value


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
    ("bad_timestamp", set_to(ingested_at="9999-12-31T23:59:59-03:00")),  # .NET's last moment
    ("bad_timestamp", set_to(ingested_at="2099-01-01T00:00:00-03:00")),  # a telephone's clock
    ("bad_timestamp", set_to(spo2_at="0001-01-01T00:00:00+23:59")),
    ("consent_pending", set_to(consent_status="pending")),
    ("consent_withdrawn", set_to(consent_status="withdrawn")),
    ("retention_expired", set_to(retention_until="2026-10-31")),
    ("personal_data_in_text", set_to(device_model="Moto G (CPF 000.000.001-91)")),
    ("personal_data_in_text", set_to(x_comment="call +55 11 98765-4321")),
    ("personal_data_in_text", set_to(x_comment="call (11) 91234 5678")),
    ("personal_data_in_text", set_to(x_comment="someone@example.org")),
    ("bad_value", set_to(x_comment="a" * 100_000)),  # minutes of looking for personal data
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
    assert verdict.status == "block"
    n_not_permitted = 3  # pending, withdrawn, expired: nobody's mistake
    assert verdict.n == 2 + 2 * len(FAULTS) - n_not_permitted
    assert "truncated" in verdict.names["reasons"]
    assert not set(NOT_PERMITTED) & set(verdict.names["reasons"])


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
    assert "planted" not in (caplog.text + made.record.to_json() + report + table).lower()


def test_free_text_in_place_of_a_site_is_not_kept_in_quarantine(
    cohort: Cohort, store: Store
) -> None:
    for row in cohort.rows[4:8]:
        row["hospital_id"] = "Santa Casa (Sé)"  # a site, as taken recordings show
    for row, site in zip(cohort.rows[:5], ("Maria Silva, bed 4", "site-z"), strict=False):
        row |= {"hospital_id": site, "age": ""}
    cohort.rows[4]["age"] = ""
    refused = Ingested(cohort.write(), store).table("quarantine")
    assert list(refused["hospital_id"].fillna("")) == ["", "site-z", "Santa Casa (Sé)"]


def test_a_link_out_of_the_folder_is_not_followed(
    cohort: Cohort, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "elsewhere.wav").write_bytes(voice(80))
    for row, target in zip(cohort.rows, (tmp_path / "elsewhere.wav", "b.wav"), strict=False):
        audio = cohort.folder / row["audio_uri"]
        audio.rename(cohort.folder / "audio/b.wav")
        audio.symlink_to(target)
    (cohort.folder / "audio/loop").symlink_to("loop")
    assert Ingested(cohort.write(), store).reasons == {"r000": "missing_audio"}
    assert "2 links in" in caplog.text


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
    assert made.verdicts["quarantine_share"].numbers["n_left"].value == 0
    assert len(made.table("recordings")) == 0
    assert set(COLUMNS) & set(made.table("recordings"))  # an empty table has its columns


def test_a_bad_site_blocks_where_the_share_in_all_does_not(tmp_path: Path, store: Store) -> None:
    cohort = Cohort(tmp_path / "data", n_rows=60)
    for row in cohort.rows[:6]:
        row["hospital_id"], row["age"] = "site-c", ""
    made = Ingested(cohort.write(), store, max_quarantine_fraction=0.1)
    assert made.verdicts["quarantine_share"].status == "pass"
    assert made.verdicts["quarantine_share_by_site"].status == "block"


def test_a_widened_limit_gives_a_warning(cohort: Cohort, store: Store) -> None:
    data, today = cohort.write(), datetime.now(UTC).date().isoformat()
    standard = Ingested(data, store, as_of=today).verdicts["standard_limits"]
    assert standard.status == "pass"
    stricter = Ingested(data, store, run_id="r2", as_of=today, max_quarantine_fraction=0.01)
    assert stricter.verdicts["standard_limits"].status == "pass"
    wider = Ingested(data, store, run_id="r3", max_quarantine_fraction=1.0, as_of="2026-01-02")
    verdict = wider.verdicts["standard_limits"]
    assert (verdict.status, measured(verdict)) == ("warn", 2)
    assert verdict.names["limits"] == ("max_quarantine_fraction", "as_of")
    assert verdict.numbers["max_quarantine_fraction"].value == 1
    assert verdict.numbers["max_quarantine_fraction.standard"].value == 0.05


def test_a_site_that_is_not_set_up_is_taken_and_warned_of(cohort: Cohort, store: Store) -> None:
    data = cohort.write()
    sites = sorted({row["hospital_id"] for row in cohort.rows})
    known = Ingested(data, store, sites=sites).verdicts["known_sites"]
    assert (known.status, measured(known)) == ("pass", 0)
    nobody = Ingested(data, store, run_id="r2").verdicts["known_sites"]
    assert (nobody.status, nobody.observed) == ("pass", None)
    new = Ingested(data, store, run_id="r3", sites=sites[1:])
    unknown = new.verdicts["known_sites"]
    assert (unknown.status, measured(unknown)) == ("warn", 1)
    assert new.metrics["n_quarantined"] == 0


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
        ("audio/a.WAV", "Audio/A.wav"),  # Windows and most Macs find it
    ],
)
def test_a_path_is_found_as_other_systems_write_it(
    cohort: Cohort, store: Store, on_disk: str, in_table: str
) -> None:
    (cohort.folder / cohort.rows[0]["audio_uri"]).rename(cohort.folder / on_disk)
    cohort.rows[0]["audio_uri"] = in_table
    assert Ingested(cohort.write(), store).reasons == {}


def test_of_two_names_that_differ_in_case_each_row_gets_its_own(
    cohort: Cohort, store: Store
) -> None:
    for row, name in zip(cohort.rows, ("audio/a.wav", "audio/A.wav"), strict=False):
        (cohort.folder / row["audio_uri"]).rename(cohort.folder / name)
        row["audio_uri"] = name
    cohort.rows[2]["audio_uri"] = "AUDIO/A.WAV"  # either of the two
    table = Ingested(cohort.write(), store).table("recordings").set_index("record_id")
    for number, name in enumerate(("audio/a.wav", "audio/A.wav")):
        content = (cohort.folder / name).read_bytes()
        assert table.loc[f"r{number:03d}", "audio_sha256"] == hashlib.sha256(content).hexdigest()
    assert "r002" not in table.index


def test_a_file_name_that_is_not_utf8_costs_nothing(cohort: Cohort, store: Store) -> None:
    name = os.fsencode(cohort.folder / "audio") + b"/grava\xe7\xe3o.wav"  # from a Windows archive
    Path(os.fsdecode(name)).write_bytes(voice(0))
    assert Ingested(cohort.write(), store).reasons == {}


def test_hexadecimal_digits_may_be_capitals(cohort: Cohort, store: Store) -> None:
    content = (cohort.folder / cohort.rows[0]["audio_uri"]).read_bytes()
    cohort.rows[0]["sha256"] = hashlib.sha256(content).hexdigest().upper()
    for row, number in zip(cohort.rows[:2], ("AB" * 32, "ab" * 32), strict=True):
        row |= {"patient_rgh": "", "patient_pid": number}
    table = Ingested(cohort.write(), store).table("recordings").set_index("record_id")
    assert table.loc["r000", "sha256"] == table.loc["r000", "audio_sha256"]
    assert table.loc["r000", "subject_id"] == table.loc["r001", "subject_id"] == "ab" * 32


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
    assert first.record.key != second.record.key
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


def test_a_step_never_runs_with_another_decoder_than_it_names(cohort: Cohort, store: Store) -> None:
    with pytest.raises(ConfigError, match="optional decoder"):
        Ingested(cohort.write(), store, decoder="18.0.0")


def test_only_new_recordings_are_decoded(cohort: Cohort, store: Store) -> None:
    Ingested(cohort.write(), store)
    memories = remembered(store)
    assert len(memories) == 12
    cohort.add(70)
    second = Ingested(cohort.write(), store, run_id="r2")
    assert second.metrics["n_recordings"] == 13
    assert len(remembered(store) - memories) == 1


@pytest.mark.parametrize("source", ["folder", "s3"])
def test_what_is_remembered_names_nobody_and_goes_with_the_waveform(
    source: str, cohort: Cohort, store: Store, request: pytest.FixtureRequest
) -> None:
    """An erasure removes what mentions a waveform: a name, or a voice's SHA-256, would stay."""
    (cohort.folder / cohort.rows[0]["audio_uri"]).write_bytes(b"no sound")
    data = cohort.write()
    if source == "s3":
        place = request.getfixturevalue("bucket")
        put_source(open_source(data), place, [], replace=False)
        data = place
    table = Ingested(data, store).table("recordings")
    names = {text for column in ("record_id", "subject_id", "session_id") for text in table[column]}
    documents = [store.documents.read(name) or {} for name in store.documents.names("memo")]
    for record, needs in (one for found in documents for one in found["records"].values()):
        texts = {value for value in record.values() if isinstance(value, str)}
        assert names.isdisjoint(texts)
        assert record.keys() == {"reason", "detail"} or needs == [record["waveform"]]
    for waveform in table["waveform"]:
        store.blobs.delete(waveform)
    left = b"".join(store.read(entry.name) or b"" for entry in store.entries("memo"))
    assert not any(sha256.encode() in left for sha256 in table["audio_sha256"])


def test_the_order_of_rows_and_the_run_change_no_byte(
    cohort: Cohort, store: Store, tmp_path: Path
) -> None:
    first = Ingested(cohort.write(), store)
    cohort.rows.reverse()
    second = Ingested(cohort.write(), Store(str(tmp_path / "other")))
    assert first.record.key != second.record.key
    for output in ("recordings", "ward_noise", "report"):
        assert first.digests[output] == second.digests[output]


def test_a_new_day_is_another_result_with_the_same_table(cohort: Cohort, store: Store) -> None:
    """Retention is judged every day; nothing downstream is computed again for it."""
    cohort.rows[0]["retention_until"] = "2026-11-02"
    data = cohort.write()
    days = [Ingested(data, store, run_id=f"d{day}", as_of=f"2026-11-0{day}") for day in (1, 2, 3)]
    assert days[0].digests["recordings"] == days[1].digests["recordings"]
    assert days[2].reasons == {"r000": "retention_expired"}


def test_a_sheet_that_is_none_is_refused_and_says_what_to_do(cohort: Cohort, store: Store) -> None:
    data = cohort.write()
    (cohort.folder / "snapshot.json").write_text('["no sheet"]')
    with pytest.raises(ConfigError, match=r"snapshot.json in the data is no sheet of a snapshot"):
        Ingested(data, store)


def test_a_sheet_says_nothing_but_what_is_to_be_said_of_labels(
    cohort: Cohort, store: Store
) -> None:
    """Otherwise the author of the data could make a run pass or fail for any reason."""
    data = cohort.write()
    checks = [
        Verdict("label_agreement", "warn", suite="labels", severity="warning").to_dict(),
        Verdict("known_sites", "pass").to_dict(),
        Verdict("second_opinion", "block", suite="labels").to_dict(),
    ]
    (cohort.folder / "snapshot.json").write_text(json.dumps({"checks": checks}))
    made = Ingested(data, store)
    assert not made.blocked
    assert [one.id for one in made.record.verdicts if one.suite == "labels"] == ["label_agreement"]
    assert len([one for one in made.record.verdicts if one.id == "known_sites"]) == 1
