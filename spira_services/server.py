"""The services as one application, for one process: what a laptop runs."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from spira_tasks.artifacts.blobs import Blobs
from spira_tasks.artifacts.sources import open_backend

if TYPE_CHECKING:
    from fastapi import FastAPI

    from spira_services.serving.worker import Worker

log = logging.getLogger("spira.services")

AUDIO_VARIABLE = "SPIRA_COLLECTION_AUDIO"  # store A: a folder, or s3://bucket/prefix
FOLDER_VARIABLE = "SPIRA_SERVICES_FOLDER"  # of what is not whole yet, and of SQLite


def folder() -> Path:
    """Where the services keep what is theirs on this machine."""
    return Path(os.environ.get(FOLDER_VARIABLE) or ".spira/services").resolve()


def audio() -> Blobs:
    """Store A; raises ConfigError for a place that is none."""
    return Blobs(open_backend(os.environ.get(AUDIO_VARIABLE) or str(folder() / "audio")))


@contextmanager
def watched(engine: Engine, worker: Worker, host: str, port: int) -> Iterator[None]:
    """Serve the metrics and the health of a worker until the block ends; not at all for port 0."""
    if not port:
        yield
        return
    import uvicorn

    from spira_services.serving.gauges import of_models
    from spira_services.web import Refused, create_app

    def check() -> None:
        if worker.hangs:
            log.error("the loop of this worker hangs: start it again")
            raise Refused(503, "hangs", "the loop of this worker hangs: start it again")

    app = create_app("SPIRA worker", engine, has_people=False, check=check)
    app.state.metrics.add("models", of_models(worker.models.ready))
    config = uvicorn.Config(
        app, host=host, port=port, log_config=None, access_log=False, server_header=False
    )
    served, sockets = uvicorn.Server(config), [config.bind_socket()]
    thread = threading.Thread(target=served.run, args=(sockets,), name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        served.should_exit = True
        thread.join()


@contextmanager
def application(engine: Engine) -> Iterator[FastAPI]:
    """All services on one database, with what runs beside them until the block ends.

    Raises ConfigError for a store or a queue that is none.
    """
    from spira_services import feedback
    from spira_services.collection import api as collection
    from spira_services.feedback import OfProduction
    from spira_services.labels import api as labels
    from spira_services.serving import api as serving
    from spira_services.serving.gauges import of_answers, of_queue
    from spira_services.serving.queue import open_queue
    from spira_services.serving.relay import Relay
    from spira_services.web import create_app

    blobs, unfinished = audio(), folder() / "unfinished"
    queue = open_queue(engine)
    with Relay(engine, queue) as relay:
        app = create_app("SPIRA", engine, collection.LARGER | serving.LARGER)
        app.state.metrics.add("answers", of_answers(engine))
        app.state.metrics.add("queue", of_queue(queue.depth))
        collection.add_to(app, engine, blobs, unfinished)
        labels.add_to(app, engine, OfProduction(blobs))
        delete = partial(feedback.delete_own, engine, blobs)
        serving.add_to(app, engine, blobs, unfinished, relay, delete=delete)
        yield app
    queue.close()
