"""Optuna behind one module: the next points of a search.

The points are a function of the space, the seed and what earlier points came to, in their order.
So a study needs no database, and no trial of it is ever left running: after a kill the same calls
propose the same points, whose results are in the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from spira_tasks.experiments.declaration import Choices, Range, Search

optuna.logging.set_verbosity(optuna.logging.WARNING)

N_AT_RANDOM = 10  # points before the sampler learns from earlier ones, as Optuna has it


@dataclass(frozen=True)
class Point:
    """A point of a search and what it came to; None where it failed."""

    settings: Mapping[str, Any]
    value: float | None


def propose(search: Search, known: Sequence[Point], number: int = 0) -> list[dict[str, Any]]:
    """The points that come after the known ones, at most ``search.parallel``; none after the last.

    Parameters
    ----------
    search : Search
        Space, budget and seed.
    known : sequence of Point
        All earlier points, in their order.
    number : int
        Which of the searches of an experiment; each has random numbers of its own.
    """
    n = min(search.parallel, search.budget - len(known))
    if n <= 0:
        return []
    seed = int(np.random.default_rng([search.seed, number, len(known)]).integers(2**32))
    sampler = optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=N_AT_RANDOM, multivariate=True, constant_liar=True
    )
    space = {name: _distribution(one) for name, one in search.space.items()}
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials([_trial(point, space) for point in known])
    return [dict(study.ask(space).params) for _ in range(n)]


def best(points: Sequence[Point]) -> Point | None:
    """The best point, the first of equal ones; None where all failed."""
    done = [point for point in points if point.value is not None]
    return max(done, key=lambda point: point.value or 0.0, default=None)


def _trial(point: Point, space: dict[str, BaseDistribution]) -> FrozenTrial:
    state = TrialState.FAIL if point.value is None else TrialState.COMPLETE
    return optuna.trial.create_trial(
        params=dict(point.settings), distributions=space, value=point.value, state=state
    )


def _distribution(one: Choices | Range) -> BaseDistribution:
    if isinstance(one, Choices):
        return CategoricalDistribution(one.choices)
    if isinstance(one.low, int) and isinstance(one.high, int):
        return IntDistribution(one.low, one.high, log=one.log)
    return FloatDistribution(one.low, one.high, log=one.log)
