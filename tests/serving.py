"""A registry whose model may serve, and workers that answer by it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from uuid import uuid4

import torch
from sqlalchemy import Engine

from spira_services import devices
from spira_services.database import now
from spira_services.devices import Device
from spira_services.serving.inferences import Backlog, Inference, Inferences, SentInference, state
from spira_services.serving.models import Models
from spira_services.serving.queue import Queue
from spira_services.serving.relay import Relay
from spira_services.serving.worker import Worker, note_refused
from spira_services.uploads import note
from spira_tasks import package
from spira_tasks.artifacts import Store
from spira_tasks.artifacts.blobs import Blobs
from spira_tasks.speech.classifier import Classifier, ClassifierSpec
from spira_tasks.stages import evaluate, register
from spira_tasks.tracking import CLASSIFIER, Registered, Tracker

SECONDS = 120.0  # after which a test gives up


def until(is_so: Callable[[], object]) -> None:
    """Wait until something is so."""
    end = monotonic() + SECONDS
    while not is_so():
        assert monotonic() < end, "it did not come to be"
        sleep(0.05)


@contextmanager
def working(engine: Engine, blobs: Blobs, queue: Queue, store: Store) -> Iterator[Worker]:
    """A worker in threads of this process; its models are in processes as ever."""
    models = Models(store, note_refused(engine))
    worker = Worker(engine, blobs, queue, models)
    models.also = worker.look
    models.start()
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        with Relay(engine, queue):
            yield worker
    finally:
        worker.stopping.set()
        thread.join()
        models.close()


def publish(
    store: Store,
    folder: Path,
    seed: int = 0,
    edit: Callable[[Path], None] = lambda _: None,
    n_hidden: int | None = 2,
) -> Registered:
    """Register a model that learned nothing; ``edit`` changes its files before the seal.

    ``n_hidden`` is that of its last layers; None is what a training takes.

    It answers the golden clips, and is nobody's champion yet.
    """
    torch.manual_seed(seed)
    made = folder / f"made-{uuid4().hex}"
    (made / "parts").mkdir(parents=True)
    spec = ClassifierSpec() if n_hidden is None else ClassifierSpec(options={"n_hidden": n_hidden})
    Classifier(spec).save(made / "parts")
    evaluate.policy("SENTENCE", None).save(made / "parts")
    classifier = store.put_directory(made / "parts")
    register.write_package(made, store.directory(classifier))
    edit(made / "model")
    tags = package.tags_of(classifier, store.put_directory(made / "model"))
    tracker = Tracker(store.tracking_uri)
    run_id = tracker.run_of(f"sha256:{seed:064x}", "model")
    return tracker.register(run_id, made / "model", {CLASSIFIER: classifier, **tags})


def code_of(model: Path) -> Path:
    """The module of a model's files that answers."""
    (file,) = model.glob("code/*/speech/pyfunc.py")
    return file


# Of a model that fails on some files, each in its way.
POISONOUS = """

_answer = answer


def answer(classifier, policy, content):
    import os, time

    if content == b"crash":
        os._exit(1)
    if content == b"hang":
        time.sleep(60)
    if content == b"error":
        raise ArithmeticError
    return _answer(classifier, policy, content)
"""
REASONS = {b"crash": "crashed", b"hang": "too_slow", b"error": "ArithmeticError"}


def poisonous(model: Path) -> None:
    code_of(model).write_text(code_of(model).read_text() + POISONOUS)


@dataclass
class Asker:
    """A device of a site that asks as the interface does."""

    engine: Engine
    blobs: Blobs
    device: Device

    @classmethod
    def at(cls, engine: Engine, blobs: Blobs) -> Asker:
        with engine.begin() as connection:
            devices.add_site(connection, "hc", "Hospital", "cli:test")
            code = devices.new_code(connection, "hc", "c" * 64, "cli:test")
            enrolled = devices.enrol(connection, code, "Moto G", "Android 14")
        assert enrolled is not None
        return cls(engine, blobs, enrolled[0])

    def ask(self, audio: bytes) -> str:
        """Store an inference; return its id."""
        digest = self.blobs.put(audio).removeprefix("sha256:")
        with self.engine.begin() as connection:
            note(connection, self.device.device_id, digest, len(audio))
        sent = SentInference(sha256=digest, recorded_at=now())
        inferences = Inferences(self.engine, self.blobs, Backlog(self.engine))
        return inferences.ask(self.device, uuid4(), sent).inference_id

    def answer(self, inference_id: str) -> Inference:
        with self.engine.connect() as connection:
            found = state(connection, inference_id)
        assert found is not None
        return found
