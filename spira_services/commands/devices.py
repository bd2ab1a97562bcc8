"""``devices``: telephones that send."""

from __future__ import annotations

from typing import Annotated

import typer

from spira_services import devices, people
from spira_services.commands import actor
from spira_services.database import opened
from spira_tasks.errors import ConfigError

app = typer.Typer(name="devices", help="Telephones that send.", no_args_is_help=True)


@app.command("code")
def new_code(
    hospital_id: Annotated[str, typer.Argument(help="A site that is set up.")],
    collector: Annotated[str, typer.Option(help="Name of the person who gets the device.")],
) -> None:
    """Print a code by which one device can be enrolled within an hour.

    Example:  python -m spira_services devices code hc --collector ana
    """
    with opened() as engine, engine.begin() as connection:
        person = people.named(connection, collector)
        if person is None:
            raise ConfigError(
                "there is no person of that name; add one by `python -m spira_services people add`"
            )
        print(devices.new_code(connection, hospital_id, person.person_id, actor()))


@app.command("end")
def end_device(device_id: Annotated[str, typer.Argument(help="As the overview names it.")]) -> None:
    """Take nothing more from a device that was lost or given back.

    Example:  python -m spira_services devices end 3f2a9c1b0d4e5f67
    """
    with opened() as engine, engine.begin() as connection:
        devices.end(connection, device_id, actor())
    print("the device may send no more")
