"""What a model may cost where it is served: ``requirements.yaml``, and the verdicts on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spira_tasks.contract.verdict import Number, Verdict

if TYPE_CHECKING:
    from spira_tasks.costs import Costs

FILE = Path(__file__).with_suffix(".yaml")
GATES = {"serving_latency": "cpu_seconds", "serving_memory": "resident", "serving_size": "package"}


@dataclass(frozen=True)
class Requirement:
    limit: float  # the largest value that is accepted
    unit: str
    rationale: str
    owner: str


def read() -> dict[str, Requirement]:
    """Requirements by name; each has a limit, its unit, a rationale and an owner."""
    import yaml

    return {name: Requirement(**one) for name, one in yaml.safe_load(FILE.read_text()).items()}


def verdicts(costs: Costs, required: Mapping[str, Requirement]) -> list[Verdict]:
    """Is the model fast and small enough?  One that answers none of its clips is not measured."""
    found = {
        "cpu_seconds": costs.cpu_seconds,
        "resident": costs.resident_mib,
        "package": costs.package_mib,
    }
    return [
        Verdict(
            gate,
            "pass" if value is not None and value <= required[name].limit else "block",
            observed=None if value is None else Number(value),
            threshold=required[name].limit,
            n=costs.n if name == "cpu_seconds" else None,
            n_unit="items",
        )
        for gate, name in GATES.items()
        for value in [found[name]]
    ]
