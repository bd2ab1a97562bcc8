"""Test people whose scores have a fault of a given size, as an evaluation measures them.

Only scores are drawn, so a cohort takes milliseconds.  Patients and controls have normal log-odds;
a model that is right has an AUC of 0.95.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd

from spira_tasks.evaluation import behaviour, calibration, counterfactuals, slices
from spira_tasks.speech import metrics
from spira_tasks.speech.metrics import Array

Fault = Literal["ward", "restless", "sex", "group", "sound", "sure"]
FAULTS: Mapping[Fault, str] = {
    "ward": "share of the way to the patients by which ward noise moves the controls",
    "restless": "standard deviation of the log-odds that each draw of ward noise adds",
    "sex": "share of what the model hears that is the sex; 80 % of patients are women, 20 % not",
    "group": "share by which the classes are closer in a third of the people",
    "sound": "standard deviation of the log-odds that one change of the sound adds",
    "sure": "by how much the log-odds are too large: 0 is right, 1 twice as large",
}
DISTANCE = 2.33  # of the means in standard deviations: an AUC of 0.95
N_DRAWS = 8
N_NOISES = 8  # that the draws are of, and as many rooms
RESTLESS = 0.3  # what a draw of noise adds to the log-odds of a sound model
THRESHOLD = 0.5


def simulated(
    fault: Fault, size: float, n: int, seed: int, n_resamples: int = 500
) -> dict[str, Any]:
    """What is measured of ``n`` test people, half of them patients, of a model with a fault.

    Returns
    -------
    dict
        What the gates of the fault read of ``evaluation.json``.
    """
    rng = np.random.default_rng([n, seed])
    ill = np.arange(n) % 2 == 1
    labels, names = ill.astype(float), np.arange(n).astype(str)
    woman = rng.uniform(0, 1, n) < (np.where(ill, 0.8, 0.2) if fault == "sex" else 0.5)
    third = rng.uniform(0, 1, n) < 1 / 3
    heard = np.where(ill, 0.5, -0.5)
    if fault == "sex":
        heard = (1 - size) * heard + size * np.where(woman, 0.5, -0.5)
    if fault == "group":
        heard = np.where(third, (1 - size) * heard, heard)
    spread = rng.normal(0, 1, n)
    # of two normals of one deviation the log-odds are the distance times the place between them
    margins = DISTANCE * (DISTANCE * heard + spread)
    if fault == "sure":
        margins = (1 + size) * margins
    clean = probability(margins)
    weights = metrics.subject_resamples(names, n_resamples, seed)
    shift = size * DISTANCE**2 if fault == "ward" else 0.0
    restless = size if fault == "restless" else RESTLESS
    noise = margins + shift * ~ill + rng.normal(0, restless, (N_DRAWS, n))
    people = pd.DataFrame({"sex": np.where(woman, "F", "M"), "site": np.where(third, "#1", "#2")})
    n_patients, n_controls = int(ill.sum()), int((~ill).sum())
    changed = margins + rng.normal(0, size if fault == "sound" else RESTLESS, n)
    swapped = margins + shift * ~ill + rng.normal(0, restless, (N_DRAWS, n))
    return {
        "n_patients": n_patients,
        "n_controls": n_controls,
        **counterfactuals.measure(
            labels,
            clean,
            counterfactuals.cells(labels, clean, probability(noise), probability(swapped)),
            THRESHOLD,
            weights=weights,
            n_people=(n_controls, n_patients),
            noises=rng.integers(N_NOISES, size=noise.shape).astype(float),
            rooms=rng.integers(N_NOISES, size=noise.shape).astype(float),
            seed=seed,
        ),
        **slices.measure(
            people, pd.Series(names), labels, clean, threshold=THRESHOLD, weights=weights
        ),
        "behaviour": behaviour.measure(
            labels,
            clean,
            {"mask": probability(changed)},
            THRESHOLD,
            weights=weights,
            n_people=(n_controls, n_patients),
        ),
        "calibration": calibration.measure(labels, clean, names, weights),
    }


def probability(log_odds: Array) -> Array:
    return 1 / (1 + np.exp(-np.clip(log_odds, -500, 500)))
