"""Fit a network; keep the weights of the epoch with the lowest validation loss."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from spira_tasks.config import Fraction, StageConfig, implementation_of, registered
from spira_tasks.contract import presets
from spira_tasks.contract.record import Outcome
from spira_tasks.errors import ConfigError, GateRejected, SpiraError
from spira_tasks.speech.networks import NETWORKS
from spira_tasks.speech.recipes import LOSSES, OPTIMISERS, SCHEDULES

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from spira_tasks.artifacts import Directory
    from spira_tasks.speech.classifier import Classifier
    from spira_tasks.speech.training import Epoch, Learner, Recipe
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
    """The published network on a shorter leash (docs/training.md).

    Everything that changes the weights is here, the seed and the number of threads with it.
    """

    # A published experiment, whose settings lie under those of the run; and which of them the run
    # set to something else.  The pipeline fills in both (``contract.presets``).
    preset: str = ""
    departures: tuple[str, ...] = ()
    task: Literal["VOWEL", "RHYME", "SENTENCE"] = "SENTENCE"
    seed: NonNegativeInt = 42
    model: Annotated[str, registered(NETWORKS)] = "spiraconv_v2"
    model_code: str = implementation_of(NETWORKS, "model")
    dropout: Fraction = 0.3
    options: dict[str, Any] = Field(default_factory=dict)  # of the network, by its name
    epochs: PositiveInt = 100
    patience_epochs: PositiveInt = 40
    batch_size: PositiveInt = 5
    loss: Annotated[str, registered(LOSSES)] = "bce"
    loss_code: str = implementation_of(LOSSES, "loss")
    optimiser: Annotated[str, registered(OPTIMISERS)] = "adam"
    optimiser_code: str = implementation_of(OPTIMISERS, "optimiser")
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    schedule: Annotated[str, registered(SCHEDULES)] = "noam"
    schedule_code: str = implementation_of(SCHEDULES, "schedule")
    warmup_steps: PositiveInt = 150
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip_norm: Annotated[float, Field(ge=0)] = 0.0
    sampler: Literal["plain", "balanced"] = "plain"
    last_batch: Literal["keep", "drop"] = "keep"
    windows: Literal["all", "random"] = "random"
    standardize: bool = True
    averaging: Annotated[float, Field(ge=0, lt=1)] = 0.99
    validation: Literal["recordings", "windows", "classes"] = "recordings"
    validation_noise: Literal["once", "each_epoch"] = "once"
    min_noises: NonNegativeInt = 0
    max_noises: NonNegativeInt = 2
    # Fewest and most noises of a patient, where the two above are for controls only.  A model of
    # such a training is never promoted.
    patient_noises: tuple[NonNegativeInt, NonNegativeInt] | None = None
    noise_peak: Literal["absolute", "signed"] = "absolute"
    mixup: Annotated[float, Field(ge=0)] = 0.0
    time_stripes: NonNegativeInt = 0
    time_stripe_frames: PositiveInt = 64
    frequency_stripes: NonNegativeInt = 0
    frequency_stripe_bins: PositiveInt = 8
    # Whose labels are learned as probabilities, by their confidence: a loss that is expected over
    # what the label may be.  None: every label as it is.
    soft_labels: Literal["weak", "all"] | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    n_threads: PositiveInt = 2
    # Each with as many threads, a GPU each where there are some.  As another number of threads,
    # another number of processes changes the last digits of the weights.
    n_processes: PositiveInt = 1

    @model_validator(mode="after")
    def preset_is_kept(self) -> Self:
        """A step that is run by hand may name a preset without its settings."""
        if self.preset:
            kept = self.model_dump(mode="json")
            for target, value in presets.find(self.preset).settings.items():
                step, _, key = target.partition(".")
                if step == "train" and kept[key] != value and target not in self.departures:
                    raise ValueError(
                        f"{key} is {kept[key]}, and {value} in the preset {self.preset}: run the "
                        f"pipeline with train.preset, or name {target} in departures"
                    )
        return self

    @model_validator(mode="after")
    def noises_make_a_range(self) -> Self:
        if self.min_noises > self.max_noises:
            raise ValueError(f"min_noises {self.min_noises} exceeds max_noises {self.max_noises}")
        if self.patient_noises and self.patient_noises[0] > self.patient_noises[1]:
            raise ValueError("patient_noises are the fewest and the most, in that order")
        return self

    @model_validator(mode="after")
    def processes_have_one_loss(self) -> Self:
        """Only of this loss is the mean over processes that of the whole batch."""
        if self.n_processes > 1 and (self.loss != "bce" or self.mixup):
            raise ValueError("n_processes above 1 needs the loss bce, without mixup")
        return self


def run(inputs: Inputs, config: Config, outputs: Outputs, work: Work) -> Outcome:
    import torch

    from spira_tasks.corpus import examples, load_features, noise_bank
    from spira_tasks.speech import cpu, memory, parallel
    from spira_tasks.speech.augmentation import NoisePolicy
    from spira_tasks.speech.batches import Batches
    from spira_tasks.speech.classifier import Classifier, ClassifierSpec
    from spira_tasks.speech.features import FeatureSpec
    from spira_tasks.speech.training import Learner, fit

    cpu.prepare(config.n_threads)
    device = choose_device(config.device)
    table, features = chosen(inputs, config)
    training, validation = (table[table["split"] == side] for side in ("train", "validation"))
    training = with_expected_labels(training, config.soft_labels)
    train = examples(training, work.blobs, device)
    val = examples(validation, work.blobs, device)
    bank = noise_bank(inputs.ward_noise, "train", work.blobs, device)
    if (config.max_noises or config.patient_noises) and not bank:
        log.warning("no ward noise came with the data: training without ward-noise insertion")

    torch.manual_seed(config.seed)  # the initial weights; everything later has its own generator
    spec = ClassifierSpec(
        task=config.task,
        features=FeatureSpec.from_json(inputs.features.path("features.json").read_text()),
        model=config.model,
        implementation=config.model_code,
        options=network_options(config),
    )
    if config.windows == "random" and spec.features.temporal != "windows":
        raise ConfigError(
            f"train.windows is random, and materialize.temporal is {spec.features.temporal}: a "
            "recording is one matrix there; set train.windows to all"
        )
    classifier = Classifier(spec)
    if config.n_processes > 1 and parallel.sees_its_batch(classifier.network):
        raise ConfigError(
            f"{config.model} normalises by its batch, of which each process would see a part: "
            "set train.n_processes to 1, or choose another train.model"
        )
    if config.standardize:
        stored = features.set_index("record_id")["features"]
        digests = stored.loc[training["record_id"]]
        classifier.standardize.fit(load_features(digest, work.blobs) for digest in digests)
    classifier.to(device)
    memory.check(
        needed(
            classifier,
            config,
            ((training, train.most_bytes), (validation, val.most_bytes)),
            features,
            bank,
        ),
        device,
    )
    learner = Learner(classifier.network, recipe(config))
    noise = NoisePolicy(
        config.min_noises, config.max_noises, config.patient_noises, config.noise_peak
    )
    extractor = classifier.extractor
    epochs = fit(
        learner,
        Batches(train, extractor, bank, noise, windows=config.windows, seed=config.seed),
        Batches(val, extractor, bank, noise, windows="all", seed=config.seed),
        labels=training["label"].astype(float).tolist(),
        seed=config.seed,
        fill=classifier.standardize.mean,
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


def needed(
    classifier: Classifier,
    config: Config,
    holds: Sequence[tuple[pd.DataFrame, int]],
    features: pd.DataFrame,
    bank: Sequence[Tensor],
) -> dict[str, int]:
    """Estimate the bytes that a training needs, by what they are for.

    Parameters
    ----------
    holds : sequence of (DataFrame, int)
        The recordings to train on, and those to validate on; how many bytes of each are held.
    bank : sequence of (time,) float Tensor
        Ward noises, which are there already: each of the two ``Batches`` makes a padded copy.
    """
    from spira_tasks.speech import memory
    from spira_tasks.speech.held import HELD_BYTES

    spec = classifier.spec.features
    of_train, of_val = (
        features.loc[features["record_id"].isin(table["record_id"]), "n_windows"]
        for table, _ in holds
    )
    n_samples = [
        (spec.window_seconds + (n_windows - 1) * spec.step_seconds) * spec.sample_rate_hz
        for n_windows in (of_train, of_val)
    ]
    largest = of_train.nlargest(config.batch_size).sum()
    of_features = 4 * int(of_val.sum()) * spec.n_frames * spec.n_bins
    padded = 4 * len(bank) * max(map(len, bank), default=0)
    waveforms = [min(2 * int(n.sum()), most) for n, (_, most) in zip(n_samples, holds, strict=True)]
    return memory.needed(
        classifier.network,
        spec,
        n_windows=int(largest) if config.windows == "all" else config.batch_size,
        n_samples=config.batch_size * int(n_samples[0].max()),
        n_noises=max(config.max_noises, *(config.patient_noises or (0,))),
        held=sum(waveforms) + min(of_features, HELD_BYTES) + 2 * padded,
    )


def chosen(inputs: Inputs, config: Config) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The recordings to learn from and to validate on, and the table of all features."""
    import pandas as pd

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
    return table, features


