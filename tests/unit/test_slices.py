"""Groups of the test people: who is worse off, and what the model hears in place of the illness."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from expectations import policy
from expectations.gates import model
from expectations.words.verdicts import sentence
from spira_tasks.contract.verdict import Verdict
from spira_tasks.evaluation import slices
from spira_tasks.speech import metrics

RULES = policy.read().rules


def cohort(n: int, women_ill: float, women_well: float) -> tuple[pd.DataFrame, npt.NDArray[Any]]:
    """``n`` patients and ``n`` controls, and what share of each are women."""
    labels = np.repeat([0, 1], n)
    share = np.where(labels == 1, women_ill, women_well)
    is_woman = np.tile(np.arange(n) / n, 2) < share
    table = pd.DataFrame(
        {
            "record_id": [f"r{number}" for number in range(2 * n)],
            "subject_id": [f"s{number}" for number in range(2 * n)],
            "label": labels,
            "sex": np.where(is_woman, "F", "M"),
            "task": "SENTENCE",
            "age": 50,
            "mask_type": "NONE",
            "hospital_id": "ward of São José",
            "device_model": None,
            "app_version": ["3.2.0" if number % 3 else "of Maria" for number in range(2 * n)],
            "ri_cause": ["covid" if label else None for label in labels],
            "snr_db": np.random.default_rng(0).uniform(5, 40, 2 * n),
        }
    )
    return table, is_woman


def judged(table: pd.DataFrame, margins: Any) -> tuple[dict[str, Any], dict[str, Verdict]]:
    labels = table["label"].to_numpy(float)
    weights = metrics.subject_resamples(table["subject_id"].to_numpy(str), 500, 0)
    found = slices.measure(
        slices.categories(table, table),
        table["subject_id"],
        labels,
        1 / (1 + np.exp(-margins)),
        threshold=0.5,
        weights=weights,
    )
    size = {"n_patients": int(labels.sum()), "n_controls": int((1 - labels).sum())}
    verdicts = (
        model.stratified_auc(found | size, RULES.stratified_auc),
        model.slice_floor(found | size, RULES.slice_floor),
        model.slice_gap(found | size, RULES.slice_gap),
    )
    return found, {one.id: one for one in verdicts}


@pytest.mark.parametrize("seed", range(5))
def test_a_model_that_hears_the_sex_is_blocked_and_the_sentence_says_so(seed: int) -> None:
    table, is_woman = cohort(54, women_ill=0.8, women_well=0.2)
    margins = np.random.default_rng([1, seed]).normal(4.0 * is_woman - 2, 1.0)
    found, verdicts = judged(table, margins)
    assert found["within"]["sex"]["explained"]["value"] > 0.2
    assert verdicts["stratified_auc"].status == "block"
    assert verdicts["stratified_auc"].names["by"] == ("sex",)


@pytest.mark.parametrize("seed", range(5))
def test_the_same_people_and_a_model_that_hears_the_illness_pass(seed: int) -> None:
    table, _ = cohort(108, women_ill=0.8, women_well=0.2)
    margins = np.random.default_rng([2, seed]).normal(3.0 * table["label"] - 1.5, 1.0)
    _, verdicts = judged(table, margins)
    assert verdicts["stratified_auc"].status == "pass"
    assert "block" not in {one.status for one in verdicts.values()}


def test_groups_that_are_the_classes_themselves_do_not_pass() -> None:
    """All patients by one version of the app, all controls by another."""
    table, _ = cohort(54, women_ill=0.5, women_well=0.5)
    table["app_version"] = np.where(table["label"] == 1, "1.0", "2.0")
    margins = np.random.default_rng(4).normal(6.0 * table["label"] - 3, 0.5)
    found, verdicts = judged(table, margins)
    assert found["within"]["app_version"] == {"n": 0}
    verdict = verdicts["stratified_auc"]
    assert (verdict.status, verdict.names["by"]) == ("insufficient", ("app_version",))
    assert "(app version)" in sentence(verdict, "en")
    assert "(versão do app)" in sentence(verdict, "pt")


def test_people_of_a_group_with_one_class_count_in_what_groups_explain() -> None:
    """All patients are women, and a third of the controls; the model hears the sex."""
    table, is_woman = cohort(90, women_ill=1.0, women_well=1 / 3)
    margins = np.random.default_rng(5).normal(4.0 * is_woman - 2, 1.0)
    found, verdicts = judged(table, margins)
    assert found["within"]["sex"]["n"] == 30
    assert found["within"]["sex"]["explained"]["value"] > 0.2
    assert verdicts["stratified_auc"].status == "block"


def test_a_group_in_which_the_model_guesses_is_named() -> None:
    table, is_woman = cohort(150, women_ill=0.4, women_well=0.4)
    heard = np.where(is_woman, 0.0, 4.0 * table["label"] - 2)
    margins = np.random.default_rng(3).normal(heard, 1.0)
    found, verdicts = judged(table, margins)
    assert verdicts["slice_gap"].status == "block"
    assert verdicts["slice_floor"].status != "pass"
    for one in (verdicts["slice_gap"], verdicts["slice_floor"]):
        assert (one.names["by"], one.names["group"]) == (("sex",), ("F",))
    women, men = (found["slices"]["sex"][sex]["auc"]["value"] for sex in "FM")
    assert women < 0.65
    assert men > 0.9


def test_a_group_of_few_people_is_neither_counted_nor_measured() -> None:
    table, _ = cohort(54, women_ill=3 / 54, women_well=0.5)
    found, _ = judged(table, np.zeros(108))
    assert found["slices"]["sex"]["F"] == {"n_patients": None, "n_controls": 27}


def test_the_other_groups_do_not_tell_how_few_people_a_group_has() -> None:
    """Of 54 patients three are women."""
    table, _ = cohort(54, women_ill=3 / 54, women_well=0.5)
    found, verdicts = judged(table, 4.0 * table["label"].to_numpy() - 2)
    men = found["slices"]["sex"]["M"]
    assert (men["n_patients"], men["n_controls"]) == (None, 27)
    assert men["auc"]["value"] == 1
    assert verdicts["slice_floor"].status == "pass"
    by_group = {name: {"n": n} for name, n in zip("abcde", (0, 9, 1, 30, 7), strict=True)}
    slices.hide(by_group, "n")
    assert [one["n"] for one in by_group.values()] == [0, 9, None, 30, None]
    by_group = {name: {"n": n} for name, n in zip("abc", (1, 2, 8), strict=True)}
    slices.hide(by_group, "n")
    assert not any(one["n"] for one in by_group.values())  # 1 and 2 are not told by their sum


def test_names_of_sites_and_causes_stay_in_the_table() -> None:
    table, _ = cohort(30, women_ill=0.5, women_well=0.5)
    found, _ = judged(table, np.zeros(60))
    assert set(found["slices"]["site"]) == {"#1"}
    assert set(found["slices"]["aetiology"]) == {"#1"}
    assert found["slices"]["aetiology"]["#1"]["n_controls"] == 30  # all of them
    assert found["slices"]["device"] == {}
    assert set(found["slices"]["app_version"]) == {"3.2.0", "other"}


def test_where_no_group_has_people_enough_a_person_has_to_decide() -> None:
    table, _ = cohort(12, women_ill=0.5, women_well=0.5)
    _, verdicts = judged(table, 4.0 * table["label"] - 2)
    assert {one.status for one in verdicts.values()} == {"insufficient"}
    assert not any(one.stops for one in verdicts.values())
