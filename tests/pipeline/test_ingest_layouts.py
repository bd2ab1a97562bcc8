"""The layouts in which recordings come: the canonical one and its variants, the published one."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from folders import Cohort, Ingested, cohort, voice
from pyarrow import parquet

from spira_tasks.artifacts import Store
from spira_tasks.contract.step import Step
from spira_tasks.errors import ConfigError, GateRejected
from spira_tasks.governance import audit
from spira_tasks.runner import run_step

__all__ = ["cohort"]  # the fixture


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
        row["Maria da Silva"] = "A"
    message = refused(cohort.write(), store)
    assert "does not know; by their places from the left: 15. Remove them, or" in message
    assert "maria" not in message.lower()


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
    path.write_text(text.replace("spo2", ",".join(f"x_{n}" for n in range(20_000))))
    assert "20012 columns; at most 500 are read" in refused(data, store)
    path.write_text(text + "a" * 2_000_000)
    assert "a line of more than 1048576 characters" in refused(data, store)
    assert {event.action for event in audit.events(store)} == {"ingest"}
    assert {event.details["state"] for event in audit.events(store)} == {"refused"}


def test_what_pandas_noted_in_a_parquet_file_does_not_matter(cohort: Cohort, store: Store) -> None:
    table = pa.Table.from_pandas(pd.DataFrame(cohort.rows).astype("str"))
    table = table.replace_schema_metadata({b"pandas": b"{damaged\xff"})
    parquet.write_table(table, cohort.folder / "recordings.parquet")
    made = Ingested(f"folder:{cohort.folder}", store)
    assert made.metrics["n_recordings"] == len(cohort.rows)


def test_a_parquet_file_that_is_none_is_refused_with_what_to_do(
    cohort: Cohort, store: Store
) -> None:
    path = cohort.folder / "recordings.parquet"
    data = f"folder:{cohort.folder}"
    table = pa.Table.from_pandas(pd.DataFrame(cohort.rows))
    parquet.write_table(table.append_column("Sex", table["sex"]), path)
    assert "names a column twice" in refused(data, store)
    parquet.write_table(table, path)
    path.write_bytes(path.read_bytes()[:-100])
    assert "cannot be read as Parquet" in refused(data, store)
    path.write_bytes(b"record_id,task\n")
    assert "cannot be read as Parquet" in refused(data, store)


def test_what_spreadsheets_add_to_a_table_is_left_out(cohort: Cohort, store: Store) -> None:
    """Empty rows, empty columns, and names in capitals."""
    data = cohort.write()
    path = cohort.folder / "recordings.csv"
    clean = Ingested(data, store).digests["recordings"]
    header, *lines = path.read_text().splitlines()
    empty = "," * (header.count(",") + 2)
    path.write_text("\n".join([f",{header.upper()},", *(f",{line}," for line in lines), empty]))
    made = Ingested(data, store, run_id="r2")
    assert made.metrics["n_rows"] == 12
    assert made.digests["recordings"] == clean


def test_an_empty_column_hides_no_unquoted_comma(cohort: Cohort, store: Store) -> None:
    data = cohort.write()
    path = cohort.folder / "recordings.csv"
    lines = [f"{line}," for line in path.read_text().splitlines()]
    lines[5] = lines[5].replace("95", "9,5")
    lines[7] += "note"
    path.write_text("\n".join(lines))
    quarantine = Ingested(data, store).table("quarantine")
    assert list(quarantine["row"]) == [5, 7]
    assert list(quarantine["reason"]) == ["wrong_number_of_cells"] * 2


def test_a_date_with_a_time_is_a_date(cohort: Cohort, store: Store) -> None:
    """A typed table has no days, only moments."""
    frame = pd.DataFrame(cohort.rows)
    frame["retention_until"] = pd.Timestamp("2030-01-01")
    frame.to_parquet(cohort.folder / "recordings.parquet")
    table = Ingested(f"folder:{cohort.folder}", store).table("recordings")
    assert set(table["retention_until"]) == {"2030-01-01"}


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


def test_a_class_in_words_is_answered_by_the_column_that_is_there(
    published: Path, store: Store
) -> None:
    path = published / "metadata_train.csv"
    path.write_text(path.read_text().replace(",0,", ",controle,", 1))
    quarantine = Ingested(f"folder:{published}", store).table("quarantine")
    assert list(quarantine["detail"]) == ["class: not a whole number"]
    path.write_text(path.read_text().replace(",controle,", ",,").replace(",51,", ",fifty-one,"))
    quarantine = Ingested(f"folder:{published}", store, run_id="r2").table("quarantine")
    assert list(quarantine["detail"]) == ["class is required", "idade: not a whole number"]


@pytest.mark.parametrize("lines", [[], [",1", ",0"]])
def test_a_published_table_without_a_path_has_no_recording(
    lines: list[str], tmp_path: Path, store: Store
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/metadata_train.csv").write_text("\n".join(["file_path,class", *lines]))
    made = Ingested(f"folder:{tmp_path}/data", store)
    assert made.blocked
    assert made.table("quarantine")["reason"].tolist() == ["missing_value"] * len(lines)


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
