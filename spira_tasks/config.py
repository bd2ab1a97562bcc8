"""How configuration is written: frozen, strict, units in the names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from spira_tasks.contract.verdict import Verdict

Seconds = Annotated[float, Field(gt=0)]
SampleRateHz = Annotated[int, Field(ge=8_000, le=192_000)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class StageConfig(BaseModel):
    """Base of every stage's ``Config``: immutable, no unknown keys, no silent coercion."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def standard_limits(
    config: StageConfig,
    upper: Iterable[str],
    lower: Iterable[str] = (),
    others: Iterable[str] = (),
    suite: str = "",
) -> Verdict:
    """Whether nobody widened the limits of a gate for this run: it is told wherever verdicts are.

    Parameters
    ----------
    upper, lower : iterable of str
        Settings that let more through the higher, or the lower, they are.
    others : iterable of str
        What else was set so that more is let through, in words.
    """
    fields = type(config).model_fields
    widened = [
        f"{name} is {value:g}, the standard is {fields[name].default:g}"
        for names, sign in ((upper, 1), (lower, -1))
        for name in names
        if sign * ((value := getattr(config, name)) - fields[name].default) > 0
    ]
    widened += others
    return Verdict(
        "standard_limits",
        "warn" if widened else "pass",
        statistic=float(len(widened)),
        threshold=0.0,
        reason="; ".join(widened) or "the limits of this step are the standard ones, or stricter",
        severity="warning",
        suite=suite,
    )
