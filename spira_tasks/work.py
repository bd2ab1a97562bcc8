"""What the runner hands to a stage besides its inputs, configuration and outputs."""

from __future__ import annotations

import importlib.util
import logging
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spira_tasks.artifacts import Checkpoint, Packs, Store
from spira_tasks.errors import SpiraError

if TYPE_CHECKING:
    from spira_tasks.tracking import Tracker

log = logging.getLogger(__name__)

Record = dict[str, Any]  # plain JSON


class Use:
    """What this process uses of the machine, by names that MLflow shows as system metrics."""

    def __init__(self) -> None:
        self._at = self._times()

    def since(self) -> dict[str, float]:
        """Per cent of a core since the last call, and the most memory until now."""
        (wall, cpu), before = self._times(), self._at
        self._at = wall, cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB; bytes on macOS
        use = {
            "system/process_cpu_percentage": 100 * (cpu - before[1]) / max(wall - before[0], 1e-3),
            "system/process_memory_megabytes": peak
            / (1e6 if sys.platform == "darwin" else 976.5625),
        }
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            use["system/gpu_memory_megabytes"] = torch.cuda.max_memory_reserved() / 1e6
            if importlib.util.find_spec("pynvml"):  # by which torch asks
                use["system/gpu_utilization_percentage"] = torch.cuda.utilization()
        return use

    @staticmethod
    def _times() -> tuple[float, float]:
        return time.monotonic(), time.process_time()


class LiveMetrics:
    """Log the metrics of a training to MLflow while it runs; no error of MLflow stops it.

    It connects at the first metric, because most stages log none.  After an error nothing more is
    logged: the store has the facts, and registration logs the whole history again.  ``mlflow_run``
    is the ``"<experiment>/<run>"`` that shows the metrics; empty before the first.
    """

    def __init__(self, uri: str, key: str, name: str, *, is_off: bool = False) -> None:
        self.uri, self.key, self.name = uri, key, name
        self.mlflow_run = ""
        self._use = Use()
        self._tracker: Tracker | None = None
        self._is_off = is_off

    def __call__(self, number: int, metrics: Mapping[str, float]) -> None:
        def log_epoch(tracker: Tracker) -> None:
            use = self._use.since()
            self.mlflow_run = tracker.log_epoch(self.key, self.name, number, {**metrics, **use})

        self._try(log_epoch)

    def finish(self, outputs: Mapping[str, str]) -> None:
        if self._tracker is not None:
            self._try(lambda tracker: tracker.finish(self.key, self.name, outputs))

    def _try(self, act: Callable[[Tracker], None]) -> None:
        if self._is_off:
            return
        try:
            if self._tracker is None:
                from spira_tasks.tracking import Tracker

                self._tracker = Tracker(self.uri)
            act(self._tracker)
        except Exception as error:
            self._is_off = True
            why = error if isinstance(error, SpiraError) else type(error).__name__
            log.warning("%s: going on without live metrics, the store has them. %s", self.name, why)


@dataclass(frozen=True)
class Work:
    """What every stage has: big things, earlier work, and progress."""

    key: str  # of the result being computed
    blobs: Packs  # waveforms and feature matrices, by digest: added and read one by one
    # ``remember(parts, make)`` returns the JSON record that ``make()`` returned the first time it
    # was called with these parts by this code, so that one recording is never worked on twice.
    # Parts and records are plain JSON, and name nobody; they go with the blobs that they mention.
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
