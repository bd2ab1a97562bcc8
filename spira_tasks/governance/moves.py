"""What serves, as recorded acts: every move of the aliases is an event before it is made.

MLflow moves one alias at a time, so a process that is killed leaves some moved and some not.  The
event ``move`` says where all of them go, and ``moved`` that they went: the next act completes a
move that was killed, or gives it up where the version may no longer serve.  A move names the one
before it.  Of two that name the same the first counts, so of two acts at once one wins, and the
other one is made again on what it finds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spira_tasks.artifacts import Store
from spira_tasks.errors import ServiceUnavailable
from spira_tasks.governance import audit, decisions
from spira_tasks.governance.audit import Event
from spira_tasks.tracking import CHAMPION, PREVIOUS, Tracker

NONE = "none"


def settle(store: Store, tracker: Tracker) -> int:
    """Complete the newest move if it was killed; return its number, which the next move names."""
    history = decisions.read_history(store)
    newest = history.moves[-1] if history.moves else None
    if newest is None:
        return 0
    if newest.number not in history.moved:
        _carry_out(newest, store, tracker)
    return newest.number


def move(
    store: Store,
    tracker: Tracker,
    why: str,
    champion: str | None,
    previous: str | None,
    *,
    after: int,
) -> None:
    """Let these versions be champion and previous.

    Parameters
    ----------
    why : str
        The act that moves them, such as ``"promotion"``.
    champion, previous : str or None
        Numbers of versions; None for none.
    after : int
        What ``settle`` returned before the act looked at anything.

    Raises
    ------
    ServiceUnavailable
        When another act moved them meanwhile, or a version may no longer serve.
    """
    aliases = tracker.aliases()
    if (champion, previous) == (aliases.get(CHAMPION), aliases.get(PREVIOUS)):
        return
    details = {
        "after": after,
        "act": why,
        **_named(tracker, CHAMPION, champion),
        **_named(tracker, PREVIOUS, previous),
        "from": {name: aliases.get(name, NONE) for name in (CHAMPION, PREVIOUS)},
    }
    number = audit.record(store, "move", details).number
    history = decisions.read_history(store)
    if all(one.number != number for one in history.moves):
        raise ServiceUnavailable(
            f"what serves was changed by another act while this {why} was at work; run it again, "
            "which looks at what serves now"
        )
    (mine,) = [one for one in history.moves if one.number == number]
    if not _carry_out(mine, store, tracker):
        raise ServiceUnavailable(
            f"version {champion} was refused, or somebody whom it learned from was erased, while "
            f"this {why} was at work; run it again, which will refuse the version"
        )


def _named(tracker: Tracker, alias: str, version: str | None) -> dict[str, str]:
    """The version of an alias, and its classifier: a new registry counts its versions anew."""
    classifier = tracker.version(version).classifier if version else ""
    return {alias: version or NONE, f"{alias}_classifier": classifier}


def _carry_out(event: Event, store: Store, tracker: Tracker) -> bool:
    """Move the aliases as the newest event says; False where its champion may not serve.

    An erasure or a refusal marks a version before it looks for it among the aliases.  So the marks
    are read again after the aliases moved: one that is marked later finds a champion.
    """
    champion, previous = (_version(event.details, name) for name in (CHAMPION, PREVIOUS))
    is_fit = _may_serve(tracker, event.details)
    if is_fit:
        tracker.assign(champion, previous)
        is_fit = _may_serve(tracker, event.details)
    if is_fit and champion is not None:
        tracker.tag(champion, {"spira.was_champion": "true"})  # whatever becomes of it
    if not is_fit:  # also what the process that was killed has moved
        before = event.details["from"]
        tracker.assign(_version(before, CHAMPION), _version(before, PREVIOUS))
    audit.record(store, "moved", {"move": event.number, "made": is_fit})
    newest = decisions.read_history(store).moves[-1]
    if newest.number != event.number:  # made by another act while this one slept
        _carry_out(newest, store, tracker)
    return is_fit


def _version(versions: Mapping[str, str], alias: str) -> str | None:
    return None if versions[alias] == NONE else versions[alias]


def _may_serve(tracker: Tracker, details: Mapping[str, Any]) -> bool:
    """Whether a version that becomes champion is there and may serve."""
    champion = details[CHAMPION]
    if champion in (NONE, details["from"][CHAMPION]):
        return True
    found = tracker.find_version(details[f"{CHAMPION}_classifier"])
    return (
        found is not None
        and found.version == champion
        and not found.contains_erased
        and not found.is_refused
    )
