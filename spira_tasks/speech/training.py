"""The training loop, and the checkpoint that resumes it."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
from torch.optim import Optimizer

from spira_tasks.errors import ConfigError
from spira_tasks.speech import parallel
from spira_tasks.speech.held import HELD_BYTES, Held
from spira_tasks.speech.losses import mean_by_recording
from spira_tasks.speech.recipes import LOSSES, OPTIMISERS, SCHEDULES
from spira_tasks.speech.spec_augment import Stripes, hide, mix

if TYPE_CHECKING:
    from spira_tasks.speech.batches import Batch, Batches

VALIDATION_DRAW = 2**32 - 1  # in place of an epoch's number: validation noise never changes
CHECKPOINT_VERSION = "2"
AGAIN = 2**20  # added to the draw of a recording for each time that its epoch had it before


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; the defaults are those of SPIRA v1's experiments.

    ``loss``, ``optimiser`` and ``schedule`` are names of ``speech.recipes``.
    """

    n_epochs: int
    batch_size: int = 5  # recordings per step; all of their windows are in the batch
    loss: str = "bce"
    optimiser: str = "adam"
    learning_rate: float = 1e-3  # the highest of the schedule,
    schedule: str = "noam"
    warmup_steps: int = 1000  # and the step that reaches it
    weight_decay: float = 0.01
    clip_norm: float = 0.0  # the largest norm of all gradients together; 0: any
    # ``plain``: every recording once an epoch.  ``balanced``: as many, drawn with replacement so
    # that both classes are as likely.
    sampler: Literal["plain", "balanced"] = "plain"
    drop_last: bool = False  # leave out the last batch of an epoch where it is not full
    mixup: float = 0.0  # a of Beta(a, a), from which shares of mixed windows are drawn; 0: none
    stripes: Stripes = field(default_factory=Stripes)
    # Decay of the moving average of the weights that is validated and kept.  On a few hundred
    # recordings it smooths a validation loss that jumps from epoch to epoch.  0, as published: the
    # weights themselves.
    averaging: float = 0.0
    # What the validation loss, of which the lowest decides, weighs the same: recordings, windows
    # (v1), or the classes, by the mean score of each recording (v1b).
    validation: Literal["recordings", "windows", "classes"] = "recordings"
    # Whether validation noise is drawn anew in each epoch, as published.
    new_validation_noise: bool = False


@dataclass(frozen=True)
class Epoch:
    number: int  # from 1
    train_loss: float  # mean of the loss over windows, nats
    val_loss: float  # by ``Recipe.validation``, nats
    learning_rate: float  # of the epoch's last step


class Learner:
    """The state of a training that one epoch leaves to the next.

    The optimizer updates the weights of ``network``; ``average``, their moving average, is
    validated (``Recipe.averaging``).  ``n_steps`` sets the learning rate of the next step.
    """

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        self.recipe = recipe
        self.network, self.average = copy.deepcopy(model), copy.deepcopy(model)
        self.optimizer = self._optimizer_of(self.network)
        self.n_steps = 0
        self.history: list[Epoch] = []

    def tensors(self) -> dict[str, Tensor]:
        """Name every tensor that the next epoch depends on; training changes them in place."""
        named = {f"network.{name}": w for name, w in self.network.state_dict().items()}
        named |= {f"average.{name}": w for name, w in self.average.state_dict().items()}
        for name, weight in self.network.named_parameters():
            for moment, value in self.optimizer.state[weight].items():
                if not isinstance(value, Tensor):
                    raise ConfigError(
                        f"the optimiser {type(self.optimizer).__name__} keeps {moment!r} not as a "
                        "tensor, so a training that stops could not go on: choose another "
                        "train.optimiser"
                    )
                named[f"optimizer.{name}.{moment}"] = value
        return named

    def make_moments(self) -> None:
        """Make the tensors that the optimizer makes in its first step, for ``restore`` to fill."""
        other = copy.deepcopy(self.network)
        for weight in other.parameters():
            weight.grad = torch.zeros_like(weight)
        trial = self._optimizer_of(other)
        trial.step()
        for weight, twin in zip(self.network.parameters(), other.parameters(), strict=True):
            self.optimizer.state[weight] = trial.state[twin]

    def _optimizer_of(self, network: nn.Module) -> Optimizer:
        make, recipe = OPTIMISERS.find(self.recipe.optimiser), self.recipe
        optimizer: Optimizer = make(network.parameters(), recipe.learning_rate, recipe.weight_decay)
        return optimizer


