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
    """A stage's access to big things, to earlier work, and to the eyes that watch it.

    Attributes
    ----------
    key : str
        The key of the result being computed.
    blobs : Blobs
        Waveforms and feature matrices, by digest: written and read one by one.
    remember : callable
        ``remember(parts, make)`` returns the JSON record that ``make()`` returned the first time
        it was called with these parts by this code; so one recording is never worked on twice.
        Parts and records are plain JSON; digests of blobs inside a record are kept alive by it.
    checkpoint : Checkpoint
        Where a stage may keep its state, for a later try at the same result to go on from.  Gone
        once the result is stored; the result must not depend on it.
    track : callable
        ``track(number, metrics)`` shows the numbers of an epoch in MLflow while they come.
    tracking_uri : str
        Where MLflow is, for the stages that register and promote.
    gates_missed : callable
        ``gates_missed(classifier)`` names the gates that a classifier did not come through.
    run_id, store : str, Store
        For the stages of governance alone, which report on runs and erase from the store; every
        other stage knows neither (a test holds them to it).
    """

    key: str
    blobs: Blobs
    remember: Callable[[Mapping[str, Any], Callable[[], Record]], Record]
    checkpoint: Checkpoint
    track: Track
    tracking_uri: str
    gates_missed: Callable[[str], list[str]]
    run_id: str
    store: Store
