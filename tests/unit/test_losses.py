"""Losses, optimisers and schedules: their numbers, computed by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from spira_tasks.errors import ConfigError
from spira_tasks.speech.recipes import LOSSES, OPTIMISERS, SCHEDULES

# Probabilities of four windows of two recordings: 1/2 and 3/4 of the first, 1/4 and 1/4 of the
# second.
LOGITS = torch.tensor([0.0, math.log(3), -math.log(3), -math.log(3)], dtype=torch.float64)
RECORDINGS = torch.tensor([0, 0, 1, 1])
LOG_2, LOG_4 = math.log(2), math.log(4)
LOG_4_3 = math.log(4 / 3)


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    [
        ("bce", [1, 1, 0, 0], (LOG_2 + LOG_4_3 + 2 * LOG_4_3) / 4),
        # at 1/2 any label costs log 2
        ("bce", [0.25, 1, 0, 0], (LOG_2 + LOG_4_3 + 2 * LOG_4_3) / 4),
        # the mean scores are 5/8 and 1/4
        ("clip_bce", [1, 1, 0, 0], (math.log(8 / 5) + LOG_4_3) / 2),
        ("clip_bce", [0.5, 0.5, 0, 0], (-(math.log(5 / 8) + math.log(3 / 8)) / 2 + LOG_4_3) / 2),
        # one window of a patient weighs as much as three of controls
        ("balanced_bce", [1, 0, 0, 0], (LOG_2 + (LOG_4 + 2 * LOG_4_3) / 3) / 2),
        ("balanced_bce", [0, 0, 0, 0], (LOG_2 + LOG_4 + 2 * LOG_4_3) / 4),
        # a half belongs to both classes
        (
            "balanced_bce",
            [1, 0.5, 0, 0],
            ((LOG_2 + LOG_4_3 / 2) / 1.5 + (LOG_4 / 2 + 2 * LOG_4_3) / 2.5) / 2,
        ),
    ],
)  # fmt: skip
def test_a_loss_is_what_it_is_by_hand(name: str, labels: list[float], expected: float) -> None:
    found = LOSSES.find(name)(LOGITS, torch.tensor(labels, dtype=torch.float64), RECORDINGS)
    assert float(found) == pytest.approx(expected, rel=1e-12)


def stepped(name: str, gradients: list[float], decay: float) -> float:
    """The weight, at first 1, after steps with these gradients and a rate of 0.1."""
    weight = nn.Parameter(torch.ones((), dtype=torch.float64))
    optimiser = OPTIMISERS.find(name)([weight], 0.1, decay)
    for gradient in gradients:
        weight.grad = torch.tensor(gradient, dtype=torch.float64)
        optimiser.step()
    return float(weight.detach())


def test_adam_adds_the_decay_to_the_gradient_and_adamw_to_the_weight() -> None:
    """Adam's first step has the length of the rate, whatever the gradient is."""
    assert stepped("adam", [3.0], 0.0) == pytest.approx(0.9)
    assert stepped("adam", [-0.2], 0.5) == pytest.approx(0.9)  # the decay turns the gradient
    assert stepped("adamw", [-0.2], 0.5) == pytest.approx(1 - 0.1 * 0.5 + 0.1)


def test_radam_steps_along_the_mean_gradient_until_its_variance_is_known() -> None:
    """The variance counts from the sixth step on, which is as long as the paper says."""
    assert stepped("radam", [3.0], 0.0) == pytest.approx(1 - 0.1 * 3.0)
    assert stepped("radam", [3.0], 0.5) == pytest.approx(1 - 0.1 * 0.5 - 0.1 * 3.0)
    assert stepped("radam", [0.2] * 5, 0.0) == pytest.approx(1 - 5 * 0.1 * 0.2)
    longest, power = 2 / (1 - 0.999) - 1, 0.999**6
    length = longest - 2 * 6 * power / (1 - power)
    r = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
    assert stepped("radam", [0.2] * 6, 0.0) == pytest.approx(0.9 - 0.1 * math.sqrt(r), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("none", {0: 1, 9: 1, 500: 1}),
        ("noam", {0: 0.1, 4: 0.5, 9: 1, 39: 0.5, 159: 0.25}),
        # warm-up of 10 of 110 steps; a third of the cosine is at 3/4
        ("cosine", {0: 0.1, 4: 0.5, 9: 1, 10: 1, 10 + 100 / 3: 0.75, 60: 0.5, 110: 0, 500: 0}),
    ],
)
def test_a_schedule_is_what_it_is_by_hand(name: str, expected: dict[float, float]) -> None:
    factor = SCHEDULES.find(name)
    found = {step: factor(step, 10, 110) for step in expected}
    assert found == pytest.approx(expected, abs=1e-12)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"bce, clip_bce, balanced_bce"):
        LOSSES.find("hinge")
