"""A step: one use of a stage, as plain data, and what it may use where it runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from math import ceil
from typing import Any, Literal

STAGES = ("spira_tasks.stages", "spira_services.stages", "spira_tasks.experiments.stages")
"""Packages whose modules are stages.

The second are those that act on the services, the third those that run other steps.
"""

MAX_SHARDS = 500  # of a step; Airflow maps a task over 1024 at most


@dataclass(frozen=True)
class Shard:
    """A part of the recordings that a step works on ahead of time, for several workers.

    The step itself comes after its shards, finds what they did by what each recording is remembered
    by, does what is missing, and puts the one result together: so it is the same without shards.
    """

    number: int  # from 1
    of: int

    def has(self, name: str) -> bool:
        """Whether a recording or file is in this shard; it stays in the same one of so many."""
        digest = sha256(b"spira.shard/1\0" + name.encode(errors="surrogateescape")).digest()
        return int.from_bytes(digest[:8]) % self.of == self.number - 1


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
    # Name of a Docker engine in the site file; empty: that of SPIRA_DOCKER_URL.  With several, and
    # spaces between, shards take turns on them and the step itself has the first.
    engine: str = ""
    queue: str = ""  # Airflow queue whose workers take the step; empty: the default one
    # Of its first input: with more rows, or files, shards work ahead of the step.  0: never.
    rows_per_shard: int = 0

    def n_shards(self, n_rows: int) -> int:
        """How many shards work ahead of a step with so many rows; 0 where it does all alone."""
        n = ceil(n_rows / self.rows_per_shard) if self.rows_per_shard else 0
        return min(n, MAX_SHARDS) if n > 1 else 0


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
    shard: Shard | None = None  # what to work on ahead of the step; None: the step itself

    @property
    def upstream(self) -> list[str]:
        """Names of the steps whose outputs this one reads; data flow is the only ordering."""
        references = [ref for ref in self.inputs.values() if ":" not in ref]
        return sorted({reference.partition(".")[0] for reference in references})

    @property
    def record(self) -> str:
        """Name of its record in a run."""
        return f"{self.name}.{self.shard.number}-of-{self.shard.of}" if self.shard else self.name

    def shards(self, n: int) -> list[Step]:
        return [replace(self, shard=Shard(number, n)) for number in range(1, n + 1)]

    def to_json(self) -> str:
        fields = asdict(self)
        del fields["resources"]
        return json.dumps(fields, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Step:
        fields = json.loads(text)
        shard = fields.pop("shard", None)
        return cls(**fields, shard=Shard(**shard) if shard else None)
