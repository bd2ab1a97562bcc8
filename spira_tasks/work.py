"""What the runner hands to a stage besides its inputs, configuration and outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from spira_tasks.artifacts import Blobs

Record = dict[str, Any]  # plain JSON


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
    track : callable
        ``track(step, metrics)`` shows numbers while they come, in the log and in MLflow.
    """

    key: str
    blobs: Blobs
    remember: Callable[[Mapping[str, Any], Callable[[], Record]], Record]
    track: Callable[[int, Mapping[str, float]], None]
