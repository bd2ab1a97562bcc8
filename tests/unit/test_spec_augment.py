"""Stripes and mixing: which numbers they leave, and that no draw depends on a label."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spira_tasks.speech.spec_augment import PUBLISHED, Stripes, hide, mix


def test_stripes_hide_frames_and_bins_and_nothing_else() -> None:
    features = torch.arange(2 * 4 * 3, dtype=torch.float32).reshape(2, 4, 3)
    time = torch.tensor([[[1, 3]], [[0, 0]]])  # frames 1 and 2 of the first window
    frequency = torch.tensor([[[0, 0]], [[2, 3]]])  # bin 2 of the second
    hidden = hide(features, [time, frequency], torch.tensor([100.0, 200.0, 300.0]))
    expected = features.clone()
    expected[0, 1:3] = torch.tensor([100.0, 200.0, 300.0])
    expected[1, :, 2] = 300
    assert torch.equal(hidden, expected)


def test_stripes_are_as_many_and_as_wide_as_published_and_stay_inside() -> None:
    time, frequency = PUBLISHED.draw((401, 40), np.random.default_rng(1), 2000)
    for bounds, wide, total in ((time, 64, 401), (frequency, 8, 40)):
        width = bounds[..., 1] - bounds[..., 0]
        assert bounds.shape == (2000, 2, 2)
        assert set(width.ravel()) == set(range(wide))  # each, and none of the full width
        assert width.mean() == pytest.approx((wide - 1) / 2, rel=0.05)
        assert bounds.min() == 0
        assert total - 3 <= bounds.max() <= total


def test_features_that_are_shorter_than_a_stripe_are_not_hidden_whole() -> None:
    time, _ = Stripes(n_time=1, frames=64).draw((5, 3), np.random.default_rng(1), 100)
    assert (time[..., 1] - time[..., 0]).max() == 4


def test_pairs_are_mixed_with_their_labels_and_an_odd_window_stays() -> None:
    features = torch.tensor([0.0, 1.0, 10.0, 20.0, 7.0]).reshape(5, 1, 1)
    labels = torch.tensor([0.0, 1.0, 1.0, 1.0, 0.0])
    mixed, targets = mix(features, labels, torch.tensor([0.25, 0.5]))
    assert mixed.flatten().tolist() == [7.5, 10.5, 7.0]  # 1/4 of 0 and 3/4 of 10; halves; the rest
    assert targets.tolist() == [0.75, 1.0, 0.0]
    alone, label = mix(features[:1], labels[:1], torch.tensor([]))
    assert (alone.item(), label.item()) == (0.0, 0.0)
