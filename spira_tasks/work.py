"""What the runner hands to a stage besides its inputs, configuration and outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from spira_tasks.artifacts import Blobs, Checkpoint, Store

Record = dict[str, Any]  # plain JSON


class Track(Protocol):
    mlflow_run: str

    def __call__(self, number: int, metrics: Mapping[str, float]) -> None: ...

    def finish(self, outputs: Mapping[str, str]) -> None: ...


@dataclass(frozen=True)
class Work:
    """What every stage has: big things, earlier work, and progress."""

    key: str  # of the result being computed
    blobs: Blobs  # waveforms and feature matrices, by digest: written and read one by one
    # ``remember(parts, make)`` returns the JSON record that ``make()`` returned the first time it
    # was called with these parts by this code, so that one recording is never worked on twice.
    # Parts and records are plain JSON; a record keeps the blobs that it names alive.
    remember: Callable[[Mapping[str, Any], Callable[[], Record]], Record]
    # Where a stage may keep its state, for a retry to go on from.  It is deleted once the result is
    # stored; the result must not depend on it.
    checkpoint: Checkpoint
    track: Track  # ``track(number, metrics)`` shows the numbers of an epoch in MLflow meanwhile


@dataclass(frozen=True)
class PlatformWork(Work):
    """What a stage has that acts outside of its outputs (``StageSpec.outside``)."""

    run_id: str  # of the run that the step belongs to
    store: Store
