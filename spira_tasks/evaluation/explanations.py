"""What of a recording pushed the answer: a map over time and frequency, and whether to trust it.

A cell, a quarter of a second of a band of frequencies, is replaced by the mean sound of the
training set, and the answer is asked for again (occlusion: Zeiler, Fergus, "Visualizing and
understanding convolutional networks", ECCV 2014).  So are whole bands, and all of the speech, of
the pauses, and of what is before and after the speech, where only the room is heard.  What cells do
does not add up: two of them may say the same.

A map may show what the sound is like and nothing of what the network learned.  So the maps are made
again with random weights (Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018): where
they rank the cells in the same order, the maps say nothing.

It takes a spectral feature.  Nothing here names a recording, and cells are too coarse to recognise
a voice by.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from spira_tasks.speech.classifier import Classifier
from spira_tasks.speech.features import window_starts
from spira_tasks.speech.metrics import Array
from spira_tasks.speech.probe import HOP_SECONDS, active_frames, frame_means, without_offset

CELL_SECONDS = 0.25  # about a syllable
N_BANDS = 6
PARTS = ("speech", "pauses", "edges")  # edges: before the first sound and after the last
RANDOMISED = ("last_layer", "all_layers")
EVERY = 2  # cells in time of which the maps of random weights have one
N_BATCH = 32  # windows at a time


@dataclass(frozen=True)
class Recording:
    """What is explained: the stored features and the (time,) int16 waveform that they are of."""

    features: Tensor  # (window, frame, bin)
    pcm16: NDArray[np.int16]


def chosen(labels: Array, scores: Array, threshold: float) -> list[int]:
    """The recordings to explain: a typical one of each kind of answer, right and wrong.

    Of patients called patients, patients called controls, controls called controls and controls
    called patients, in this order, the recording with the median score; the lower of two in the
    middle.  A kind of answer that did not occur is left out.
    """
    found = []
    for label in (1, 0):
        for is_right in (True, False):
            is_called = (scores >= threshold) == (label == 1)
            group = np.flatnonzero((labels == label) & (is_called == is_right))
            if group.size:
                in_order = group[np.argsort(scores[group], kind="stable")]
                found.append(int(in_order[(len(group) - 1) // 2]))
    return found


def explain(
    classifier: Classifier, recordings: Sequence[Recording], seed: int
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Explain the answers to some recordings.

    Parameters
    ----------
    classifier : Classifier
        Of a spectral feature.
    recordings : sequence of Recording
    seed : int
        Of the random weights.

    Returns
    -------
    DataFrame
        A row a cell: ``number`` of the recording, ``from_seconds``, ``part`` (of which most of
        these seconds are), ``from_hz``, ``to_hz``, ``points``: by how many points of probability
        the cell moves the answer towards patient.
    dict
        ``recordings``: of each, the ``probability``, and the points of all of a part and of all of
        a band (``parts``, ``bands``).  ``randomised``: for each way of taking away what was
        learned, the mean rank correlation of the maps with those of the network: ``signed``, and
        of their magnitudes (``absolute``).
    """
    others = {layers: randomised(classifier, layers, seed) for layers in RANDOMISED}
    edges_hz = band_edges_hz(classifier)
    bands = range(len(edges_hz) - 1)
    tables, rows, correlations = [], [], []
    for number, recording in enumerate(recordings):
        cut = Cut.of(classifier, recording)
        times = range(len(cut.parts))
        cells: list[Place] = [((time,), (band,)) for time in times for band in bands]
        of_parts = [(np.flatnonzero(cut.parts == part).tolist(), bands) for part in PARTS]
        of_bands = [(times, (band,)) for band in bands]
        probability, points = cut.points(classifier, [*cells, *of_parts, *of_bands])
        of_cells, whole = points[: len(cells)], np.round(points[len(cells) :], 1).tolist()
        time, band = np.divmod(np.arange(len(cells)), len(bands))
        some = np.flatnonzero(time % EVERY == 0)
        of_others = [cut.points(other, [cells[i] for i in some])[1] for other in others.values()]
        correlations.append([likeness(of_cells[some], of_other) for of_other in of_others])
        tables.append(
            pd.DataFrame(
                {
                    "number": number,
                    "from_seconds": time * CELL_SECONDS,
                    "part": cut.parts[time],
                    "from_hz": edges_hz[band],
                    "to_hz": edges_hz[band + 1],
                    "points": of_cells,
                }
            )
        )
        rows.append(
            {
                "probability": round(probability, 2),
                "parts": dict(zip(PARTS, whole, strict=False)),
                "bands": whole[len(PARTS) :],
            }
        )
    return pd.concat(tables, ignore_index=True), {
        "cell_seconds": CELL_SECONDS,
        "band_edges_hz": edges_hz.tolist(),
        "recordings": rows,
        "randomised": {
            layers: {"signed": float(signed), "absolute": float(absolute)}
            for layers, (signed, absolute) in zip(
                others, np.mean(correlations, axis=0), strict=True
            )
        },
    }


Place = tuple[Sequence[int], Sequence[int]]  # cells of time, and bands, that are replaced together


