"""A registry whose model may serve, and workers that answer by it."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from uuid import uuid4

import numpy as np
import torch
from sqlalchemy import Engine, select

from spira_services import devices
from spira_services.database import now, reading
from spira_services.devices import Device
from spira_services.serving import router
from spira_services.serving.inferences import Backlog, Inference, Inferences, SentInference, state
from spira_services.serving.models import Models
from spira_services.serving.queue import Queue
from spira_services.serving.relay import Relay
from spira_services.serving.tables import PREDICTIONS
from spira_services.serving.worker import Worker, note_refused
from spira_services.uploads import note
from spira_tasks import package
from spira_tasks.artifacts import Store
from spira_tasks.artifacts.blobs import Blobs
from spira_tasks.speech import audio, golden
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
    tune: Callable[[Classifier], None] = lambda _: None,
) -> Registered:
    """Register a model that learned nothing; ``edit`` changes its files before the seal.

    ``n_hidden`` is that of its last layers; None is what a training takes.  ``tune`` changes its
    weights before it answers the golden clips.

    It answers the golden clips, and is nobody's champion yet.
    """
    torch.manual_seed(seed)
    made = folder / f"made-{uuid4().hex}"
    (made / "parts").mkdir(parents=True)
    spec = ClassifierSpec() if n_hidden is None else ClassifierSpec(options={"n_hidden": n_hidden})
    made_of = Classifier(spec)
    tune(made_of)
    made_of.save(made / "parts")
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


# Of a canary that is sound for the golden clips alone.  ``found`` is a sound answer.
MISBEHAVES = """

_answer = answer


def answer(classifier, policy, content):
    import hashlib, math, os, time
    from dataclasses import replace

    decide = _answer.__globals__["decide"]
    begun = time.monotonic()
    found = _answer(classifier, policy, content)
    p = found.probability
    if p is not None and hashlib.sha256(content).hexdigest() not in {golden}:
        p = {how}
        found = replace(
            found,
            probability=p,
            decision=decide(p, classifier.spec.operating_point, policy),
            window_scores=(p,) * len(found.window_scores),
        )
    return found
"""
BAD = {
    "crash": "os._exit(1)",
    "slow": "time.sleep(4 * (time.monotonic() - begun)) or p",
    "constant": "0.99",
    "shifted": "1 / (1 + math.exp(-4) * (1 / p - 1))",  # the odds times e to the 4
}
GOOD = "p"


def misbehaving(how: str) -> Callable[[Path], None]:
    """An edit of ``publish``: a model that does ``how`` with all but the golden clips.

    ``how`` is an expression: of the probability, where it comes back.
    """
    known = {hashlib.sha256(clip.content).hexdigest() for clip in golden.clips()}

    def edit(model: Path) -> None:
        file = code_of(model)
        file.write_text(file.read_text() + MISBEHAVES.format(golden=known, how=how))

    return edit


def voices(n: int, seconds: float = 3.0) -> list[bytes]:
    """Recordings that differ: pieces of a golden clip, each at its own level."""
    rng = np.random.default_rng(1)
    clip = audio.read_pcm16(golden.clips()[0].content)
    length = round(seconds * audio.SAMPLE_RATE_HZ)
    starts, levels = rng.integers(clip.size - length, size=n), rng.uniform(0.4, 1.4, n)
    return [
        audio.encode_wav(np.rint(level * clip[start : start + length]).astype(np.int16))
        for start, level in zip(starts, levels, strict=True)
    ]


def spread(recordings: Sequence[bytes], number: int) -> Callable[[Classifier], None]:
    """A tuning of ``publish``: scores of the recordings differ as those of a model that learned.

    Their logits have a standard deviation of 1.5, and three in ten are positive.  ``number`` makes
    the weights those of another version, which answers alike.
    """

    def tune(classifier: Classifier) -> None:
        torch.manual_seed(1)  # the same weights for each
        classifier.network.load_state_dict(Classifier(classifier.spec).network.state_dict())
        scores = [classifier.probability(waveform_of(one)) for one in recordings]
        logits = np.log(scores) - np.log1p(-np.array(scores))
        *_, last = classifier.scorer.modules()  # in the order in which they are run
        assert isinstance(last, torch.nn.Linear)
        with torch.no_grad():
            times = 1.5 / logits.std()
            last.weight.mul_(times)
            last.bias.sub_(float(np.quantile(logits, 0.7))).mul_(times).add_(1e-4 * number)

    return tune


def waveform_of(content: bytes) -> torch.Tensor:
    return torch.from_numpy(audio.read_pcm16(content).astype("float32") / audio.FULL_SCALE)


@dataclass(frozen=True)
class Tried:
    """What came of a route that was open until it was stopped, or long enough."""

    measure: str | None  # that stopped it
    n_own: int  # requests that the version got
    n_asked: int
    n_twice: int  # answers beside the first that is shown
    arms: Counter[str]


def tried(
    engine: Engine,
    asker: Asker,
    recordings: Sequence[bytes],
    version: str,
    is_ready: Callable[[], object],
    most: int,
) -> Tried:
    """Try a version as a canary with a share of a half, while four requests are under way.

    Workers that run answer; ``is_ready`` says whether all have the version.  It ends when the route
    is stopped, or after ``most`` requests.
    """
    with engine.begin() as connection:
        route = router.start(
            connection, "canary", version, 0.5, by="cli:test", why="to see what it does"
        )
    until(is_ready)
    asked: list[str] = []

    def n_waiting() -> int:
        return sum(asker.answer(one).state == "queued" for one in asked[-8:])

    while is_open(engine, route) and len(asked) < most:
        until(lambda: n_waiting() < 4)
        asked.append(asker.ask(recordings[len(asked) % len(recordings)]))
    until(lambda: all(asker.answer(one).state == "answered" for one in asked))
    with engine.begin() as connection:
        stopped = router.stop(connection, by="cli:test", why="it was seen for long enough")
        found = None if stopped else router.last_stop(connection)
        shown = connection.execute(
            select(PREDICTIONS.c.inference_id, PREDICTIONS.c.arm).where(
                PREDICTIONS.c.shown, PREDICTIONS.c.inference_id.in_(asked)
            )
        ).all()
    arms = Counter(arm for _, arm in shown)
    n_twice = len(shown) - len({one for one, _ in shown})
    return Tried(
        found.found["measure"] if found is not None and found.found else None,
        arms["canary"] + arms[router.FALLBACK],
        len(asked),
        n_twice,
        arms,
    )


def is_open(engine: Engine, route: router.Route) -> bool:
    with reading(engine) as connection:
        return router.open_route(connection) == route


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
