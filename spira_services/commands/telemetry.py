"""``telemetry``: what was asked and answered."""

from __future__ import annotations

from typing import Annotated

import typer

from spira_services.commands import counted
from spira_services.database import now, opened
from spira_tasks.contract.verdict import few_or

app = typer.Typer(name="telemetry", help="What was asked and answered.", no_args_is_help=True)


@app.command("export")
def export_telemetry(
    under: Annotated[
        str,
        typer.Option(
            "--to", envvar="SPIRA_TELEMETRY", help="Folder, or s3://bucket/prefix, of the days."
        ),
    ] = ".spira/telemetry",
) -> None:
    """Write each day that is over as Parquet, once, and have a sample of it labelled.

    Example:  python -m spira_services telemetry export
    """
    from spira_services import feedback
    from spira_services.serving.telemetry import rule

    with opened() as engine:
        days, n_sampled = feedback.close_days(engine, under, now(), rule())
    for one in days:
        print(f"{one.day}: {counted(one.n_rows)}")
    print(f"{len(days)} days written; {few_or(n_sampled)} recordings go to those who label")


@app.command("retain")
def retain_telemetry() -> None:
    """Delete what is past the time that expectations/telemetry.toml gives it.

    Example:  python -m spira_services telemetry retain
    """
    from spira_services import server
    from spira_services.serving.telemetry import retain, rule

    with opened() as engine:
        counts = retain(engine, server.audio(), rule(), now())
    print(
        f"{few_or(counts['n_expired'])} inferences without their audio and person, "
        f"{few_or(counts['n_removed'])} removed, {few_or(counts['n_unnamed'])} files that "
        "nothing names deleted"
    )
