"""The gate of features computes some of them again; that of ward noises knows the recordings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from spira_tasks.artifacts import Store
from spira_tasks.contract.record import Result
from spira_tasks.contract.step import Step
from spira_tasks.errors import GateRejected
from spira_tasks.intake.audio_reader import convert
from spira_tasks.runner import run_step
from spira_tasks.speech.audio import encode_wav

N = 6


@pytest.fixture
def recordings(tmp_path: Path, store: Store) -> str:
    """Digest of a table of sounds, and one of another task that no features are made of."""
    rng = np.random.default_rng(6)
    sounds = [encode_wav((rng.normal(0, 2000, 80_000)).astype(np.int16)) for _ in range(N)]
    table = pd.DataFrame(
        {
            "record_id": [f"r{number}" for number in range(N)],
            "task": ["SENTENCE"] * (N - 1) + ["VOWEL"],
            "waveform": [store.blobs.put(sound) for sound in sounds],
            "duration_seconds": 5.0,
        }
    )
    folder = tmp_path / "recordings"
    folder.mkdir()
    table.to_parquet(folder / "recordings.parquet")
    return store.put_directory(folder)


@pytest.fixture
def features(store: Store, recordings: str) -> Result:
    step = Step("materialize", "materialize", {"recordings": recordings})
    return run_step(step, "r", store)


def spoilt(store: Store, features: Result, folder: Path, **spec: object) -> tuple[Path, Path]:
    """The features' table and its description, copied to be changed."""
    made = store.directory(features.outputs["features"])
    folder.mkdir()
    parquet, description = folder / "features.parquet", folder / "features.json"
    parquet.write_bytes(made.read("features.parquet"))
    description.write_text(json.dumps(json.loads(made.read("features.json")) | spec))
    return parquet, description


def gate(table: str, source: str, suite: str = "features") -> Step:
    return Step("check", "validate", {"table": table, "source": source}, {"gate": suite})


def test_features_that_today_s_code_makes_pass(
    store: Store, features: Result, recordings: str
) -> None:
    result = run_step(gate(features.outputs["features"], recordings), "r", store)
    assert {verdict.status for verdict in result.verdicts} == {"pass"}
    assert result.outputs["table"] == features.outputs["features"]
    (parity,) = [v for v in result.verdicts if "parity" in v.id]
    assert parity.n == 5


def test_features_of_another_recording_are_found_out(
    store: Store, features: Result, recordings: str, tmp_path: Path
) -> None:
    parquet, _ = spoilt(store, features, tmp_path / "f")
    table = pd.read_parquet(parquet)
    table["features"] = [*table["features"][1:], table["features"][0]]
    table.to_parquet(parquet, index=False)
    with pytest.raises(GateRejected, match=r"parity_difference\): .* 5 of 5") as error:
        run_step(gate(store.put_directory(tmp_path / "f"), recordings), "r", store)
    assert "schema" not in str(error.value)


def test_features_of_other_parameters_are_found_out(
    store: Store, features: Result, recordings: str, tmp_path: Path
) -> None:
    spoilt(store, features, tmp_path / "f", n_mfcc=20)
    with pytest.raises(GateRejected, match=r"to_be_equal\(schema, schema_of_code\)") as error:
        run_step(gate(store.put_directory(tmp_path / "f"), recordings), "r", store)
    assert "to_be_equal(n_bins, n_bins_of_code)" in str(error.value)
    assert "parity_difference" in str(error.value)


def test_a_recording_without_features_is_missed(
    store: Store, features: Result, recordings: str, tmp_path: Path
) -> None:
    parquet, _ = spoilt(store, features, tmp_path / "f")
    pd.read_parquet(parquet).iloc[1:].to_parquet(parquet, index=False)
    with pytest.raises(GateRejected, match=r"rows_conserved: .* rows were lost \(fewer than 5\)"):
        run_step(gate(store.put_directory(tmp_path / "f"), recordings), "r", store)


def bank(store: Store, folder: Path, seconds: float, peak: float = 0.2) -> str:
    table = pd.DataFrame(
        {
            "noise_id": [f"noise-{number}" for number in range(20)],
            "pool": ["train"] * 15 + ["evaluation"] * 5,
            "hospital_id": "site-a",
            "waveform": [f"sha256:{number:064x}" for number in range(20)],
            "duration_seconds": seconds,
            "level_dbfs": -30.0,
            "peak": [peak] + [0.2] * 19,
            "syllabic_modulation_db": 0.7,
        }
    )
    folder.mkdir()
    table.to_parquet(folder / "ward_noise.parquet")
    return store.put_directory(folder)


def test_a_silent_noise_goes_into_quarantine_and_short_ones_are_reported(
    store: Store, recordings: str, tmp_path: Path
) -> None:
    good = run_step(gate(bank(store, tmp_path / "a", 9.0), recordings, "ward_noise"), "r", store)
    assert {verdict.status for verdict in good.verdicts} == {"pass"}
    step = gate(bank(store, tmp_path / "b", 4.0, peak=1e-4), recordings, "ward_noise")
    result = run_step(step, "r", store)
    assert result.metrics["n_quarantined"] == 1
    aside = store.directory(result.outputs["quarantine"]).path("quarantine.parquet")
    assert list(pd.read_parquet(aside)["record_id"]) == ["noise-0"]
    reported = {verdict.id for verdict in result.verdicts if verdict.status == "warn"}
    assert any("duration_seconds, longest_recording_seconds" in name for name in reported)


def test_a_copy_through_another_codec_has_nearly_the_same_fingerprint(store: Store) -> None:
    """Noise that swings stands in for a sentence; the copy is quieter and not quite the same."""
    rng = np.random.default_rng(9)
    swing = np.repeat(rng.uniform(0.1, 1, 40), 3_200)
    sounds = [rng.normal(0, 3000, swing.size) * np.roll(swing, shift) for shift in (0, 0, 9_600)]
    copy = 0.5 * sounds[0] + rng.normal(0, 20, swing.size)
    numbers = []
    for sound in (sounds[0], copy, sounds[2]):
        record = convert(encode_wav(sound.astype(np.int16)), 60, store.blobs)
        numbers.append(np.array([int(digit, 16) - 7 for digit in record["fingerprint"]]))
        assert len(record["fingerprint"]) == 288

    def cosine(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    assert cosine(numbers[0], numbers[1]) > 0.985
    assert cosine(numbers[0], numbers[2]) < 0.9
