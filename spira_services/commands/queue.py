"""``queue``: inferences that wait for an answer."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer

from spira_services.database import opened

app = typer.Typer(name="queue", help="Inferences that wait for an answer.", no_args_is_help=True)


@app.command("show")
def show_queue() -> None:
    """Print how many inferences wait, and which have no answer and why.

    Example:  python -m spira_services queue show
    """
    from spira_services.serving.queue import open_queue

    with opened() as engine, closing(open_queue(engine)) as queue:
        depth, dead = queue.depth(), queue.dead()
    age = "" if depth.oldest_seconds is None else f"; the oldest for {depth.oldest_seconds:.0f} s"
    print(f"{depth.n_waiting} wait, {depth.n_leased} were taken and are not done{age}")
    print(f"{depth.n_dead} have no answer" + ":" * bool(dead))
    for letter in dead:
        print(f"  {letter.id}  {letter.at:%Y-%m-%d %H:%M}  {letter.reason}, {letter.n_tries} tries")


@app.command("replay")
def replay(
    inference: Annotated[list[str] | None, typer.Argument(help="By default all.")] = None,
) -> None:
    """Try again what got no answer, once what it failed on is mended.

    Example:  python -m spira_services queue replay
    """
    from spira_services.serving.queue import open_queue

    with opened() as engine, closing(open_queue(engine)) as queue:
        n = queue.replay(inference)
    print(f"{n}{f' of {len(inference)}' if inference else ''} are tried again")


@app.command("discard")
def discard(
    inference: Annotated[list[str], typer.Argument(help="As `queue show` names it.")],
) -> None:
    """End what no try will answer, such as a damaged recording: it is shown and tried no more.

    Example:  python -m spira_services queue discard 7c9e6679-7425-40de-944b-e07fc1f90ae7
    """
    from spira_services.serving.queue import open_queue

    with opened() as engine, closing(open_queue(engine)) as queue:
        n = queue.discard(inference)
    print(f"{n} of {len(inference)} ended without an answer")


@app.command("refill")
def refill() -> None:
    """Put all that has no answer on the queue, as after one whose disk was lost.

    Example:  python -m spira_services queue refill
    """
    from spira_services.serving import relay
    from spira_services.serving.queue import open_queue

    with opened() as engine, closing(open_queue(engine)) as queue:
        n = relay.refill(engine, queue)
    print(f"{n} wait for an answer, and are on the queue")
