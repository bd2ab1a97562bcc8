"""Fit SPIRAConv; keep the weights of the epoch with the lowest validation loss."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from spira_tasks.config import Fraction, StageConfig
from spira_tasks.contract import Outcome
from spira_tasks.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from spira_tasks.artifacts import Blobs, Directory
    from spira_tasks.work import Work

log = logging.getLogger(__name__)


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

    from spira_tasks.corpus import examples, noise_bank
    from spira_tasks.speech import cpu
    from spira_tasks.speech.augmentation import NoisePolicy
    from spira_tasks.speech.classifier import Classifier, ClassifierSpec
    from spira_tasks.speech.features import FeatureSpec
    from spira_tasks.speech.training import Schedule, fit

    cpu.prepare(config.n_threads)
    device = choose_device(config.device)
    table = pd.read_parquet(inputs.recordings.path("recordings.parquet"))
    table = table[(table["task"] == config.task) & table["label"].notna()]
    train = examples(table[table["split"] == "train"], work.blobs, device)
    val = examples(table[table["split"] == "validation"], work.blobs, device)
    if not train or not val:
        raise ConfigError(
            f"{len(train)} recordings of task {config.task} to train on and {len(val)} to validate "
            f"on: both are needed; ingest more subjects or choose another train.task"
        )
    bank = noise_bank(inputs.ward_noise, "train", work.blobs, device)
    if config.max_noises and not bank:
        log.warning("no ward noise came with the data: training without ward-noise insertion")

    torch.manual_seed(config.seed)  # the initial weights; everything later has its own generator
    spec = ClassifierSpec(
        task=config.task,
        features=FeatureSpec.from_json(inputs.features.path("features.json").read_text()),
        model=config.model,
        dropout=config.dropout,
    )
    classifier = Classifier(spec)
    if config.standardize:
        of_training = features_of([example.record_id for example in train], inputs, work.blobs)
        classifier.standardize.fit(of_training)
    classifier.to(device)
    loop = fit(
        classifier.network,
        classifier.extractor,
        train,
        val,
        schedule=Schedule(
            n_epochs=config.epochs,
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            warmup_steps=config.warmup_steps,
            weight_decay=config.weight_decay,
            windows=config.windows,
            averaging=config.averaging,
        ),
        bank=bank,
        noise=NoisePolicy(config.min_noises, config.max_noises),
        seed=config.seed,
    )
    best, history = None, []
    for epoch in loop:
        history.append(epoch)
        work.track(epoch.number, {k: v for k, v in asdict(epoch).items() if k != "number"})
        if best is None or epoch.val_loss < best.val_loss:
            best = epoch
            classifier.save(outputs.model)
        log.info(
            "epoch %d of %d: train loss %.4f, validation loss %.4f%s",
            epoch.number,
            config.epochs,
            epoch.train_loss,
            epoch.val_loss,
            " (best)" if best is epoch else "",
        )
        if epoch.number - best.number >= config.patience_epochs:
            log.info("no better for %d epochs: stopping", config.patience_epochs)
            break
    assert best is not None  # noqa: S101  (epochs is positive)
    rows = [asdict(epoch) for epoch in history]
    (outputs.model / "history.json").write_text(json.dumps(rows, indent=1))
    settings = config.model_dump(mode="json")
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


def features_of(record_ids: list[str], inputs: Inputs, blobs: Blobs) -> Iterator[Tensor]:
    """The materialized (window, frame, bin) features of some recordings, one by one."""
    import numpy as np
    import pandas as pd
    import torch

    table = pd.read_parquet(inputs.features.path("features.parquet")).set_index("record_id")
    for digest in table["features"].loc[record_ids]:
        yield torch.from_numpy(np.load(blobs.path(digest)))


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
