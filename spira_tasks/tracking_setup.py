"""What MLflow's client needs before it is asked anything: keys, and a database that is whole."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from tempfile import TemporaryDirectory


def pass_on_s3_keys() -> None:
    """Give MLflow's S3 client the store's keys, under the names that it knows them by."""
    names = {
        "AWS_ACCESS_KEY_ID": "SPIRA_S3_ACCESS_KEY",
        "AWS_SECRET_ACCESS_KEY": "SPIRA_S3_SECRET_KEY",
        "AWS_DEFAULT_REGION": "SPIRA_S3_REGION",
        "MLFLOW_S3_ENDPOINT_URL": "SPIRA_S3_ENDPOINT",
    }
    for theirs, ours in names.items():
        if os.environ.get(ours):
            os.environ.setdefault(theirs, os.environ[ours])


def make_database(file: Path) -> None:
    """Make MLflow's tables aside and put them in place whole.

    They are made by dozens of migrations, which SQLite does not undo: killed among them, a process
    would leave a file that MLflow can neither use nor mend.
    """
    if file.exists():
        return
    from mlflow.store.db.utils import _initialize_tables
    from sqlalchemy import create_engine

    file.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="new-", dir=file.parent) as scratch:
        new = Path(scratch) / file.name
        engine = create_engine(f"sqlite:///{new}")
        _initialize_tables(engine)
        engine.dispose()
        with contextlib.suppress(FileExistsError):  # another process was first
            file.hardlink_to(new)
