"""``hospitals``: hospitals whose records are read."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from spira_services.commands import actor
from spira_services.database import opened

app = typer.Typer(name="hospitals", help="Hospitals whose records are read.", no_args_is_help=True)


@app.callback()
def _of_hospitals() -> None:
    """Keep ``sync`` a name while it is the only command."""


@app.command("sync")
def sync_hospitals(
    site: Annotated[list[str] | None, typer.Argument(help="By default all of the file.")] = None,
    config: Annotated[str, typer.Option(help="TOML file; by default SPIRA_HOSPITALS.")] = "",
    dry_run: Annotated[bool, typer.Option(help="Read and report; store nothing.")] = False,
) -> None:
    """Read the records of participants, keep what is new, and label by it.

    Ends with 0 where what was found is stored, also with alerts; with 75 where nobody was found and
    a later try may succeed; with 65 where nobody was found and somebody has to look.

    Example:  python -m spira_services hospitals sync hc --dry-run
    """
    from spira_services import hospital_sync
    from spira_services.hospitals.sources import connectors
    from spira_services.hospitals.watch import ALERTS

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    sources = connectors(config, site or ())
    with opened() as engine:
        reports = hospital_sync.sync_hospitals(engine, sources, actor(), is_dry_run=dry_run)
    for one in reports:
        stored = "found, and not stored" if dry_run else "stored"
        print(
            f"{one.source}: {one.n_found} of {one.n_participants} participants found; {stored}: "
            f"{one.n_facts} new facts, {one.n_label_events} label events; {one.n_held} held back"
        )
        if one.n_without_number:
            print(
                f"  {one.n_without_number} people have no kept number (sites add --keeps-numbers)"
            )
        for alert in one.alerts:
            said, next_step = ALERTS[alert.code]
            about = " ".join(filter(None, (alert.code, alert.quantity, alert.name)))
            counts = ", ".join(f"{name} {number:g}" for name, number in alert.numbers.items())
            print(f"  {about}: {said} ({counts})\n    next:  {next_step}")
    raise typer.Exit(max(one.exit_status for one in reports) if reports else 0)
