"""The first site, person and device of a laptop, so that it can be used at once."""

from __future__ import annotations

from sqlalchemy import Connection, Engine, select

from spira_services import devices, people
from spira_services.devices import SITES, Device

SITE, ACTOR, PERSON = "local", "cli:welcome", "admin"


def welcome(engine: Engine, password: str | None) -> str:
    """Set up what is not there yet, and return a code by which a device can be enrolled.

    The person ``admin`` has every role; where there is none yet, with this password.
    Without one nobody signs in as ``admin`` until `people password` gives it.
    """
    with engine.begin() as connection:
        return devices.new_code(connection, SITE, _admin(connection, password), ACTOR)


def this_computer(connection: Connection) -> Device:
    """The device that the command line of this machine asks as; it has no key."""
    device = Device("command-line", SITE, _admin(connection, None), "", "")
    devices.note_keyless(connection, device)
    return device


def _admin(connection: Connection, password: str | None) -> str:
    """Set up the site and the person ``admin``, as far as they are not there; the pseudonym."""
    if connection.execute(select(SITES).where(SITES.c.hospital_id == SITE)).first() is None:
        devices.add_site(connection, SITE, "This computer", ACTOR)
    asked = select(people.PEOPLE.c.person_id).where(people.PEOPLE.c.name == PERSON)
    person_id = connection.execute(asked).scalar()
    return person_id or people.add(connection, PERSON, people.ROLES, password, ACTOR)
