"""An experiment as a person declares it: a TOML file with an owner, an end and a question."""

from __future__ import annotations

import itertools
import json
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from spira_tasks.contract.pipelines import TRIAL
from spira_tasks.errors import ConfigError

FOLDER = Path(__file__).resolve().parents[2] / "experiments"  # those of this repository
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,59}")
SHORT = {"models": "train.model", "features": "materialize.feature", "presets": "train.preset"}
OURS = ("fold.", "train.seed", "train.task")  # what the experiment sets by itself
MAX_TRIALS = 10_000  # more is a mistake in the file
NumberOfFolds = Annotated[int, Field(ge=3, le=20)]  # as of the stage ``fold``


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Choices(_Strict):
    choices: tuple[bool | int | float | str | None, ...] = Field(min_length=2)


class Range(_Strict):
    """Numbers from ``low`` to ``high``, both inclusive; whole ones where both are written so."""

    low: int | float
    high: int | float
    log: bool = False  # whether the logarithm is spread evenly

    @model_validator(mode="after")
    def has_an_order(self) -> Self:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError("low must be below high, and above 0 where log = true")
        return self


class Search(_Strict):
    """A search for the settings with the best value of ``metric`` on inner folds."""

    budget: PositiveInt  # points of each search
    parallel: PositiveInt = 4  # points that are proposed at once, from the same knowledge
    n_inner_folds: NumberOfFolds = 3
    seed: Annotated[int, Field(ge=0)] = 0
    # Whether each fold is measured with settings that a search of its own chose without it.  If
    # not, one search chooses for all, and its choice looks better than it is elsewhere.
    nested: bool = True
    space: dict[str, Choices | Range] = Field(min_length=1)


class Experiment(_Strict):
    """What is compared, on what, and until when.

    Each seed of each arm is measured on every fold.  The arms are the cells of ``matrix``, or the
    settings as they stand and those that a ``search`` finds.
    """

    name: str
    owner: Annotated[str, Field(min_length=3)]
    ends: date  # the last day on which it runs
    question: Annotated[str, Field(min_length=10)]
    data: str = ""  # folder or s3://bucket/prefix; empty: it is named at the start
    task: Literal["VOWEL", "RHYME", "SENTENCE"] = "SENTENCE"
    metric: Literal["auc", "balanced_accuracy", "accuracy", "f1", "sensitivity", "specificity"] = (
        "auc"
    )
    n_folds: NumberOfFolds = 5
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(42,), min_length=1)
    settings: dict[str, Any] = {}  # ``"<step>.<key>"`` to the value that it has in every trial
    matrix: dict[str, tuple[Any, ...]] = {}
    search: Search | None = None

    @model_validator(mode="after")
    def hangs_together(self) -> Self:
        if not NAME.fullmatch(self.name):
            raise ValueError("name: write small letters, digits, - and _, at most 60")
        if bool(self.matrix) == (self.search is not None):
            raise ValueError("give either [matrix] or [search]")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: one is there twice")
        for target in (*self.settings, *self._varied):
            if target.startswith(OURS):
                raise ValueError(f"{target} is set by the experiment itself; leave it out")
            TRIAL.configure(settings={target: None})  # raises for an unknown step,
        if twice := sorted({*self.settings} & {*self._varied}):
            raise ValueError(f"{', '.join(twice)} is both a fixed setting and a varied one")
        if any(not values for values in self.matrix.values()):
            raise ValueError("matrix: a list without a value leaves no arm")
        arms = list(self.cells()) if self.matrix else [{}, {}]
        for arm in arms:
            TRIAL.configure(settings={**self.fixed, **arm})  # and for an unknown preset
        if len(arms) * len(self.seeds) * self.n_folds > MAX_TRIALS:
            raise ValueError(f"more than {MAX_TRIALS} trials: divide the matrix")
        return self

    @property
    def _varied(self) -> list[str]:
        return [
            SHORT.get(name, name) for name in (self.search.space if self.search else self.matrix)
        ]

    @property
    def fixed(self) -> dict[str, Any]:
        """The settings of every trial."""
        return {"train.task": self.task, **self.settings}

    def cells(self) -> Iterator[dict[str, Any]]:
        """The settings of each cell of the matrix, in the order of the file."""
        names = [SHORT.get(name, name) for name in self.matrix]
        for values in itertools.product(*self.matrix.values()):
            yield dict(zip(names, values, strict=True))

    def has_ended(self, day: date) -> bool:
        return day > self.ends


def parse(text: str, where: str) -> Experiment:
    """Read the text of a file; ``where`` is its name.

    Raises
    ------
    ConfigError
        When it is no TOML, or no experiment; names the keys that are wrong and those that are
        known.
    """
    try:
        return Experiment.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where} is no TOML: {error}") from None
    except ValidationError as error:
        problems = "".join(
            f"\n  - {'.'.join(map(str, problem['loc'])) or 'all of it'}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False)
        )
        known = ", ".join(Experiment.model_fields)
        raise ConfigError(
            f"{where} is no experiment:{problems}\nIts keys are: {known}; those of [search]: "
            f"{', '.join(Search.model_fields)}"
        ) from None


def read(file: Path) -> Experiment:
    """Read a file; raises as ``parse``."""
    return parse(content(file), str(file))


def content(file: Path) -> str:
    """The text of a file; ConfigError where it cannot be read."""
    try:
        return file.read_text("utf-8")
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be read ({error.strerror}): name a TOML file; a container sees no file "
            "of the host, and is given the text"
        ) from None


def refuse_ended(experiment: Experiment, *, may_be_over: bool) -> None:
    """Raise ConfigError for an experiment whose end has passed, unless it may have."""
    if experiment.has_ended(datetime.now(UTC).date()) and not may_be_over:
        raise ConfigError(
            f"experiment {experiment.name} ended on {experiment.ends}: ask its owner, "
            f"{experiment.owner}, to move the end or to remove the file; --expired, or the field "
            "of the form, runs it all the same"
        )


def ended(folder: Path, day: date) -> list[tuple[Path, Experiment]]:
    """The declared experiments whose end has passed: dead paths, to be merged or removed."""
    known = ((file, read(file)) for file in sorted(folder.glob("*.toml")))
    return [(file, one) for file, one in known if one.has_ended(day)]


def text_of(settings: Mapping[str, Any]) -> str:
    """Settings as a person reads them, and as ``--set`` takes them."""
    return " ".join(f"{name}={json.dumps(value)}" for name, value in settings.items())


def list_ended(folder: Path, day: date) -> None:
    """Print the experiments that have ended.  A day passes no judgement on the code: no error."""
    for file, one in ended(folder, day):
        sys.stderr.write(
            f"{file}: the experiment ended on {one.ends}: {one.owner} merges what it found, moves "
            "its end with a reason, or removes the file\n"
        )


if __name__ == "__main__":
    list_ended(FOLDER, datetime.now(UTC).date())
