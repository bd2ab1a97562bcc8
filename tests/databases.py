"""Empty databases of the services: SQLite always, Postgres where its programs are installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

from sqlalchemy import Engine, create_engine, text

from spira_services.database import migrate, open_engine

PROGRAMS = next(
    iter(sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), reverse=True)),
    Path(shutil.which("pg_ctl") or ""),
).parent
HAS_POSTGRES = (PROGRAMS / "pg_ctl").is_file()
BACKENDS = ("sqlite", *(("postgresql",) if HAS_POSTGRES else ()))


@contextmanager
def postgres() -> Iterator[str]:
    """A server of its own that is gone afterwards; the address of its first database."""
    # The server refuses to run as root, and the tests' own folder may be closed to others.
    is_root = os.geteuid() == 0
    user = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--")
    with TemporaryDirectory(prefix="spira-postgres-") as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()

        def call(*command: str) -> None:
            done = subprocess.run(
                [*(user if is_root else ()), str(PROGRAMS / command[0]), *command[1:]],
                cwd=folder,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                check=False,
            )
            assert not done.returncode, done.stderr.decode()[-2000:]

        if is_root:
            shutil.chown(folder, "postgres", "postgres")
        call("initdb", "--pgdata=data", "--username=spira", "--auth=trust", "--no-sync")
        settings = f"-h 127.0.0.1 -p {port} -k '' -c fsync=off -c timezone=America/Sao_Paulo"
        call("pg_ctl", "start", "--wait", "--pgdata=data", "--log=log", f"--options={settings}")
        try:
            yield f"postgresql+psycopg2://spira@127.0.0.1:{port}/postgres"
        finally:
            call("pg_ctl", "stop", "--pgdata=data", "--mode=immediate")


@contextmanager
def server(backend: str) -> Iterator[str]:
    """Where new databases can be made: the address of a server, empty for files."""
    if backend == "sqlite":
        yield ""
        return
    with postgres() as url:
        yield url


@contextmanager
def migrated(address: str, folder: Path) -> Iterator[Engine]:
    """A new database with the services' tables: of a server, or a file of the folder."""
    url = f"sqlite:///{folder}/services.db"
    if address:
        name = f"test_{uuid4().hex}"
        there = create_engine(address, isolation_level="AUTOCOMMIT")
        with there.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        there.dispose()
        url = address.rpartition("/")[0] + f"/{name}"
    engine = open_engine(url)
    try:
        migrate(engine)
        yield engine
    finally:
        engine.dispose()
