"""``python -m spira_services``: start the services, and set up who may send and who may see."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence

import typer
from sqlalchemy.exc import DatabaseError, OperationalError
from typer.main import get_command

from spira_services.commands import (
    ask,
    data,
    devices,
    hospitals,
    importing,
    labels,
    people,
    queue,
    route,
    serve,
    sites,
    telemetry,
)
from spira_services.database import VARIABLE
from spira_tasks.contract.exits import EXIT_BUG, EXIT_CONFIG, EXIT_UNAVAILABLE
from spira_tasks.errors import SpiraError

app = typer.Typer(
    help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)
for module in (
    *(serve, ask, data, importing, sites, hospitals, devices, people),
    *(labels, queue, route, telemetry),
):
    app.add_typer(module.app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    try:
        get_command(app)(arguments, prog_name="python -m spira_services")
    except SpiraError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return EXIT_CONFIG
    except OperationalError as error:
        print(f"error: the database does not answer ({type(error.orig).__name__})", file=sys.stderr)
        return EXIT_UNAVAILABLE
    except DatabaseError as error:
        if "file is not a database" not in str(error.orig):
            raise
        print(f"error: {VARIABLE} names a file that is no database of SQLite", file=sys.stderr)
        return EXIT_CONFIG
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else EXIT_BUG
    return 0


if __name__ == "__main__":
    status = main()
    gc.freeze()  # for nothing it would look through all objects (spira_tasks/__main__.py)
    sys.exit(status)
