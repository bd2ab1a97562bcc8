"""What the runner hands to a stage besides its inputs, configuration and outputs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spira_tasks.artifacts import Blobs, Checkpoint, Store
from spira_tasks.errors import ServiceUnavailable

if TYPE_CHECKING:
    from spira_tasks.tracking import Tracker

log = logging.getLogger(__name__)

Record = dict[str, Any]  # plain JSON


class LiveMetrics:
    """Log the metrics of a training to MLflow while it runs; an outage does not stop it.

    It connects at the first metric, because most stages log none.  After an outage nothing more is
    logged: the store has the facts, and registration logs the whole history again.  ``mlflow_run``
    is the ``"<experiment>/<run>"`` that shows the metrics; empty before the first.
    """

    def __init__(self, uri: str, key: str, name: str) -> None:
        self.uri, self.key, self.name = uri, key, name
        self.mlflow_run = ""
        self._tracker: Tracker | None = None
        self._is_unavailable = False

    def __call__(self, number: int, metrics: Mapping[str, float]) -> None:
        if self._is_unavailable:
            return
        try:
            if self._tracker is None:
                from spira_tasks.tracking import Tracker

                self._tracker = Tracker(self.uri)
            self.mlflow_run = self._tracker.log_epoch(self.key, self.name, number, metrics)
        except ServiceUnavailable as error:
            self._is_unavailable = True
            log.warning("%s: going on without live metrics. %s", self.name, error)

    def finish(self, outputs: Mapping[str, str]) -> None:
        if self._tracker is None or self._is_unavailable:
            return
        try:
            self._tracker.finish(self.key, outputs)
        except ServiceUnavailable as error:
            log.warning("%s: its MLflow run stays open. %s", self.name, error)


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
    track: LiveMetrics  # ``track(number, metrics)`` shows the numbers of an epoch meanwhile


@dataclass(frozen=True)
class PlatformWork(Work):
    """What a stage has that acts outside of its outputs (``StageSpec.outside``)."""

    run_id: str  # of the run that the step belongs to
    store: Store
