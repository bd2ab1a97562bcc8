"""Changes of the sound that say nothing of the illness: what they are, and what they show."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from expectations import policy
from expectations.gates import model
from expectations.words.verdicts import sentence
from spira_tasks.evaluation import behaviour
from spira_tasks.speech import metrics
from spira_tasks.speech.audio import SAMPLE_RATE_HZ

SECONDS = np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
VOICE = (0.2 * np.sin(2 * np.pi * 220 * SECONDS) + 0.1 * np.sin(2 * np.pi * 4000 * SECONDS)).astype(
    np.float32
)


@pytest.mark.parametrize("name", list(behaviour.TRANSFORMS))
def test_a_change_keeps_what_is_said_and_is_the_same_each_time(name: str) -> None:
    change = behaviour.TRANSFORMS[name]
    heard = change(VOICE)
    assert heard.dtype == np.float32
    assert torch.from_numpy(heard).ndim == 1
    assert not np.array_equal(heard, VOICE)
    assert np.array_equal(heard, change(VOICE))
    spectra = [np.abs(np.fft.rfft(one, 2 * SAMPLE_RATE_HZ)) for one in (VOICE, heard)]
    assert [int(one.argmax()) // 2 for one in spectra] == [220, 220]


def test_a_mask_damps_what_is_high() -> None:
    before, after = (np.abs(np.fft.rfft(one)) for one in (VOICE, behaviour.masked(VOICE)))
    assert after[220] == pytest.approx(before[220], rel=0.02)
    assert after[4000] < 0.9 * before[4000]


def test_flips_are_counted_by_change_and_class_and_never_certain_of_few_people() -> None:
    labels = np.repeat([0.0, 1.0], 20)
    clean = np.r_[np.full(20, 0.2), np.full(20, 0.8)]
    weights = metrics.subject_resamples(np.arange(40).astype(str), 300, 0)
    moved = np.where(np.arange(40) < 6, 0.9, clean)
    changed = {"mask": moved, "polarity": clean}
    found = behaviour.measure(labels, clean, changed, 0.5, weights=weights, n_people=(20, 20))
    assert found["mask"]["flips"]["controls"]["value"] == pytest.approx(6 / 20)
    assert found["mask"]["flips"]["patients"]["value"] == 0
    assert found["polarity"]["flips"]["controls"]["value"] == 0
    assert found["polarity"]["flips"]["controls"]["high"] > 0.1
    assert found["polarity"]["shift"] == {"value": 0, "low": 0, "high": 0}


def test_many_controls_do_not_hide_that_each_patient_is_lost() -> None:
    labels = np.repeat([0.0, 1.0], [100, 10])
    clean = np.where(labels == 1, 0.8, 0.2)
    weights = metrics.subject_resamples(np.arange(110).astype(str), 300, 0)
    lost = {"opus": np.full(110, 0.2), "polarity": clean}
    found = behaviour.measure(labels, clean, lost, 0.5, weights=weights, n_people=(100, 10))
    evaluation = {"behaviour": found, "n_patients": 10, "n_controls": 100}
    verdict = model.behaviour(evaluation, policy.read().rules.behaviour)
    assert verdict.status == "block"
    assert (verdict.names["change"], verdict.names["who"]) == (("opus",), ("patients",))
    assert "Opus and back; patients" in sentence(verdict, "en")