def fit(
    learner: Learner,
    train: Batches,
    val: Batches,
    *,
    labels: Sequence[float],
    seed: int,
    fill: Tensor | None = None,
) -> Iterator[Epoch]:
    """Train, yielding after every epoch with its weights in ``learner.average``.

    Logging, the choice of weights and early stopping are the caller's, who stops by no longer
    iterating.  Everything must be on one device already.  Order, crops, noise, stripes and mixing
    depend on ``seed``, the epoch and the recording; dropout depends on ``seed`` and the epoch: so a
    learner with a history continues as if it had never stopped.

    Parameters
    ----------
    labels : sequence of float
        Of the training recordings, for the sampler.
    fill : (bin,) tensor, optional
        What stripes put in place of features (``spec_augment.hide``); 0 without it.

    Raises
    ------
    ConfigError
        When a loss is no number any more: no later epoch would mend that.
    """
    recipe, network, average = learner.recipe, learner.network, learner.average
    optimizer = learner.optimizer
    loss_of, factor = LOSSES.find(recipe.loss), SCHEDULES.find(recipe.schedule)
    n_batches = _n_batches(len(labels), recipe)
    validation = Validation(val, recipe)

    for number in range(len(learner.history) + 1, recipe.n_epochs + 1):
        others = [4, parallel.rank()] if parallel.rank() else []  # drop other values than the first
        torch.manual_seed(int(np.random.default_rng([seed, number, *others]).integers(2**63)))
        order = sample(labels, recipe.sampler, np.random.default_rng([seed, number, 1]))
        drawn = with_draws(order.tolist(), number)
        mixing = np.random.default_rng([seed, number, 2])
        network.train()
        total, n_windows = torch.zeros((), dtype=torch.float64), 0
        for start in range(0, n_batches * recipe.batch_size, recipe.batch_size):
            part = parallel.share(drawn[start : start + recipe.batch_size])
            batch = train.make([index for index, _ in part], [draw for _, draw in part])
            features, targets = batch.features, batch.labels
            recordings = batch.recordings.to(targets.device)
            if recipe.stripes:
                features = _striped(batch, part, recipe.stripes, seed, fill)
            if recipe.mixup:
                shares = mixing.beta(recipe.mixup, recipe.mixup, size=len(targets) // 2)
                features, targets = mix(features, targets, torch.from_numpy(shares).to(targets))
                recordings = torch.arange(len(targets), device=targets.device)
            rate = recipe.learning_rate * factor(
                learner.n_steps, recipe.warmup_steps, recipe.n_epochs * n_batches
            )
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = loss_of(network(features), targets, recordings)
            optimizer.zero_grad()
            loss.backward()
            parallel.average_gradients(network, len(targets))
            if recipe.clip_norm:
                nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_norm)
            optimizer.step()
            learner.n_steps += 1
            decay = min(recipe.averaging, learner.n_steps / (10 + learner.n_steps))
            update_average(average, network, decay)
            total = total + loss.detach().double() * len(targets)
            n_windows += len(targets)
        val_loss = validation.loss(average, number)
        loss_of_all, n_of_all = parallel.summed(float(total), n_windows)
        train_loss = loss_of_all / n_of_all
        if not math.isfinite(train_loss + val_loss):
            raise ConfigError(
                f"the training diverged: in epoch {number} the loss is {train_loss}, that of "
                f"validation {val_loss}. Set a lower train.learning_rate, or train.clip_norm"
            )
        learner.history.append(Epoch(number, train_loss, val_loss, rate))
        yield learner.history[-1]


def _n_batches(n_recordings: int, recipe: Recipe) -> int:
    """Steps of an epoch, at least 1."""
    full, rest = divmod(n_recordings, recipe.batch_size)
    return full if full and (recipe.drop_last or not rest) else full + 1


