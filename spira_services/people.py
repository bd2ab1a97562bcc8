"""People who sign in: their roles, passwords and tokens.

Elsewhere a person is known by ``person_id``, a random pseudonym; the name stays in this table.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Column, Connection, ForeignKey, Table, Text, delete, select, update

from spira_services import events
from spira_services.database import Instant, Json, insert_once, metadata, now
from spira_tasks.errors import ConfigError

ROLES = ("collector", "data_manager", "clinician", "adjudicator", "governance")
SIGNED_IN = timedelta(hours=12)
MIN_PASSWORD = 12  # characters
SCRYPT = {"n": 1 << 14, "r": 8, "p": 1}  # 16 MiB and some 50 ms a try (RFC 7914)

PEOPLE = Table(
    "people",
    metadata,
    Column("person_id", Text, primary_key=True),  # 64 hex digits, as the row contract has them
    Column("name", Text, nullable=False, unique=True),
    Column("password", Text),  # salt and hash in hex; who has none cannot sign in
    Column("roles", Json, nullable=False),
    Column("added_at", Instant, nullable=False),
    Column("ended_at", Instant),
)
TOKENS = Table(
    "people_tokens",
    metadata,
    Column("token_hash", Text, primary_key=True),
    Column("person_id", Text, ForeignKey("people.person_id"), nullable=False),
    Column("expires_at", Instant, nullable=False),
)


@dataclass(frozen=True)
class Person:
    """Who asks."""

    person_id: str
    roles: frozenset[str]


def hashed(token: str) -> str:
    """How a random token is kept: who reads the table cannot use it."""
    return hashlib.sha256(token.encode()).hexdigest()


def add(
    connection: Connection, name: str, roles: Iterable[str], password: str | None, actor: str
) -> str:
    """Add a person; return the pseudonym.

    Raises
    ------
    ConfigError
        For an unknown role, no name or one that is there, or a password that is too short.
    """
    if not name.strip():
        raise ConfigError("a person needs a name to sign in by")
    wanted = sorted(set(roles))
    if unknown := sorted(set(wanted) - set(ROLES)):
        raise ConfigError(f"unknown roles {', '.join(unknown)}; there are {', '.join(ROLES)}")
    person_id = secrets.token_hex(32)
    row = {"person_id": person_id, "name": name, "roles": wanted, "added_at": now()}
    kept = None if password is None else _kept(password)
    if not insert_once(connection, PEOPLE, {**row, "password": kept}):
        raise ConfigError("there is a person of that name; choose another")
    events.record(connection, actor, "person_added", f"person:{person_id}", {"roles": wanted})
    return person_id


def set_password(connection: Connection, name: str, password: str, actor: str) -> None:
    """Give a person another password, and end all sign-ins; ConfigError for nobody."""
    person = named(connection, name)
    if person is None:
        raise ConfigError("there is no person of that name")
    theirs = PEOPLE.c.person_id == person.person_id
    connection.execute(update(PEOPLE).where(theirs).values(password=_kept(password)))
    connection.execute(delete(TOKENS).where(TOKENS.c.person_id == person.person_id))
    key = f"person_password:{person.person_id}:{now().isoformat()}"
    events.record(connection, actor, "person_password", key, {})


def end(connection: Connection, name: str, actor: str) -> None:
    """Let a person in no more; what was done stays under the pseudonym.  ConfigError for nobody."""
    row = connection.execute(select(PEOPLE.c.person_id).where(PEOPLE.c.name == name)).first()
    if row is None:
        raise ConfigError("there is no person of that name")
    changed = update(PEOPLE).where(PEOPLE.c.name == name).values(ended_at=now(), password=None)
    connection.execute(changed)
    connection.execute(delete(TOKENS).where(TOKENS.c.person_id == row.person_id))
    events.record(connection, actor, "person_ended", f"person_ended:{row.person_id}", {})


def sign_in(connection: Connection, name: str, password: str) -> str | None:
    """A new token; None for a wrong name or password, after the same work for either."""
    row = connection.execute(select(PEOPLE).where(PEOPLE.c.name == name)).first()
    known = row is not None and row.password is not None and row.ended_at is None
    kept = row.password if row is not None and known else f"{'00' * 16}:{'00' * 64}"
    salt, _, wanted = kept.partition(":")
    is_right = hmac.compare_digest(_scrypt(password, bytes.fromhex(salt)), bytes.fromhex(wanted))
    if row is None or not known or not is_right:
        return None
    token = secrets.token_urlsafe(32)
    connection.execute(delete(TOKENS).where(TOKENS.c.expires_at < now()))
    kept_token = {"token_hash": hashed(token), "person_id": row.person_id}
    connection.execute(TOKENS.insert().values(**kept_token, expires_at=now() + SIGNED_IN))
    return token


def sign_out(connection: Connection, token: str) -> None:
    connection.execute(delete(TOKENS).where(TOKENS.c.token_hash == hashed(token)))


def who(connection: Connection, token: str) -> Person | None:
    """The person of a token that is in force."""
    found = connection.execute(
        select(PEOPLE)
        .join(TOKENS)
        .where(TOKENS.c.token_hash == hashed(token), TOKENS.c.expires_at > now())
        .where(PEOPLE.c.ended_at.is_(None))
    ).first()
    return None if found is None else Person(found.person_id, frozenset(found.roles))


def named(connection: Connection, name: str) -> Person | None:
    """The person of a name, unless it is ended."""
    asked = select(PEOPLE).where(PEOPLE.c.name == name, PEOPLE.c.ended_at.is_(None))
    found = connection.execute(asked).first()
    return None if found is None else Person(found.person_id, frozenset(found.roles))


def _kept(password: str) -> str:
    if len(password) < MIN_PASSWORD:
        raise ConfigError(f"a password has at least {MIN_PASSWORD} characters")
    salt = secrets.token_bytes(16)
    return f"{salt.hex()}:{_scrypt(password, salt).hex()}"


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, **SCRYPT)
