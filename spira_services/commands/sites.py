"""``sites``: hospitals whose devices may send."""

from __future__ import annotations

from typing import Annotated

import typer

from spira_services import devices
from spira_services.commands import actor
from spira_services.database import opened

app = typer.Typer(name="sites", help="Hospitals whose devices may send.", no_args_is_help=True)


@app.command("add")
def add_site(
    hospital_id: Annotated[str, typer.Argument(help="As recordings name it, e.g. hc")],
    name: Annotated[str, typer.Option(help="Shown to collectors.")],
    check_letter: Annotated[bool, typer.Option(help="Its numbers end in a check letter.")] = False,
    keeps_numbers: Annotated[
        bool, typer.Option(help="Keep its numbers, encrypted, to search its records by them.")
    ] = False,
    expected_per_day: Annotated[int | None, typer.Option(help="Sessions a day.", min=0)] = None,
) -> None:
    """Set a hospital up, or change how it is set up.

    Example:  python -m spira_services sites add hc --name "Hospital das Clínicas" --check-letter
    """
    if keeps_numbers:
        from spira_services.collection.sessions import linkage_key

        linkage_key()
    with opened() as engine, engine.begin() as connection:
        devices.add_site(
            connection,
            hospital_id,
            name,
            actor(),
            check_letter=check_letter,
            keeps_numbers=keeps_numbers,
            expected_per_day=expected_per_day,
        )
    print(f"{hospital_id} is set up")
