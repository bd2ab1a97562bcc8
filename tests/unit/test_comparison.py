"""A challenger replaces the champion when the same people show a gain and no loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from expectations import policy
from expectations.gates.champion import compare as judge
from expectations.words import LANGUAGES
from expectations.words.verdicts import sentence
from spira_tasks.artifacts import Store
from spira_tasks.contract.step import Step
from spira_tasks.contract.verdict import Verdict
from spira_tasks.evaluation.comparison import compare, paired_interval
from spira_tasks.runner import _work
from spira_tasks.stages import promote
from spira_tasks.tracking import Registered, Tracker
from spira_tasks.work import PlatformWork

RULE = policy.read().rules.better_than_champion


def answers(labels: np.ndarray[Any, Any], n_wrong: int, seed: int) -> np.ndarray[Any, Any]:
    """Probabilities of which so many of each class are on the wrong side of one half."""
    rng = np.random.default_rng(seed)
    found = np.where(
        labels == 1, rng.uniform(0.55, 1, len(labels)), rng.uniform(0, 0.45, len(labels))
    )
    for label in (0, 1):
        wrong = np.flatnonzero(labels == label)[:n_wrong]
        found[wrong] = 1 - found[wrong]
    return found


def people(n: int, n_wrong: int, n_wrong_of_champion: int) -> pd.DataFrame:
    """``n`` people of each class, halves of them women; the first of each class are misjudged."""
    labels = np.repeat([0.0, 1.0], n)
    return pd.DataFrame(
        {
            "label": labels,
            "challenger": answers(labels, n_wrong, 1),
            "challenger_point": 0.5,
            "champion": answers(labels, n_wrong_of_champion, 2),
            "champion_point": 0.5,
            "sex": np.where(np.arange(2 * n) % n < n // 2, "F", "M"),
        },
        index=[f"s{number:04d}" for number in range(2 * n)],
    )


def against(version: str, pairs: pd.DataFrame) -> dict[str, Any]:
    return {"champion": version, **compare(pairs, pairs[["sex"]], 500, 0, RULE.min_cell)}


def verdict(pairs: pd.DataFrame) -> Verdict:
    return judge(against("3", pairs), RULE)


def test_a_challenger_that_many_people_show_to_be_better_passes() -> None:
    assert verdict(people(400, n_wrong=8, n_wrong_of_champion=60)).status == "pass"


def test_the_same_answers_are_no_gain() -> None:
    pairs = people(400, 20, 20)
    same = pairs.assign(challenger=pairs["champion"])
    assert verdict(same).status == "warn"


def test_models_that_were_measured_since_share_what_luck_may_do() -> None:
    """A gain in nine of ten resamples is enough for the second model, and not for the third."""
    gains = against("3", people(400, 8, 60)) | {"confidence": 0.9}
    statuses = [judge(gains, RULE, n_since=n).status for n in (0, 1, 2)]
    assert statuses == ["pass", "pass", "warn"]
    found = judge(gains, RULE, n_since=2.5)
    assert found.threshold == pytest.approx(1 - 0.2 / 3.5)
    said = sentence(found, "en")
    assert "since the champion was (2.5)" in said
    assert "in 94 % of resamples is needed, not in 80 %" in said.replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize(
    ("n_wrong_of_first", "n", "status"),
    [(60, 400, "pass"), (0, 400, "warn"), (0, 0, "insufficient")],
)
def test_small_losses_do_not_add_up_from_one_champion_to_the_next(
    n_wrong_of_first: int, n: int, status: str
) -> None:
    """A model that beats the champion has to lose no more against the first version in use."""
    champion = against("3", people(400, n_wrong=18, n_wrong_of_champion=60))
    first = against("1", people(n, n_wrong=18, n_wrong_of_champion=n_wrong_of_first))
    assert judge(champion, RULE).status == "pass"
    found = judge(champion, RULE, first)
    assert found.status == status
    assert "version 1, the first in use" in sentence(found, "en")
    assert "versão 1, a primeira em uso" in sentence(found, "pt")


@pytest.mark.parametrize("n", [20, 54, 108])
def test_few_people_who_show_no_loss_prove_none(n: int) -> None:
    """The champion misses one of each class and the challenger nobody: a person decides."""
    found = verdict(people(n, 0, 1))
    assert found.status == "insufficient"
    assert not found.stops


def test_a_gain_in_auc_does_not_pay_for_patients_who_are_missed() -> None:
    pairs = people(300, n_wrong=0, n_wrong_of_champion=40)
    higher = pairs.assign(challenger_point=0.75)  # the ranking is as good, a third are missed
    found = verdict(higher)
    assert found.status == "warn"
    assert (found.numbers["less_sensitivity"].value or 0) > 0.2
    assert "Of 100 patients it finds 3" in sentence(found, "en")


def test_a_gain_in_all_does_not_pay_for_a_loss_among_men() -> None:
    pairs = people(300, n_wrong=0, n_wrong_of_champion=100)
    men, patients = pairs["sex"] == "M", pairs["label"] == 1
    worse = pairs["challenger"].where(~men | (pairs["challenger"].rank(pct=True) > 0.65), 0.5)
    pairs = pairs.assign(challenger=worse.where(~(men & patients), 0.5))
    found = verdict(pairs)
    assert (found.names["by"], found.names["group"]) == (("sex",), ("M",))
    assert found.status == "warn"


def test_what_few_people_of_a_group_leave_open_is_left_to_a_person() -> None:
    """Of 20 women who are ill the challenger misses two, and the champion nobody."""
    pairs = people(400, n_wrong=8, n_wrong_of_champion=60)
    place = np.arange(len(pairs)) % 400
    of_women = place % 20 == 10
    pairs["sex"] = np.where(of_women, "F", "M")
    pairs.loc[of_women, "champion"] = pairs["label"]
    pairs.loc[of_women & (place < 40) & (pairs["label"] == 1), "challenger"] = 0.0
    found = verdict(pairs)
    assert found.status == "insufficient"
    assert (found.names["unclear_by"], found.names["unclear"]) == (("sex",), ("F",))
    assert "may do worse in some groups" in sentence(found, "en")


def test_what_is_said_of_a_loss_is_the_net_change_that_was_measured() -> None:
    """Of a hundred people whom the champion calls right seven are lost, and more others found."""
    pairs = people(400, n_wrong=27, n_wrong_of_champion=40)
    turned = pairs["champion"].to_numpy().reshape(2, 400)[:, ::-1].ravel()
    pairs = pairs.assign(champion=turned, sex="F")
    found = verdict(pairs)
    assert found.status == "pass"
    assert 0 < (found.numbers["sensitivity_lost"].value or 0) < 0.02
    said = sentence(found, "en")
    assert "Its sensitivity is lower by at most 0.0" in said
    assert "calls right" not in said.partition("McNemar")[0]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("label", [0, 1, None])
def test_a_champion_that_answers_about_nobody_of_a_class_is_left_to_a_person(
    label: int | None, language: Any
) -> None:
    pairs = people(20, 0, 1)
    found = verdict(pairs[pairs["label"] == label])
    assert (found.status, found.stops) == ("insufficient", False)
    assert "3" in sentence(found, language)


def test_a_champion_of_a_task_that_nobody_did_answers_about_nobody(tmp_path: Path) -> None:
    recordings = pd.DataFrame({"subject_id": ["a"], "split": ["test"], "task": ["VOWEL"]})
    champion = Registered("3", "", "sha256:0", (), {"spira.task": "SENTENCE"})
    store = Store(str(tmp_path / "store"))
    work = _work(Step("promote", "promote"), "run", store, "0" * 64, "")
    assert isinstance(work, PlatformWork)
    said = promote.score(champion, Tracker(store.tracking_uri), recordings, work)
    pairs = people(20, 0, 0).drop(columns=["champion", "champion_point"]).join(said, how="inner")
    assert verdict(pairs).status == "insufficient"


def test_agreement_of_few_people_has_the_width_of_few_people() -> None:
    for n in (5, 50, 500):
        agreed = np.ones(n, dtype=bool)
        low, high = paired_interval(agreed, agreed)
        assert low == pytest.approx(-high)
        assert high == pytest.approx(1.96**2 / (n + 1.96**2), rel=1e-3)


def test_the_paired_interval_is_that_of_the_paper() -> None:
    """Newcombe 1998, table III: 36, 12, 2 and 0 of 50 people; method 10."""
    first = np.repeat([True, True, False, False], [36, 12, 2, 0])
    second = np.repeat([True, False, True, False], [36, 12, 2, 0])
    assert paired_interval(first, second) == pytest.approx((0.0569, 0.3404), abs=5e-5)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("n", [3, 60, 400])
@pytest.mark.parametrize("n_wrong", [0, 2])
def test_every_outcome_is_said_in_whole_sentences(n: int, n_wrong: int, language: Any) -> None:
    said = sentence(verdict(people(n, n_wrong, 1)), language)
    assert said.endswith(".")
    assert not {"{", "None", "better_than"} & {
        said[i : i + k] for k in (1, 4, 11) for i in range(len(said))
    }
