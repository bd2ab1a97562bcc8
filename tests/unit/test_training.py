"""The loop: it learns, and the same seed learns the same."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from spira_tasks.errors import ConfigError
from spira_tasks.speech import cpu
from spira_tasks.speech.augmentation import (
    MAX_NOISE_PEAK,
    MIN_NOISE_PEAK,
    NoisePolicy,
    insert_ward_noise,
    recording_rng,
)
from spira_tasks.speech.batches import Batch, Batches
from spira_tasks.speech.examples import Example
from spira_tasks.speech.features import FeatureExtractor, FeatureSpec
from spira_tasks.speech.model import SpiraConv
from spira_tasks.speech.spec_augment import Stripes
from spira_tasks.speech.training import (
    AGAIN,
    VALIDATION_DRAW,
    Epoch,
    Learner,
    Recipe,
    Validation,
    fit,
    sample,
)
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


LABELS = [example.label for example in TRAIN]


def batches(examples: list[Example], seed: int) -> Batches:
    noise = NoisePolicy(0, 1)
    return Batches(examples, FeatureExtractor(SPEC), BANK, noise, windows="all", seed=seed)


def loop(learner: Learner, seed: int) -> Iterator[Epoch]:
    train, val = batches(TRAIN, seed), batches(VAL, seed)
    return fit(learner, train, val, labels=LABELS, seed=seed)


def train(seed: int, n_epochs: int = 6) -> tuple[nn.Module, list[Epoch]]:
    cpu.prepare(n_threads=2)
    torch.manual_seed(seed)
    model = SpiraConv(SPEC.n_frames, SPEC.n_bins, dropout=0.2)
    learner = Learner(model, Recipe(n_epochs, warmup_steps=10))
    return learner.average, list(loop(learner, seed))


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


def test_a_balanced_sampler_draws_both_classes_as_often_and_a_plain_one_everybody_once() -> None:
    labels = [1.0] * 5 + [0.0] * 45
    assert sorted(sample(labels, "plain", np.random.default_rng(1))) == list(range(50))
    drawn = [sample(labels, "balanced", np.random.default_rng(seed)) for seed in range(100)]
    assert {len(one) for one in drawn} == {50}
    assert np.mean([(one < 5).mean() for one in drawn]) == pytest.approx(0.5, abs=0.02)
    assert {*np.concatenate(drawn)} == set(range(50))


def test_a_recording_that_an_epoch_has_twice_looks_different_the_second_time() -> None:
    labels = [1.0] + [0.0] * 7
    learner = Learner(Line(), Recipe(1, sampler="balanced", schedule="none"))
    train = Fixed(labels)
    list(fit(learner, train, Fixed([0.0, 1.0]), labels=labels, seed=1))
    assert len(train.draws) == 8
    assert set(train.draws) == {1, 1 + AGAIN}

    made = batches(TRAIN[:1], 1).make([0, 0, 0], [1, 1 + AGAIN, 1]).features
    assert torch.equal(made[0], made[2])
    assert not torch.equal(made[0], made[1])


class Line(nn.Module):
    """Its logit is ``slope`` times the mean of the features."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(1.0))
        self.seen: list[tuple[int, ...]] = []

    def forward(self, features: Tensor) -> Tensor:
        self.seen.append(tuple(features.shape))
        return self.slope * features.mean(dim=(1, 2))


class Fixed(Batches):
    """Recordings of given labels, of one window each or of ``n_windows``; every feature is 2."""

    def __init__(self, labels: list[float], n_windows: list[int] | None = None) -> None:
        pcm16 = torch.zeros(1, dtype=torch.int16)
        examples = [Example(str(n), pcm16, label) for n, label in enumerate(labels)]
        super().__init__(examples, nn.Identity(), [], NoisePolicy(), windows="all", seed=1)
        self.counts = torch.tensor(n_windows or [1] * len(labels))
        self.draws: list[int] = []

    def make(self, indices: Sequence[int], draws: int | Sequence[int]) -> Batch:
        self.draws += [draws] if isinstance(draws, int) else draws
        labels = torch.tensor([float(self.examples[index].label) for index in indices])
        recordings = torch.arange(len(indices)).repeat_interleave(self.counts[list(indices)])
        features = torch.full((len(recordings), 3, 2), 2.0)
        return Batch(features, labels[recordings], recordings)


def lines(labels: list[float], **settings: Any) -> tuple[Line, list[Epoch]]:
    recipe: Any = {"schedule": "none", "weight_decay": 0.0, "batch_size": 2} | settings
    learner = Learner(Line(), Recipe(1, **recipe))
    epochs = list(fit(learner, Fixed(labels), Fixed([0, 1]), labels=labels, seed=1))
    assert isinstance(learner.network, Line)
    return learner.network, epochs


