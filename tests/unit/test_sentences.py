"""The verdict page in words: what became of a run, why, and what to do."""

from __future__ import annotations

from typing import Any

import pytest
from run_facts import facts, verdict, waived

from expectations.promotion import compare
from expectations.promotion import verdicts as judge
from expectations.words import LANGUAGES, Words
from spira_tasks.reports import sentences
from spira_tasks.reports.facts import RunFacts, StepFacts

EN = Words("en")


def why(run: RunFacts) -> str:
    return sentences.headline(EN, run).why.text


def test_a_refused_model_is_refused_for_the_first_reason_and_the_others_are_told() -> None:
    said = sentences.headline(EN, facts())
    assert said.word == "Refused"
    assert said.why.text == (
        "It cannot be said to tell patients from controls better than chance: it puts 52 of 100 "
        "pairs in the right order, and the true number may be 33. More than 60 is demanded; chance "
        "gets 50."
    )
    assert [other.text[:21] for other in said.others] == ["The model nearly alwa"]
    assert said.next == ("Collect more recordings or improve the training; do not use this model.")
    assert "was trained and will not be used" in said.explanation


def test_a_refusal_before_the_training_says_that_there_is_no_model() -> None:
    stop = verdict("quarantine_share", "block", statistic=0.12, threshold=0.05, n=80, step="ingest")
    run = facts(verdicts=(stop,), model=None, evaluation=None)
    said = sentences.headline(EN, run)
    assert "no model was made of these data" in said.explanation
    assert said.why.text == (
        "Too many faulty recordings: 12.0\xa0% of those that arrived; 5.0\xa0% is tolerated."
    )


def test_an_expectation_that_fails_is_told_in_plain_words_with_what_was_found() -> None:
    name = "expect_column_values_to_be_between(age, possible)"
    stop = verdict(name, "block", statistic=0.2, threshold=0.0, n=61, suite="metadata")
    said = sentences.explain(EN, stop)
    assert said.language == "en"
    assert said.text.startswith("This did not hold: In every recording, ")
    assert said.text.endswith("Found: 0.2; limit: 0.")


def test_a_verdict_that_nobody_knows_any_more_keeps_its_own_words_and_language() -> None:
    said = sentences.explain(Words("pt"), verdict("expect_the_moon(size)", "warn"))
    assert (said.text, said.language) == (
        "expect_the_moon(size): 12 of 61 rows are unexpected", "en"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("outcome", "word", "reason"),
    [
        ("promoted", "Promoted", "There was no champion yet. It passed every check."),
        ("kept", "Kept as challenger", "It did not show that it is better than the champion."),
    ],
)
def test_a_run_that_came_to_its_end_says_how_it_ended(outcome: Any, word: str, reason: str) -> None:
    first = (verdict("better_than_champion"),) if outcome == "promoted" else ()
    said = sentences.headline(EN, facts(outcome=outcome, verdicts=first))
    assert (said.word, said.why.text, said.others) == (word, reason, ())


def test_a_promotion_in_spite_of_warnings_and_waivers_does_not_say_that_all_passed() -> None:
    found = (verdict("better_than_champion"), verdict("sensitivity_floor", "warn"), waived())
    assert why(facts(outcome="promoted", verdicts=found)) == (
        "There was no champion yet. No check stopped the promotion. Warnings: 1; set aside by a "
        "person: 1."
    )
    assert why(facts(outcome="promoted", verdicts=found[:2])) == (
        "There was no champion yet. No check stopped the promotion. Warnings: 1."
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_waived_check_is_told_with_who_and_why_and_not_among_other_warnings(
    language: str,
) -> None:
    run, t = facts(verdicts=(waived(), verdict("sensitivity_floor", "warn"))), Words(language)
    (one,) = sentences.waived(t, run)
    assert (one.by, one.on, one.why) == ("cli:ana", t.day("2026-11-21"), "one telephone yet")
    assert one.check.language == one.found.language == language
    (other,) = sentences.warnings(t, run)
    assert other != one.found


@pytest.mark.parametrize(
    ("names", "waivable"),
    [
        (["expect_no_level_of_one_class(device_model)"], True),
        (["expect_column_values_to_be_in_set(erased)"], False),
        (["expect_column_values_to_hold_no_personal_data(x_of_a_hospital)"], False),
        (["expect_no_level_of_one_class(device_model)",
          "expect_column_values_to_be_in_set(erased)"], False),
    ],
)  # fmt: skip
def test_a_waiver_is_offered_only_where_a_gate_would_heed_it(
    names: list[str], waivable: bool
) -> None:
    stop = tuple(verdict(name, "block", suite="training_set") for name in names)
    said = sentences.headline(EN, facts(verdicts=stop)).next
    assert ("can waive the check in writing" in said) is waivable
    assert ("nobody can waive" in said) is not waivable


def test_a_failed_run_names_its_step_and_does_not_judge_data_or_model() -> None:
    lost = StepFacts("train", "train", "failed", error="ServiceUnavailable", message="no answer")
    said = sentences.headline(EN, facts(outcome="failed", verdicts=(), steps=(lost,)))
    assert said.why.text == 'The step "Training" got no answer from a service that it needs.'
    assert said.next.startswith("Run again once the service answers")
    bug = StepFacts("train", "train", "failed", error="ZeroDivisionError")
    assert "ended with an error" in why(facts(outcome="failed", verdicts=(), steps=(bug,)))


def test_an_unfinished_run_says_what_comes_next() -> None:
    steps = (StepFacts("ingest", "ingest", "done"), StepFacts("split", "split", "waiting"))
    assert (
        why(facts(outcome="running", verdicts=(), steps=steps))
        == "The next step is: Split into parts."
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_test_is_told_in_numbers_of_people(language: str) -> None:
    evaluation = facts().evaluation
    assert evaluation is not None
    said = sentences.in_words(Words(language), evaluation)
    assert len(said) == 4
    if language == "en":
        assert said[0] == (
            "Of 100 patients it finds 52. With 8 patients tested, the true number probably lies "
            "between 33 and 79."
        )
        assert said[1].startswith("Of 100 people without the illness (controls) it alarms 48")
        assert "between 21 and 67" in said[1]
        assert said[3].startswith("With ward noise added")


def estimate(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.2, "high": value}


@pytest.mark.parametrize("n", [3, 60, 200])
@pytest.mark.parametrize("drops", [{}, {"noise_all": estimate(0.6)}, {"noise_all": estimate(0.2)}])
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_gate_of_the_promotion_has_its_sentence(
    n: int, drops: dict[str, Any], language: str
) -> None:
    """The real gates, on a model that is bad in every way: none falls back to its own words."""
    metrics = ("auc", "sensitivity", "specificity")
    bad = {
        "n_patients": n, "n_controls": n, "n_subjects": 2 * n, "n_recordings": 2 * n,
        "conditions": {"clean": {metric: estimate(0.4) for metric in metrics}},
        "drop_in_balanced_accuracy": drops, "expected_calibration_error": 0.9,
        "confusion": {"true_positives": 2 * n, "false_positives": 0},
    }  # fmt: skip
    against = {"champion": "1", "n_subjects": n, "gain": estimate(-0.1), "confidence": 0.1,
               "sensitivity_loss": 0.5}  # fmt: skip
    found = [one for one in (*judge(bad), compare(against)) if one.verdict != "pass"]
    assert len(found) >= 6
    for one in found:
        said = sentences.explain(Words(language), vars(one))
        assert said.language == language, one.name
        assert one.name not in said.text
        assert "did not hold" not in said.text, one.name
        assert "Não se cumpriu" not in said.text, one.name
