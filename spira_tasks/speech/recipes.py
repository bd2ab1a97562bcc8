"""Losses, optimisers and learning-rate schedules by name; a package may add others.

Importing this module imports no torch.
"""

from __future__ import annotations

from typing import Any

from spira_tasks.registry import Registry

LOSSES: Registry[Any] = Registry(
    "losses",
    {
        "bce": "spira_tasks.speech.losses:bce",
        "clip_bce": "spira_tasks.speech.losses:clip_bce",
        "balanced_bce": "spira_tasks.speech.losses:balanced_bce",
    },
)
"""``loss(logits, labels, recordings) -> scalar``; see ``speech.losses``."""

OPTIMISERS: Registry[Any] = Registry(
    "optimisers",
    {
        "adam": "spira_tasks.speech.optimisers:adam",
        "adamw": "spira_tasks.speech.optimisers:adamw",
        "radam": "spira_tasks.speech.optimisers:radam",
    },
)
"""``make(parameters, learning_rate, weight_decay) -> torch.optim.Optimizer``."""

SCHEDULES: Registry[Any] = Registry(
    "schedules",
    {
        "none": "spira_tasks.speech.optimisers:constant",
        "noam": "spira_tasks.speech.optimisers:noam",
        "cosine": "spira_tasks.speech.optimisers:cosine",
    },
)
"""``factor(n_steps_done, warmup_steps, n_steps) -> float``, by which the rate is multiplied."""
