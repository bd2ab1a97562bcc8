"""What is saved of a learner: it goes on from there bit for bit, and no damage goes unnoticed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from packages import install
from test_training import SPEC, Fixed, Line, loop
from torch import Tensor

from spira_tasks.errors import ConfigError
from spira_tasks.speech import cpu, training
from spira_tasks.speech.model import ModelName, SpiraConv
from spira_tasks.speech.spec_augment import PUBLISHED
from spira_tasks.speech.training import Epoch, Learner, Recipe, fit, pack, restore, unpack
from spira_tasks.stages.train import Config

# The loop


def epochs_of(learner: Learner, n_epochs: int) -> list[Epoch]:
    """The next epochs, as ``fit`` yields them."""
    cpu.prepare(n_threads=1)
    epochs = loop(learner, seed=3)
    return [next(epochs) for _ in range(n_epochs)]


def new_learner(recipe: Recipe, version: ModelName, seed: int) -> Learner:
    torch.manual_seed(seed)
    return Learner(SpiraConv(SPEC.n_frames, SPEC.n_bins, version, dropout=0.2), recipe)


RECIPES = {
    "adam, averaged": Recipe(4, warmup_steps=10, averaging=0.9),
    "adamw, cosine, clipped, balanced": Recipe(
        4,
        warmup_steps=10,
        optimiser="adamw",
        schedule="cosine",
        clip_norm=0.1,
        sampler="balanced",
        loss="balanced_bce",
        validation="classes",
    ),
    "radam, mixed, striped": Recipe(
        4,
        optimiser="radam",
        schedule="none",
        mixup=1.0,
        stripes=PUBLISHED,
        loss="clip_bce",
        drop_last=True,
        new_validation_noise=True,
        validation="windows",
    ),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_learner_that_was_saved_and_restored_goes_on_bit_for_bit(name: str) -> None:
    """Batches by 5 of 24 leave a shorter one; the batch norm of version 1 has a memory too."""
    recipe = RECIPES[name]
    version: ModelName = "spiraconv_v1" if "adamw" in name else "spiraconv_v2"
    undisturbed = new_learner(recipe, version, seed=3)
    losses = epochs_of(undisturbed, 4)

    stopped = new_learner(recipe, version, seed=3)
    first = epochs_of(stopped, 2)
    content = pack(stopped.tensors(), {"n_steps": stopped.n_steps})
    resumed = new_learner(recipe, version, seed=4)  # other weights, to be replaced
    resumed.make_moments()
    tensors, facts = unpack(content)
    restore(resumed.tensors(), tensors)
    resumed.n_steps, resumed.history = facts["n_steps"], list(first)

    assert first + epochs_of(resumed, 2) == losses
    assert same(resumed.tensors(), undisturbed.tensors())


PACKAGE = """
import torch

def hinge(logits, labels, recordings):
    return torch.relu(1 - logits * (2 * labels - 1)).mean()

def momentum(weights, learning_rate, weight_decay):
    return torch.optim.SGD(weights, learning_rate, momentum=0.9, weight_decay=weight_decay)

class Counting(torch.optim.SGD):
    def step(self, closure=None):
        super().step(closure)
        for weight in self.param_groups[0]["params"]:
            self.state[weight]["count"] = self.state[weight].get("count", 0) + 1

def halving(n_steps_done, warmup_steps, n_steps):
    return 0.5 ** n_steps_done
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    names = {"losses": "hinge", "optimisers": "momentum", "schedules": "halving"}
    points = {f"spira.{kind}": {name: f"spira_own:{name}"} for kind, name in names.items()}
    points["spira.optimisers"]["counting"] = "spira_own:Counting"
    install(tmp_path, "spira_own", {"__init__.py": PACKAGE}, points)


def own_epochs(learner: Learner, n_epochs: int) -> list[Epoch]:
    labels = [0.0, 1.0, 1.0]
    epochs = fit(learner, Fixed(labels), Fixed([0.0, 1.0]), labels=labels, seed=3)
    return [next(epochs) for _ in range(n_epochs)]


