"""Give every subject a fold, without those of the sealed test set.

A trial of an experiment trains and measures on folds.  The one that measures takes the place of
the test set, so that the later stages measure a trial as they measure a training.  The rows of the
test subjects are dropped first: no later step of a trial reads a table that names one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, NonNegativeInt, model_validator

from spira_tasks.config import StageConfig
from spira_tasks.contract.record import Outcome
from spira_tasks.errors import ConfigError, GateRejected

if TYPE_CHECKING:
    import pandas as pd

    from spira_tasks.artifacts import Directory
    from spira_tasks.work import Work

# Three, because a fold that chooses an epoch or a threshold says too much of what it chose.
NumberOfFolds = Annotated[int, Field(ge=3)]


@dataclass(frozen=True)
class Inputs:
    recordings: Directory  # recordings.parquet with the column ``split``


@dataclass(frozen=True)
class Outputs:
    # recordings.parquet of all subjects but the sealed ones, the same for every fold: features are
    # computed of it
    development: Path
    recordings: Path  # recordings.parquet with the column ``split`` of one fold


class Config(StageConfig):
    """Which fold measures; the next one validates, and the others are trained on.

    ``fold`` of ``n_folds`` measures.  With ``inner_fold``, ``fold`` is left out altogether, and the
    others are divided again, into ``n_inner_folds``: these choose settings that ``fold`` then
    measures.  Without ``fold``, the inner folds divide all subjects.  ``salt`` names this way of
    dividing.

    With ``column``, the people of one ``level`` of it measure, a hospital for one: the folds divide
    the others, of whom the first validates.
    """

    salt: str = "spira-fold-1"
    column: str = ""
    level: str = ""
    n_folds: NumberOfFolds = 5
    fold: NonNegativeInt | None = 0
    n_inner_folds: NumberOfFolds = 3
    inner_fold: NonNegativeInt | None = None

    @model_validator(mode="after")
    def fold_is_one_of_them(self) -> Self:
        if bool(self.column) != bool(self.level) or (self.column and self.inner_fold is not None):
            raise ValueError("column and level go together, and with no inner_fold")
        if self.fold is None and self.inner_fold is None:
            raise ValueError("fold and inner_fold are both missing: one of them measures")
        if (self.fold or 0) >= self.n_folds or (self.inner_fold or 0) >= self.n_inner_folds:
            raise ValueError("folds are counted from 0: fold < n_folds, inner_fold < n_inner_folds")
        return self


def run(inputs: Inputs, config: Config, outputs: Outputs, work: Work) -> Outcome:
    import pandas as pd

    from spira_tasks.intake.record_contract import WEAK_SIDES, WEAK_SOURCES

    table = pd.read_parquet(inputs.recordings.path("recordings.parquet"))
    table = table[table["split"] != "test"].reset_index(drop=True)  # before anything else
    if table.empty:
        raise GateRejected("all subjects are sealed for the test: ingest more subjects")
    table["split"] = "train"
    table.to_parquet(outputs.development / "recordings.parquet", index=False)
    table = divided(table, config)
    # a weak label may be learned; nothing is measured on it
    is_weak = table["label_source"].isin(WEAK_SOURCES) & ~table["split"].isin(WEAK_SIDES)
    table = table[~is_weak]
    _refuse_one_class(table)
    table.to_parquet(outputs.recordings / "recordings.parquet", index=False)
    people = table.drop_duplicates("subject_id")["split"].value_counts()
    names = ("train", "validation", "test")
    return Outcome({f"n_subjects_{name}": float(people.get(name, 0)) for name in names})


def _refuse_one_class(table: pd.DataFrame) -> None:
    """Raise GateRejected where a side has nobody of a class: nothing can be measured then."""
    for side in ("train", "validation", "test"):
        labels = {*table.loc[table["split"] == side, "label"].dropna()}
        missing = [who for label, who in ((1, "patient"), (0, "control")) if label not in labels]
        if missing:
            raise GateRejected(
                f"on the side {side} of this fold there is no {' and no '.join(missing)}: folds do "
                "not look at labels, so choose fewer n_folds, or ingest more subjects"
            )


def divided(table: pd.DataFrame, config: Config) -> pd.DataFrame:
    """The rows of one trial, with the column ``split``."""
    if config.column:
        return _without_level(table, config)
    n, measures = config.n_folds, config.fold
    number = table["subject_id"].map(lambda one: fold_of(one, config.salt, n))
    if config.inner_fold is not None:
        is_inside = number != config.fold  # all of them, where there is no outer fold
        table, n, measures = table[is_inside], config.n_inner_folds, config.inner_fold
        salt = f"{config.salt}\x1finner"
        number = table["subject_id"].map(lambda one: fold_of(one, salt, n))
    assert measures is not None  # noqa: S101  (validated)
    side = number.map({measures: "test", (measures + 1) % n: "validation"}).fillna("train")
    return table.assign(split=side.astype("str"))


def _without_level(table: pd.DataFrame, config: Config) -> pd.DataFrame:
    """The rows of a level measure; no other row of its people is heard."""
    import numpy as np

    if config.column not in table:
        raise ConfigError(
            f"the recordings have no column {config.column!r} to divide them by: leave fold.column "
            "out, or ingest recordings with it"
        )
    is_level = table[config.column].astype("str") == config.level
    is_theirs = table["subject_id"].isin(table.loc[is_level, "subject_id"])
    table, is_level = table[is_level | ~is_theirs], is_level[is_level | ~is_theirs]
    number = table["subject_id"].map(lambda one: fold_of(one, config.salt, config.n_folds))
    side = np.where(is_level, "test", np.where(number == 0, "validation", "train"))
    return table.assign(split=side.astype(str))


def fold_of(subject_id: str, salt: str, n_folds: int) -> int:
    """The fold of a subject: a pure function of the pseudonym, so adding people moves nobody."""
    digest = hashlib.sha256(f"{salt}\x1f{subject_id}".encode()).digest()
    return int.from_bytes(digest[:8]) * n_folds // 2**64
