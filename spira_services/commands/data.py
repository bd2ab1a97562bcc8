"""``snapshot``, ``trace`` and ``erase``: what was collected, as a whole or of a person."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Annotated

import typer

from spira_services.commands import Snapshots, actor
from spira_services.database import now, opened
from spira_tasks.errors import ConfigError

app = typer.Typer()


@app.command()
def snapshot(
    under: Annotated[str, typer.Argument(help="Folder, or s3://bucket/prefix, of the snapshots.")],
    as_of: Annotated[
        datetime | None, typer.Option(help="UTC; what came later is left out. By default now.")
    ] = None,
    with_weak: Annotated[
        bool, typer.Option(help="Weak labels too, where they are sure: to learn from alone.")
    ] = False,
) -> None:
    """Write what was accepted and labelled, for a training to read.

    Example:  python -m spira_services snapshot .spira/snapshots
    """
    from spira_services import server
    from spira_services.labels.policy import POLICY, WITH_WEAK
    from spira_services.snapshot import write

    moment = now() if as_of is None else as_of.replace(tzinfo=UTC)
    with opened() as engine:
        policy = WITH_WEAK if with_weak else POLICY
        made = write(engine, server.audio(), under, moment, policy)
    word = "wrote" if made.is_new else "there already:"
    print(
        f"{word} {made.place}\n{made.about['n_recordings']} recordings of "
        f"{made.about['n_subjects']} people"
    )
    print(made.labels.checks_in_words())
    print(f"next:  python -m spira_tasks pipeline training --data {made.place}")


@app.command()
def trace(
    name: Annotated[
        str, typer.Argument(help="A recording, session, inference, subject or device.")
    ],
    under: Snapshots = ".spira/snapshots",
) -> None:
    """Print, as JSON, where recordings came from; `python -m spira_tasks trace` goes on from there.

    Example:  python -m spira_services trace 7c9e6679-7425-40de-944b-e07fc1f90ae7
    """
    from spira_services.trace import trace as found

    with opened() as engine, engine.connect() as connection:
        print(json.dumps(found(connection, name, under), indent=1, default=str))


@app.command()
def erase(
    tag: Annotated[str, typer.Argument(help="From `python -m spira_tasks pseudonyms tag`.")],
    under: Snapshots,  # no guess: what is looked for elsewhere stays
) -> None:
    """Erase a person from all services and snapshots; spira_erasure does, and the store too.

    Example:  python -m spira_services erase 3f0c1d2e4b5a69788796a5b4c3d2e1f0
    """
    from spira_services import server
    from spira_services.forgetting import forget

    if not re.fullmatch("[0-9a-f]{32}", tag):
        raise ConfigError("a tag has 32 hex digits; `pseudonyms tag` asks for the number")
    with opened() as engine:
        counts = forget(engine, server.audio(), under, tag, actor())
    print(", ".join(f"{n} {name[2:].replace('_', ' ')}" for name, n in counts.items()))
