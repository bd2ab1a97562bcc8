"""Probes find what tells the label beside the illness, and chance does not pass for a finding."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import pytest

from expectations import policy
from expectations.gates import confounds
from expectations.words import LANGUAGES
from expectations.words.verdicts import sentence
from spira_tasks.contract.verdict import Status, Verdict
from spira_tasks.evaluation import metadata, probes
from spira_tasks.speech import background
from spira_tasks.speech.audio import SAMPLE_RATE_HZ
from spira_tasks.stages import confounds as stage

RULES = policy.read().rules
N = 80
ILL = np.tile([0.0, 1.0], N // 2)
Numbers = np.ndarray[Any, Any]


def heard(apart: float, n: int = N, seed: int = 0) -> probes.Heard:
    """What is heard where one measure of twelve is so many standard deviations apart."""
    measures = np.random.default_rng(seed).standard_normal((n, 12))
    measures[:, 3] += apart * ILL[:n]
    return probes.hear(measures, ILL[:n], n_permutations=400, n_resamples=200, seed=seed)


def judged(**found: probes.Heard) -> dict[str, Verdict]:
    given = {name: asdict(one) for name, one in found.items()}
    verdicts = confounds.verdicts({"probes": given, "unheard": [], "permuted": None}, RULES)
    return {verdict.id: verdict for verdict in verdicts}


def test_what_tells_the_label_is_found_and_blocks_and_is_named() -> None:
    loud = heard(2.5)
    assert loud.low > 0.8
    found = judged(ambient=heard(0.0), edges=loud, channel=loud)
    for id, word in (("noise_only_control", "noise"), ("channel_heard", "channel")):
        assert found[id].status == "block"
        assert found[id].severity == "critical"
        assert word in sentence(found[id], "en")
    assert found["noise_only_control"].names["heard_in"] == ("edges",)
    assert "first and last moments" in sentence(found["noise_only_control"], "en")


EVEN, BY_CLASS = (0.5, 0.5), (0.2, 0.8)


def people(p_woman: tuple[float, float], seed: int = 1) -> pd.DataFrame:
    """One recording a person; of the controls and of the patients so many are women."""
    rng = np.random.default_rng(seed)
    is_woman = rng.random(N) < np.where(ILL == 1, p_woman[1], p_woman[0])
    return pd.DataFrame(
        {
            "subject_id": [f"s{number}" for number in range(N)],
            "label": ILL,
            "split": np.where(rng.random(N) < 0.4, "test", "train"),
            "sex": np.where(is_woman, "F", "M"),
            "age": rng.integers(20, 80, N).astype(float),
            "hospital_id": "a",
            "device_model": rng.integers(9, size=N).astype(str),
            "mask_type": np.array(["NONE", None], object)[rng.integers(2, size=N)],
        }
    )


def read_alone(p_woman: tuple[float, float], seed: int) -> Verdict:
    table = people(p_woman, seed)
    found = stage.probed(metadata.encoded(table), table, RULES.probes, metadata.views)
    assert found is not None
    return judged(metadata=found)["metadata_alone"]


def test_one_column_that_tells_the_label_is_found_among_many_and_named() -> None:
    found = [read_alone(BY_CLASS, seed) for seed in range(20)]
    assert [one.status for one in found].count("block") >= 16
    said = [sentence(one, "en") for one in found]
    assert sum("told from controls by sex alone" in one for one in said) > 8
    clean = [read_alone(EVEN, seed).status for seed in range(40)]
    assert clean.count("block") <= 1


def test_chance_passes_with_enough_people_and_never_blocks() -> None:
    statuses = [judged(channel=heard(0.0, seed=seed))["channel_heard"].status for seed in range(40)]
    assert statuses.count("block") <= 1
    assert statuses.count("pass") > 25


def test_a_few_people_leave_it_open_whatever_they_show() -> None:
    found = judged(channel=heard(2.5, n=18))["channel_heard"]
    assert (found.status, found.severity, found.stops) == ("insufficient", "warning", False)
    nothing = judged()["channel_heard"]
    assert nothing.status == "insufficient"
    assert "not enough recordings" in sentence(nothing, "en")


@pytest.mark.parametrize(
    ("auc", "low", "high", "by_chance", "status"),
    [
        (0.75, 0.62, 0.88, 0.002, "block"),
        (0.65, 0.61, 0.69, 0.002, "block"),
        (0.71, 0.55, 0.85, 0.002, "block"),
        (0.71, 0.55, 0.85, 0.02, "insufficient"),  # as few people may show by chance
        (0.62, 0.55, 0.68, 0.002, "insufficient"),  # beyond chance, and not much
        (0.52, 0.34, 0.71, 0.40, "insufficient"),  # too few people to exclude it
        (0.52, 0.42, 0.62, 0.40, "pass"),
        (0.585, 0.571, 0.599, 0.002, "pass"),  # a little, and surely not more
    ],
)
def test_proof_blocks_exclusion_passes_and_the_rest_is_open(
    auc: float, low: float, high: float, by_chance: float, status: Status
) -> None:
    one = probes.Heard(auc, low, high, 0.58, by_chance, 60, 60)
    assert judged(channel=one)["channel_heard"].status == status


def test_the_folds_hold_whole_people_and_a_person_of_both_classes_is_left_out() -> None:
    values = pd.DataFrame({"one": [1.0, 3.0, 5.0, np.nan, 7.0], "none": np.nan})
    label = pd.Series([1, 1, 0, 0, 1])
    means, ill = probes.of_people(values, label, pd.Series(["a", "a", "b", "c", "c"]))
    assert means.to_dict() == {"one": {"a": 2.0, "b": 5.0}}
    assert ill.tolist() == [1, 0]
    fold = probes.folds(ILL, np.random.default_rng(0))
    assert {int(ILL[fold == number].sum()) for number in range(probes.N_FOLDS)} == {4}


def test_one_person_of_a_class_leaves_nobody_to_be_fitted_on() -> None:
    for n_patients, is_heard in ((1, False), (2, True)):
        ill = pd.Series([0] * 2 + [1] * n_patients)
        values = pd.DataFrame({"level": np.arange(len(ill)) % 2.0})
        rows = pd.DataFrame({"label": ill, "subject_id": ill.index.astype(str)})
        assert (stage.probed(values, rows, RULES.probes) is not None) is is_heard
    two = stage.probed(values[1:3], rows[1:3], RULES.probes)
    assert two is None


def learned(measures: Numbers, person: Numbers, tested: Numbers) -> Verdict:
    label = pd.Series(ILL[person])
    auc = probes.permuted(measures, label, pd.Series(person), tested, n_permutations=200, seed=0)
    found = {"auc": asdict(auc), "n_patients": 20, "n_controls": 20}
    return confounds.permuted_label(found, RULES.permuted_label)


def test_a_person_on_both_sides_of_the_split_makes_random_labels_learnable() -> None:
    rng = np.random.default_rng(5)
    person = np.arange(N).repeat(4)
    voices = rng.standard_normal((N, 40))[person] + 0.3 * rng.standard_normal((4 * N, 40))
    by_person = learned(voices, person, person >= N // 2)
    assert by_person.status == "pass"
    leaking = learned(voices, person, rng.random(4 * N) < 0.3)
    assert (leaking.status, leaking.firm) == ("block", True)
    assert "in training and in test" in sentence(leaking, "en")


@pytest.mark.parametrize(("sex", "status"), [("", "pass"), ("confounded", "block")])
def test_a_model_must_know_more_than_who_is_recorded_and_where(sex: str, status: str) -> None:
    table = people((0.1, 0.9) if sex else EVEN)
    woman = table["sex"].eq("F")
    said = woman.astype(float) if sex else 0.2 + 0.6 * table["label"]
    scores = said + 0.2 * np.random.default_rng(2).random(N)
    test = table.assign(clean=scores)[table["split"] == "test"]
    found = metadata.measure(table, test, n_resamples=500, seed=0)
    assert (found["baseline"]["value"] > 0.8) == bool(sex)
    verdict = confounds.metadata_baseline({"metadata_baseline": found}, RULES.metadata_baseline)
    assert verdict.status == status
    found["gain"] = {"value": 0.0, "low": -0.03, "high": 0.03}
    worse = confounds.metadata_baseline({"metadata_baseline": found}, RULES.metadata_baseline)
    assert worse.status == "block"
    for language in LANGUAGES:
        assert "{" not in sentence(worse, language)


def test_the_channel_is_heard_in_noise_of_any_level_and_colour() -> None:
    rng = np.random.default_rng(3)
    white = rng.standard_normal(2 * SAMPLE_RATE_HZ)
    coloured = np.convolve(white, [1, 0.6, 0.3])[: len(white)]
    spectrum = np.fft.rfft(white)
    spectrum[np.fft.rfftfreq(len(white), 1 / SAMPLE_RATE_HZ) > 6200] *= 0.03
    narrow = np.fft.irfft(spectrum)
    gated = white * np.where(np.arange(len(white)) // 800 % 4 == 0, 0.02, 1.0)

    def of(waveform: Numbers, level: float = 1000.0) -> dict[str, float]:
        parts = [np.round(level * waveform).astype(np.int16)]
        return background.room(parts) | background.channel(parts)

    plain = of(white)
    for same in (of(coloured), of(white, 300.0)):
        assert same["end_6000_hz_db"] == pytest.approx(plain["end_6000_hz_db"], abs=2.5)
        assert same["gated_1000_hz_db"] == pytest.approx(plain["gated_1000_hz_db"], abs=1.5)
    assert of(narrow)["end_6000_hz_db"] > plain["end_6000_hz_db"] + 10
    assert of(gated)["gated_1000_hz_db"] > plain["gated_1000_hz_db"] + 6
    hushed = white * (np.arange(len(white)) // 800 % 4 > 0)
    assert (of(hushed)["silence"], of(white, 2.0)["silence"]) == (0.25, 0.0)
    assert of(white, 300.0)["mean_8_db"] == pytest.approx(plain["mean_8_db"] - 10.5, abs=0.2)


def test_a_recording_shorter_than_a_frame_has_measures_too() -> None:
    measured = background.of_edges(np.zeros(100, np.int16))
    assert set(measured) == {*background.ROOM, *background.CHANNEL}
    assert all(np.isfinite(value) for value in measured.values())
