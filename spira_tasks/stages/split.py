"""Give every subject a side: train, validation or test, for good.

A recording with a weak label is left out where its subject's side is one to measure on: the label
moves nobody to another side.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import model_validator

from spira_tasks.config import Fraction, StageConfig
from spira_tasks.contract.record import Outcome
from spira_tasks.contract.verdict import few_or

if TYPE_CHECKING:
    import pandas as pd

    from spira_tasks.artifacts import Directory
    from spira_tasks.work import Work

log = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Inputs:
    recordings: Directory  # recordings.parquet


@dataclass(frozen=True)
class Outputs:
    # recordings.parquet with the column ``split``; left_out.json where weak labels were left out
    recordings: Path
    report: Path  # split.json: sizes by split, class and sex; how many were left out


class Config(StageConfig):
    """``salt`` names this way of dividing; another salt is another division.

    A split that came with the data (``split_given``) is kept when ``keep_given`` is set.
    """

    salt: str = "spira-split-1"
    validation_fraction: Fraction = 0.2
    test_fraction: Fraction = 0.2
    keep_given: bool = True

    @model_validator(mode="after")
    def something_is_left_to_train_on(self) -> Self:
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError("validation_fraction and test_fraction leave nothing to train on")
        return self


def run(inputs: Inputs, config: Config, outputs: Outputs, work: Work) -> Outcome:
    import pandas as pd

    from spira_tasks.intake.record_contract import LEFT_OUT, WEAK_SIDES, WEAK_SOURCES

    table = pd.read_parquet(inputs.recordings.path("recordings.parquet"))
    keyed = table["subject_id"].map(lambda subject: side(subject, config))
    given = table["split_given"] if config.keep_given else pd.Series(None, index=table.index)
    table["split"] = given.where(given.notna(), keyed).astype("str")
    is_left_out = table["label_source"].isin(WEAK_SOURCES) & ~table["split"].isin(WEAK_SIDES)
    n_left_out = int(is_left_out.sum())
    table = table[~is_left_out]
    table.to_parquet(outputs.recordings / "recordings.parquet", index=False)
    if n_left_out:  # the gate that counts the rows reads it
        text = "%s recordings with weak labels are left out of validation and test"
        log.info(text, few_or(n_left_out))
        (outputs.recordings / LEFT_OUT).write_text(json.dumps({"n_weak": n_left_out}))

    report = sizes(table) | {"n_recordings_weak_left_out": n_left_out}
    report["n_subjects_with_given_split"] = int(
        table.loc[given[table.index].notna(), "subject_id"].nunique()
    )
    (outputs.report / "split.json").write_text(json.dumps(report, indent=1, sort_keys=True))
    return Outcome(
        {f"n_subjects_{split}": float(report["n_subjects"].get(split, 0)) for split in SPLITS}
        | {f"n_patients_{split}": float(report["n_patients"].get(split, 0)) for split in SPLITS}
        | {"n_excluded_weak": float(n_left_out)}
    )


def side(subject_id: str, config: Config) -> str:
    """The split of a subject: a pure function of the pseudonym, so adding people moves nobody.

    The hash places the subject evenly in [0, 1); the bands are test, validation, train.  Classes
    and sites are spread evenly on average, not exactly; the report and the gate look at the sizes.
    """
    digest = hashlib.sha256(f"{config.salt}\x1f{subject_id}".encode()).digest()
    place = int.from_bytes(digest[:8]) / 2**64
    if place < config.test_fraction:
        return "test"
    return "validation" if place < config.test_fraction + config.validation_fraction else "train"


def sizes(table: pd.DataFrame) -> dict[str, Any]:
    """Numbers of subjects in every split, in all, by class and by sex."""
    people, patients, women = (
        rows.drop_duplicates("subject_id")
        for rows in (table, table[table["label"] == 1], table[table["sex"] == "F"])
    )
    return {
        "n_subjects": people["split"].value_counts().to_dict(),
        "n_patients": patients["split"].value_counts().to_dict(),
        "n_women": women["split"].value_counts().to_dict(),
        "n_recordings": table["split"].value_counts().to_dict(),
    }