def sample(
    labels: Sequence[float], sampler: str, rng: np.random.Generator
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The recordings of an epoch, in order, by their index."""
    if sampler == "plain":
        return rng.permutation(len(labels))
    is_patient = np.asarray(labels) > 0.5
    n_of_class = np.where(is_patient, is_patient.sum(), (~is_patient).sum())
    weights = 1 / n_of_class
    return rng.choice(len(labels), size=len(labels), p=weights / weights.sum())


def with_draws(order: Sequence[int], epoch: int) -> list[tuple[int, int]]:
    """Each recording with its draw: one that an epoch has several times looks different each time.

    Examples
    --------
    >>> [(index, draw - 7) for index, draw in with_draws([4, 2, 4, 4], epoch=7)]
    [(4, 0), (2, 0), (4, 1048576), (4, 2097152)]
    """
    n_before: Counter[int] = Counter()
    drawn = []
    for index in order:
        drawn.append((index, epoch + AGAIN * n_before[index]))
        n_before[index] += 1
    return drawn


def _striped(
    batch: Batch, part: Sequence[tuple[int, int]], stripes: Stripes, seed: int, fill: Tensor | None
) -> Tensor:
    """The features of a batch with stripes that depend on the recording and its draw."""
    features = batch.features
    shape = (features.shape[1], features.shape[2])
    n_windows = torch.bincount(batch.recordings, minlength=len(part)).tolist()
    drawn = [
        stripes.draw(shape, np.random.default_rng([seed, draw, 3, index]), n)
        for (index, draw), n in zip(part, n_windows, strict=True)
    ]
    bounds = [
        torch.from_numpy(np.concatenate(one)).to(features.device)
        for one in zip(*drawn, strict=True)
    ]
    return hide(features, bounds, features.new_zeros(()) if fill is None else fill)


class Validation:
    """Batches of the validation recordings, and the loss of a network on them."""

    def __init__(self, batches: Batches, recipe: Recipe, most_bytes: int = HELD_BYTES) -> None:
        self.recipe, self.batches = recipe, batches
        n, size = len(batches.examples), recipe.batch_size
        self.parts = [range(start, min(start + size, n)) for start in range(0, n, size)]
        self.held = Held(
            len(self.parts),
            lambda number, _: batches.make(self.parts[number], VALIDATION_DRAW),
            lambda batch: batch.features.nbytes,
            most_bytes,
        )

    @torch.inference_mode()
    def loss(self, model: nn.Module, epoch: int) -> float:
        """The loss by ``Recipe.validation``, in nats.

        Of ``recordings`` it is their mean, of ``classes`` the mean of the two classes' means; of
        ``windows`` it is, as published, the sum over windows by the number of recordings.
        """
        model.eval()
        losses, classes = [], []
        for number in range(len(self.parts)):
            batch = self._batch(number, epoch)
            logits = model(batch.features)
            recordings = batch.recordings.to(logits.device)
            labels = mean_by_recording(batch.labels, recordings)
            if self.recipe.validation == "classes":
                scores = mean_by_recording(torch.sigmoid(logits), recordings)
                if scores.isnan().any():  # as in ``losses.clip_bce``
                    return math.nan
                losses.append(binary_cross_entropy(scores, labels, reduction="none"))
            else:
                each = cross_entropy(logits, batch.labels, reduction="none")
                mean = mean_by_recording(each, recordings)
                n_windows = torch.bincount(recordings)
                losses.append(mean * n_windows if self.recipe.validation == "windows" else mean)
            classes.append(labels)
        every, is_patient = torch.cat(losses).double(), torch.cat(classes) > 0.5
        if self.recipe.validation == "classes":
            return float((every[is_patient].mean() + every[~is_patient].mean()) / 2)
        return float(every.mean())

    def _batch(self, number: int, epoch: int) -> Batch:
        if self.recipe.new_validation_noise:
            return self.batches.make(self.parts[number], VALIDATION_DRAW - epoch)
        return self.held[number]


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the averaged weights towards the network's, in place; buffers are copied."""
    for mean, weight in zip(average.parameters(), network.parameters(), strict=True):
        mean.lerp_(weight, 1 - decay)
    for buffer, current in zip(average.buffers(), network.buffers(), strict=True):
        buffer.copy_(current)


@torch.no_grad()
def restore(current: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    """Copy saved tensors over the current ones, unless a name, shape or dtype differs.

    In place, so that device and alignment in memory, which sums may depend on, stay as they are.

    Raises
    ------
    ValueError
        When they differ; nothing is copied then.
    """
    shapes = [{name: (w.shape, w.dtype) for name, w in named.items()} for named in (current, saved)]
    if shapes[0] != shapes[1]:
        raise ValueError("it is of another network")
    for name, tensor in current.items():
        tensor.copy_(saved[name])


def pack(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> bytes:
    """Tensors and a JSON record in one safetensors file, which ``unpack`` verifies."""
    on_cpu = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
    text = json.dumps(dict(facts))  # floats keep every digit
    metadata = {
        "spira.checkpoint": CHECKPOINT_VERSION,
        "facts": text,
        "sha256": _digest(on_cpu, text),
    }
    return bytes(safetensors.torch.save(on_cpu, metadata))


def unpack(content: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return what ``pack`` was given; ValueError when the content is damaged."""
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load(content)
        size = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + size])["__metadata__"]
        version, text = metadata["spira.checkpoint"], metadata["facts"]
        is_whole = metadata["sha256"] == _digest(tensors, text)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError("it is damaged") from error
    if version != CHECKPOINT_VERSION:
        raise ValueError(f"it is of version {version}, not {CHECKPOINT_VERSION}")
    if not is_whole:
        raise ValueError("it is damaged")
    return tensors, json.loads(text)


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    """Hash all of the content: the format itself detects only a truncated file."""
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\0{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
