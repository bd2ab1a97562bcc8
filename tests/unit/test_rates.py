"""What a page prints of rates reads the same for several counts, wherever one of them is small."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_facts import document, facts, history

from expectations.promotion import judge
from spira_tasks.contract.verdict import MIN_CELL
from spira_tasks.reports import figures, gather, judged, model_card, pages, rates, sentences
from spira_tasks.reports.facts import Evaluation, Interval
from spira_tasks.reports.tables import _rate, slices
from spira_tasks.reports.texts import LANGUAGES, Texts

N = 40  # patients, and as many controls


def estimate(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.04, "high": min(1.0, value + 0.03)}


def report(missed: int, alarms: int, missed_in_noise: int | None = None) -> dict[str, Any]:
    """What an evaluation leaves: the metrics that follow from so many errors of either kind."""

    def measured(missed: int) -> dict[str, dict[str, float]]:
        right, sound = N - missed, N - alarms
        values = {
            "auc": 0.97,
            "sensitivity": right / N,
            "specificity": sound / N,
            "balanced_accuracy": (right + sound) / (2 * N),
            "accuracy": (right + sound) / (2 * N),
            "f1": 2 * right / (2 * right + missed + alarms),
        }
        return {name: estimate(value) for name, value in values.items()}

    in_noise = missed if missed_in_noise is None else missed_in_noise
    conditions = {"clean": measured(missed), "noise_all": measured(in_noise)}
    conditions |= {"noise_controls": measured(missed), "noise_patients": measured(in_noise)}
    return {
        "n_recordings": 2 * N,
        "n_subjects": 2 * N,
        "n_patients": N,
        "n_controls": N,
        "operating_point": 0.5,
        "expected_calibration_error": 0.03,
        "brier_score": 0.05,
        "confusion": {
            "true_positives": N - missed,
            "false_negatives": missed,
            "true_negatives": N - alarms,
            "false_positives": alarms,
        },
        "conditions": conditions,
        "drop_in_balanced_accuracy": {
            name: estimate((in_noise - missed) / (2 * N) * (name != "noise_controls"))
            for name in conditions
            if name != "clean"
        },
    }


class Read:
    """Stands for the store, in which nothing is but an evaluation."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content

    def json(self, *_: str) -> dict[str, Any]:
        return self.content

    def predictions(self) -> None:
        return None


def evaluation(content: dict[str, Any]) -> Evaluation:
    found = gather._evaluation(Read(content), None)  # type: ignore[arg-type]
    assert found is not None
    return found


def printed(folder: Path, content: dict[str, Any]) -> str:
    """Every page of the site of a run, in both languages, as a reader has it."""
    run = facts(evaluation=evaluation(content), verdicts=())
    card = model_card.build(run)
    names = pages.render(run, history(), document(), card, folder, built_at=run.finished_at)
    return "".join((folder / name).read_text("utf-8") for name in names)


@pytest.mark.parametrize("alarms", [0, 3, 12])
def test_the_pages_read_the_same_whether_one_or_four_patients_are_missed(
    tmp_path: Path, alarms: int
) -> None:
    read = {missed: printed(tmp_path, report(missed, alarms)) for missed in (1, 2, 3, 4, 5)}
    assert read[1] == read[2] == read[3] == read[4]
    assert read[5] != read[4]  # five may be told


def test_the_pages_read_the_same_whether_one_or_four_patients_are_found(tmp_path: Path) -> None:
    assert len({printed(tmp_path, report(N - found, 0)) for found in (1, 2, 3, 4)}) == 1


def test_what_ward_noise_does_to_few_people_is_told_no_closer(tmp_path: Path) -> None:
    """The rate as recorded is told, and the fall from it would tell the one in noise."""
    read = {missed: printed(tmp_path, report(7, 9, missed)) for missed in (1, 2, 3, 4)}
    assert len(set(read.values())) == 1
    assert "0,82 (0,78–0,85)" in read[1]  # as recorded: 33 of 40


