"""Fit SPIRAConv; keep the weights of the epoch with the lowest validation loss."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from spira_tasks.config import Fraction, StageConfig
from spira_tasks.contract.record import Outcome
from spira_tasks.errors import ConfigError, GateRejected, SpiraError

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from spira_tasks.artifacts import Directory
    from spira_tasks.speech.classifier import Classifier
    from spira_tasks.speech.training import Epoch, Learner
    from spira_tasks.work import Work

log = logging.getLogger(__name__)

# What a crash without warning costs at most.  Saving takes a twentieth of a second, or a second
# over a slow network: a few percent of this at worst.
CHECKPOINT_SECONDS = 30.0


@dataclass(frozen=True)
class Inputs:
    recordings: Directory  # recordings.parquet with the column ``split``
    features: Directory  # features.parquet, features.json: what the classifier will see
    ward_noise: Directory  # ward_noise.parquet


@dataclass(frozen=True)
class Outputs:
    model: Path  # weights.safetensors, classifier.json, history.json, training.json


class Config(StageConfig):
    """The published network on a shorter leash (docs/adr/0006-training-recipe.md).

    Everything that changes the weights is here, the seed and the number of threads with it.
    """

    task: Literal["VOWEL", "RHYME", "SENTENCE"] = "SENTENCE"
    seed: NonNegativeInt = 42
    model: Literal["spiraconv_v1", "spiraconv_v2"] = "spiraconv_v2"
    dropout: Fraction = 0.3
    epochs: PositiveInt = 100
    patience_epochs: PositiveInt = 40
    batch_size: PositiveInt = 5
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    warmup_steps: PositiveInt = 150
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    windows: Literal["all", "random"] = "random"
    standardize: bool = True
    averaging: Annotated[float, Field(ge=0, lt=1)] = 0.99
    min_noises: NonNegativeInt = 0
    max_noises: NonNegativeInt = 2
    # Whose labels are learned as probabilities, by their confidence: a loss that is expected over
    # what the label may be.  None: every label as it is.
    soft_labels: Literal["weak", "all"] | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    n_threads: PositiveInt = 2

    @model_validator(mode="after")
    def noises_make_a_range(self) -> Self:
        if self.min_noises > self.max_noises:
            raise ValueError(f"min_noises {self.min_noises} exceeds max_noises {self.max_noises}")
        return self


def run(inputs: Inputs, config: Config, outputs: Outputs, work: Work) -> Outcome:
    import pandas as pd
    import torch

    from spira_tasks.corpus import examples, load_features, noise_bank
    from spira_tasks.speech import cpu
    from spira_tasks.speech.augmentation import NoisePolicy
    from spira_tasks.speech.classifier import Classifier, ClassifierSpec
    from spira_tasks.speech.features import FeatureSpec
    from spira_tasks.speech.training import Learner, Schedule, fit

    cpu.prepare(config.n_threads)
    device = choose_device(config.device)
    table = pd.read_parquet(inputs.recordings.path("recordings.parquet"))
    table = table[(table["task"] == config.task) & table["label"].notna()]
    features = pd.read_parquet(inputs.features.path("features.parquet"))
    table = table[table["record_id"].isin(features["record_id"])]  # others are in quarantine
    if table.empty:
        raise ConfigError(
            f"no recording of task {config.task} has features: set train.task to a task of "
            "materialize.tasks, or add it there"
        )
    missing = [
        f"{who} to {use}"
        for split, use in (("train", "train on"), ("validation", "validate on"))
        for label, who in ((1, "patient"), (0, "control"))
        if not ((table["split"] == split) & (table["label"] == label)).any()
    ]
    if missing:  # a model of one class would call everybody the same
        raise GateRejected(
            f"among the recordings of task {config.task} there is no {' and no '.join(missing)}: "
            "ingest more subjects, or choose another train.task"
        )
    train = examples(
        with_expected_labels(table[table["split"] == "train"], config.soft_labels),
        work.blobs,
        device,
    )
    val = examples(table[table["split"] == "validation"], work.blobs, device)
    bank = noise_bank(inputs.ward_noise, "train", work.blobs, device)
    if config.max_noises and not bank:
        log.warning("no ward noise came with the data: training without ward-noise insertion")

    torch.manual_seed(config.seed)  # the initial weights; everything later has its own generator
    spec = ClassifierSpec(
        task=config.task,
        features=FeatureSpec.from_json(inputs.features.path("features.json").read_text()),
        model=config.model,
        options={"dropout": config.dropout},
    )
    classifier = Classifier(spec)
    if config.standardize:
        stored = features.set_index("record_id")["features"]
        digests = stored.loc[[example.record_id for example in train]]
        classifier.standardize.fit(load_features(digest, work.blobs) for digest in digests)
    classifier.to(device)
    schedule = Schedule(
        n_epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        windows=config.windows,
        averaging=config.averaging,
    )
    learner = Learner(classifier.network, schedule)
    epochs = fit(
        learner,
        classifier.extractor,
        train,
        val,
        schedule=schedule,
        bank=bank,
        noise=NoisePolicy(config.min_noises, config.max_noises),
        seed=config.seed,
    )
    progress = Progress(learner, classifier, config, work)
    progress.resume()
    with progress.saved_when_stopped():
        while not progress.is_over():
            epoch = next(epochs)
            progress.keep()
            log.info(
                "epoch %d of %d: train loss %.4f, validation loss %.4f%s",
                epoch.number,
                config.epochs,
                epoch.train_loss,
                epoch.val_loss,
                " (best)" if progress.best is epoch else "",
            )
    history, best = learner.history, progress.best
    if len(history) < config.epochs:
        log.info("no better for %d epochs: stopping", config.patience_epochs)
    classifier.save(outputs.model)
    rows = [asdict(epoch) for epoch in history]
    (outputs.model / "history.json").write_text(json.dumps(rows, indent=1))
    settings = config.model_dump(mode="json", exclude_none=True)
    (outputs.model / "training.json").write_text(json.dumps(settings, indent=1, sort_keys=True))
    return Outcome(
        {
            "n_train": len(train),
            "n_validation": len(val),
            "n_ward_noises": len(bank),
            "n_epochs": len(history),
            "best_epoch": best.number,
            "first_train_loss": history[0].train_loss,
            "train_loss": best.train_loss,
            "val_loss": best.val_loss,
            "n_parameters": sum(weight.numel() for weight in classifier.network.parameters()),
        }
    )


def with_expected_labels(table: pd.DataFrame, whose: Literal["weak", "all"] | None) -> pd.DataFrame:
    """The table with, in place of a label, the probability of label 1.

    Binary cross-entropy is linear in its target: with this one it is the loss that is expected
    where the label is wrong with the probability that its confidence leaves.  A label without a
    confidence is certain, and with ``weak``, so is one that people gave.
    """
    from spira_tasks.intake.record_contract import WEAK_SOURCES

    if whose is None:
        return table
    confidence = table["label_confidence"].fillna(1.0)
    if whose == "weak":
        confidence = confidence.where(table["label_source"].isin(WEAK_SOURCES), 1.0)
    return table.assign(label=confidence.where(table["label"] == 1, 1.0 - confidence).astype(float))


class Progress:
    """How far a training is; its best weights are those of ``classifier``."""

    def __init__(
        self, learner: Learner, classifier: Classifier, config: Config, work: Work
    ) -> None:
        self.learner, self.classifier, self.config, self.work = learner, classifier, config, work
        self.n_kept = 0  # the epoch that a training stopped now would go on after
        self.unsaved: tuple[dict[str, Tensor], dict[str, Any]] | None = None
        self.saved_at = time.monotonic()

    @property
    def best(self) -> Epoch:
        return min(self.learner.history, key=lambda epoch: epoch.val_loss)

    def is_over(self) -> bool:
        history = self.learner.history
        if not history:
            return False
        n_no_better = len(history) - self.best.number
        return len(history) >= self.config.epochs or n_no_better >= self.config.patience_epochs

    def resume(self) -> None:
        """Go on from the checkpoint of an earlier try, if there is one that can be used."""
        from spira_tasks.speech.training import Epoch, restore, unpack

        content = self.work.checkpoint.load()
        if content is None:
            return
        try:
            tensors, facts = unpack(content)
            history, n_steps, at = facts["history"], facts["n_steps"], facts["at"]
            epochs = [Epoch(**row) for row in history]
            restore(self._tensors(), tensors)
        except (ValueError, KeyError, TypeError) as error:
            log.warning("the checkpoint is set aside, for %s: training from the start", error)
            self.work.checkpoint.set_aside()
            return
        self.learner.history, self.learner.n_steps, self.n_kept = epochs, n_steps, len(epochs)
        self._track(epochs[-1])  # known there already; but the run in MLflow has to be found
        log.info(
            "goes on after epoch %d of %d (checkpoint of %s)", len(epochs), self.config.epochs, at
        )

    def keep(self) -> None:
        """Take what an epoch has led to; save it when the last time was a while ago."""
        learner = self.learner
        epoch = learner.history[-1]
        self._track(epoch)  # before its state is taken: what is gone on after has been shown
        if self.best is epoch:
            self.classifier.network.load_state_dict(learner.average.state_dict())
        facts = {
            "history": [asdict(epoch) for epoch in learner.history],
            "n_steps": learner.n_steps,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        copies = {name: tensor.clone() for name, tensor in self._tensors().items()}
        self.unsaved, self.n_kept = (copies, facts), epoch.number
        if time.monotonic() - self.saved_at >= CHECKPOINT_SECONDS:
            self.save()

    def save(self) -> bool:
        """Save what was last kept; say whether it is saved.  A store that is away stops nobody."""
        from spira_tasks.speech.training import pack

        self.saved_at = time.monotonic()
        if self.unsaved is not None:
            try:
                self.work.checkpoint.save(pack(*self.unsaved))
            except (SpiraError, OSError) as error:
                log.warning("the state after epoch %d is not saved: %s", self.n_kept, error)
                return False
            self.unsaved = None
        return True

    @contextmanager
    def saved_when_stopped(self) -> Iterator[None]:
        """Save the state of the last finished epoch when something stops the training.

        Be it a signal, Ctrl-C or a service that does not answer; and let that go on.
        """
        try:
            yield
        except BaseException:
            if self.n_kept and self.save():
                log.info(
                    "stopped after epoch %d: its state is saved, run it again to go on from there",
                    self.n_kept,
                )
            raise

    def _track(self, epoch: Epoch) -> None:
        numbers = {name: value for name, value in asdict(epoch).items() if name != "number"}
        self.work.track(epoch.number, numbers)

    def _tensors(self) -> dict[str, Tensor]:
        best = self.classifier.network.state_dict()
        return self.learner.tensors() | {f"best.{name}": weight for name, weight in best.items()}


def choose_device(name: str) -> str:
    """``auto`` is CUDA where there is one; ``cuda`` where there is none is an error."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "train.device is cuda, but torch sees no GPU here: set it to auto or cpu, or run the "
            "step where a GPU is"
        )
    return name
