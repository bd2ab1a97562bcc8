"""The SQL database of the services: SQLite on a laptop, Postgres in production, the same tables.

Each subsystem declares its tables on ``metadata``, under names that begin with its own.  Alembic
migrates (``migrations/``); a test compares the migrated database with the declared tables.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import (
    JSON,
    Connection,
    DateTime,
    Dialect,
    Engine,
    Insert,
    MetaData,
    Table,
    create_engine,
    event,
)
from sqlalchemy import text as sql
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, InterfaceError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection
from sqlalchemy.types import TypeDecorator

from spira_tasks.errors import ConfigError, ServiceUnavailable

VARIABLE = "SPIRA_SERVICES_DATABASE"
BUSY_SECONDS = 30  # a writer of SQLite waits this long for another
CONNECT_SECONDS = 10  # so long a server of Postgres may be silent
STATEMENT_SECONDS = 60  # and so long work on a statement, or wait for a lock
# That the database does not answer; the last is of the pool, whose connections all wait for it.
AWAY = OperationalError, InterfaceError, NoConnection
MIGRATION_LOCK = 5_271_901  # any number that no other program of the server locks

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
# Of documents: JSONB can be searched and indexed.
Json = JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


class Instant(TypeDecorator[datetime]):
    """A time with its zone, kept in UTC; SQLite, which knows no zones, gets it without."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, _: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def now() -> datetime:
    """The time in UTC."""
    return datetime.now(UTC)


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that only reads.  On SQLite it waits for no writer, and no writer for it."""
    with engine.execution_options(only_reads=True).connect() as connection:
        yield connection


def insert_once(connection: Connection, table: Table, row: dict[str, Any]) -> bool:
    """Insert a row unless one with the same unique key is there; say whether it is new."""
    return bool(connection.execute(_once(table, connection.dialect.name), row).rowcount)


@cache
def _once(table: Table, dialect: str) -> Insert:
    """Built once: to build and to recognise it takes most of its time."""
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return insert(table).on_conflict_do_nothing()


def is_there() -> bool:
    """Whether the services have a database here: one is named, and if a file, it was made."""
    address = os.environ.get(VARIABLE, "")
    file = address.removeprefix("sqlite:///")
    return Path(file).is_file() if file != address else bool(address)


def open_engine(url: str | None = None) -> Engine:
    """Connect to the database, by default the one of SPIRA_SERVICES_DATABASE.

    Parameters
    ----------
    url : str, optional
        ``sqlite:///FILE`` or ``postgresql+psycopg2://USER:PASSWORD@HOST/DATABASE``.

    Raises
    ------
    ConfigError
        When the address is none.  It is not quoted: a password is in it.
    """
    address = url or os.environ.get(VARIABLE, "")
    if not address:
        raise ConfigError(
            f"{VARIABLE} is not set: give it sqlite:///FILE or postgresql+psycopg2://…"
        )
    try:
        engine = create_engine(address, pool_pre_ping=True)
    except (ArgumentError, NoSuchModuleError, ImportError):
        raise ConfigError(
            f"{VARIABLE} is no address of a database: write sqlite:///FILE or "
            "postgresql+psycopg2://USER:PASSWORD@HOST/DATABASE"
        ) from None
    if engine.dialect.name == "sqlite":
        if file := engine.url.database:
            Path(file).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    elif engine.dialect.name == "postgresql":
        event.listen(engine, "do_connect", _prepare_postgres)
    else:
        raise ConfigError(f"{VARIABLE} names neither SQLite nor Postgres")
    return engine


@contextmanager
def opened() -> Iterator[Engine]:
    """The database of SPIRA_SERVICES_DATABASE, at the newest revision, until the block ends."""
    engine = open_engine()
    try:
        migrate(engine)
        yield engine
    finally:
        engine.dispose()


def _prepare_postgres(_: object, __: object, ___: object, arguments: dict[str, Any]) -> None:
    # By default neither has an end.
    arguments.setdefault("connect_timeout", CONNECT_SECONDS)
    limit = f"-c statement_timeout={STATEMENT_SECONDS * 1000}"
    arguments["options"] = f"{limit} {arguments.get('options', '')}".strip()


def _prepare_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # transactions are begun below, not by the driver's guess
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",  # what was committed survives a power loss
        "foreign_keys = ON",
        "secure_delete = ON",  # what was erased is overwritten
        f"busy_timeout = {BUSY_SECONDS * 1000}",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # At once for writing: two that begin as readers and then write would refuse one another.
    only_reads = connection.get_execution_options().get("only_reads")
    connection.exec_driver_sql("BEGIN" if only_reads else "BEGIN IMMEDIATE")


def migrate(engine: Engine) -> None:
    """Bring the tables to the newest revision; several processes may ask at the same time.

    Raises
    ------
    ServiceUnavailable
        When the database does not answer.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sql("SET LOCAL statement_timeout = 0"))
                connection.execute(sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except OperationalError as error:
        raise ServiceUnavailable(
            f"the database of {VARIABLE} does not answer ({type(error.orig).__name__}); see that "
            "it is up and may be reached from here"
        ) from None
