"""The training loop of SPIRA v1, and the checkpoint that resumes it."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from spira_tasks.speech.augmentation import NoisePolicy, insert_ward_noise, recording_rng, to_float
from spira_tasks.speech.features import FeatureExtractor, FeatureSpec, windows

VALIDATION_DRAW = 2**32 - 1  # in place of an epoch's number: validation noise never changes
CHECKPOINT_VERSION = "1"


@dataclass(frozen=True)
class Example:
    """One recording: (time,) int16 samples on the training device, and its label in [0, 1].

    A label between 0 and 1 is the probability of label 1.
    """

    record_id: str
    pcm16: Tensor
    label: float


@dataclass(frozen=True)
class Schedule:
    """Hyperparameters of a training; the defaults are those of SPIRA v1's experiments."""

    n_epochs: int
    batch_size: int = 5  # recordings per step; all of their windows are in the batch
    learning_rate: float = 1e-3  # peak of Noam's schedule,
    warmup_steps: int = 1000  # and the step that reaches it
    weight_decay: float = 0.01  # Adam's L2 penalty
    # ``all`` windows of a recording, or one that starts at a ``random`` sample in each epoch, which
    # is a fraction of the work.
    windows: str = "all"
    # Decay of the moving average of the weights that is validated and kept.  On a few hundred
    # recordings it smooths a validation loss that jumps from epoch to epoch.  0, as published: the
    # weights themselves.
    averaging: float = 0.0


@dataclass(frozen=True)
class Epoch:
    number: int  # from 1
    train_loss: float  # mean binary cross-entropy of a window, nats
    val_loss: float  # mean over recordings of the mean over their windows, nats
    learning_rate: float  # of the epoch's last step


class Learner:
    """The state of a training that one epoch leaves to the next.

    The optimizer updates the weights of ``network``; ``average``, their moving average, is
    validated (``Schedule.averaging``).  ``n_steps`` sets the learning rate of the next step.
    """

    def __init__(self, model: nn.Module, schedule: Schedule) -> None:
        self.network, self.average = copy.deepcopy(model), copy.deepcopy(model)
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay
        )
        for weight in self.network.parameters():  # as Adam would at its first step
            self.optimizer.state[weight] = {
                "step": torch.zeros(()),
                "exp_avg": torch.zeros_like(weight),
                "exp_avg_sq": torch.zeros_like(weight),
            }
        self.n_steps = 0
        self.history: list[Epoch] = []

    def tensors(self) -> dict[str, Tensor]:
        """Name every tensor that the next epoch depends on; training changes them in place."""
        named = {f"network.{name}": w for name, w in self.network.state_dict().items()}
        named |= {f"average.{name}": w for name, w in self.average.state_dict().items()}
        for name, weight in self.network.named_parameters():
            moments = self.optimizer.state[weight]
            named |= {f"adam.{name}.{moment}": value for moment, value in moments.items()}
        return named


def fit(
    learner: Learner,
    extractor: FeatureExtractor,
    train: Sequence[Example],
    val: Sequence[Example],
    *,
    schedule: Schedule,
    bank: Sequence[Tensor],
    noise: NoisePolicy,
    seed: int,
) -> Iterator[Epoch]:
    """Train, yielding after every epoch with its weights in ``learner.average``.

    Logging, the choice of weights and early stopping are the caller's, who stops by no longer
    iterating.  Everything must be on one device already.  Order, crops and noise depend on
    ``seed``, the epoch and the recording; dropout depends on ``seed`` and the epoch: so a learner
    with a history continues as if it had never stopped.
    """
    network, average, optimizer = learner.network, learner.average, learner.optimizer
    val_features = [
        extractor(windows(noisy(example, bank, noise, seed, VALIDATION_DRAW), extractor.spec))
        for example in val
    ]

    for number in range(len(learner.history) + 1, schedule.n_epochs + 1):
        torch.manual_seed(int(np.random.default_rng([seed, number]).integers(2**63)))
        order = np.random.default_rng([seed, number, 1]).permutation(len(train))
        network.train()
        total, n_windows = 0.0, 0
        for start in range(0, len(train), schedule.batch_size):
            batch = [train[i] for i in order[start : start + schedule.batch_size]]
            cuts = [
                cut(
                    noisy(example, bank, noise, seed, number),
                    extractor.spec,
                    schedule.windows,
                    recording_rng(seed, example.record_id, number, 1),
                )
                for example in batch
            ]
            n_views = torch.tensor([len(views) for views in cuts])
            labels = torch.tensor([example.label for example in batch]).repeat_interleave(n_views)
            labels = labels.to(cuts[0].device)
            rate = schedule.learning_rate * noam(learner.n_steps, schedule.warmup_steps)
            optimizer.param_groups[0]["lr"] = rate
            loss = cross_entropy(network(extractor(torch.cat(cuts))), labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            learner.n_steps += 1
            decay = min(schedule.averaging, learner.n_steps / (10 + learner.n_steps))
            update_average(average, network, decay)
            total += loss.item() * len(labels)
            n_windows += len(labels)
        val_loss = recording_loss(average, val_features, [example.label for example in val])
        learner.history.append(Epoch(number, total / n_windows, val_loss, rate))
        yield learner.history[-1]


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the averaged weights towards the network's, in place; buffers are copied."""
    for mean, weight in zip(average.parameters(), network.parameters(), strict=True):
        mean.lerp_(weight, 1 - decay)
    for buffer, current in zip(average.buffers(), network.buffers(), strict=True):
        buffer.copy_(current)


def noam(n_steps_done: int, warmup: int) -> float:
    """Factor on the learning rate: linear warm-up to 1, then falling as one over a square root.

    ``warmup**0.5 * min(step * warmup**-1.5, step**-0.5)``: Vaswani et al., "Attention is all you
    need", 2017, equation 3, scaled to peak at 1 as SPIRA v1 does.

    Examples
    --------
    >>> [round(noam(n, 1000), 3) for n in (0, 499, 999, 3999)]  # steps 1, 500, 1000, 4000
    [0.001, 0.5, 1.0, 0.5]
    """
    step = n_steps_done + 1
    return float(warmup**0.5 * min(step * warmup**-1.5, step**-0.5))


def noisy(
    example: Example, bank: Sequence[Tensor], noise: NoisePolicy, seed: int, *draw: int
) -> Tensor:
    """Return the (time,) float waveform of an example with the ward noise of one draw."""
    waveform, rng = to_float(example.pcm16), recording_rng(seed, example.record_id, *draw)
    return insert_ward_noise(waveform, bank, noise, rng) if bank else waveform


def cut(waveform: Tensor, spec: FeatureSpec, which: str, rng: np.random.Generator) -> Tensor:
    """Return the (window, time) windows of a waveform that one epoch uses."""
    if which == "random":
        spare = max(waveform.shape[0] - spec.n_window_samples, 0)
        start = int(rng.integers(spare, endpoint=True))
        waveform = waveform[start : start + spec.n_window_samples]
    return windows(waveform, spec)


@torch.inference_mode()
def recording_loss(model: nn.Module, features: Sequence[Tensor], labels: Sequence[float]) -> float:
    """Mean over recordings of the mean cross-entropy of their windows, in nats."""
    model.eval()
    losses = []
    for matrix, label in zip(features, labels, strict=True):
        scores = model(matrix)
        losses.append(cross_entropy(scores, torch.full_like(scores, label)).item())
    return sum(losses) / len(losses)


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
