"""Compute the features of every recording once, and keep them by the recording's content."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from spira_tasks.config import SampleRateHz, Seconds, StageConfig, implementation_of, registered
from spira_tasks.contract.record import Outcome
from spira_tasks.errors import GateRejected
from spira_tasks.speech.strategies import STRATEGIES

if TYPE_CHECKING:
    import pandas as pd

    from spira_tasks.artifacts import Directory
    from spira_tasks.contract.step import Shard
    from spira_tasks.speech.features import FeatureExtractor
    from spira_tasks.work import Record, Work


@dataclass(frozen=True)
class Inputs:
    recordings: Directory  # recordings.parquet: record_id, task, waveform


@dataclass(frozen=True)
class Outputs:
    features: Path  # features.parquet, one row a recording; features.json, how they were made


class Config(StageConfig):
    """``feature`` and its parameters; the defaults are those of SPIRA v1's published models.

    ``feature_code``: of the package that the feature is of; there is no reason to set it.
    ``window_seconds``: with ``temporal`` padding it may be null: as long as the longest recording
    that is trained on.
    """

    tasks: tuple[Literal["AMBIENT", "VOWEL", "RHYME", "SENTENCE"], ...] = ("SENTENCE",)
    feature: Annotated[str, registered(STRATEGIES)] = "mfcc"
    feature_code: str = implementation_of(STRATEGIES, "feature")
    sample_rate_hz: SampleRateHz = 16_000
    n_fft: PositiveInt = 1200
    win_length: PositiveInt = 400
    hop_length: PositiveInt = 160
    n_mels: PositiveInt = 40
    n_mfcc: PositiveInt = 40
    log_mels: bool = False
    decibels: bool = True
    mel_fmin_hz: NonNegativeFloat = 0.0
    mel_fmax_hz: PositiveFloat | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    temporal: Literal["windows", "padding", "whole"] = "windows"
    window_seconds: Seconds | None = 4.0
    step_seconds: Seconds = 1.0
    tail: Literal["keep", "drop"] = "keep"

    @model_validator(mode="after")
    def windows_have_a_length(self) -> Self:
        if self.window_seconds is None and self.temporal != "padding":
            raise ValueError(
                f"temporal {self.temporal} needs window_seconds: give a number, or choose padding"
            )
        return self


def run(inputs: Inputs, config: Config, outputs: Outputs, work: Work) -> Outcome:
    import pandas as pd

    table, extractor = read(inputs, config)
    rows = remembered_all(table["waveform"], extractor, work)
    features = pd.DataFrame(rows, index=table.index)
    features.insert(0, "record_id", table["record_id"])
    features.to_parquet(outputs.features / "features.parquet", index=False)
    (outputs.features / "features.json").write_text(extractor.spec.to_json())
    return Outcome({"n_recordings": len(rows), "n_windows": int(features["n_windows"].sum())})


def run_shard(inputs: Inputs, config: Config, work: Work, shard: Shard) -> Outcome:
    """Compute the features of a shard; they are in packs, and remembered, from then on."""
    table, extractor = read(inputs, config)
    rows = remembered_all(table["waveform"][table["record_id"].map(shard.has)], extractor, work)
    return Outcome({"n_recordings": len(rows), "n_windows": sum(row["n_windows"] for row in rows)})


def read(inputs: Inputs, config: Config) -> tuple[pd.DataFrame, FeatureExtractor]:
    """The recordings that features are computed of, and what computes them."""
    import pandas as pd

    from spira_tasks.speech import cpu
    from spira_tasks.speech.features import FeatureExtractor, FeatureSpec

    cpu.prepare(n_threads=1)  # one recording a thread; ``remembered_all`` uses the cores
    table = pd.read_parquet(inputs.recordings.path("recordings.parquet"))
    table = table[table["task"].isin(config.tasks)]
    if table.empty:
        raise GateRejected(
            f"no recording is of a task that features are computed of ({', '.join(config.tasks)}): "
            "ingest such recordings, or choose other materialize.tasks"
        )
    settings = config.model_dump(exclude={"tasks", "feature", "feature_code"})
    if config.window_seconds is None:
        settings["window_seconds"] = longest(table)
    spec = FeatureSpec(name=config.feature, implementation=config.feature_code, **settings)
    return table, FeatureExtractor(spec).eval()


def longest(table: pd.DataFrame) -> float:
    """Seconds of the longest recording that is trained on, or of all where none is."""
    trained_on = table[table["split"] == "train"]
    return float((table if trained_on.empty else trained_on)["duration_seconds"].max())


def remembered_all(
    waveforms: Iterable[str], extractor: FeatureExtractor, work: Work
) -> list[Record]:
    """The rows of some recordings."""
    from spira_tasks.progress import progress

    digests = list(waveforms)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        records = pool.map(lambda digest: remembered(digest, extractor, work), digests)
        return list(progress(records, "materialize", total=len(digests)))


def remembered(waveform: str, extractor: FeatureExtractor, work: Work) -> Record:
    """The row of one recording: computed the first time this waveform meets these parameters."""
    parts = {"waveform": waveform, "features": asdict(extractor.spec)}
    return work.remember(parts, lambda: compute(waveform, extractor, work))


def compute(waveform: str, extractor: FeatureExtractor, work: Work) -> Record:
    """Store the (window, frame, bin) float32 features of a recording; describe them in a row."""
    import numpy as np
    import torch

    from spira_tasks.speech.audio import read_pcm16
    from spira_tasks.speech.augmentation import to_float

    pcm16 = torch.from_numpy(read_pcm16(work.blobs.read(waveform)))
    with torch.inference_mode():
        matrix = extractor.of_recording(to_float(pcm16)).contiguous().numpy()
    content = io.BytesIO()
    np.save(content, matrix, allow_pickle=False)
    n_windows, n_frames, n_bins = matrix.shape
    return {
        "features": work.blobs.add(content.getvalue()),
        "n_windows": n_windows,
        "n_frames": n_frames,
        "n_bins": n_bins,
        "finite": bool(np.isfinite(matrix).all()),
        "mean": float(matrix.mean()),
        "std": float(matrix.std()),
        "min": float(matrix.min()),
        "max": float(matrix.max()),
        "schema": extractor.spec.schema,
    }
