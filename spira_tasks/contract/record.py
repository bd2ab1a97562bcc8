"""What a stage returns, and the result that the store keeps of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from spira_tasks.contract.typed import typed
from spira_tasks.contract.verdict import Verdict


@dataclass(frozen=True)
class Outcome:
    """What a stage returns: numbers and verdicts.  Everything else it leaves in its outputs.

    ``changed`` is for a stage that acts on the outside (the model registry): false when there
    was nothing left to do.  ``mlflow_run`` is ``"<experiment>/<run>"`` where MLflow shows it.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()
    changed: bool = True
    mlflow_run: str = ""


@dataclass(frozen=True)
class Result:
    """The record of a finished step; stored under ``key``, the hash of all that made it."""

    stage: str
    key: str
    outputs: Mapping[str, str]  # output name to artifact digest, ``"sha256:<hex>"``
    metrics: Mapping[str, float] = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()
    seconds: float = 0.0  # how long the computation took, the first time
    cpu_seconds: float = 0.0  # what it took of the cores, its child processes included
    gpu_seconds: float = 0.0  # ``seconds``, where it used a GPU
    # Time (UTC), digests of code, packages and lock file, git revision, image, host.
    provenance: Mapping[str, str] = field(default_factory=dict)

    @property
    def stopping(self) -> tuple[Verdict, ...]:
        """The verdicts that end the run."""
        return tuple(verdict for verdict in self.verdicts if verdict.stops)

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Result:
        """Read a stored result; ValueError where it is none."""
        result: Result = typed(json.loads(text), cls, "the result")
        return result
