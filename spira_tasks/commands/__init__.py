"""Commands of ``python -m spira_tasks`` besides the running of steps, one module a subject."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spira_tasks.artifacts import Store

Commands = "argparse._SubParsersAction[argparse.ArgumentParser]"


def open_store(args: argparse.Namespace) -> Store:
    """The store of ``--store``, or of the environment."""
    from spira_tasks.artifacts import Store, store_url

    return Store(args.store or store_url())


def find_run(args: argparse.Namespace, store: Store) -> str:
    """The run that ``args.run`` names; ``latest`` is the training run that last wrote a record."""
    from spira_tasks.errors import ConfigError
    from spira_tasks.reports.gather import latest_run

    known = store.run_ids()
    run_id = latest_run(store) if args.run == "latest" and known else str(args.run)
    if run_id not in known:
        recent = ", ".join(known[-5:]) or "none yet"
        raise ConfigError(f"store {store.url} has no run {run_id!r}; its latest are: {recent}")
    return run_id


def print_json(value: Any) -> None:
    json.dump(value, sys.stdout, indent=1, ensure_ascii=False)
    print()


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """A table for people: as wide as it needs where nobody sits at a terminal."""
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