@dataclass(frozen=True)
class Cut:
    """A recording of which cells can be replaced."""

    features: Tensor  # (window, frame, bin)
    to_mean: Tensor  # what is missing to the mean sound, (window, frame, level)
    dct: Tensor | None  # (level, bin): coefficients are a rotation of the levels of mel bands
    time_of: Tensor  # (window, frame) cell of time; -1 behind the recording
    band_of: Tensor  # (level,) band
    parts: NDArray[np.str_]  # of each cell of time

    @classmethod
    def of(cls, classifier: Classifier, recording: Recording) -> Cut:
        spec, spectral = classifier.spec.features, classifier.extractor.spectral
        assert spectral is not None  # noqa: S101
        to_mean = classifier.standardize.mean - recording.features
        if spectral.dct is not None:
            to_mean = to_mean @ spectral.dct.T
        n_samples, starts = len(recording.pcm16), [0]
        if spec.temporal == "windows":
            starts = window_starts(max(n_samples, spec.n_window_samples), spec)
        samples = np.array(starts)[:, None] + spec.hop_length * np.arange(to_mean.shape[1])
        n_a_cell = round(CELL_SECONDS * spec.sample_rate_hz)
        n_times = -(-n_samples // n_a_cell)
        time_of = np.minimum(samples // n_a_cell, n_times - 1)
        groups = np.array_split(np.arange(to_mean.shape[2]), N_BANDS)
        return cls(
            recording.features,
            to_mean,
            spectral.dct,
            torch.from_numpy(np.where(samples > n_samples, -1, time_of)),
            torch.from_numpy(np.repeat(np.arange(N_BANDS), [len(group) for group in groups])),
            parts_of(recording, n_times),
        )

    def points(self, classifier: Classifier, places: Sequence[Place]) -> tuple[float, Array]:
        """The probability, and by how many points it is lower where each place is replaced."""
        scores = classifier.window_scores(self.features)
        without = scores.repeat(len(places), 1)  # (place, window)
        masks = [
            (
                torch.isin(self.time_of, torch.tensor(times, dtype=torch.long)),
                torch.isin(self.band_of, torch.tensor(bands)),
            )
            for times, bands in places
        ]
        changed = [
            (place, window)
            for place, (in_time, _) in enumerate(masks)
            for window in in_time.any(dim=1).nonzero().flatten().tolist()
        ]
        for first in range(0, len(changed), N_BATCH):
            batch = changed[first : first + N_BATCH]
            changes = torch.stack(
                [
                    self.to_mean[window] * masks[place][0][window][:, None] * masks[place][1]
                    for place, window in batch
                ]
            )
            if self.dct is not None:
                changes = changes @ self.dct
            at, windows = torch.tensor(batch).T
            without[at, windows] = classifier.window_scores(self.features[windows] + changes)
        probability = scores.double().mean()
        return float(probability), 100 * (probability - without.double().mean(dim=1)).numpy()


def band_edges_hz(classifier: Classifier) -> Array:
    """The edges of the bands, from the lowest on: half-way between the levels on either side."""
    spec, spectral = classifier.spec.features, classifier.extractor.spectral
    assert spectral is not None  # noqa: S101
    centres = np.linspace(0, spec.sample_rate_hz / 2, spec.n_fft // 2 + 1)
    lowest, highest = centres[0], centres[-1]
    if spectral.scale is not None:
        filters = spectral.scale.get_buffer("fb").double().numpy()  # (frequency, mel band)
        centres = centres @ filters / np.maximum(filters.sum(axis=0), 1e-9)
        lowest, highest = spec.mel_fmin_hz, spec.mel_fmax_hz or highest
    groups = np.array_split(centres, N_BANDS)
    inner = [(below[-1] + above[0]) / 2 for below, above in pairwise(groups)]
    return np.round([lowest, *inner, highest])


def parts_of(recording: Recording, n_times: int) -> NDArray[np.str_]:
    """Of each cell of time, whether most of it is speech, pause, or before or after all speech."""
    levels = frame_means(without_offset(recording.pcm16) ** 2)
    active = active_frames(10 * np.log10(np.maximum(levels, 0) + 1e-12))
    first, last = np.flatnonzero(active)[[0, -1]]
    frames = np.arange(len(active))
    part = np.where(active, 0, np.where((frames < first) | (frames > last), 2, 1))
    time = np.minimum((frames * HOP_SECONDS / CELL_SECONDS + 1e-6).astype(int), n_times - 1)
    counts = np.zeros((n_times, len(PARTS)))
    np.add.at(counts, (time, part), 1)
    counts[time[-1] + 1 :, 2] = 1  # behind the last frame
    most: NDArray[np.str_] = np.array(PARTS)[counts.argmax(axis=1)]
    return most


def randomised(classifier: Classifier, layers: str, seed: int) -> Classifier:
    """The classifier with random weights in its last layer, or in all of them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = Classifier(classifier.spec).scorer.state_dict()
    other = copy.deepcopy(classifier)
    names = [name for name, _ in other.scorer.named_parameters()]
    if layers == "last_layer":
        last = names[-1].rpartition(".")[0]
        names = [name for name in names if name.rpartition(".")[0] == last]
    other.scorer.load_state_dict({name: fresh[name] for name in names}, strict=False)
    return other


def likeness(one: Array, other: Array) -> tuple[float, float]:
    """Spearman's correlation of two maps, and of their magnitudes; 0 where one is flat."""
    found = []
    for pair in ((one, other), (np.abs(one), np.abs(other))):
        ranks = [pd.Series(values).rank() for values in pair]
        is_flat = min(len(np.unique(values)) for values in pair) == 1
        found.append(0.0 if is_flat else float(ranks[0].corr(ranks[1])))
    return found[0], found[1]
