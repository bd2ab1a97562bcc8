"""The plan for changes, as ``pccp.yaml`` beside this module has it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from expectations import strict
from spira_tasks.errors import ConfigError

FILE = Path(__file__).with_name("pccp.yaml")
STEPS = ("split", "materialize", "train", "evaluate")  # whose settings make a model what it is


class Range(strict.Part):
    """Inclusive; a value that is not set keeps the default, and is within it."""

    low: float
    high: float


Rule = Range | list[Any] | Literal["any"]


class Change(strict.Part):
    """What may change together, the verdicts that have to show it sound, and how it is undone."""

    settings: dict[str, Rule]  # "<step>.<key>" to what it may be
    evidence: list[str]
    rollback: Literal["champion_before"]


class Plan(strict.Part):
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
        When the file is not as ``Plan`` says, or a setting has two rules.
    """
    plan, digest = strict.read(file, Plan)
    names = [name for name, _ in plan.rules()]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{file} has two rules for {', '.join(twice)}: keep one of each")
    return Signed(plan, digest)


def _allows(rule: Rule, value: Any) -> bool:
    if rule == "any":
        return True
    if isinstance(rule, Range):
        return value is None or rule.low <= value <= rule.high
    return (list(value) if isinstance(value, tuple) else value) in rule
