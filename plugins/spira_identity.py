"""Which task a container works for: what its labels and its name say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

LABEL = "spira.step"  # every container of ours has it
PLATFORM = "spira.platform"


@dataclass(frozen=True)
class Identity:
    """Which task a container works for.

    ``attempt`` is Airflow's try number.  ``platform`` tells two installations apart that share an
    engine: their DAGs, and the runs that a schedule makes, have the same names.
    """

    dag: str
    task: str
    run: str
    map_index: int
    attempt: int
    platform: str = ""

    @property
    def labels(self) -> dict[str, str]:
        """Labels that all tries of one task have in common."""
        return {
            LABEL: f"{self.dag}/{self.task}",
            PLATFORM: self.platform,
            "spira.dag": self.dag,
            "spira.task": self.task,
            "spira.run": self.run,
            "spira.map_index": str(self.map_index),
        }

    @property
    def name(self) -> str:
        """Of a container that is being made; the same for all tries, so only one can have it."""
        whole = "\0".join(self.labels.values())
        return f"spira-{self.task}-{sha256(whole.encode()).hexdigest()[:10]}"

    @property
    def mark(self) -> str:
        """What follows the name of a container that belongs to this try."""
        return f"-try{self.attempt}"


def actor(context: Mapping[str, Any]) -> str:
    """Who started the run, for the audit log: an Airflow user, or Airflow itself."""
    user = getattr(context.get("dag_run"), "triggering_user_name", None)
    return f"airflow:{user or 'scheduler'}"
