"""Commands of ``python -m spira_tasks``, one module a subject, and what they share."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from typer import Option, Typer
from typer.core import TyperCommand
from typer.main import get_command

from spira_tasks.artifacts import Store, store_url
from spira_tasks.artifacts.backends import checked
from spira_tasks.contract.place import COMMAND, LAPTOP
from spira_tasks.errors import ConfigError

T = TypeVar("T")


def _open_store(url: str) -> Store:
    return Store(url or store_url())


OpenStore = Annotated[
    Store,
    Option(
        "--store",
        metavar="URL",
        parser=_open_store,
        default_factory=store_url,
        show_default=False,
        help="folder or s3://bucket/prefix of the store (SPIRA_STORE; default .spira/store)",
    ),
]
AsJson = Annotated[bool, Option("--json", help="print JSON, for programs")]
Why = Annotated[str, Option("--why", help="a written reason, without names")]
RunId = Annotated[
    str | None,
    Option(
        "--run-id",
        metavar="ID",
        parser=checked,  # before anything is computed
        help="name of the run; an existing run is continued",
    ),
]
ReportsFolder = Annotated[
    Path | None, Option("--reports", help="copy the run's reports and plots to DIR/RUN")
]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


class Command(TyperCommand):
    """A command that also takes ``--log-level``, and ``--store`` where it needs no store."""

    def __init__(self, *args: Any, params: Sequence[Any], **settings: Any) -> None:
        names = {param.name for param in params}
        shared = [param for param in get_command(_shared).params if param.name not in names]
        super().__init__(*args, params=[*params, *shared], **settings)

    def invoke(self, ctx: Any) -> None:
        """End with the exit status that the function returns; None is 0."""
        ctx.exit(super().invoke(ctx) or 0)


class Commands(Typer):
    """The commands of one subject: a group, or single commands where there is no ``name``."""

    def __init__(self, name: str | None = None, summary: str = "", examples: str = "") -> None:
        super().__init__(
            name=name,
            help=summary,
            epilog=_unfilled(examples),
            add_completion=False,
            rich_markup_mode=None,
            pretty_exceptions_enable=False,
            context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        )

    def command(  # type: ignore[override]
        self, name: str | None = None, examples: str = "", cls: type[Command] = Command
    ) -> Callable[[Callable[..., T]], Callable[..., T]]:
        """Register a function; its docstring is the help."""
        return super().command(name, cls=cls, epilog=_unfilled(examples))


def _unfilled(text: str) -> str:
    """Mark every paragraph so that its lines are printed as they are, with the command of here."""
    text = text.replace(LAPTOP, COMMAND)
    return "\n\n".join(f"\b\n{paragraph}" for paragraph in text.strip().split("\n\n"))


def _set_log_level(level: str) -> None:
    for package in ("spira_tasks", "spira_services"):
        logging.getLogger(package).setLevel(level)


_shared = Typer(add_completion=False)


@_shared.command()
def _declare(
    log_level: Annotated[LogLevel, Option(callback=_set_log_level, expose_value=False)] = "INFO",
    store: Annotated[str, Option(hidden=True, expose_value=False)] = "",
) -> None:
    """Declare what every command takes."""


def find_run(name: str, store: Store) -> str:
    """Return the run of this id; ``latest`` is the training run that last wrote a record."""
    from spira_tasks.reports.gather import latest_run

    known = store.runs.ids()
    run_id = latest_run(store) if name == "latest" and known else name
    if run_id not in known:
        recent = ", ".join(known[-5:]) or "none yet"
        raise ConfigError(f"store {store.url} has no run {run_id!r}; its latest are: {recent}")
    return run_id


def print_json(value: Any) -> None:
    json.dump(value, sys.stdout, indent=1, ensure_ascii=False)
    print()


def print_records(
    records: Sequence[Any],
    *,
    as_json: bool,
    columns: list[str],
    row: Callable[[Any], list[str]],
    if_none: str,
) -> None:
    """Print dataclasses as JSON or as a table; ``if_none`` is the text for an empty table."""
    if as_json:
        print_json([asdict(record) for record in records])
    elif records:
        print_table("", columns, [row(record) for record in records])
    else:
        print(if_none)


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table as wide as the terminal, or up to 200 columns where there is no terminal."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, width=200)
    table = Table(title=title or None, title_justify="left", box=None, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)
