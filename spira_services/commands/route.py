"""``route``: a version that is tried beside the champion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spira_services.commands import actor, share_of
from spira_services.database import opened
from spira_tasks.contract.verdict import few_or
from spira_tasks.errors import ConfigError

if TYPE_CHECKING:
    from spira_services.serving.router import Mode, Route

app = typer.Typer(
    name="route", help="A version that is tried beside the champion.", no_args_is_help=True
)


Tried = Annotated[str, typer.Argument(help="Its number, from `python -m spira_tasks model list`.")]
Share = Annotated[float, typer.Option(help="Of people, above 0 and at most 1.")]
WhyRoute = Annotated[
    str, typer.Option("--why", "--reason", help="A written reason, without names.")
]


@app.command()
def shadow(version: Tried, why: WhyRoute, share: Share = 1.0) -> None:
    """Let a version compute too; its answers are stored, and nobody sees them.

    Example:  python -m spira_services route shadow 4 --why "before anybody sees its answers"
    """
    _open_route("shadow", version, share, why)


@app.command()
def canary(version: Tried, why: WhyRoute, share: Share = 0.1) -> None:
    """Let a version answer a share of people; a sequential test stops it when it does worse.

    Example:  python -m spira_services route canary 4 --share 0.1 --why "a week as shadow was fine"
    """
    _open_route("canary", version, share, why)


@app.command()
def ab(version: Tried, why: WhyRoute, share: Share = 0.5) -> None:
    """Let a version answer a share of those who agreed to it.

    Example:  python -m spira_services route ab 4 --why "study 12, approved on 3 March"
    """
    _open_route("ab", version, share, why)


@app.command("stop")
def stop_route(why: WhyRoute) -> None:
    """Give all requests to the champion again.

    Example:  python -m spira_services route stop --why "seen enough of it"
    """
    from spira_services.serving import router

    with opened() as engine, engine.begin() as connection:
        stopped = router.stop(connection, by=actor(), why=why)
    print("no route was open" if stopped is None else f"stopped: {_in_words(stopped)}")


@app.command("apply")
def apply_route(
    file: Annotated[Path, typer.Argument(help="TOML with [route], or without.")],
) -> None:
    """Open the route that a file names, and stop any other.

    Example:  python -m spira_services route apply route.toml
    """
    from spira_services.serving import router

    wanted = router.wanted(file)
    if wanted is not None:
        _check_may_be_tried(wanted.version, wanted.mode)
    with opened() as engine, engine.begin() as connection:
        there, changed = router.apply(connection, wanted, by=actor(), file=file)
    word = "open" if changed else "open already"
    print("no route is open" if there is None else f"{word}: {_in_words(there)}")


@app.command("show")
def show_route() -> None:
    """Print which route is open, how its version does, and how the last one ended.

    Example:  python -m spira_services route show
    """
    from spira_services.serving import router

    with opened() as engine, engine.begin() as connection:
        there, ended = router.open_route(connection), router.last_stop(connection)
        rows = [] if there is None else router.compare(connection, there)
    if ended is not None and there is None:
        print(f"stopped {ended.at:%Y-%m-%d %H:%M} by {ended.actor}: {ended.reason}")
        if ended.found:
            print(json.dumps(ended.found))
    print("no route is open" if there is None else f"open: {_in_words(there)}")
    if rows:
        print(f"{'measure':12} {'its share':>12} {'champion':>12} {'evidence':>9} {'ends at':>8}")
    for row in rows:
        shares = (_of(row.n_with, row.n), _of(row.n_champion_with, row.n_champion))
        test = ("" if one is None else f"{one:.1f}" for one in (row.log_evidence, row.needed))
        print("{:12} {:>12} {:>12} {:>9} {:>8}".format(row.measure, *shares, *test))


def _open_route(mode: Mode, version: str, share: float, why: str) -> None:
    from spira_services.serving import router

    _check_may_be_tried(version, mode)
    with opened() as engine, engine.begin() as connection:
        there = router.start(connection, mode, version, share, by=actor(), why=why)
    print(f"open: {_in_words(there)}")


def _check_may_be_tried(version: str, mode: Mode) -> None:
    """Raise ConfigError where a version is none, or may not answer people."""
    from spira_tasks.artifacts import Store, store_url
    from spira_tasks.package import is_sealed
    from spira_tasks.tracking import CHAMPION, Tracker

    if not version.isdigit():
        raise ConfigError(
            "give the number of a version alone, as python -m spira_tasks model list has it"
        )
    store = Store(store_url())
    found = Tracker(store.tracking_uri).version(version)
    against = {
        "it is the champion": CHAMPION in found.aliases,
        "a person refused it": found.is_refused,
        "it learned from a person who was erased": found.contains_erased,
        "nothing says which files it has": not is_sealed(found),
        "a gate blocked it": mode != "shadow" and found.tags.get("spira.outcome") == "blocked",
    }
    if problems := "; ".join(problem for problem, is_so in against.items() if is_so):
        raise ConfigError(f"version {version} is not tried: {problems}")


def _in_words(there: Route) -> str:
    return (
        f"{there.mode} of version {there.version}, share {there.share:g}, since "
        f"{there.started_at:%Y-%m-%d %H:%M} by {there.by}: {there.reason}"
    )


def _of(n_with: int, n: int) -> str:
    return f"{share_of(n_with / n if n else 0.0, n)} of {few_or(n)}"