def network_options(config: Config) -> dict[str, Any]:
    """``options``, and the dropout where the network has one."""
    from spira_tasks.speech.networks import options_of

    known = options_of(config.model, config.model_code)
    dropout = {"dropout": config.dropout} if "dropout" in known else {}
    return dropout | config.options


def recipe(config: Config) -> Recipe:
    """What of the configuration the loop needs; its losses and such are of the named packages."""
    from spira_tasks.speech.spec_augment import Stripes
    from spira_tasks.speech.training import Recipe

    LOSSES.find(config.loss, config.loss_code)
    OPTIMISERS.find(config.optimiser, config.optimiser_code)
    SCHEDULES.find(config.schedule, config.schedule_code)
    return Recipe(
        n_epochs=config.epochs,
        batch_size=config.batch_size,
        loss=config.loss,
        optimiser=config.optimiser,
        learning_rate=config.learning_rate,
        schedule=config.schedule,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        clip_norm=config.clip_norm,
        sampler=config.sampler,
        drop_last=config.last_batch == "drop",
        mixup=config.mixup,
        stripes=Stripes(
            config.time_stripes,
            config.frequency_stripes,
            config.time_stripe_frames,
            config.frequency_stripe_bins,
        ),
        averaging=config.averaging,
        validation=config.validation,
        new_validation_noise=config.validation_noise == "each_epoch",
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
            self.learner.make_moments()
            restore(self._tensors(), tensors)
        except (ValueError, KeyError, TypeError) as error:
            self.learner.optimizer.state.clear()
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
