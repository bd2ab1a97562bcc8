"""A step: one use of a stage, as plain data, and what it may use where it runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

STAGES = ("spira_tasks.stages", "spira_services.stages", "spira_tasks.experiments.stages")
"""Packages whose modules are stages.

The second are those that act on the services, the third those that run other steps.
"""


@dataclass(frozen=True)
class Resources:
    """What a step may use where it runs in a container.  Never part of the key of its result."""

    cpus: float = 2.0  # a limit, not a share
    # The limit, ``/tmp`` and ``/dev/shm`` included.  After the step ran out of memory it is tried
    # again with the next one; without a next one it fails for good.
    memory_mib: tuple[int, ...] = (3072,)
    scratch_mib: int = 1024  # size of ``/tmp``
    shm_mib: int = 64  # size of ``/dev/shm``
    minutes: int = 120  # how long it may take before it is stopped
    n_gpus: int = 0  # how many it asks the engine for
    gpu_optional: bool = False  # whether it may run without them where the engine has none
    # What its keys open: the store; the recordings too; the model registry too; the registry, and
    # the key that signs; the database and the audio of the services.
    access: Literal["store", "data", "models", "governance", "services"] = "store"
    engine: str = ""  # name of a Docker engine in the site file; empty: that of SPIRA_DOCKER_URL
    queue: str = ""  # Airflow queue whose workers take the step; empty: the default one


@dataclass(frozen=True)
class Step:
    """One use of a stage in a pipeline."""

    name: str  # unique in its pipeline; becomes the Airflow ``task_id``
    stage: str  # module of one of ``STAGES``
    # Input name to reference: ``"<step>.<output>"`` of the same run, ``"sha256:<hex>"``, or a place
    # outside the store where data enters: ``"folder:<path>"`` or ``"s3://bucket/prefix"``.
    inputs: Mapping[str, str] = field(default_factory=dict)
    # JSON values, validated by the stage's own ``Config``; unknown keys are errors.
    config: Mapping[str, Any] = field(default_factory=dict)
    # For what starts the step; the step itself never sees them.
    resources: Resources = field(default=Resources(), compare=False)

    @property
    def upstream(self) -> list[str]:
        """Names of the steps whose outputs this one reads; data flow is the only ordering."""
        references = [ref for ref in self.inputs.values() if ":" not in ref]
        return sorted({reference.partition(".")[0] for reference in references})

    def to_json(self) -> str:
        fields = asdict(self)
        del fields["resources"]
        return json.dumps(fields, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Step:
        return cls(**json.loads(text))
