"""What the suites of the training set, the features and the ward noises let pass and block."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from suites import (
    BETWEEN,
    COUNT,
    EQUAL,
    IN_SET,
    NEAR,
    NOT_IN_SET,
    NOT_NULL,
    ONE,
    PAIR,
    REGEX,
    UNIQUE,
    Table,
    checked,
    failed,
    failing,
    feature_table,
    firm,
    first,
    follows,
    recordings,
    split,
    ward_noises,
)

from expectations.suites import features, labels, training_set, ward_noise


def test_a_clean_training_set_passes() -> None:
    assert failing(training_set.suite, split(recordings())) == {}


def test_a_voice_on_two_sides_is_blocked() -> None:
    table = split(recordings())
    table.loc[0, "split"] = "test"
    assert failing(training_set.suite, table) == {f"{ONE}(subject_id, split)": "block"}


def test_a_recording_on_two_sides_is_blocked() -> None:
    table = split(recordings())
    table.loc[0, "audio_sha256"] = table.loc[table["split"] == "test", "audio_sha256"].iloc[0]
    assert failing(training_set.suite, table) == {f"{ONE}(audio_sha256, split)": "block"}


def test_a_copy_on_another_side_is_blocked_and_on_the_same_side_not() -> None:
    table = split(recordings())
    sentences = table[table["task"] == "SENTENCE"]
    one = sentences.index[sentences["split"] == "train"][0]
    sound = ["fingerprint", "duration_seconds"]
    for side, verdicts in (("test", ["block"]), ("train", [])):
        other = sentences.index[sentences["split"] == side][1]
        spoilt = table.copy()
        spoilt.loc[other, sound] = table.loc[one, sound]
        found = failing(training_set.suite, spoilt)
        assert list(found.values()) == verdicts
        assert all(name.startswith(NEAR) for name in found)


def test_somebody_erased_blocks_and_nobody_may_waive_it() -> None:
    table = first(1, "erased", True)(split(recordings()))
    report = checked(training_set.suite, table)
    assert failed(report) == {f"{IN_SET}(erased)": "block"}
    assert f"{IN_SET}(erased)" in firm(report)


def test_a_side_without_one_of_the_classes_is_blocked() -> None:
    table = split(recordings(600))
    table = table[(table["split"] != "test") | (table["label"] == 1)]
    assert failing(training_set.suite, table) == {f"{COUNT}(subject_id, controls in test)": "block"}


@pytest.mark.parametrize("without", [None, 0])
def test_people_whom_the_model_never_hears_do_not_count(without: int | None) -> None:
    """No sentences at all, or none of the controls: the vowels of everybody are there."""
    table = split(recordings())
    sentences = table["task"] == "SENTENCE"
    table = table[~sentences | ((table["label"] == 1) if without == 0 else False)]
    found = failing(training_set.suite, table)
    missing = ["controls"] if without == 0 else ["controls", "patients"]
    names = {f"{who} in {side}" for who in missing for side in training_set.SPLITS}
    assert {f"{COUNT}(subject_id, {name})" for name in names} <= found.keys()
    assert {found[f"{COUNT}(subject_id, {name})"] for name in names} == {"block"}


@pytest.mark.parametrize("value", [None, "holdout"])
def test_every_recording_has_one_of_three_sides(value: str | None) -> None:
    table = split(recordings())
    table.loc[[0, 1], "split"] = value
    assert list(failing(training_set.suite, table).values()) == ["block"]


def test_classes_out_of_balance_are_reported_and_then_blocked() -> None:
    table = split(recordings(1_000))
    patients = table["label"] == 1
    some, few = patients & (table.index % 20 >= 14), patients & (table.index % 40 >= 38)
    name = "expect_column_mean_to_be_between(label, {})"
    for kept, aspect, status in ((some, "typical", "warn"), (few, "limit", "block")):
        rest = table[~patients | kept]
        assert follows(training_set.suite, rest, name.format(aspect)) == status


def test_few_subjects_are_no_reason_to_block() -> None:
    verdicts = failing(training_set.suite, split(recordings(40)))
    assert set(verdicts.values()) == {"warn"}
    assert all("subject_id" in name for name in verdicts)


@pytest.mark.parametrize(
    ("column", "status"), [("label_version", "block"), ("consent_version", "warn")]
)
def test_two_versions_do_not_mix(column: str, status: str) -> None:
    table = split(recordings())
    table[column] = np.where(table.index < 100, 1, 2) if column == "label_version" else "2"
    table.loc[:99, column] = 1 if column == "label_version" else "1"
    assert failing(training_set.suite, table) == {f"{COUNT}({column})": status}


def labelled() -> Table:
    return split(recordings()).assign(label_source="clinician", label_confidence=0.95)


def test_labels_of_clinicians_who_are_sure_pass() -> None:
    assert failing(labels.suite, labelled()) == {}
    assert failing(labels.suite, split(recordings())) == {}  # the published layout has no sources


@pytest.mark.parametrize("side", ["validation", "test"])
def test_a_weak_label_where_a_model_is_measured_blocks_and_nobody_may_waive_it(side: str) -> None:
    table = labelled()
    table.loc[table.index[table["split"] == side][0], "label_source"] = "weak"
    report = checked(labels.suite, table)
    name = f"{NOT_IN_SET}(label_source, measured)"
    assert failed(report)[name] == "block"
    assert name in firm(report)


@pytest.mark.parametrize(
    ("share", "column", "value", "name"),
    [
        (0.7, "label_source", "weak", f"{NOT_IN_SET}(label_source, learned)"),
        (0.4, "label_source", "weak", None),
        (0.4, "label_confidence", 0.6, f"{BETWEEN}(label_confidence)"),
        (0.1, "label_confidence", 0.6, None),
        (0.1, "label_source", None, f"{NOT_NULL}(label_source)"),
    ],
)
def test_many_weak_unsure_or_nameless_labels_to_learn_from_are_reported(
    share: float, column: str, value: object, name: str | None
) -> None:
    table = labelled()
    heard = table.index[(table["split"] == "train") & (table["trained"] == 1)]
    table.loc[heard[: round(share * len(heard))], column] = value
    assert failing(labels.suite, table) == ({name: "warn"} if name else {})


def test_a_test_on_what_no_clinician_said_is_reported() -> None:
    table = labelled()
    table.loc[table["split"] == "test", "label_source"] = "hospital_record"
    assert failing(labels.suite, table) == {f"{IN_SET}(label_source, gold)": "warn"}


def test_two_labels_of_a_session_put_it_aside() -> None:
    table = labelled()
    table.loc[1, "label"] = 1 - table.loc[1, "label"]
    assert failing(labels.suite, table) == {f"{ONE}(session_id, label)": "quarantine"}


@pytest.mark.parametrize(
    ("column", "value", "name", "status"),
    [
        ("finite", False, f"{IN_SET}(finite)", "quarantine"),
        ("n_windows", 0, f"{BETWEEN}(n_windows)", "quarantine"),
        ("std", 0.0, f"{BETWEEN}(std)", "quarantine"),
        ("mean", np.nan, f"{NOT_NULL}(mean)", "quarantine"),
        ("max", -3.0, f"{PAIR}(max, min)", "quarantine"),
        ("features", "r1.npy", f"{REGEX}(features)", "quarantine"),
        ("record_id", "r1", f"{UNIQUE}(record_id)", "block"),
        ("parity_difference", 0.01, f"{BETWEEN}(parity_difference)", "block"),
        ("parity_difference", np.inf, f"{BETWEEN}(parity_difference)", "block"),
    ],
)
def test_a_wrong_matrix_is_put_aside_and_a_wrong_computation_blocks(
    column: str, value: object, name: str, status: str
) -> None:
    assert failing(features.suite, first(1, column, value)(feature_table())) == {name: status}


@pytest.mark.parametrize(("column", "value"), [("n_frames", 301), ("n_bins", 80), ("schema", "x")])
def test_features_of_other_code_block(column: str, value: object) -> None:
    every = feature_table().assign(**{column: value})
    assert failing(features.suite, every) == {f"{EQUAL}({column}, {column}_of_code)": "block"}
    one = first(1, column, value)(feature_table())
    assert set(failing(features.suite, one).values()) == {"block"}


def test_clean_features_pass() -> None:
    assert failing(features.suite, feature_table()) == {}


@pytest.mark.parametrize(
    ("spoil", "name", "status"),
    [
        (first(2, "noise_id", "noise-1"), f"{UNIQUE}(noise_id)", "block"),
        (first(1, "pool", "test"), f"{IN_SET}(pool)", "block"),
        (first(1, "waveform", "n.wav"), f"{REGEX}(waveform)", "quarantine"),
        (first(1, "peak", 1e-4), f"{BETWEEN}(peak)", "quarantine"),
        (
            first(1, "duration_seconds", 3.0),
            f"{PAIR}(duration_seconds, longest_recording_seconds)",
            "warn",
        ),
        (first(1, "syllabic_modulation_db", 4.5), f"{BETWEEN}(syllabic_modulation_db)", "warn"),
    ],
)
def test_a_ward_noise_that_is_none_is_seen(
    spoil: Callable[[Table], Table], name: str, status: str
) -> None:
    assert failing(ward_noise.suite, spoil(ward_noises())) == {name: status}


def test_a_clean_bank_passes_and_an_empty_one_is_reported() -> None:
    assert failing(ward_noise.suite, ward_noises()) == {}
    untagged = ward_noises().assign(hospital_id=pd.Series(None, dtype="str"))
    assert failing(ward_noise.suite, untagged) == {}  # recorded, no more
    assert set(failing(ward_noise.suite, ward_noises().iloc[:0]).values()) == {"warn"}
