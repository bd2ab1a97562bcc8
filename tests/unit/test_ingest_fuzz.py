"""Deliveries that are spoiled at random end in quarantine or in a clear refusal, never in a trace.

A delivery is four rows and their audio.  In one of ten the table is spoiled too, and it has a
folder of its own; the others come 32 to a folder, because what a run of ingest costs hardly
depends on the number of rows.  Where such a folder fails, each of its deliveries is tried alone.

SPIRA_FUZZ=500 SPIRA_FUZZ_FROM=9000 python -m pytest -n 0 -k shorter tests/unit/test_ingest_fuzz.py
"""

from __future__ import annotations

import csv
import io
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from folders import AS_OF, Cohort, Row, voice

from spira_tasks.artifacts import Store
from spira_tasks.contract.step import Step
from spira_tasks.errors import ConfigError, GateRejected
from spira_tasks.intake.record_contract import COLUMNS
from spira_tasks.runner import run_step

N_SHORTER = int(os.environ.get("SPIRA_FUZZ", "200"))
FIRST = int(os.environ.get("SPIRA_FUZZ_FROM", "0"))
N_LONGER = 1_800  # from where the shorter test ends
TOGETHER = 32  # deliveries that share a folder
ONE_IN = 10  # deliveries of which one has a table that is spoiled
PLANTED = "Planted da Silva"  # a patient's value, which no message may quote

CELLS = [
    *("", " ", "\t", PLANTED, "nan", "None", "NaT", "NULL", "#N/A", "inf", "-1", "1e309", "1e-400"),
    *("9" * 15, "9" * 400, "0x10", "1_000", "1,5", "\u0663\u0664", "\u00b2", "+1", "1.", ".5"),
    *("9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "0001-01-01T00:00:00Z"),
    *("2026-02-30", "2026-W10-1", "20260304T102030Z", "24:00", "2026-03-04T24:00:00Z"),
    *("2026-03-04T10:20:30.123456789Z", "2026-03-04T10:20:30+00:00:01", "10000-01-01"),
    *("../../etc/passwd", "/etc/passwd", "audio", "audio/", ".", "..", "\\\\host\\x", "C:\\a.wav"),
    *("\0", "a\0b", "\u2028", "\u202e", "\U0001f637", "e\u0301", "\ufeff", "\ud7ff", "\u0130"),
    *("=1+1", '"', "'", "a\nb", "a\rb", "a,b", ";", "a" * 5_000),
    *("true", "TRUE", "1", "0", "1.0", "1e0", "TEST", "withdrawn", "A" * 64, "SENTENCE"),
]
NAMES = ["a\nb.wav", "ç.wav", "c\u0327.wav", " .wav", "n" * 250, "a,b.wav", "A.WAV", "\u202ea.wav"]
ENCODINGS = ["utf-16", "latin-1", "utf-8-sig", "cp037"]


def damaged(rng: random.Random, content: bytes) -> bytes:
    """Bytes changed, cut, repeated, or put in between."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        place = rng.randint(0, len(data))
        what = rng.randrange(6)
        if what == 0:
            data[place:] = b""
        elif what == 1:
            data[place:place] = rng.randbytes(rng.choice([1, 4, 300]))
        elif what == 2:
            data[place:place] = data[: rng.randint(0, 200)]
        elif what == 3:
            data += data[:100_000]
        elif what == 4:  # within a header
            place = rng.randint(0, min(len(data), 60))
            data[place : place + 4] = rng.choice([bytes(4), b"\xff" * 4, b"\xff\xff\xff\x7f"])
        else:
            data[place : place + 1] = rng.randbytes(1)
    return bytes(data)


def sound(rng: random.Random) -> bytes:
    kinds = [
        "WAV",
        "WAVEX",
        "FLAC",
        "OGG",
        "MP3",
        "AIFF",
        "CAF",
        "AU",
        "W64",
        "RF64",
        "VOC",
        "MAT5",
    ]
    content = io.BytesIO()
    n_channels, rate_hz = rng.choice([1, 2]), rng.choice([8_000, 16_000, 48_000])
    noise = np.random.default_rng(rng.randrange(2**32)).normal(0, 0.1, (rate_hz, n_channels))
    subtype = rng.choice(["VORBIS", "OPUS"]) if (kind := rng.choice(kinds)) == "OGG" else None
    soundfile.write(content, noise, rate_hz, format=kind, subtype=subtype)
    return content.getvalue()


def text_of(rng: random.Random, rows: list[Row]) -> str:
    """A CSV table, its columns at times shuffled, renamed, repeated or left out."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    names = dict(zip(columns, columns, strict=True))
    if rng.random() < 0.3:
        rng.shuffle(columns)
    if rng.random() < 0.2:
        names[rng.choice(columns)] = rng.choice([*COLUMNS, *CELLS, "x_pool", "X_" + "y" * 300])
    if rng.random() < 0.1:
        columns.remove(rng.choice(columns))
    if rng.random() < 0.1:
        columns.append(rng.choice(columns))
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator=rng.choice(["\n", "\r\n", "\r", ",\n", "\n\n"]))
    writer.writerow([names[column] for column in columns])
    writer.writerows([row.get(column, "") for column in columns] for row in rows)
    return out.getvalue()


