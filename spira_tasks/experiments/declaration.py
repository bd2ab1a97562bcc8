"""An experiment as a person declares it: a TOML file with an owner, an end and a question."""

from __future__ import annotations

import itertools
import json
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PositiveInt,
    Tag,
    ValidationError,
    model_validator,
)

from spira_tasks.contract.pipelines import BEFORE_FOLDS, TRIAL
from spira_tasks.errors import ConfigError

FOLDER = Path(__file__).resolve().parents[2] / "experiments"  # those of this repository
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,59}")
SHORT = {"models": "train.model", "features": "materialize.feature", "presets": "train.preset"}
OURS = ("fold.", "train.seed", "train.task")  # what the experiment sets by itself
# What is measured at a time: folds of people, or all people of a hospital, or of a study, by its
# prompt.  The column of recordings that says which.
LEVELS = {"site": "hospital_id", "cohort": "prompt_version"}
MAX_TRIALS = 10_000  # more is a mistake in the file
NumberOfFolds = Annotated[int, Field(ge=3, le=20)]  # as of the stage ``fold``


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _in_full(given: object) -> object:
    """Settings as ``"<step>.<key>"``, once for all readers.

    TOML makes a table of a key that has a dot and no quotes, and a date of a date without them.
    """
    if not isinstance(given, dict):
        return given
    if above := sorted(Experiment.model_fields.keys() & given):
        raise ValueError(f"{above[0]} belongs to the file: write it above the first [table]")
    steps = {step.name for step in TRIAL}
    pairs: list[tuple[str, Any]] = []
    for name, value in given.items():
        if name in steps and isinstance(value, dict):
            pairs += [(f"{name}.{key}", one) for key, one in value.items()]
        else:
            pairs.append((SHORT.get(str(name), str(name)), value))
    full = {key: one.isoformat() if isinstance(one, date) else one for key, one in pairs}
    if len(full) < len(pairs):
        twice = next(name for name, n in Counter(name for name, _ in pairs).items() if n > 1)
        raise ValueError(f"{twice} is there twice: leave one of the two out")
    return full


def _has_arms(matrix: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    for name, values in matrix.items():
        if not values:
            raise ValueError(f"{name}: a list without a value leaves no arm")
        if len({json.dumps(value) for value in values}) < len(values):
            raise ValueError(f"{name} has a value twice, which is one arm twice")
    return matrix


class Choices(_Strict):
    choices: tuple[bool | int | float | str | None, ...] = Field(min_length=2)

    @property
    def ends(self) -> tuple[Any, ...]:
        return self.choices


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

    @property
    def ends(self) -> tuple[Any, ...]:
        return self.low, self.high


Varied = Annotated[
    Annotated[Choices, Tag("choices")] | Annotated[Range, Tag("range")],
    Discriminator(lambda one: "choices" if isinstance(one, dict) and "choices" in one else "range"),
]


class Search(_Strict):
    """A search for the settings with the best value of ``metric`` on inner folds."""

    budget: PositiveInt  # points of each search
    parallel: PositiveInt = 4  # points that are proposed at once, from the same knowledge
    n_inner_folds: NumberOfFolds = 3
    seed: Annotated[int, Field(ge=0)] = 0
    # Whether each fold is measured with settings that a search of its own chose without it.  If
    # not, one search chooses for all, and its choice looks better than it is elsewhere.
    nested: bool = True
    space: Annotated[dict[str, Varied], BeforeValidator(_in_full)] = Field(min_length=1)


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
    folds: Literal["subject", "site", "cohort"] = "subject"
    n_folds: NumberOfFolds = 5
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(42,), min_length=1)
    # ``"<step>.<key>"`` to the value that it has in every trial
    settings: Annotated[dict[str, Any], BeforeValidator(_in_full)] = {}
    matrix: Annotated[
        dict[str, tuple[Any, ...]], BeforeValidator(_in_full), AfterValidator(_has_arms)
    ] = {}
    search: Search | None = None

    @model_validator(mode="after")
    def hangs_together(self) -> Self:
        if not NAME.fullmatch(self.name):
            raise ValueError("name: write small letters, digits, - and _, at most 60")
        if bool(self.matrix) == (self.search is not None):
            raise ValueError("give either [matrix] or [search]")
        if self.folds != "subject" and self.search is not None:
            raise ValueError("folds: a search divides people; leave folds out, or the search")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: one is there twice")
        varied = {*(self.search.space if self.search else self.matrix)}
        for target in (*self.settings, *varied):
            if target.startswith(OURS):
                raise ValueError(f"{target} is set by the experiment itself; leave it out")
            TRIAL.configure(settings={target: None})  # raises for an unknown step,
            if target in varied and target.partition(".")[0] in BEFORE_FOLDS:
                raise ValueError(f"{target} is of all trials at once: move it to [settings]")
        if twice := sorted({*self.settings} & varied):
            raise ValueError(f"{', '.join(twice)} is both a fixed setting and a varied one")
        n_arms = prod(map(len, self.matrix.values())) if self.matrix else 2
        if n_arms * len(self.seeds) * self.n_folds > MAX_TRIALS:
            raise ValueError(f"more than {MAX_TRIALS} trials: divide the matrix")
        for settings in self.samples():
            TRIAL.configure(settings={**self.fixed, **settings})  # and for an unknown preset
        return self

    @property
    def fixed(self) -> dict[str, Any]:
        """The settings of every trial."""
        return {"train.task": self.task, **self.settings}

    def cells(self) -> Iterator[dict[str, Any]]:
        """The settings of each cell of the matrix, in the order of the file."""
        for values in itertools.product(*self.matrix.values()):
            yield dict(zip(self.matrix, values, strict=True))

    def samples(self) -> Iterator[dict[str, Any]]:
        """Settings by which a mistake is found before a trial runs.

        Those of every arm; of a search, the settings as they stand, and every choice and both ends
        of every range beside the first ones of the others.
        """
        if self.search is None:
            yield from self.cells()
            return
        yield {}
        first = {name: one.ends[0] for name, one in self.search.space.items()}
        for name, one in self.search.space.items():
            yield from (first | {name: value} for value in one.ends)

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
            f"\n  - {'.'.join(map(str, problem['loc'])) or 'all of it'}: {_said(problem)}"
            for problem in error.errors(include_input=False, include_url=False)
        )
        known = ", ".join(Experiment.model_fields)
        raise ConfigError(
            f"{where} is no experiment:{problems}\nIts keys are: {known}; those of [search]: "
            f"{', '.join(Search.model_fields)}"
        ) from None


# In place of what pydantic says, which is of Python.
SAID = {
    "tuple_type": "write a list, such as [1, 2]",
    "model_type": "write { low = 0.1, high = 0.5 } or { choices = [1, 2] }",
}


def _said(problem: Mapping[str, Any]) -> str:
    return SAID.get(problem["type"]) or str(problem["msg"]).removeprefix("Value error, ")


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
