"""``people``: who signs in or collects."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from spira_services import people
from spira_services.commands import actor, text_of
from spira_services.database import opened

app = typer.Typer(name="people", help="People who sign in or collect.", no_args_is_help=True)


PasswordFile = Annotated[
    Path, typer.Option(help="Its first line is the password; - reads it from the input.")
]


@app.command("add")
def add_person(
    name: Annotated[str, typer.Argument(help="By which the person signs in.")],
    role: Annotated[list[str], typer.Option(help=f"One of {', '.join(people.ROLES)}; repeatable.")],
    password_file: PasswordFile | None = None,
) -> None:
    """Add a person.  Without a password a person signs in nowhere: a collector needs none.

    Example:  python -m spira_services people add ana --role collector
    """
    password = None if password_file is None else _password(password_file)
    with opened() as engine, engine.begin() as connection:
        people.add(connection, name, role, password, actor())
    print(f"added {', '.join(role)}")


@app.command("password")
def change_password(
    name: Annotated[str, typer.Argument(help="By which the person signs in.")],
    password_file: PasswordFile,
) -> None:
    """Give a person a password, or another one; who is signed in by the old one no longer is.

    Example:  python -m spira_services people password rui --password-file password
    """
    password = _password(password_file)
    with opened() as engine, engine.begin() as connection:
        people.set_password(connection, name, password, actor())
    print("changed")


def _password(file: Path) -> str:
    text = sys.stdin.readline() if str(file) == "-" else text_of(file)
    return text.splitlines()[0] if text else ""


@app.command("end")
def end_person(name: Annotated[str, typer.Argument()]) -> None:
    """Let a person in no more.

    Example:  python -m spira_services people end ana
    """
    with opened() as engine, engine.begin() as connection:
        people.end(connection, name, actor())
    print("ended")
