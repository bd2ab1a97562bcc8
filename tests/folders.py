"""A folder of recordings that a test can spoil, and what ingest makes of it."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from spira_tasks.artifacts import Store
from spira_tasks.contract.step import Step
from spira_tasks.errors import GateRejected
from spira_tasks.runner import run_step

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
        record = store.runs.step(run_id, "ingest")
        assert record is not None
        self.digests = record.outputs
        self.metrics = record.metrics
        self.verdicts = {verdict.id: verdict for verdict in record.verdicts}
        self.record = record
        self.store = store

    def table(self, output: str, name: str | None = None) -> pd.DataFrame:
        directory = self.store.directory(self.digests[output])
        return pd.read_parquet(directory.path(f"{name or output}.parquet"))

    @property
    def reasons(self) -> dict[str, str]:
        table = self.table("quarantine")
        return dict(zip(table["record_id"], table["reason"], strict=True))


# Fixtures: a module that imports them names them in its __all__.


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return Cohort(tmp_path / "data")