def parquet_of(rng: random.Random, rows: list[Row], path: Path) -> None:
    """A typed table; pandas refuses to write some."""
    frame = pd.DataFrame(rows).astype("str")
    makers: list[Callable[[], object]] = [
        lambda: [[1, 2]] * len(frame),
        lambda: [b"\xff\0"] * len(frame),
        lambda: [{"a": 1}] * len(frame),
        lambda: pd.Timestamp("1900-01-01", tz="America/Sao_Paulo"),
        lambda: np.datetime64("9999-12-31", "s"),
        lambda: np.datetime64("-9999-12-31", "s"),
        lambda: pd.Timedelta(days=3),
        lambda: pd.Categorical([PLANTED] * len(frame)),
        lambda: np.float32(1.5),
        lambda: np.uint64(2**63),
        lambda: None,
        lambda: True,
    ]
    for _ in range(rng.randint(0, 3)):
        frame[rng.choice([*frame.columns, "x_typed"])] = rng.choice(makers)()
    if rng.random() < 0.2:
        frame = frame.set_index(rng.choice([*frame.columns]))
    frame.to_parquet(path)


class Delivery:
    """Rows and audio of one hospital, made from a seed."""

    def __init__(self, seed: int, folder: Path, place: str, rows: list[Row]) -> None:
        self.rng, self.folder, self.place = random.Random(seed), folder, place
        self.rows = [dict(row) for row in rows]
        for _ in range(self.rng.randint(0, 4)):
            row = self.rng.choice(self.rows)
            row[self.rng.choice([*COLUMNS, "x_note"])] = self.rng.choice(CELLS)
        for _ in range(self.rng.randint(0, 2)):
            name = f"audio/{place}/{self.rng.choice(NAMES)}"
            content = sound(self.rng)
            is_damaged = self.rng.random() < 0.7
            (folder / name).write_bytes(damaged(self.rng, content) if is_damaged else content)
            self.rng.choice(self.rows)["audio_uri"] = name

    def spoil_folder(self) -> None:
        """Write the table in any form, and leave what else may be in a folder."""
        rng, folder, rows = self.rng, self.folder, self.rows
        if rng.random() < 0.05:  # refuses the whole table
            rng.choice(rows)[rng.choice([*COLUMNS, "x_note"])] = "a" * 200_000
        if rng.random() < 0.3:
            named = os.fsencode(folder / "audio") + b"/\xe7\xff.wav"
            Path(os.fsdecode(named)).write_bytes(b"x")
            (folder / "audio/link").symlink_to(
                rng.choice(["link", "/etc/passwd", "..", f"{self.place}/b.wav"])
            )
            if rng.random() < 0.7:  # links to folders are refused
                (folder / "audio/link").unlink()
        if rng.random() < 0.5:
            name = rng.choice(["ward_noise.csv", "noise_data.csv"])
            content = text_of(rng, noises(rng, rows)).encode()
            (folder / name).write_bytes(damaged(rng, content) if rng.random() < 0.3 else content)
        layout = rng.random()
        if layout < 0.3:
            parquet_of(rng, rows, table := folder / "recordings.parquet")
        else:
            table = folder / "recordings.csv"
            if layout > 0.8:
                table = folder / "metadata_train.csv"
                rows = published(rng, rows)
            encoding = rng.choice(ENCODINGS) if rng.random() < 0.05 else "utf-8"
            table.write_bytes(text_of(rng, rows).encode(encoding, errors="replace"))
        if rng.random() < 0.2:
            table.write_bytes(damaged(rng, table.read_bytes()))


