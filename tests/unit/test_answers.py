"""What a model says of one recording: its limits, its band, and the file that holds both."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from expectations.limits import AUDIO
from spira_tasks.speech import audio
from spira_tasks.speech.answers import Policy, answer, decide, outside
from spira_tasks.speech.classifier import Classifier, ClassifierSpec
from spira_tasks.speech.probe import Quality, quality
from spira_tasks.stages import evaluate, register


@pytest.fixture
def measured() -> Quality:
    sound = audio.decode(register.example(), max_seconds=40)
    return quality(sound, audio.to_pcm16(sound))


def test_probabilities_in_the_band_are_inconclusive_and_its_ends_too() -> None:
    policy = Policy(40, inconclusive=(0.4, 0.6))
    decisions = [decide(p, 0.5, policy) for p in (0.39, 0.4, 0.5, 0.6, 0.61)]
    assert decisions == ["negative", "inconclusive", "inconclusive", "inconclusive", "positive"]
    assert [decide(p, 0.5, Policy(40)) for p in (0.49, 0.5)] == ["negative", "positive"]


def test_a_policy_holds_the_limits_of_the_gates_for_its_task(tmp_path: Path) -> None:
    policy = evaluate.policy("SENTENCE", (0.4, 0.6))
    of_task = [one for one in AUDIO if not one.tasks or "SENTENCE" in one.tasks]
    limits = [(one.measure, one.limit, one.typical) for one in policy.limits]
    assert limits == [(one.column, one.limit, one.typical) for one in of_task]
    assert policy.max_seconds == 40
    policy.save(tmp_path)
    assert Policy.load(tmp_path) == policy


def test_a_measure_outside_is_named_with_its_side_and_what_is_not_measured_is_not(
    measured: Quality,
) -> None:
    (snr,) = (one for one in evaluate.policy("SENTENCE", None).limits if one.measure == "snr_db")
    assert outside(replace(measured, snr_db=4.0), snr, snr.limit) == []
    assert outside(replace(measured, snr_db=4.0), snr, snr.typical) == ["snr_db_low"]
    assert outside(replace(measured, snr_db=4.0), snr, (None, 3.0)) == ["snr_db_high"]
    assert outside(replace(measured, snr_db=None), snr, snr.typical) == []


def test_an_unusual_recording_is_answered_with_a_flag() -> None:
    classifier = Classifier(ClassifierSpec(options={"n_hidden": 2}))
    pcm16 = audio.read_pcm16(register.example())
    quiet = audio.encode_wav(np.rint(pcm16 * 0.05).astype(np.int16))
    policy = evaluate.policy("SENTENCE", None)
    assert answer(classifier, policy, register.example()).unusual == ()
    found = answer(classifier, policy, quiet)
    assert "level_dbfs_low" in found.unusual
    assert (found.record_again, found.decision is None) == ((), False)


def test_damaged_weights_give_an_error_and_no_decision() -> None:
    classifier = Classifier(ClassifierSpec(options={"n_hidden": 2}))
    with torch.no_grad():
        next(classifier.network.parameters()).fill_(float("nan"))
    with pytest.raises(ArithmeticError, match="no number"):
        answer(classifier, Policy(40), register.example())
