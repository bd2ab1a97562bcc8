"""The verdict page in words: what became of a run, why, and what to do."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date
from typing import Any

import pandas as pd
import pytest
from run_facts import endings, facts, rate, rows, sound, verdict, waived

from expectations import policy
from expectations.gates import model
from expectations.gates.champion import compare
from expectations.gates.provenance import (
    behind_its_gates,
    label_blind_augmentation,
    nobody_erased,
    replaces_its_kind,
)
from expectations.words import LANGUAGES, Language, Words
from expectations.words import verdicts as words
from spira_tasks.contract.verdict import Number, Verdict
from spira_tasks.evaluation import slices
from spira_tasks.gating import rules
from spira_tasks.reports import sentences
from spira_tasks.reports.facts import Interval, RunFacts, StepFacts
from spira_tasks.stages import drift, ingest

EN = Words("en")
FIRST = "There is no champion to compare it with."
RATES = (
    "Of 100 patients it finds 52 (33–79); of 100 people without the illness it alarms 48 (21–67)."
)


def why(run: RunFacts) -> str:
    return sentences.headline(EN, run).why


def of(*verdicts: Verdict) -> dict[str, tuple[Verdict, ...]]:
    return {"promote": verdicts}


def test_a_refused_model_is_refused_for_the_first_reason_and_the_others_follow() -> None:
    headline = sentences.headline(EN, facts())
    assert (headline.word, headline.whom) == ("No: refused", ("It is used for nobody.",))
    assert headline.why == (
        "It is not certain that the model tells patients from controls better than chance: it puts "
        "52 of 100 pairs in the right order, and the true number may be 33. More than 60 is "
        "needed; chance gets 50."
    )
    assert [other[:21] for other in headline.others] == ["The model nearly alwa"]
    assert headline.next == (
        "Collect more recordings or improve the training; do not use this model."
    )
    assert "was trained and will not be used" in headline.explanation


def test_a_refusal_before_the_training_says_that_there_is_no_model() -> None:
    stop = verdict(
        "quarantine_share", "block", observed=0.125, threshold=0.05, n=80,
        numbers={
            "n_refused": Number(10, "rows"), "n_tolerated": Number(7, "items"),
            "n_left": Number(70, "rows"),
        },
        names={"reasons": ("truncated", "expect_column_values_to_be_between:age")},
    )  # fmt: skip
    headline = sentences.headline(EN, facts(verdicts=of(stop), model=None, evaluation=None))
    assert "no model was made of these data" in headline.explanation
    assert headline.why == (
        "Too many faulty recordings: 10 of 80; 7 are tolerated. Reasons: File cut off before its "
        "end, Refused by a check: Age: possible values."
    )


def test_an_expectation_that_fails_is_in_plain_words_with_what_was_found() -> None:
    name = "expect_column_values_to_be_between(age, possible)"
    said = words.sentence(rows(name, "block", 12, 61, suite="metadata"), "en")
    assert said.startswith("This failed: In every recording, ")
    assert said.endswith("Rows that differ: 12 of 61.")
    few = words.sentence(rows(name, "block", 3, 61, suite="metadata"), "pt")
    assert few.endswith("Linhas que diferem: menos de 5 de 61.")


def test_a_check_that_the_platform_no_longer_has_keeps_its_id() -> None:
    gone = rows("expect_the_moon(size)", "warn", 12, 61)
    assert words.sentence(gone, "pt") == (
        "expect_the_moon(size): Aviso. Linhas que diferem: 12 de 61."
    )
    assert words.title(gone, "en") == "expect_the_moon(size)"


@pytest.mark.parametrize(
    ("outcome", "word", "reason"),
    [
        ("promoted", "Yes: promoted", f"{FIRST} It passed every check. {RATES}"),
        (
            "kept",
            "No: kept in reserve",
            "The run did not show that the model is better than the champion.",
        ),
    ],
)
def test_a_run_that_came_to_its_end_says_how_it_ended(outcome: Any, word: str, reason: str) -> None:
    first = (verdict("better_than_champion"),) if outcome == "promoted" else ()
    headline = sentences.headline(EN, facts(outcome=outcome, verdicts=of(*first)))
    assert (headline.word, headline.why, headline.others) == (word, reason, ())


def test_a_promotion_in_spite_of_warnings_and_waivers_does_not_say_that_all_passed() -> None:
    found = (verdict("better_than_champion"), verdict("calibration", "warn"), waived())
    assert why(facts(outcome="promoted", verdicts=of(*found))) == (
        f"{FIRST} No check stopped the promotion. Warnings: 1; waived by a person: 1. {RATES}"
    )
    assert why(facts(outcome="promoted", verdicts=of(*found[:2]))) == (
        f"{FIRST} No check stopped the promotion. Warnings: 1. {RATES}"
    )


def test_a_promotion_that_a_person_approved_names_them_and_what_could_not_tell() -> None:
    person = {"by": ("airflow:ana",), "at": ("2026-11-30",), "why": ("read it all",)}
    approved = replace(verdict("approved_by_a_person"), names=person)
    found = (verdict("slice_gap", "insufficient"), verdict("better_than_champion"), approved)
    headline = sentences.headline(EN, facts(outcome="promoted", verdicts=of(*found)))
    said = headline.why
    assert (headline.shown_as, headline.word) == ("provisional", "Yes, provisionally")
    assert headline.next == EN("next.provisional")
    assert f"ana approved it. Not shown: “{EN('gate.slice_gap.title')}”." in said
    assert "passed every check" not in said


def test_a_model_that_only_waits_for_a_person_says_so() -> None:
    found = (verdict("better_than_champion"), verdict("approved_by_a_person", "warn"))
    headline = sentences.headline(EN, facts(outcome="kept", verdicts=of(*found)))
    assert headline.word == "Not yet: a person decides"
    assert f"the policy asks for a person's approval. {RATES}" in headline.why
    assert "model approve" in headline.next


def test_a_model_that_waits_names_the_checks_that_could_not_tell() -> None:
    assert why(endings()["open"]).startswith(
        "No check stops it, but a person has to decide. Not shown: "
        f"“{EN('gate.ward_noise_flips.title')}”, “{EN('gate.slice_gap.title')}”, 2 more. "
    )
    assert why(endings()["open"]).endswith(
        RATES.replace("52 (33–79)", "88 (81–93)").replace("48 (21–67)", "12 (7–19)")
    )


def test_a_model_that_waits_with_a_waived_check_is_not_said_to_have_passed_it() -> None:
    found = (verdict("better_than_champion"), verdict("approved_by_a_person", "warn"), waived())
    said = why(facts(outcome="kept", verdicts=of(*found)))
    assert f"a person has to decide. Not shown: “{words.title(waived(), 'en')}”." in said


def test_no_model_that_waits_is_called_sound() -> None:
    """That a check could not tell does not show it."""
    for name in ("waits", "open", "kept"):
        assert "sound" not in sentences.headline(EN, endings()[name]).explanation


def test_a_champion_that_is_judged_again_is_not_said_to_have_passed_what_could_not_tell() -> None:
    """Promotion asks for no approval then."""
    said = why(facts(outcome="promoted", verdicts=of(verdict("slice_gap", "insufficient"))))
    assert said.startswith("Not shown: “No group is worse off”.")
    assert "passed every check" not in said


def test_a_model_that_another_one_replaced_since_is_not_said_to_serve() -> None:
    run = sound()
    assert run.model is not None
    here, gone = (replace(run.model, aliases=names) for names in (("champion",), ("previous",)))
    assert sentences.headline(EN, replace(run, model=here)).word == "Yes: promoted"
    headline = sentences.headline(EN, replace(run, model=gone, champion="4"))
    assert (headline.word, headline.shown_as) == ("Not any more: replaced", "kept")
    assert headline.whom == ("It is used for nobody.",)
    assert "It is not in use any more. In use when this page was made" in headline.explanation


def test_a_model_that_was_approved_since_its_run_waited_is_not_said_to_wait() -> None:
    run = endings()["open"]
    assert run.model is not None
    serving = replace(run, model=replace(run.model, aliases=("champion",)))
    headline = sentences.headline(EN, serving)
    assert (headline.word, headline.shown_as) == ("Yes, provisionally", "provisional")
    assert "approved since, and is in use" in headline.explanation
    assert "No check stops it, and a person approved it since. Not shown: " in headline.why
    assert "has to decide" not in headline.why
    assert headline.whom != ("It is used for nobody.",)


def test_the_first_screen_names_the_hospitals_where_a_model_is_not_shown_to_hold() -> None:
    names = {"left_open": ("#2", "#5")}
    elsewhere = replace(verdict("unseen_sites", "insufficient"), names=names)
    headline = sentences.headline(EN, sound(verdicts=of(elsewhere)))
    assert "Hospitals where it is not shown to hold: Site #2, Site #5." in headline.whom


def test_a_loss_under_noise_that_was_not_seen_is_not_said_to_be_none() -> None:
    evaluation = facts().evaluation
    assert evaluation is not None
    drops = {"noise_all": Interval(-0.01, -0.08, 0.06), "noise_controls": Interval(-0.02, -0.1, 0)}
    *_, said = sentences.in_words(EN, replace(evaluation, drops=drops))
    assert said.endswith("was not seen to fall; a fall of up to 6 in 100 is possible.")


def test_a_promoted_model_says_for_whom_it_may_not_serve() -> None:
    assert sentences.headline(EN, sound()).whom == (
        "Real people (the tested ones are invented).",
        "Too few tested: by sex (Women, Other), age (<18, 18-29, 30-44, 75+), site (#2).",
        "Other hospitals, and other tasks than Sentence.",
    )
    (nobody,) = sentences.headline(EN, facts(evaluation=None)).whom
    assert nobody == "No model was tested, so this is not known for anybody."


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_waived_check_has_its_person_and_reason_and_is_not_among_other_warnings(
    language: Language,
) -> None:
    run, t = facts(verdicts=of(waived(), verdict("calibration", "warn"))), Words(language)
    (one,) = sentences.waived(t, run)
    assert (one.by, one.on, one.why) == ("cli:ana", t.day("2026-11-21"), "one telephone yet")
    assert one.until == t.day("2027-02-19")
    (other,) = sentences.warnings(t, run)
    assert other != one.found


@pytest.mark.parametrize(("firm", "waivable"), [(False, True), (True, False)])
def test_a_waiver_is_offered_only_where_a_gate_would_apply_it(firm: bool, waivable: bool) -> None:
    name = "expect_no_level_of_one_class(device_model)"
    stop = verdict(name, "block", suite="training_set")
    also = verdict("expect_column_values_to_be_in_set(erased)", "block", suite="s", firm=firm)
    headline = sentences.headline(EN, facts(verdicts=of(stop, also)))
    assert ("can waive the check in writing" in headline.next) is waivable
    assert ("Nobody can waive" in headline.next) is not waivable


def test_a_failed_run_names_its_step_and_blames_neither_data_nor_model() -> None:
    lost = StepFacts("train", "failed", error="ServiceUnavailable", message="no answer")
    headline = sentences.headline(EN, facts(outcome="failed", verdicts={}, steps=(lost,)))
    assert headline.why == 'The step "Training" got no answer from a service that it needs.'
    assert headline.next.startswith("Run again once the service answers")
    assert "stopped because of an error" in headline.explanation
    stopped = StepFacts("train", "failed", error="Stopped")
    headline = sentences.headline(EN, facts(outcome="failed", verdicts={}, steps=(stopped,)))
    assert headline.explanation.startswith("The run was stopped before it was done")
    assert "audit log of the run there says who" in headline.why
    bug = StepFacts("train", "failed", error="ZeroDivisionError")
    assert "ended with an error" in why(facts(outcome="failed", verdicts={}, steps=(bug,)))


def test_an_unfinished_run_says_what_comes_next() -> None:
    steps = (StepFacts("ingest", "done"), StepFacts("split", "waiting"))
    assert (
        why(facts(outcome="running", verdicts={}, steps=steps))
        == "The next step is: Split into parts."
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_test_is_described_in_numbers_of_people(language: Language) -> None:
    evaluation = facts().evaluation
    assert evaluation is not None
    said = sentences.in_words(Words(language), evaluation)
    assert len(said) == 4
    if language == "en":
        assert said[0] == (
            "Of 100 patients the model finds 52. With 8 patients tested, the true number probably "
            "lies between 33 and 79."
        )
        assert said[1].startswith(
            "Of 100 people without the illness (controls) the model alarms 48"
        )
        assert "between 21 and 67" in said[1]
        assert said[3].startswith("With ward noise added")


def estimate(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.2, "high": value}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_sentence_says_no_more_than_its_numbers(language: Language) -> None:
    reached = rate(0.88, 0.79, 0.94)
    low = verdict("sensitivity_floor", "block", observed=reached, threshold=0.8, n=120)
    too_many = {"en": "misses too many", "pt": "pacientes demais"}
    assert too_many[language] not in words.sentence(low, language)
    names = {"version": ("3",), "outdated": ("cli:bob",)}
    waits = replace(verdict("approved_by_a_person", "warn"), names=names)
    nobody = {"en": "Nobody", "pt": "Ninguém"}
    assert nobody[language] not in words.sentence(waits, language)
    assert "cli:bob" in words.sentence(waits, language)


def test_the_limits_in_the_texts_of_gates_are_those_of_the_policy() -> None:
    rules = policy.read().rules
    better = rules.better_than_champion
    losses = (better.max_sensitivity_loss, better.max_specificity_loss)
    limits = {
        "better_than_champion": [
            f"{better.min_confidence:.0%}",
            *(f"{100 * loss:.0f} points" for loss in losses),
            f"{better.max_slice_loss:.2f}",
        ],
        "label_quality": [f"{100 * rules.label_quality.max_suspects:.0f} of 100"],
        "missingness": [f"V of {rules.missingness.max_association}"],
        "seed_stability": ["five", str(rules.seed_stability.max_deviation)],
        "slice_floor": [f"{slices.MIN_PEOPLE} patients and {slices.MIN_PEOPLE} controls"],
        "test_budget": [f"{rules.test_budget.max_reads} may fail"],
        **{
            name: [f"{getattr(rules, name).min_balanced_accuracy:.0%}"]
            for name in ("unseen_sites", "cross_cohort")
        },
    }
    for gate, said in limits.items():
        text = EN(f"gate.{gate}.expected").replace("\N{NO-BREAK SPACE}%", "%").replace(" %", "%")
        assert not [limit for limit in said if limit not in text], text
    least, most = rules.not_degenerate.min_positive, rules.not_degenerate.max_positive
    text = EN("gate.not_degenerate.with.positive", positive="")
    assert f"{100 * least:.0f} to {100 * most:.0f}" in text
    assert len(rules.seed_stability.seeds) == 5


@pytest.mark.parametrize("n", [3, 60, 200])
@pytest.mark.parametrize("drops", [{}, {"noise_all": estimate(0.6)}, {"noise_all": estimate(0.2)}])
@pytest.mark.parametrize("quality", [0.4, 0.99])
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_gate_of_the_promotion_has_its_sentence(
    n: int, drops: dict[str, Any], quality: float, language: Language
) -> None:
    """The real gates, on a bad model and on a good one: all have a sentence of their own."""
    metrics = ("auc", "sensitivity", "specificity")
    evaluation = {
        "n_patients": n, "n_controls": n, "n_subjects": 2 * n, "n_recordings": 2 * n,
        "conditions": {"clean": {metric: estimate(quality) for metric in metrics}},
        "drop_in_balanced_accuracy": drops,
        **{name: {cell: {"controls": one} for cell, one in drops.items()}
           for name in ("flips", "shifts")},
        "operating_point": 0.5, "operating_point_from": "validation" if n > 60 else "a setting",
        "calibration": {"slope": {"value": 0.6, "low": quality, "high": quality + 0.2}},
        "behaviour": {"mp3": {"flips": {"patients": estimate(1 - quality)}}},
        "within": {"sex": {"auc": estimate(quality), "explained": estimate(0.2), "n": n}},
        "slices": {"sex": {group: {"n_patients": n, "n_controls": n, "auc": estimate(quality),
                                   "apart": estimate(1 - quality)} for group in "FM"}},
        "metadata_baseline": {"model": estimate(quality), "baseline": estimate(0.5),
                              "gain": estimate(quality - 0.6), "n_patients": n, "n_controls": n},
        "expected_calibration_error": 1 - quality,
        "confusion": {"true_positives": n, "false_positives": 0},
    }  # fmt: skip
    against = {"champion": "1", "n_patients": n, "n_controls": n, "gain": estimate(-0.1),
               "confidence": 0.1, "sensitivity_change": estimate(-0.5), "p": 0.5, "slices": {},
               "specificity_change": estimate(0.1), "n_only_champion_right": 9,
               "n_only_challenger_right": 9}  # fmt: skip
    rules = policy.read().rules
    champion = compare(against, rules.better_than_champion)
    for one in (*model.verdicts(evaluation, rules), champion):
        said = words.sentence(one, language)
        assert one.id not in said
        assert not {"{", "}", "–", "None", "  "} & {
            said[i : i + k] for k in (1, 2, 4) for i in range(len(said))
        }, said
        assert "failed" not in said
        assert "falhou" not in said
        assert n > 4 or not {"40", "99", "0.4"} & set(said.replace(".", " ").split()), said


@pytest.mark.parametrize("language", LANGUAGES)
def test_few_people_are_never_counted_in_a_sentence(language: Language) -> None:
    """Whatever a gate counts: a suppressed number is in words, or the sentence has none."""
    few = {"en": "fewer than 5", "pt": "menos de 5"}[language]
    erased = verdict("contains_erased_subject", "block", observed=Number(3, "people"))
    parts = {"n_lost": Number(2, "rows"), "n_new": Number(0, "rows"), "n_leaked": Number(7, "rows")}
    lost = verdict("rows_conserved", "block", observed=Number(9, "rows"), n=80, numbers=parts)
    small = verdict(
        "enough_test_subjects", "insufficient", observed=Number(4, "people"), threshold=10.0,
        numbers={"n_patients": Number(4, "people"), "n_controls": Number(17, "people")},
    )  # fmt: skip
    for one, number in ((erased, "3"), (lost, "2"), (small, "4")):
        said = words.sentence(one, language)
        assert few in said
        assert number not in re.findall(r"\d+", said.replace("LGPD art. 18", "")), said
    assert "(7)" in words.sentence(lost, language)
    assert "17" not in words.sentence(small, language)  # all people are on the page: the rest is 4


@pytest.mark.parametrize("language", LANGUAGES)
def test_widened_limits_are_named_with_their_standard(language: Language) -> None:
    wide = verdict(
        "standard_limits", "warn", observed=Number(2, "items"),
        names={"limits": ("max_fraction", "as_of")},
        numbers={"max_fraction": Number(0.9), "max_fraction.standard": Number(0.05)},
    )  # fmt: skip
    expected = {
        "en": "max_fraction is 0.9, the standard is 0.05; as_of is a day of the past.",
        "pt": "max_fraction é 0,9, o padrão é 0,05; as_of é um dia do passado.",
    }
    assert words.sentence(wide, language).endswith(expected[language])


def table(n: int, **columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"hospital_id": ["north"] * n, "reason": ["truncated"] * n} | columns)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("n_refused", [0, 3, 30])
@pytest.mark.parametrize("n_kept", [0, 80])
def test_every_rule_of_a_gate_has_its_sentence(
    n_refused: int, n_kept: int, language: Language
) -> None:
    """The real rules over tables and settings of every kind."""
    config = ingest.Config(
        sites=("north",), as_of=date(2020, 1, 1), max_quarantine_fraction=0.5 + n_kept / 1000
    )
    kept, refused = table(n_kept), table(n_refused)
    verdicts = [
        *ingest.verdicts(kept, refused, table(n_refused), config),
        *ingest.verdicts(kept, refused, table(0), ingest.Config()),
        rules.conserved(n_lost=n_refused, n_new=0, n_leaked=2, n=n_kept, suite="s"),
        rules.conserved(n_lost=0, n_new=0, n_leaked=0, n=n_kept, suite="s"),
        *(
            drift.enough({"state": state, "n_new": n_refused}, drift.Config())
            for state in ("no champion", "no reference", "few", "compared")
        ),
        nobody_erased(n_refused),
        replaces_its_kind(True, n_refused == 0),
        behind_its_gates(["check_features"][:n_refused]),
        label_blind_augmentation(n_refused > 0, ["acl2021-2.1"][:n_refused]),
        Verdict("better_than_champion", "pass"),
        Verdict("better_than_champion", "warn", names={"was_champion": ("3",)}),
        Verdict("serving_parity", "block", observed=Number(2e-7), threshold=1e-5, n=3,
                n_unit="recordings"),
    ]  # fmt: skip
    for one in verdicts:
        said = words.sentence(one, language)
        assert said == words.found(one, language), one  # no words of an expectation
        assert one.id not in said
        assert not {"{", "}", "–", "None", "  "} & {
            said[i : i + k] for k in (1, 2, 4) for i in range(len(said))
        }, said
        if n_refused == 3 and one.id != "ward_noise_files":  # files are not people
            assert "3" not in re.findall(r"\d+", said), said


def test_a_run_that_new_recordings_woke_is_called_by_their_snapshot() -> None:
    run = facts(triggered_by="event:training:ab12cd34ab12cd34")
    assert sentences.name_of(EN, run).endswith(
        "woken by new recordings (snapshot ab12cd34ab12cd34)"
    )
    assert sentences.name_of(EN, facts(triggered_by="airflow:scheduler")).endswith("by schedule")
