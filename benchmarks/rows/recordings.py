"""Recordings to measure with, as files for the others and as a store for us: noise with pauses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from spira_tasks.artifacts import Store
from spira_tasks.contract.step import Step
from spira_tasks.intake.record_contract import COLUMNS
from spira_tasks.runner import run_step
from spira_tasks.speech.audio import SAMPLE_RATE_HZ, encode_wav

RUN = "benchmark"
N_NOISES, NOISE_SECONDS = 6, 20.0


def make(
    folder: Path, n: int, seconds: float, *, n_tested: int = 0, store: str = ""
) -> dict[str, str]:
    """Write ``folder / "audio"``, ``folder / "noise"`` and the store, by default in the folder.

    ``n`` recordings are to train on, half of them of patients, two to validate on, and
    ``n_tested`` each to validate and test on besides.  Returns what ``known`` returns.
    """
    rng = np.random.default_rng(1)
    opened = Store(store or str(folder / "store"))
    rows, noises = [], []
    parts = {"audio": n, "noise": N_NOISES, "validation": 2 + n_tested, "test": n_tested}
    for name, count in parts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            length = NOISE_SECONDS if name == "noise" else seconds * rng.uniform(0.9, 1.1)
            content = encode_wav(_samples(length, rng))
            (folder / name / f"{number:06d}.wav").write_bytes(content)
            digest = opened.blobs.put(content)
            if name == "noise":
                pool = "train" if number % 3 else "evaluation"
                noises.append({"pool": pool, "waveform": digest})
                continue
            rows.append(
                {
                    "record_id": f"{name}-{number}",
                    "subject_id": f"{name}-{number}",
                    "task": "SENTENCE",
                    "label": float(number % 2),
                    "label_confidence": 1.0,
                    "label_source": "clinical",
                    "split": {"audio": "train"}.get(name, name),
                    "waveform": digest,
                }
            )
    tables = {"recordings": as_taken_in(pd.DataFrame(rows)), "ward_noise": pd.DataFrame(noises)}
    digests = {name: put(opened, folder, name, table) for name, table in tables.items()}
    (folder / "digests.json").write_text(json.dumps({"store": opened.url, **digests}))
    return known(folder)


def as_taken_in(table: pd.DataFrame) -> pd.DataFrame:
    """The table with every column that ingest writes, empty where nothing is known."""
    unknown = {name: None for name in COLUMNS if name not in table}
    return table.assign(**unknown, snr_db=20.0)


def _samples(seconds: float, rng: np.random.Generator) -> np.ndarray:
    n = round(seconds * SAMPLE_RATE_HZ)
    speaks = np.repeat(rng.random(-(-n // 4000)) < 0.7, 4000)[:n]
    return np.rint(rng.standard_normal(n) * np.where(speaks, 3000.0, 30.0)).astype(np.int16)


def put(store: Store, folder: Path, name: str, table: pd.DataFrame) -> str:
    place = folder / f"{name}-table"
    place.mkdir()
    table.to_parquet(place / f"{name}.parquet", index=False)
    return store.put_directory(place)


def known(folder: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((folder / "digests.json").read_text())
    return found


def materialize(store: Store, recordings: str, config: Mapping[str, Any]) -> str:
    """Digest of the features of a table."""
    step = Step("materialize", "materialize", inputs={"recordings": recordings}, config=config)
    return run_step(step, RUN, store).outputs["features"]
