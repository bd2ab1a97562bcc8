"""What a stage declares: its configuration (frozen, strict, units in the names) and its nature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from spira_tasks.registry import Registry

Seconds = Annotated[float, Field(gt=0)]
SampleRateHz = Annotated[int, Field(ge=8_000, le=192_000)]
Fraction = Annotated[float, Field(ge=0, le=1)]


def registered(registry: Registry[Any]) -> AfterValidator:
    """For ``Annotated[str, registered(NETWORKS)]``: the name of a thing of a registry."""
    return AfterValidator(registry.check)


def implementation_of(registry: Registry[Any], field: str) -> Any:
    """The default of a setting that holds which package's code an earlier field names.

    It is in the key of the result, as our own source is; empty for what is ours.
    """

    def find(data: dict[str, Any]) -> str:
        return registry.implementation(data[field]) if field in data else ""

    return Field(default_factory=find)


class StageConfig(BaseModel):
    """Base of every stage's ``Config``: immutable, no unknown keys, no silent coercion."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


@dataclass(frozen=True)
class Nothing:
    """The inputs, or the outputs, of a stage that has none."""


@dataclass(frozen=True)
class StageSpec:
    """What the runner has to know of a stage."""

    # Whether the stage changes or reads something besides its inputs: the model registry, other
    # runs, the store.  It is given ``PlatformWork``.  Its result is never taken from the store: it
    # is called every time, does nothing a second time, and says so by ``Outcome.changed``.
    outside: bool = False
    # Kinds of decisions of people that come as inputs of these names, without being wired.
    decisions: tuple[
        Literal["releases", "waivers", "erasures", "approvals", "refusals", "rollbacks"], ...
    ] = ()
    audit: str = ""  # action under which the audit log keeps the outcome; empty for none
