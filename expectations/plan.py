"""The plan for changes, as ``pccp.yaml`` beside this module has it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from expectations import yaml_once
from spira_tasks.errors import ConfigError

FILE = Path(__file__).with_name("pccp.yaml")
STEPS = ("split", "materialize", "train", "evaluate")  # whose settings make a model what it is


class Part(BaseModel):
    """A key that is not known is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Range(Part):
    """Inclusive; a value that is not set keeps the default, and is within it."""

    low: float
    high: float


Rule = Range | list[Any] | Literal["any"]


class Change(Part):
    """What may change together, the verdicts that have to show it sound, and how it is undone."""

    settings: dict[str, Rule]  # "<step>.<key>" to what it may be
    evidence: list[str]
    rollback: Literal["champion_before"]


class Plan(Part):
    """The content of the file."""

    version: int
    fixed: dict[str, Rule]
    changes: dict[str, Change]

    def rules(self) -> Iterator[tuple[str, Rule]]:
        yield from self.fixed.items()
        for change in self.changes.values():
            yield from change.settings.items()

    def outside(self, steps: Iterable[tuple[str, Mapping[str, Any]]]) -> list[str]:
        """The settings that the plan does not allow, by ``"<step>.<key>"``, sorted.

        ``steps`` are stages and their configurations.  A setting that the plan does not know is
        outside.
        """
        rules = dict(self.rules())
        return sorted(
            {
                name
                for stage, config in steps
                if stage in STEPS
                for name, value in ((f"{stage}.{key}", one) for key, one in config.items())
                if name not in rules or not _allows(rules[name], value)
            }
        )


@dataclass(frozen=True)
class Signed:
    """The plan with the digest that a signature is on."""

    plan: Plan
    digest: str  # SHA-256 of the file, in hexadecimal


@cache
def read(file: Path = FILE) -> Signed:
    """Read the plan.

    Raises
    ------
    ConfigError
        When a key is unknown, missing or there twice, or a value has another type.
    """
    import yaml

    content = file.read_bytes()
    try:
        plan = Plan.model_validate(yaml_once.load(content))
    except (ValidationError, yaml.YAMLError) as error:
        raise ConfigError(f"{file} is no plan for changes: {error}") from None
    names = [name for name, _ in plan.rules()]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{file} has two rules for {', '.join(twice)}: keep one of each")
    return Signed(plan, hashlib.sha256(content).hexdigest())


def _allows(rule: Rule, value: Any) -> bool:
    if rule == "any":
        return True
    if isinstance(rule, Range):
        return value is None or rule.low <= value <= rule.high
    return (list(value) if isinstance(value, tuple) else value) in rule
