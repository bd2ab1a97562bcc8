"""Folders that are spoiled at random end in quarantine or in a clear refusal, never in a trace.

SPIRA_FUZZ=2000 python -m pytest -n 0 tests/unit/test_ingest_fuzz.py   # more inputs
SPIRA_FUZZ_FROM=1234                                                   # the first seed
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
import soundfile
from folders import AS_OF, Cohort, Row, voice

from spira_tasks.artifacts import Store
from spira_tasks.contract.step import Step
from spira_tasks.errors import ConfigError, GateRejected
from spira_tasks.intake.record_contract import COLUMNS
from spira_tasks.runner import run_step

N_INPUTS = int(os.environ.get("SPIRA_FUZZ", "12"))
FIRST = int(os.environ.get("SPIRA_FUZZ_FROM", "0"))
PLANTED = "Planted da Silva"  # a patient's value, which no message may quote

CELLS = [
    *("", " ", "\t", PLANTED, "nan", "None", "NaT", "NULL", "#N/A", "inf", "-1", "1e309", "1e-400"),
    *("9" * 15, "9" * 400, "0x10", "1_000", "1,5", "\u0663\u0664", "\u00b2", "+1", "1.", ".5"),
    *("9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "0001-01-01T00:00:00Z"),
    *("2026-02-30", "2026-W10-1", "20260304T102030Z", "24:00", "2026-03-04T24:00:00Z"),
    *("2026-03-04T10:20:30.123456789Z", "2026-03-04T10:20:30+00:00:01", "10000-01-01"),
    *("../../etc/passwd", "/etc/passwd", "audio", "audio/", ".", "..", "\\\\host\\x", "C:\\a.wav"),
    *("\0", "a\0b", "\u2028", "\u202e", "\U0001f637", "e\u0301", "\ufeff", "\ud7ff", "\u0130"),
    *("=1+1", '"', "'", "a\nb", "a\rb", "a,b", ";", "a" * 5_000, "a" * 200_000),
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


def spoil(rng: random.Random, cohort: Cohort) -> None:
    """Leave a folder with a table of recordings, and what may go wrong with it."""
    folder, rows = cohort.folder, cohort.rows
    for _ in range(rng.randint(0, 4)):
        row = rng.choice(rows)
        row[rng.choice([*COLUMNS, "x_note"])] = rng.choice(CELLS)
    for _ in range(rng.randint(0, 2)):
        audio = folder / "audio" / rng.choice(NAMES)
        audio.write_bytes(damaged(rng, sound(rng)) if rng.random() < 0.7 else sound(rng))
        rng.choice(rows)["audio_uri"] = f"audio/{audio.name}"
    if rng.random() < 0.1:
        Path(os.fsdecode(os.fsencode(folder / "audio") + b"/\xe7\xff.wav")).write_bytes(b"x")
        (folder / "audio/link").symlink_to(rng.choice(["link", "/etc/passwd", "..", "b.wav"]))
        if rng.random() < 0.7:  # links to folders are refused
            (folder / "audio/link").unlink()
    if rng.random() < 0.4:
        noises = [
            {"file_path": row["audio_uri"], "x_pool": rng.choice(["train", "evaluation", *CELLS])}
            for row in rows
        ]
        name = rng.choice(["ward_noise.csv", "noise_data.csv"])
        content = text_of(rng, noises).encode()
        (folder / name).write_bytes(damaged(rng, content) if rng.random() < 0.3 else content)
    layout = rng.random()
    if layout < 0.15:
        parquet_of(rng, rows, table := folder / "recordings.parquet")
    else:
        table = folder / "recordings.csv"
        if layout > 0.8:
            table = folder / "metadata_train.csv"
            rows = [
                {"file_path": row.get("audio_uri"), "class": row.get("ri_clinical")}
                | {"sexo": rng.choice(CELLS), "idade": rng.choice(CELLS)}
                for row in rows
            ]
        encoding = rng.choice(ENCODINGS) if rng.random() < 0.05 else "utf-8"
        table.write_bytes(text_of(rng, rows).encode(encoding, errors="replace"))
    if rng.random() < 0.15:
        table.write_bytes(damaged(rng, table.read_bytes()))


def test_a_folder_spoiled_at_random_ends_in_quarantine_or_in_a_clear_refusal(
    tmp_path: Path,
) -> None:
    original = Cohort(tmp_path / "original", n_rows=4)
    (tmp_path / "original/audio/b.wav").write_bytes(voice(9))
    store = Store(str(tmp_path / "store"))
    failed: dict[int, str] = {}
    for seed in range(FIRST, FIRST + N_INPUTS):
        place = tmp_path / "input"
        shutil.copytree(original.folder, place / "data")
        cohort = Cohort(place / "unused", n_rows=0)
        cohort.folder = place / "data"
        cohort.rows = [dict(row) for row in original.rows]
        try:
            spoil(random.Random(seed), cohort)
        except (ValueError, TypeError, NotImplementedError):  # pyarrow does not write it
            shutil.rmtree(place)
            continue
        step = Step("ingest", "ingest", {"data": f"folder:{cohort.folder}"}, {"as_of": AS_OF})
        try:
            run_step(step, f"r{seed}", store)
        except (GateRejected, ConfigError) as error:
            if PLANTED.casefold() in str(error).casefold():
                failed[seed] = f"quotes a value: {error}"
        except Exception as error:
            failed[seed] = repr(error)[:200]
        record = store.runs.step(f"r{seed}", "ingest")
        if record is not None and record.metrics:
            n = {name: record.metrics[f"n_{name}"] for name in ("rows", "quarantined", "excluded")}
            if n["rows"] != record.metrics["n_recordings"] + n["quarantined"] + n["excluded"]:
                failed[seed] = "a row is lost"
        shutil.rmtree(place)
    assert failed == {}
