"""The services as one application, for one process: what a laptop runs."""

from __future__ import annotations

import os
from pathlib import Path

from fastapi import FastAPI
from sqlalchemy import Engine

from spira_services.collection import api as collection
from spira_services.labelling import OfCollection
from spira_services.labels import api as labels
from spira_services.serving.gauges import of_answers
from spira_services.web import create_app
from spira_tasks.artifacts.blobs import Blobs
from spira_tasks.artifacts.sources import open_backend

AUDIO_VARIABLE = "SPIRA_COLLECTION_AUDIO"  # store A: a folder, or s3://bucket/prefix
FOLDER_VARIABLE = "SPIRA_SERVICES_FOLDER"  # of what is not whole yet, and of SQLite


def folder() -> Path:
    """Where the services keep what is theirs on this machine."""
    return Path(os.environ.get(FOLDER_VARIABLE) or ".spira/services").resolve()


def audio() -> Blobs:
    """Store A; raises ConfigError for a place that is none."""
    return Blobs(open_backend(os.environ.get(AUDIO_VARIABLE) or str(folder() / "audio")))


def application(engine: Engine) -> FastAPI:
    """All services on one database; raises ConfigError for a store that is none."""
    blobs = audio()
    app = create_app("SPIRA", engine, collection.STREAMS)
    app.state.metrics.add("answers", of_answers(engine))
    collection.add_to(app, engine, blobs, folder() / "unfinished")
    labels.add_to(app, engine, OfCollection(blobs))
    return app
