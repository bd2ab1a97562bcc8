"""How configuration is written: frozen, strict, units in the names."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(gt=0)]
SampleRateHz = Annotated[int, Field(ge=8_000, le=192_000)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class StageConfig(BaseModel):
    """Base of every stage's ``Config``: immutable, no unknown keys, no silent coercion."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
