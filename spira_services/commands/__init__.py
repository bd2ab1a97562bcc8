"""Commands of ``python -m spira_services``, a module for each subject, and what they share."""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping
from math import isnan
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import Connection

from spira_services.people import Person, named
from spira_tasks.contract.verdict import MIN_CELL, few_or, is_small
from spira_tasks.errors import ConfigError

Snapshots = Annotated[
    str,
    typer.Option(
        "--snapshots",
        envvar="SPIRA_SNAPSHOTS",
        help="Folder, or s3://bucket/prefix, of the snapshots.",
    ),
]


def actor() -> str:
    return os.environ.get("SPIRA_ACTOR") or f"cli:{getpass.getuser()}"


def text_of(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is no text in UTF-8; see that it is the file you mean") from None


def with_role(connection: Connection, name: str, role: str) -> Person:
    found = named(connection, name)
    if found is None or role not in found.roles:
        raise ConfigError(
            f"there is no {role} of that name; add one by `python -m spira_services people add`"
        )
    return found


def counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{few_or(n)} {what}" for what, n in sorted(counts.items())) or "nothing new"


def share_of(value: float, n: int) -> str:
    """A share of sessions; a dash where it rests on too few."""
    return "-" if n < MIN_CELL or isnan(value) or is_small(round(value * n)) else f"{value:.0%}"
