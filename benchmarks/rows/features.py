"""Features: `materialize` against MFCC by librosa and against version 1, clip by clip."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.rows import recordings, version1
from benchmarks.rows.pairs import Cost, Line, Size, cost, paired, times_as_fast
from spira_tasks.artifacts import Store

EQUAL = 1e-4  # in standard deviations of a recording's matrix


def materialize(folder: Path, size: Size) -> list[Line]:
    """All windows of recordings of about 8 s, read, computed and stored."""
    recordings.make(folder, 2 if size.small else 30, 8.0)
    lines = []
    for name, way, goal in (
        ("librosa", version1.features_by_librosa, 4.0),
        ("version 1", version1.features_by_version1, 3.0),
    ):
        turns = paired(ours, way, size, folder)
        line = times_as_fast(f"MFCC of recordings, against {name}", turns, goal)
        largest = difference(folder)
        assert largest <= EQUAL, f"the features of {name} differ by {largest:.1e} of their spread"
        lines.append(line.with_detail(f"equal within {largest:.0e} of their spread"))
        shutil.rmtree(folder / "made")
    return lines


def ours(folder: Path) -> Callable[[], Cost]:
    def turn() -> Cost:
        with tempfile.TemporaryDirectory() as place:  # where nothing is found
            shutil.copytree(folder / "store", place, dirs_exist_ok=True)
            store = Store(place)
            known = recordings.known(folder)
            return cost(lambda: recordings.materialize(store, known["recordings"], {}))

    return turn


def difference(folder: Path) -> float:
    """The largest difference between what the other way left and our features."""
    import torch

    from spira_tasks.speech.features import FeatureExtractor, FeatureSpec

    extractor = FeatureExtractor(FeatureSpec()).eval()
    found = []
    for file in sorted((folder / "made").iterdir()):
        theirs = np.load(file)
        waveform = version1.read(folder / "audio" / f"{file.stem}.wav")
        with torch.inference_mode():
            matrix = extractor.of_recording(waveform).numpy()
        assert matrix.shape == theirs.shape, (matrix.shape, theirs.shape)
        found.append(float(np.abs(matrix - theirs).max() / matrix.std()))
    return max(found)