def test_the_last_batch_is_kept_or_left_out_and_a_small_cohort_is_one_batch() -> None:
    assert [shape[0] for shape in lines([0, 1, 0])[0].seen] == [2, 1]
    assert [shape[0] for shape in lines([0, 1, 0], drop_last=True)[0].seen] == [2]
    assert [shape[0] for shape in lines([1], drop_last=True)[0].seen] == [1]


def test_the_norm_of_the_gradients_is_clipped() -> None:
    """The gradient of the slope is 2 * (sigmoid(2) - 0) for a control: RAdam steps along it."""
    gradient = 2 / (1 + np.exp(-2))
    for clip, length in ((0.0, gradient), (0.5, 0.5)):
        line, _ = lines([0.0], optimiser="radam", learning_rate=0.1, clip_norm=clip)
        assert float(line.slope.detach()) == pytest.approx(1 - 0.1 * length, rel=1e-5)


@pytest.mark.parametrize("recipe", [{}, {"validation": "classes"}, {"loss": "clip_bce"}])
def test_a_training_that_diverges_is_refused_with_what_to_do(recipe: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"diverged: in epoch 1 .*lower train\.learning_rate"):
        lines([0.0, 1.0] * 2, learning_rate=float("inf"), **recipe)


def test_mixed_windows_are_half_as_many_with_labels_in_between() -> None:
    line, epochs = lines([0.0, 1.0], mixup=1.0, loss="clip_bce", learning_rate=1e-9)
    assert line.seen == [(1, 3, 2)]
    share = np.random.default_rng([1, 1, 2]).beta(1.0, 1.0)
    share = share if np.random.default_rng([1, 1, 1]).permutation(2)[0] == 1 else 1 - share
    right, wrong = np.log(1 + np.exp(-2)), np.log(1 + np.exp(2))
    assert epochs[0].train_loss == pytest.approx(share * right + (1 - share) * wrong, rel=1e-5)


def test_stripes_are_drawn_by_seed_epoch_and_recording() -> None:
    seen: list[Tensor] = []

    class Looking(Line):
        def forward(self, features: Tensor) -> Tensor:
            if self.training:
                seen.append(features)
            return super().forward(features)

    recipe = Recipe(2, batch_size=2, stripes=Stripes(n_time=1, frames=3), schedule="none")
    labels, fill = [0.0, 1.0], torch.tensor([9.0, 8.0])
    for _ in range(2):
        learner = Learner(Looking(), recipe)
        list(fit(learner, Fixed(labels), Fixed(labels), labels=labels, seed=1, fill=fill))
    first, second, *again = seen
    assert torch.equal(torch.stack(again), torch.stack([first, second]))
    assert not torch.equal(first, second)
    hidden = {tuple(frame.tolist()) for frame in torch.cat(seen).flatten(end_dim=1)}
    assert hidden == {(2.0, 2.0), (9.0, 8.0)}


@pytest.mark.parametrize(
    ("validation", "expected"),
    [
        # one control of three windows, two patients of one window: log(1 + exp(±2)) each
        ("recordings", (np.log(1 + np.exp(2)) + 2 * np.log(1 + np.exp(-2))) / 3),
        ("windows", (3 * np.log(1 + np.exp(2)) + 2 * np.log(1 + np.exp(-2))) / 3),
        ("classes", (np.log(1 + np.exp(2)) + np.log(1 + np.exp(-2))) / 2),
    ],
)
def test_the_validation_loss_weighs_what_the_recipe_says(validation: Any, expected: float) -> None:
    fixed = Fixed([0.0, 1.0, 1.0], n_windows=[3, 1, 1])
    found = Validation(fixed, Recipe(1, batch_size=2, validation=validation)).loss(Line(), 1)
    assert found == pytest.approx(expected, rel=1e-6)


def test_validation_features_are_kept_as_far_as_they_fit() -> None:
    def losses(fixed: Fixed, most_bytes: int = 72, **recipe: Any) -> list[float]:
        validation = Validation(fixed, Recipe(1, batch_size=2, **recipe), most_bytes)
        return [validation.loss(Line(), epoch) for epoch in (1, 2, 3)]

    kept, anew, drawn = (Fixed([0.0, 1.0, 1.0]) for _ in range(3))
    expected = losses(kept)
    assert kept.draws == [VALIDATION_DRAW] * 2
    assert losses(anew, 50) == expected  # of 48 of the first batch and 24 of the second
    assert anew.draws == [VALIDATION_DRAW] * 4
    losses(drawn, new_validation_noise=True)
    assert drawn.draws == [VALIDATION_DRAW - epoch for epoch in (1, 1, 2, 2, 3, 3)]


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
