"""Sites, and the devices that may send for them."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Boolean, Column, Connection, ForeignKey, Integer, Table, Text, select, update
from sqlalchemy.engine import Row

from spira_services import events
from spira_services.database import Instant, insert_once, metadata, now
from spira_services.people import hashed
from spira_tasks.errors import ConfigError
from spira_tasks.intake.pseudonyms import canonical_site

LETTERS = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"  # without those that are read as another
N_LETTERS = 12  # 59 bits: some tries a minute are allowed
CODE_IS_GOOD_FOR = timedelta(hours=1)

SITES = Table(
    "collection_sites",
    metadata,
    Column("hospital_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("check_letter", Boolean, nullable=False),  # its numbers end in one
    # The hospital's records are searched by its own numbers: they are kept, encrypted.
    Column("keeps_numbers", Boolean, nullable=False),
    Column("expected_per_day", Integer),
)
CODES = Table(
    "collection_codes",
    metadata,
    Column("code_hash", Text, primary_key=True),
    Column("hospital_id", Text, ForeignKey("collection_sites.hospital_id"), nullable=False),
    Column("collector", Text, nullable=False),  # pseudonym of the person who gets the code
    Column("expires_at", Instant, nullable=False),
    Column("used_at", Instant),
)
DEVICES = Table(
    "collection_devices",
    metadata,
    Column("device_id", Text, primary_key=True),
    Column("key_hash", Text, nullable=False),
    Column("hospital_id", Text, ForeignKey("collection_sites.hospital_id"), nullable=False),
    Column("collector", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("os", Text, nullable=False),
    Column("enrolled_at", Instant, nullable=False),
    Column("ended_at", Instant),
)


@dataclass(frozen=True)
class Device:
    """A device that has shown its key."""

    device_id: str
    hospital_id: str
    collector: str  # pseudonym of the person who enrolled it
    model: str
    os: str


def add_site(
    connection: Connection,
    hospital_id: str,
    name: str,
    actor: str,
    *,
    check_letter: bool = False,
    keeps_numbers: bool = False,
    expected_per_day: int | None = None,
) -> None:
    """Set a site up, or change how it is set up.

    Raises
    ------
    ConfigError
        Without a name, or where the site is set up in another writing: its people are the same.
    """
    writing = canonical_site(hospital_id)
    if not writing or not name.strip():
        raise ConfigError("a site needs an id and a name")
    for known in connection.execute(select(SITES.c.hospital_id)).scalars():
        if known != hospital_id and canonical_site(known) == writing:
            raise ConfigError(f"this site is set up as {known}; write it so")
    about = {
        "name": name,
        "check_letter": check_letter,
        "keeps_numbers": keeps_numbers,
        "expected_per_day": expected_per_day,
    }
    if not insert_once(connection, SITES, {"hospital_id": hospital_id, **about}):
        connection.execute(update(SITES).where(SITES.c.hospital_id == hospital_id).values(**about))
    key = f"site:{hospital_id}:{now().isoformat()}"
    events.record(connection, actor, "site", key, {"hospital_id": hospital_id, **about})


def site(connection: Connection, hospital_id: str) -> Row[Any]:
    """How a site is set up; ConfigError where it is not."""
    row = connection.execute(select(SITES).where(SITES.c.hospital_id == hospital_id)).first()
    if row is None:
        raise ConfigError(
            f"no site {hospital_id} is set up; set it up by `python -m spira_services sites add`"
        )
    return row


def new_code(connection: Connection, hospital_id: str, collector: str, actor: str) -> str:
    """A code by which one device can be enrolled within an hour, in groups of four."""
    site(connection, hospital_id)
    code = "".join(secrets.choice(LETTERS) for _ in range(N_LETTERS))
    row = {"code_hash": hashed(code), "hospital_id": hospital_id, "collector": collector}
    connection.execute(CODES.insert().values(**row, expires_at=now() + CODE_IS_GOOD_FOR))
    about = {"hospital_id": hospital_id, "collector": collector}
    events.record(connection, actor, "code", f"code:{hashed(code)}", about)
    return "-".join(code[n : n + 4] for n in range(0, N_LETTERS, 4))


def enrol(connection: Connection, code: str, model: str, os: str) -> tuple[Device, str] | None:
    """A new device and its key; None for a code that is wrong, used or too old."""
    typed = code.upper().replace("-", "").replace(" ", "")
    in_force = (CODES.c.code_hash == hashed(typed), CODES.c.used_at.is_(None))
    used = update(CODES).where(*in_force, CODES.c.expires_at > now()).values(used_at=now())
    row = connection.execute(used.returning(CODES.c.hospital_id, CODES.c.collector)).first()
    if row is None:
        return None
    device = Device(secrets.token_hex(8), row.hospital_id, row.collector, model, os)
    secret = secrets.token_urlsafe(32)
    connection.execute(
        DEVICES.insert().values(
            device_id=device.device_id,
            key_hash=hashed(secret),
            hospital_id=device.hospital_id,
            collector=device.collector,
            model=model,
            os=os,
            enrolled_at=now(),
        )
    )
    actor, about = f"device:{device.device_id}", {"hospital_id": device.hospital_id}
    events.record(connection, actor, "device_enrolled", f"device:{device.device_id}", about)
    return device, f"{device.device_id}.{secret}"


def note_keyless(connection: Connection, device: Device) -> None:
    """Note what stands for a source that is no telephone, once; it has no key to send by."""
    row = {**vars(device), "key_hash": "", "enrolled_at": now(), "ended_at": now()}
    insert_once(connection, DEVICES, row)


def of_key(connection: Connection, key: str) -> Device | None:
    """The device that has this key."""
    device_id, _, secret = key.partition(".")
    there = (DEVICES.c.device_id == device_id, DEVICES.c.ended_at.is_(None))
    row = connection.execute(select(DEVICES).where(*there)).first()
    if row is None or not hmac.compare_digest(hashed(secret), row.key_hash):
        return None
    return Device(row.device_id, row.hospital_id, row.collector, row.model, row.os)


def end(connection: Connection, device_id: str, actor: str) -> None:
    """Take nothing more from a device that was lost or given back; ConfigError for none."""
    there = (DEVICES.c.device_id == device_id, DEVICES.c.ended_at.is_(None))
    if not connection.execute(update(DEVICES).where(*there).values(ended_at=now())).rowcount:
        raise ConfigError("there is no such device in use")
    events.record(connection, actor, "device_ended", f"device_ended:{device_id}", {})


def may_take_back(connection: Connection, device: Device, sender: str | None) -> bool:
    """Whether a device may take back what ``sender``, the name of a device, has sent.

    A telephone that was enrolled anew is another device: it may where both are of one person and
    site.
    """
    whose = select(DEVICES.c.hospital_id, DEVICES.c.collector).where(DEVICES.c.device_id == sender)
    return connection.execute(whose).first() == (device.hospital_id, device.collector)
