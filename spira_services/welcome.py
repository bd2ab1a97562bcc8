"""The first site, person and device of a laptop, so that a page can be opened at once."""

from __future__ import annotations

from sqlalchemy import Engine, select

from spira_services import devices, people
from spira_services.devices import SITES

SITE, ACTOR, PERSON = "local", "cli:welcome", "admin"


def welcome(engine: Engine, password: str | None) -> str:
    """Set up what is not there yet, and return a code by which a device can be enrolled.

    The person ``admin`` has every role; where there is none yet, with this password.
    Without one nobody signs in as ``admin`` until `people password` gives it.
    """
    with engine.begin() as connection:
        if connection.execute(select(SITES).where(SITES.c.hospital_id == SITE)).first() is None:
            devices.add_site(connection, SITE, "This computer", ACTOR)
        asked = select(people.PEOPLE.c.person_id).where(people.PEOPLE.c.name == PERSON)
        person_id = connection.execute(asked).scalar()
        if person_id is None:
            person_id = people.add(connection, PERSON, people.ROLES, password, ACTOR)
        return devices.new_code(connection, SITE, str(person_id), ACTOR)
