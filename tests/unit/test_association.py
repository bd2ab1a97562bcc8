"""What goes with the label beside the voice: device, site, channel, room, age, in each task."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from suites import ALIKE, LEVEL, WEAK, Table, failing, follows, recordings, split

from expectations.suites import training_set
from spira_tasks import quality
from spira_tasks.contract.verdict import Verdict
from spira_tasks.evaluation.association import (
    cramers_v,
    difference,
    n_unbalanced,
    of_task,
    one_class_share,
)


def follows_from(*columns: str) -> dict[str, str]:
    """What follows where each of these columns tells the label."""
    return {
        name: status
        for column in columns
        for name, status in (
            (f"{WEAK}({column}, weak)", "warn"),
            (f"{WEAK}({column}, strong)", "block"),
            (f"{LEVEL}({column})", "block"),
        )
    }


def test_a_channel_that_tells_the_label_blocks() -> None:
    columns = ("device_model", "hospital_id", "capture_ns", "prompt_version")
    table = split(recordings())
    ill = (table["label"] == 1).to_numpy()
    for column in columns:
        table[column] = ill if column == "capture_ns" else np.where(ill, "one", "other")
    found = failing(training_set.suite, table)
    found.pop("expect_both_classes_in_every_level(hospital_id)", None)
    assert found == follows_from(*columns)


@pytest.mark.parametrize("empty_class", [0, 1])
def test_a_channel_written_down_for_one_class_alone_blocks(empty_class: int) -> None:
    """Voice notes of patients come without what the app of the controls writes down."""
    columns = ["app", "capture_ns", "codec_original", "prompt_version"]
    table = split(recordings())
    table.loc[table["label"] == empty_class, columns] = None
    assert failing(training_set.suite, table) == follows_from(*columns)


def test_a_channel_often_left_empty_in_one_class_is_reported() -> None:
    table = split(recordings())
    subject = table.index // 2
    table.loc[(table["label"] == 1) & (subject % 10 < 4), "app"] = None  # two patients in five
    assert failing(training_set.suite, table) == {f"{WEAK}(app, weak)": "warn"}


@pytest.mark.parametrize("n", [40, 240])
def test_channels_left_empty_now_and_then_go_with_neither_class(n: int) -> None:
    table = split(recordings(n))
    clean = failing(training_set.suite, table)
    rng = np.random.default_rng(n)
    for column in ("app", "device_model", "capture_ns", "codec_original", "hospital_id"):
        lost = rng.random(n // 2).repeat(2) < 0.1
        table.loc[lost, column] = None
    assert failing(training_set.suite, table) == clean


def test_what_is_empty_of_a_person_is_no_channel() -> None:
    """Age and mask are asked for at the bedside: where they lack, nothing is heard of it."""
    table = split(recordings())
    table.loc[table["label"] == 1, ["mask_type", "age"]] = None
    assert failing(training_set.suite, table) == {}


def test_a_channel_that_goes_with_the_label_a_little_is_reported() -> None:
    table = split(recordings(1_000))
    subject = table.index // 2
    table["device_model"] = np.where(subject % 20 < 7 + 8 * (table["label"] == 1), "one", "other")
    assert failing(training_set.suite, table) == {f"{WEAK}(device_model, weak)": "warn"}


def test_a_site_of_one_class_with_many_of_the_people_blocks_though_the_rest_is_even() -> None:
    table = split(recordings(1_000))
    subject = table.index // 2
    table["hospital_id"] = np.where((table["label"] == 1) & (subject % 4 != 3), "third", "rest")
    assert follows(training_set.suite, table, f"{LEVEL}(hospital_id)") == "block"


def test_a_room_that_tells_the_label_blocks() -> None:
    table = split(recordings())
    ambient = table["task"] == "VOWEL"
    table.loc[ambient, "task"] = "AMBIENT"
    table.loc[ambient, "level_dbfs"] = np.where(table.loc[ambient, "label"] == 1, -30.0, -60.0) + (
        np.arange(ambient.sum()) / 100
    )
    name = f"{WEAK}(level_dbfs, AMBIENT strong)"
    assert follows(training_set.suite, table, name) == "block"


def test_an_age_that_goes_with_the_label_blocks_when_the_classes_are_far_apart() -> None:
    table = split(recordings())
    table["age"] = table["age"] + 25 * table["label"].astype(int)
    assert follows(training_set.suite, table, f"{WEAK}(age, weak)") == "warn"
    assert follows(training_set.suite, table, f"{ALIKE}(age, alike)") == "warn"
    assert follows(training_set.suite, table, f"{ALIKE}(age, limit)") == "block"


def test_a_sex_that_goes_with_the_label_blocks() -> None:
    table = split(recordings())
    table["sex"] = np.where(table["label"] == 1, "F", "M")
    assert follows(training_set.suite, table, f"{ALIKE}(sex, limit)") == "block"


def test_a_site_with_many_people_needs_some_of_both_classes() -> None:
    table = split(recordings(1_000))
    subject = table.index // 2
    lone = (table["label"] == 0) & (subject % 20 == 0) | (subject == 1)
    table["hospital_id"] = np.where(lone, "lone", "rest")
    name = "expect_both_classes_in_every_level(hospital_id)"
    assert follows(training_set.suite, table, name) == "warn"


CHANNEL_OF_SENTENCES = ("codec_original", "capture_ns", "device_model", "app", "hospital_id")


@pytest.mark.parametrize("sentence_is", ["last", "first"])
def test_channels_that_tell_the_label_in_one_task_alone_block(sentence_is: str) -> None:
    """A model is trained on one task: the vowels make its sentences no less confounded."""
    table = split(recordings(400))
    if sentence_is == "first":
        table["task"] = table["task"].map({"SENTENCE": "VOWEL", "VOWEL": "SENTENCE"})
    sentence, ill = table["task"] == "SENTENCE", table["label"] == 1
    for column in CHANNEL_OF_SENTENCES:
        values = (True, False) if column == "capture_ns" else ("one", "other")
        table.loc[sentence & ill, column], table.loc[sentence & ~ill, column] = values
    report = quality.check(table, training_set.suite(table))
    found = {v.id: v for v in report.verdicts if v.status != "pass"}
    for column in CHANNEL_OF_SENTENCES:
        assert found[f"{WEAK}({column}, strong)"].status == "block"
        assert value(found[f"{WEAK}({column}, strong)"]) == pytest.approx(1.0)
        assert found[f"{WEAK}({column}, strong)"].n == 200  # people
        assert found[f"{WEAK}({column}, strong)"].names == {"task": ("SENTENCE",)}
        assert found[f"{LEVEL}({column})"].status == "block"


def value(verdict: Verdict) -> float | None:
    return verdict.observed.value if verdict.observed else None


def repeated(n_times: int) -> Table:
    """A training set in which everybody says the sentence ``n_times``, in the order of time."""
    table = split(recordings(400))
    table = table[table["task"] == "SENTENCE"]
    again = [
        table.assign(
            record_id=table["record_id"] + f"-{number}",
            audio_sha256=f"{number:02d}" + table["audio_sha256"].str[2:],
        )
        for number in range(n_times)
    ]
    return pd.concat(again).sort_values("record_id", ignore_index=True)


def test_a_device_that_every_patient_and_no_control_has_once_blocks() -> None:
    table = repeated(5)
    table["app_version"] = np.where((table["label"] == 1) & (table.index % 5 == 4), "old", "new")
    report = quality.check(table, training_set.suite(table))
    found = {v.id: v for v in report.verdicts if v.status == "block"}
    assert set(found) == {f"{WEAK}(app_version, strong)", f"{LEVEL}(app_version)"}
    assert value(found[f"{WEAK}(app_version, strong)"]) == pytest.approx(1.0)


def test_a_device_that_all_have_and_patients_nearly_always_blocks() -> None:
    table = repeated(5)
    lone = table.index % 5 == 3
    table["app_version"] = np.where((table["label"] == 1) ^ lone, "old", "new")
    found = failing(training_set.suite, table)
    assert found == {f"{WEAK}(app_version, weak)": "warn", f"{WEAK}(app_version, strong)": "block"}


def test_a_level_among_many_others_that_patients_alone_have_blocks() -> None:
    """Everybody's set of levels is another, and yet one level is in the patients' sets alone."""
    table = repeated(5)
    others = pd.Series([f"v{number // 5}-{number % 5}" for number in table.index])
    table["app_version"] = others.mask((table["label"] == 1) & (table.index % 5 == 0), "old")
    assert follows(training_set.suite, table, f"{LEVEL}(app_version)") == "block"


def test_somebody_who_is_well_again_counts_in_both_classes() -> None:
    table = repeated(2)
    table["label"] = pd.Series(table.index % 2, dtype="Int8")  # ill the first time, well the second
    table["app_version"] = np.where(table["label"] == 1, "old", "new")
    assert follows(training_set.suite, table, f"{WEAK}(app_version, strong)") == "block"


@pytest.mark.parametrize("n", [48, 240])
def test_people_who_change_their_telephones_by_chance_seldom_seem_confounded(n: int) -> None:
    """Four tasks and a column are eight looks; what everybody does at random goes with nothing."""
    rng = np.random.default_rng([5, n])
    group = pd.Series(np.arange(n).repeat(3))
    ill = pd.Series((np.arange(n) % 2 == 1).repeat(3))
    alarms = 0
    for _ in range(300):
        found = of_task(pd.Series(rng.choice([*"abcd"], 3 * n)), ill, group)
        alarms += any(one["value"] > max(0.2, one["chance"]) for one in found["association"])
        alarms += found["one_class"][0]["value"] > 0.2
    assert alarms <= 3


def people(n: int) -> tuple[np.random.Generator, pd.Series]:
    rng = np.random.default_rng([8, n])
    return rng, pd.Series(rng.integers(0, 2, n) == 1)


def test_cramers_v_knows_chance_from_association() -> None:
    rng, patient = people(400)
    assert cramers_v(pd.crosstab(patient, patient))[0] == pytest.approx(1.0)
    assert cramers_v(pd.crosstab(patient, "same"))[0] == 0.0
    beyond = 0
    for _ in range(300):
        v, chance = cramers_v(pd.crosstab(patient, rng.integers(0, 5, 400)))
        beyond += v > chance
    assert beyond <= 3  # one in a thousand is expected


@pytest.mark.parametrize("n", [24, 80, 400])
def test_people_without_a_confound_seldom_seem_to_have_one(n: int) -> None:
    rng, patient = people(n)
    alarms = 0
    for _ in range(200):
        table = pd.crosstab(patient, rng.integers(0, 4, n))
        apart, chance = difference(pd.DataFrame(rng.normal(50, 15, n)), patient)
        alarms += one_class_share(table, patient) > 0.2
        alarms += apart > max(0.5, chance)
        alarms += n_unbalanced(table) > 0
    assert alarms <= 6  # of 600; one in a thousand looks, and four levels a look