def test_a_coarse_rate_is_told_as_a_range_and_in_words() -> None:
    one = evaluation(report(2, 3))
    assert one.conditions["clean"]["sensitivity"] == Interval(None, 0.8, 1.0)
    assert one.conditions["clean"]["auc"].value == 0.97
    said = sentences.in_words(Texts("en"), one)
    assert said[0] == (
        "Of 100 patients it finds between 80 and 100. Tested with 40 patients; a closer number "
        "would tell of fewer than 5 people."
    )
    assert "alarms between 0 and 20 without cause" in said[1]
    assert figures.evaluation_table(Texts("pt"), one).rows[3][1] == "0,80 a 1,00"
    assert figures.evaluation_table(Texts("pt"), one).rows[2][1] == "oculto"  # accuracy


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_gate_tells_its_verdict_on_few_errors_without_their_number(language: str) -> None:
    content = report(4, 2, 12)
    one = evaluation(content)
    found = [judged.verdicts({"step": "promote", "verdicts": [vars(v)]})[0] for v in judge(content)]
    told = [judged.without_rates(verdict, one) for verdict in found]
    numbered = {"sensitivity_floor", "specificity_floor", "ward_noise_counterfactual"}
    numbered.add("not_degenerate")
    for verdict in told:
        if verdict["name"] in numbered:
            assert verdict["statistic"] is verdict["low"] is verdict["high"] is None
            assert not re.search(r"\d\.\d|\d %", verdict["reason"])
    t = Texts(language)
    for verdict in told:
        for word in ("warn", "block"):
            said = sentences.explain(t, verdict | {"verdict": word}).text
            if verdict["name"] in numbered:
                assert verdict["name"] not in said
                assert not {"90", "95", "0,9", "0.9"} & set(re.findall(r"[\d.,]*\d", said))


@given(st.integers(10, 400), st.data())
@settings(deadline=None, max_examples=200)
def test_the_range_of_a_rate_holds_it_and_counts_of_five_beside_small_ones(
    n: int, data: st.DataObject
) -> None:
    wrong = data.draw(st.sampled_from([1, 2, 3, 4, n - 4, n - 3, n - 2, n - 1]))
    told = rates.coarse(n - wrong, n)
    least, most = rates.wrong_counts(told, n)
    assert least <= wrong <= most
    same = [k for k in range(1, n) if rates.coarse(n - k, n) == told]
    assert same == [k for k in range(1, n) if least <= k <= most]
    small = [k for k in same if min(k, n - k) < MIN_CELL]
    assert {1, 2, 3, 4} <= {min(k, n - k) for k in small} or n < 12
    assert any(min(k, n - k) >= MIN_CELL for k in same)


GROUPS = st.lists(
    st.integers(1, 40).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))),
    min_size=2,
    max_size=3,
)


@given(GROUPS)
@settings(deadline=None, max_examples=300)
def test_groups_and_the_whole_leave_every_small_count_to_be_small_or_not(
    parts: list[tuple[int, int]],
) -> None:
    """Whoever knows the whole, and counts every way in which the errors may be spread."""
    told = rates.of_parts(parts, [_rate(*part) for part in parts])
    whole = sum(n - right for right, n in parts)
    spreads = [
        [k for k in range(n + 1) if is_consistent(k, n, one)]
        for one, (_, n) in zip(told, parts, strict=True)
    ]
    known = rates.is_small(sum(right for right, _ in parts), sum(n for _, n in parts))
    found = [k for k in product(*spreads) if known or sum(k) == whole]
    for number, (right, n) in enumerate(parts):
        wrong = {k[number] for k in found}
        if not rates.is_small(right, n) or n < MIN_CELL:  # so few that not even n is told
            continue
        assert len(wrong) > 1
        if 0 < n - right < MIN_CELL <= n:
            assert max(wrong) >= MIN_CELL
        if 0 < right < MIN_CELL <= n:
            assert n - min(wrong) >= MIN_CELL


def is_consistent(wrong: int, n: int, told: Interval | None) -> bool:
    if told is None or (told.value is None and told.low is None):
        return True
    right = (n - wrong) / n
    if told.value is not None:
        return f"{right:.2f}" == f"{told.value:.2f}"
    assert told.low is not None
    assert told.high is not None
    return told.low <= right < told.high or (right == told.high == 1)


def test_no_group_of_the_card_tells_the_one_patient_it_missed() -> None:
    """12 men, of whom one is missed: 0.92 of 12 is one; and women tell it with the whole."""
    people = pd.DataFrame(
        {
            "subject": [f"s{i}" for i in range(60)],
            "sex": ["M"] * 12 + ["F"] * 48,
            **dict.fromkeys(("site", "device", "age"), "#1"),
            "label": "patients",
        }
    )
    predictions = pd.DataFrame(
        {
            "subject_id": people["subject"],
            "split": "test",
            "label": 1.0,
            "clean": [0.1] + [0.9] * 11 + [0.1] * 9 + [0.9] * 39,
        }
    )
    found = {(one.by, one.group): one.sensitivity for one in slices(people, predictions, 0.5)}
    men, women, site = found["sex", "M"], found["sex", "F"], found["site", "#1"]
    assert site is not None
    assert site.value == pytest.approx(50 / 60)  # the whole, which may be told
    assert men is not None
    assert women is not None
    assert men.value is women.value is None
    assert men == Interval(None, 0.5, 1.0)
