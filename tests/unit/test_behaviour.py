"""Changes of the sound that say nothing of the illness: what they are, and what they show."""

from __future__ import annotations

import numpy as np
import pytest
import torch

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


def test_flips_are_counted_by_change_and_never_certain_of_few_people() -> None:
    clean = np.r_[np.full(20, 0.2), np.full(20, 0.8)]
    weights = metrics.subject_resamples(np.arange(40).astype(str), 300, 0)
    moved = np.where(np.arange(40) < 6, 0.9, clean)
    found = behaviour.measure(clean, {"mask": moved, "polarity": clean}, 0.5, weights, 40)
    assert found["mask"]["flips"]["value"] == pytest.approx(6 / 40)
    assert found["polarity"]["flips"]["value"] == 0
    assert found["polarity"]["flips"]["high"] > 0.05
    assert found["polarity"]["shift"] == {"value": 0, "low": 0, "high": 0}
