"""The loop: it learns, and the same seed learns the same."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from spira_tasks.speech import cpu
from spira_tasks.speech.augmentation import (
    MAX_NOISE_PEAK,
    MIN_NOISE_PEAK,
    NoisePolicy,
    insert_ward_noise,
    recording_rng,
)
from spira_tasks.speech.features import FeatureExtractor, FeatureSpec
from spira_tasks.speech.model import SpiraConv
from spira_tasks.speech.training import Epoch, Example, Learner, Schedule, fit, noam
from spira_tasks.stages.train import with_expected_labels

SPEC = FeatureSpec(window_seconds=1.0, step_seconds=1.0, n_mels=20, n_mfcc=20)


def breathy(record_id: str, patient: bool) -> Example:
    """One second of a tone; patients' has breath noise that controls' has not."""
    rng = recording_rng(7, record_id)
    tone = 0.2 * np.sin(2 * np.pi * rng.uniform(90, 220) * np.arange(16_000) / 16_000)
    sound = tone + (0.05 if patient else 0.002) * rng.standard_normal(16_000)
    return Example(record_id, torch.from_numpy((sound * 32_767).astype(np.int16)), float(patient))


TRAIN = [breathy(f"t{number}", patient=bool(number % 2)) for number in range(24)]
VAL = [breathy(f"v{number}", patient=bool(number % 2)) for number in range(8)]
BANK = [torch.from_numpy(np.random.default_rng(5).normal(0, 0.05, 48_000)).float()]


def train(seed: int, n_epochs: int = 6) -> tuple[nn.Module, list[Epoch]]:
    cpu.prepare(n_threads=2)
    torch.manual_seed(seed)
    model = SpiraConv(SPEC.n_frames, SPEC.n_bins, dropout=0.2)
    schedule = Schedule(n_epochs, warmup_steps=10)
    learner = Learner(model, schedule)
    epochs = fit(
        learner,
        FeatureExtractor(SPEC),
        TRAIN,
        VAL,
        schedule=schedule,
        bank=BANK,
        noise=NoisePolicy(0, 1),
        seed=seed,
    )
    return learner.average, list(epochs)


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, list[Epoch]]:
    return train(seed=1)


def test_weights_change_and_the_loss_falls(trained: tuple[nn.Module, list[Epoch]]) -> None:
    """Two earlier SPIRA trainers lost the gradient step; no test of theirs said so."""
    model, epochs = trained
    torch.manual_seed(1)
    untrained = SpiraConv(SPEC.n_frames, SPEC.n_bins, dropout=0.2)
    for before, after in zip(untrained.parameters(), model.parameters(), strict=True):
        assert not torch.equal(before, after)
    assert epochs[-1].train_loss < epochs[0].train_loss - 0.1
    assert epochs[-1].val_loss < 0.5  # guessing costs log 2 = 0.69


def test_the_same_seed_gives_the_same_weights_bit_for_bit(
    trained: tuple[nn.Module, list[Epoch]],
) -> None:
    again, epochs = train(seed=1)
    assert epochs == trained[1]
    for first, second in zip(trained[0].parameters(), again.parameters(), strict=True):
        assert torch.equal(first, second)


def digest(model: nn.Module) -> str:
    values = [parameter.detach().numpy().tobytes() for parameter in model.parameters()]
    return hashlib.sha256(b"".join(values)).hexdigest()


def test_how_openmp_waits_changes_no_bit_of_the_weights() -> None:
    """The library reads the policy when it is loaded: here PASSIVE, in another process ACTIVE."""
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    program = "import test_training as here; print(here.digest(here.train(1, n_epochs=1)[0]))"
    process = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parent,
        env=os.environ | {"OMP_WAIT_POLICY": "ACTIVE", "OMP_DISPLAY_ENV": "TRUE"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "OMP_WAIT_POLICY = 'ACTIVE'" in process.stderr
    assert process.stdout.strip() == digest(train(1, n_epochs=1)[0])


def test_a_step_waits_passively_even_where_nobody_set_it() -> None:
    """``python -m spira_tasks`` is what a process, a container and a pod start."""
    program = (
        "import contextlib, runpy, sys; sys.argv = ['spira_tasks', '--help']\n"
        "with contextlib.suppress(SystemExit):\n"
        "    runpy.run_module('spira_tasks', run_name='__main__')\n"
        "assert 'torch' not in sys.modules\n"
        "import torch"
    )
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    process = subprocess.run(
        [sys.executable, "-c", program],
        env=environment | {"OMP_DISPLAY_ENV": "TRUE"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in process.stderr


def test_another_seed_gives_other_weights(trained: tuple[nn.Module, list[Epoch]]) -> None:
    other, _ = train(seed=2, n_epochs=1)
    assert not torch.equal(next(other.parameters()), next(trained[0].parameters()))


def test_stopping_early_is_no_longer_iterating() -> None:
    _, one = train(seed=1, n_epochs=1)
    _, three = train(seed=1, n_epochs=3)
    assert three[:1] == one


def test_learning_rates_are_those_of_noam_at_given_steps() -> None:
    """SPIRA v1: warm-up 1000, base 1e-3, so it peaks at 1e-3 at step 1000."""
    rates = {step: 1e-3 * noam(step - 1, 1000) for step in (1, 100, 1000, 4000, 16_000)}
    assert rates == pytest.approx({1: 1e-6, 100: 1e-4, 1000: 1e-3, 4000: 5e-4, 16_000: 2.5e-4})


def test_ward_noise_depends_on_the_recording_and_never_on_its_label() -> None:
    silence = torch.zeros(16_000)
    draws = [
        insert_ward_noise(silence, BANK, NoisePolicy(), recording_rng(3, record_id, 1))
        for record_id in ("a", "a", "b")
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_a_noise_is_inserted_at_the_published_level() -> None:
    for number in range(20):
        noisy = insert_ward_noise(
            torch.zeros(16_000), BANK, NoisePolicy(), recording_rng(3, str(number))
        )
        assert MIN_NOISE_PEAK <= float(noisy.abs().max()) <= MAX_NOISE_PEAK


def test_a_noise_shorter_than_the_recording_or_silent_does_no_harm() -> None:
    """v1 crashed on the first and made infinities of the second."""
    short = insert_ward_noise(
        torch.zeros(16_000), [torch.ones(1_000) * 0.1], NoisePolicy(), recording_rng(1, "x")
    )
    assert float(short.abs().min()) >= MIN_NOISE_PEAK
    silent = insert_ward_noise(
        torch.zeros(16_000), [torch.zeros(20_000)], NoisePolicy(), recording_rng(1, "x")
    )
    assert not silent.any()


def labels(confidence: list[float | None], source: list[str] | None = None) -> pd.DataFrame:
    label = pd.array([1, 0] * (len(confidence) // 2), dtype="Int8")
    return pd.DataFrame(
        {"label": label, "label_confidence": confidence, "label_source": source or "weak"}
    ).astype({"label_confidence": "float64"})


def test_a_label_counts_as_far_as_it_is_believed() -> None:
    table = labels([0.8, 0.8, None, None, 0.9, 0.9], ["weak"] * 4 + ["clinician"] * 2)
    assert with_expected_labels(table, "all")["label"].tolist() == pytest.approx(
        [0.8, 0.2, 1, 0, 0.9, 0.1]
    )
    assert with_expected_labels(table, "weak")["label"].tolist() == pytest.approx(
        [0.8, 0.2, 1, 0, 1, 0]
    )


@pytest.mark.parametrize("confidence", [1.0, 0.8, 0.55])
def test_the_loss_is_the_one_expected_over_what_the_labels_may_be(confidence: float) -> None:
    table = labels([confidence] * 6)
    given = torch.tensor(table["label"].astype(float).to_numpy())
    scores = torch.linspace(-4, 4, 6, dtype=torch.float64, requires_grad=True)
    soft = torch.tensor(with_expected_labels(table, "all")["label"].to_numpy())
    right, wrong = cross_entropy(scores, given), cross_entropy(scores, 1 - given)
    expected = confidence * right + (1 - confidence) * wrong
    found = cross_entropy(scores, soft)
    gradients = [
        torch.autograd.grad(one, scores, retain_graph=True)[0] for one in (found, expected)
    ]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*gradients)
    if confidence == 1:
        assert torch.equal(found, right)
