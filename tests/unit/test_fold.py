"""The fold of a subject: for good, and never on two sides of one trial."""

from __future__ import annotations

import pandas as pd
import pytest
from pydantic import ValidationError

from spira_tasks.errors import ConfigError
from spira_tasks.stages.fold import Config, divided, fold_of

PEOPLE = [f"{number:064x}" for number in range(600)]
TABLE = pd.DataFrame({"subject_id": PEOPLE})


def sides(**settings: int | None) -> dict[str, str]:
    found = divided(TABLE, Config(**settings))  # type: ignore[arg-type]
    return dict(zip(found["subject_id"], found["split"], strict=True))


def test_adding_people_moves_nobody() -> None:
    config = Config()
    few = divided(TABLE[:50], config).set_index("subject_id")["split"]
    assert few.to_dict() == {one: side for one, side in sides().items() if one in few.index}


def test_every_subject_is_measured_by_exactly_one_fold_and_validates_exactly_one() -> None:
    by_fold = [sides(fold=fold) for fold in range(5)]
    for person in PEOPLE:
        found = sorted(one[person] for one in by_fold)
        assert found == ["test", "train", "train", "train", "validation"]


def test_the_fold_that_will_measure_a_choice_is_not_there_when_it_is_made() -> None:
    outer = {person for person in PEOPLE if fold_of(person, Config().salt, 5) == 2}
    measured: list[str] = []
    for inner in range(3):
        found = sides(fold=2, inner_fold=inner)
        assert not outer & set(found)
        measured += [person for person, side in found.items() if side == "test"]
    assert sorted(measured) == sorted(set(PEOPLE) - outer)


def test_without_an_outer_fold_the_inner_ones_divide_everybody() -> None:
    found = sides(fold=None, inner_fold=1)
    assert set(found) == set(PEOPLE)
    assert 150 < sum(side == "test" for side in found.values()) < 250


def test_a_fold_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValidationError, match="counted from 0"):
        Config(n_folds=3, fold=3)
    with pytest.raises(ValidationError, match="one of them measures"):
        Config(fold=None)


def test_a_site_is_measured_by_a_network_that_heard_nobody_of_it() -> None:
    rows = TABLE.assign(hospital_id=[f"h{number % 3}" for number in range(len(TABLE))])
    moved = rows[:30].assign(hospital_id="h0")  # some people are recorded at two hospitals
    found = divided(pd.concat([rows, moved]), Config(column="hospital_id", level="h0"))
    by_side = {side: set(part["subject_id"]) for side, part in found.groupby("split")}
    at_site = {*rows.loc[rows["hospital_id"] == "h0", "subject_id"], *moved["subject_id"]}
    assert by_side["test"] == at_site
    assert set(found.loc[found["split"] == "test", "hospital_id"]) == {"h0"}
    assert not at_site & (by_side["train"] | by_side["validation"])
    assert by_side["train"] | by_side["validation"] | at_site == set(PEOPLE)
    assert not by_side["train"] & by_side["validation"]
    assert len(by_side["validation"]) < len(by_side["train"]) / 2


def test_a_column_that_is_not_there_is_refused_by_its_name() -> None:
    with pytest.raises(ConfigError, match="no column 'ward'"):
        divided(TABLE, Config(column="ward", level="3"))
