"""Log metrics of a training to MLflow while it runs; an outage of MLflow does not stop it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from spira_tasks.errors import ServiceUnavailable

if TYPE_CHECKING:
    from spira_tasks.tracking import Tracker

log = logging.getLogger(__name__)


class LiveMetrics:
    """Connects to MLflow at the first metric, because most stages log none.

    After an outage nothing more is logged: the store has the facts, and registration logs the whole
    history again.  ``mlflow_run`` is the ``"<experiment>/<run>"`` that shows the metrics; empty
    before the first.
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