@pytest.mark.usefixtures("package")
def test_what_a_package_adds_trains_and_resumes_as_ours_does() -> None:
    recipe = Recipe(4, batch_size=1, loss="hinge", optimiser="momentum", schedule="halving")
    config = Config(loss="hinge", optimiser="momentum", schedule="halving")
    codes = {config.loss_code, config.optimiser_code, config.schedule_code}
    (code,) = codes
    assert code.startswith("spira_own 1.0 ")
    undisturbed, stopped, resumed = (Learner(Line(), recipe) for _ in range(3))
    losses = own_epochs(undisturbed, 4)
    assert [epoch.learning_rate for epoch in losses[:2]] == [1e-3 * 0.5**2, 1e-3 * 0.5**5]

    first = own_epochs(stopped, 2)
    resumed.make_moments()
    restore(resumed.tensors(), unpack(pack(stopped.tensors(), {}))[0])
    resumed.n_steps, resumed.history = stopped.n_steps, first
    assert own_epochs(resumed, 2) == losses[2:]
    assert same(resumed.tensors(), undisturbed.tensors())


@pytest.mark.usefixtures("package")
def test_an_optimiser_whose_state_cannot_be_saved_is_refused() -> None:
    learner = Learner(Line(), Recipe(1, optimiser="counting"))
    own_epochs(learner, 1)
    with pytest.raises(ConfigError, match="Counting keeps 'count' not as a tensor"):
        learner.tensors()


def same(these: Mapping[str, Tensor], those: Mapping[str, Tensor]) -> bool:
    return list(these) == list(those) and all(
        torch.equal(tensor, those[name]) for name, tensor in these.items()
    )


# The file


def test_a_checkpoint_gives_back_every_bit_of_numbers_and_tensors() -> None:
    numbers = [0.1 + 0.2, 1e-320, 2**0.5, float("inf")]
    weights = {"b": torch.randn(3, 2).T, "a": torch.tensor(7), "c": torch.tensor([float("nan")])}
    tensors, facts = unpack(pack(weights, {"losses": numbers}))

    assert facts == {"losses": numbers}
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        name: tensor.shape for name, tensor in weights.items()
    }
    for name, tensor in weights.items():
        assert torch.equal(tensors[name].nan_to_num(5), tensor.nan_to_num(5))


def test_no_damage_to_a_checkpoint_goes_unnoticed() -> None:
    weights = {"w": torch.arange(20.0), "n": torch.tensor(7)}
    content = pack(weights, {"history": [0.5]})
    rng = np.random.default_rng(5)
    for _ in range(500):
        damaged = bytearray(content)
        place = int(rng.integers(len(content)))
        damaged[place] ^= 1 << int(rng.integers(8))
        try:
            tensors, facts = unpack(bytes(damaged))
        except ValueError:
            continue
        assert same(dict(sorted(tensors.items())), dict(sorted(weights.items())))  # a blank's bit
        assert facts == {"history": [0.5]}
    for size in range(0, len(content), 7):
        with pytest.raises(ValueError, match="damaged"):
            unpack(content[:size])


def test_a_checkpoint_of_an_earlier_version_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(training, "CHECKPOINT_VERSION", "1")
        content = pack({"w": torch.zeros(1)}, {})
    with pytest.raises(ValueError, match="version 1, not 2"):
        unpack(content)


def test_a_checkpoint_of_another_network_changes_nothing() -> None:
    learner = new_learner(Recipe(1), "spiraconv_v2", seed=3)
    before = {name: tensor.clone() for name, tensor in learner.tensors().items()}
    other = new_learner(Recipe(1), "spiraconv_v1", seed=4)
    with pytest.raises(ValueError, match="another network"):
        restore(learner.tensors(), other.tensors())
    assert same(learner.tensors(), before)
