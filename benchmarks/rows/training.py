"""Training: an epoch, and its data side, against version 1; and beside other work."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rows import recordings, version1
from benchmarks.rows.pairs import Cost, Line, Size, Spread, cost, paired, since, times_as_fast, used
from spira_tasks.artifacts import Store
from spira_tasks.stages import train
from spira_tasks.work import Work

PUBLISHED: Mapping[str, Any] = {
    "dropout": 0.7,
    "windows": "all",
    "learning_rate": 0.001,
    "warmup_steps": 1000,
    "standardize": False,
    "averaging": 0,
    "min_noises": 3,
    "max_noises": 3,
}
N_BUSY = 3


def epoch(folder: Path, size: Size) -> list[Line]:
    """An epoch with the published arithmetic, against version 1."""
    prepare(folder, size, tail="drop")
    turns = paired(published, version1.epoch, size, folder)
    return [times_as_fast("epoch with the published arithmetic, against version 1", turns, 2.0)]


def data(folder: Path, size: Size) -> list[Line]:
    """Its data side alone: reading, noise, windows, features."""
    prepare(folder, size, tail="drop")
    turns = paired(data_side, version1.data_side, size, folder)
    return [times_as_fast("the data side of that epoch alone", turns, 10.0)]


def default(folder: Path, size: Size) -> list[Line]:
    """An epoch of the default recipe, against version 1."""
    prepare(folder, size, tail="keep")
    turns = paired(recipe, version1.epoch, size, folder)
    return [times_as_fast("epoch of the default recipe, against version 1", turns, 5.0)]


def busy(folder: Path, size: Size) -> list[Line]:
    """An epoch of the default recipe beside three processes that want all of the cores."""
    prepare(folder, size, tail="keep")
    turns = paired(beside, recipe, size, folder)
    wall = Spread.of([ours.wall / alone.wall for ours, alone in turns])
    measure = f"epoch of the default recipe beside {N_BUSY} busy processes, against alone"
    return [Line(measure, "×", wall, None, 5.0, at_least=False)]


def prepare(folder: Path, size: Size, *, tail: str) -> None:
    """Recordings and their features."""
    recordings.make(folder, 5 if size.small else 20, 8.0)
    known = recordings.known(folder)
    features = recordings.materialize(Store(known["store"]), known["recordings"], {"tail": tail})
    (folder / "features").write_text(features)


def published(folder: Path) -> Callable[[], Cost]:
    return lambda: epochs(folder, PUBLISHED, 2)[1]


def recipe(folder: Path) -> Callable[[], Cost]:
    return lambda: epochs(folder, {}, 2)[1]


def beside(folder: Path) -> Callable[[], Cost]:
    def turn() -> Cost:
        with ExitStack() as stack:
            for _ in range(N_BUSY):
                spins = subprocess.Popen([sys.executable, "-c", "while True: pass"])
                stack.callback(spins.wait)
                stack.callback(spins.kill)
            return epochs(folder, {}, 2)[1]

    return turn


class Watch:
    """In place of MLflow's metrics: what each epoch costs."""

    mlflow_run = ""

    def __init__(self) -> None:
        self.costs: list[Cost] = []
        self.start = used()

    def __call__(self, number: int, metrics: Mapping[str, float]) -> None:  # noqa: ARG002
        self.costs.append(since(self.start))
        self.start = used()


def epochs(folder: Path, config: Mapping[str, Any], n: int) -> list[Cost]:
    """What each epoch of a training by the stage costs; the first includes all that is read."""
    known = recordings.known(folder)
    store, watch = Store(known["store"]), Watch()
    inputs = train.Inputs(
        recordings=store.directory(known["recordings"]),
        features=store.directory((folder / "features").read_text()),
        ward_noise=store.directory(known["ward_noise"]),
    )
    outputs = train.Outputs(model=folder / "model")
    outputs.model.mkdir(exist_ok=True)
    work = Work(
        key="benchmark",
        blobs=store.blobs,
        remember=lambda parts, make: make(),  # noqa: ARG005
        checkpoint=store.checkpoint("benchmark"),
        track=watch,  # type: ignore[arg-type]
    )
    train.run(inputs, train.Config.model_validate({"epochs": n, **config}), outputs, work)
    return watch.costs


def data_side(folder: Path) -> Callable[[], Cost]:
    """The batches of an epoch, and nothing done with them."""
    import pandas as pd

    from spira_tasks.corpus import examples, noise_bank
    from spira_tasks.speech import cpu
    from spira_tasks.speech.augmentation import NoisePolicy
    from spira_tasks.speech.batches import Batches
    from spira_tasks.speech.features import FeatureExtractor, FeatureSpec

    cpu.prepare(2)
    known = recordings.known(folder)
    store = Store(known["store"])
    table = pd.read_parquet(store.directory(known["recordings"]).path("recordings.parquet"))
    found = examples(table[table["split"] == "train"], store.blobs, "cpu")
    bank = noise_bank(store.directory(known["ward_noise"]), "train", store.blobs, "cpu")
    extractor, policy = FeatureExtractor(FeatureSpec(tail="drop")).eval(), NoisePolicy(3, 3)
    made = Batches(found, extractor, bank, policy, windows="all", seed=1)
    number = 0

    def turn() -> None:
        nonlocal number
        number += 1
        order = np.random.default_rng(number).permutation(len(found)).tolist()
        for start in range(0, len(order), version1.N_FILES):
            made.make(order[start : start + version1.N_FILES], number)

    return lambda: cost(turn)