def noises(rng: random.Random, rows: list[Row]) -> list[Row]:
    pools = ["train", "evaluation", *CELLS]
    return [{"file_path": row["audio_uri"], "x_pool": rng.choice(pools)} for row in rows]


def published(rng: random.Random, rows: list[Row]) -> list[Row]:
    theirs = {"sexo": "sex", "idade": "age"}
    return [
        {"file_path": row.get("audio_uri"), "class": row.get("ri_clinical")}
        | {name: rng.choice([row[ours], rng.choice(CELLS)]) for name, ours in theirs.items()}
        for row in rows
    ]


def write_tables(rng: random.Random, folder: Path, rows: list[Row]) -> None:
    """Tables that can be read, of either layout."""
    if rng.random() < 0.4:
        csv_of(folder / "ward_noise.csv", noises(rng, rows[: TOGETHER * 2]))
    is_published = rng.random() < 0.2
    name = "metadata_train.csv" if is_published else "recordings.csv"
    csv_of(folder / name, published(rng, rows) if is_published else rows)


def csv_of(path: Path, rows: list[Row]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", errors="replace") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> list[Cohort]:
    """A folder of sound recordings for each delivery that shares a folder."""
    place = tmp_path_factory.mktemp("audio")
    cohorts = []
    for number in range(TOGETHER):
        cohorts.append(cohort := Cohort(place / str(number), n_rows=0))
        for row in range(4):
            cohort.add(4 * number + row)
        (cohort.folder / "audio/b.wav").write_bytes(voice(1_000 + number))
        for one in cohort.rows:
            one["audio_uri"] = one["audio_uri"].replace("audio/", f"audio/{number}/")
    return cohorts


def faults_of(seeds: list[int], audio: list[Cohort], place: Path, store: Store) -> str:
    """What ingest does wrong with a folder of deliveries; empty where it does nothing wrong."""
    folder, run_id = place / "data", f"r{seeds[0]}-{len(seeds)}"
    step = Step("ingest", "ingest", {"data": f"folder:{folder}"}, {"as_of": AS_OF})
    try:
        deliveries = []
        for cohort, seed in zip(audio, seeds, strict=False):
            name = cohort.folder.name
            shutil.copytree(cohort.folder / "audio", folder / "audio" / name, copy_function=os.link)
            deliveries.append(Delivery(seed, folder, name, cohort.rows))
        if seeds[0] % ONE_IN == 0:
            try:
                deliveries[0].spoil_folder()
            except (ValueError, TypeError, NotImplementedError):  # pyarrow does not write it
                return ""
        else:
            rows = [row for delivery in deliveries for row in delivery.rows]
            write_tables(random.Random(seeds[0]), folder, rows)
        run_step(step, run_id, store)
    except (GateRejected, ConfigError) as error:
        if PLANTED.casefold() in str(error).casefold():
            return f"quotes a value: {error}"
    except Exception as error:
        return repr(error)[:200]
    finally:
        shutil.rmtree(place)
    record = store.runs.step(run_id, "ingest")
    n = record.metrics if record is not None else {}
    if n and n["n_rows"] != n["n_recordings"] + n["n_quarantined"] + n["n_excluded"]:
        return "a row is lost"
    return ""


def wrong_answers(seeds: range, audio: list[Cohort], place: Path) -> dict[str, str]:
    alone = [[seed] for seed in seeds if seed % ONE_IN == 0]
    others = [seed for seed in seeds if seed % ONE_IN]
    together = [others[n : n + TOGETHER] for n in range(0, len(others), TOGETHER)]
    failed: dict[str, str] = {}
    for n, folder in enumerate(alone + together):
        # the audit log, which every step reads, stays short
        store = Store(str(place / f"store{n // 50}"))
        if fault := faults_of(folder, audio, place / "input", store):
            each = {seed: faults_of([seed], audio, place / "input", store) for seed in folder}
            failed |= {str(seed): one for seed, one in each.items() if one} or {str(folder): fault}
    return failed


def test_spoiled_deliveries_end_in_quarantine_or_in_a_clear_refusal_shorter(
    audio: list[Cohort], tmp_path: Path
) -> None:
    assert wrong_answers(range(FIRST, FIRST + N_SHORTER), audio, tmp_path) == {}


@pytest.mark.slow
def test_spoiled_deliveries_end_in_quarantine_or_in_a_clear_refusal_longer(
    audio: list[Cohort], tmp_path: Path
) -> None:
    first = FIRST + N_SHORTER
    assert wrong_answers(range(first, first + N_LONGER), audio, tmp_path) == {}
