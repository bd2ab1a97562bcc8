"""The versions that a worker has ready: which may answer, and what is tried again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from in_use import put_into_use
from serving import Asker, until
from sqlalchemy import select

from spira_services.database import migrate, open_engine, reading
from spira_services.serving import models as versions
from spira_services.serving import worker as rules
from spira_services.serving.models import ModelFailed, Models, Version, VersionBroken
from spira_services.serving.queue import QUEUE, SqlQueue
from spira_tasks import package
from spira_tasks.artifacts import Store
from spira_tasks.artifacts.blobs import Blobs, digest_of
from spira_tasks.artifacts.sources import open_backend
from spira_tasks.tracking import CHAMPION, CLASSIFIER, MODEL, Registered, Tracker

ANSWER: dict[str, Any] = {
    "probability": 0.5,
    "decision": "positive",
    "record_again": [],
    "unusual": [],
    "window_scores": [0.5],
    "operating_point": 0.5,
    "version": "sha256:0",
}
CODE = """
import os, time
import pandas as pd


class Model:
    def predict(self, rows):
        while os.path.exists({busy!r}):
            time.sleep(0.01)
        return pd.DataFrame([{answer}])


def _load_pyfunc(data):
    assert not os.path.exists({full!r})
    return Model()
"""


def write(folder: Path, full: Path, answer: dict[str, Any] = ANSWER) -> Path:
    """The files of a model that always answers the same, and does not start while a file is there.

    It does not answer while there is another, of that name with ``-busy``.

    What a worker does with a version asks for no network, which would take seconds to load.
    """
    golden = folder / package.DATA / package.GOLDEN
    golden.mkdir(parents=True)
    (golden / "clip").write_bytes(b"clip")
    clip = {"name": "clip", "audio_seconds": 100.0, "answer": answer}
    index = {"clips": [clip], "limits": {"cpu_seconds": 1.0}}
    (golden / package.GOLDEN_FILE).write_text(json.dumps(index))
    features = {"name": "mfcc"}
    about = {"model": "spiraconv_v2", "features": features, "written": folder.name}
    (folder / package.DATA / package.CLASSIFIER_FILE).write_text(json.dumps(about))
    (folder / "code").mkdir()
    (folder / "code/constant.py").write_text(
        CODE.format(answer=answer, full=str(full), busy=f"{full}-busy")
    )
    form = {"code": "code", "data": str(package.DATA), "loader_module": "constant"}
    (folder / "MLmodel").write_text(json.dumps({"flavors": {"python_function": form}}))
    return folder


def version_of(folder: Path) -> Version:
    return Version(Registered("1", "", "", (), {}), folder)


def clips_of_another_form(folder: Path) -> None:
    (folder / package.DATA / package.GOLDEN / package.GOLDEN_FILE).write_text("[]")


def clip_that_is_lost(folder: Path) -> None:
    (folder / package.DATA / package.GOLDEN / "clip").unlink()


def features_that_are_not_described(folder: Path) -> None:
    (folder / package.DATA / package.CLASSIFIER_FILE).write_text("{}")


@pytest.mark.parametrize(
    "spoil", [clips_of_another_form, clip_that_is_lost, features_that_are_not_described]
)
def test_a_version_of_another_form_is_refused_and_ends_no_worker(
    spoil: Callable[[Path], None], tmp_path: Path
) -> None:
    spoil(folder := write(tmp_path / "model", tmp_path / "full"))
    with pytest.raises(VersionBroken, match="does not say what is needed"):
        version_of(folder).prepare()


def test_a_version_whose_answers_lack_what_a_worker_writes_is_refused(tmp_path: Path) -> None:
    answer = {name: value for name, value in ANSWER.items() if name != "unusual"}
    version = version_of(write(tmp_path / "model", tmp_path / "full", answer))
    with pytest.raises(VersionBroken, match="in a form that this worker does not know"):
        version.prepare()
    version.close()


def test_a_version_that_was_closed_is_not_called_broken(tmp_path: Path) -> None:
    version = version_of(write(tmp_path / "model", tmp_path / "full"))
    version.prepare()
    assert version.answer(b"any")["probability"] == 0.5
    version.close()
    with pytest.raises(ModelFailed):  # to a shadow that was at work on it
        version.answer(b"any")


def test_a_lease_is_kept_as_long_as_a_model_is_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "LEASE_SECONDS", 0.0)  # so that it is extended at each beat
    monkeypatch.setattr(versions, "BEAT_SECONDS", 0.05)
    engine = open_engine(f"sqlite:///{tmp_path}/services.db")
    migrate(engine)
    asker = Asker.at(engine, Blobs(open_backend(str(tmp_path / "audio"))))
    version = version_of(write(tmp_path / "model", tmp_path / "full"))
    version.prepare()
    models = Models(Store(str(tmp_path / "store")), lambda *_: None)
    models._ready, models._aliases = {"1": version}, {CHAMPION: "1"}
    worker = rules.Worker(engine, asker.blobs, SqlQueue(engine), models)
    (tmp_path / "full-busy").touch()
    asked = asker.ask(b"of another length")
    worker.queue.put([asked])

    def lease() -> Any:
        with reading(engine) as connection:
            return connection.execute(select(QUEUE.c.n_tries, QUEUE.c.ready_at)).one()

    with ThreadPoolExecutor() as threads:
        threads.submit(worker.run, until_empty=True)
        until(lambda: lease().n_tries)
        for _ in range(2):
            before = lease().ready_at
            until(lambda: lease().ready_at > before)  # noqa: B023
        (tmp_path / "full-busy").unlink()
        until(lambda: asker.answer(asked).state == "answered")
        worker.stopping.set()
    assert lease().n_tries == 1
    engine.dispose()
    models.close()


def test_a_worker_without_a_model_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rules, "WAIT_SECONDS", 0.001)
    engine = open_engine(f"sqlite:///{tmp_path}/services.db")
    models = Models(Store(str(tmp_path / "store")), lambda *_: None)
    models.is_followed = True  # and there is no champion
    blobs = Blobs(open_backend(str(tmp_path / "audio")))
    worker = rules.Worker(engine, blobs, SqlQueue(engine), models)
    with ThreadPoolExecutor() as threads:
        threads.submit(worker.run)
        for _ in range(12_000):
            time.sleep(0.01)  # some turns
            if "no version of the model may serve" in caplog.text:
                break
        time.sleep(0.05)  # and some more
        worker.stopping.set()
    assert caplog.text.count("no version of the model may serve") == 1
    engine.dispose()
    models.close()


def test_what_could_not_serve_is_tried_again_and_what_was_deleted_is_tried_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, full, refused = Store(str(tmp_path / "store")), tmp_path / "full", list[str]()
    tracker = Tracker(store.tracking_uri)
    for name in ("first", "second"):
        folder = write(tmp_path / name, full)
        classifier = digest_of(name.encode())
        tags = package.tags_of(classifier, store.put_directory(folder))
        run_id = tracker.run_of(classifier, "model")
        tracker.register(run_id, folder, {CLASSIFIER: classifier, **tags})
    put_into_use(tracker, "1")
    models = Models(store, lambda number, *_: refused.append(number))

    def followed(is_so: Callable[[], object]) -> None:
        end = time.monotonic() + 120
        while not is_so():
            assert time.monotonic() < end, "it did not come to be"
            models.follow(tracker)
            time.sleep(0.05)

    full.touch()
    followed(lambda: refused)
    full.unlink()
    followed(lambda: models.is_followed)
    assert models.serving is None  # it is not tried at every look
    monkeypatch.setattr(versions, "AGAIN_SECONDS", 0.0)
    models._broken = {"1": 0.0}  # as if the time had passed
    followed(lambda: models.serving)

    models.also = lambda: ("2", 0)
    followed(lambda: models.get("2"))
    tracker.client.delete_model_version(MODEL, "2")  # as on MLflow's page
    followed(lambda: models.get("2") is None)
    assert refused == ["1", "2"]
    models.close()
