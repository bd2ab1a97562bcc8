"""What people say of a version of the model: that it is approved, or that it is refused.

A refusal holds whatever the gates say: the version is not promoted, and where it is the champion,
the one before it takes its place.  An approval lifts a refusal, and is what a promotion that waits
for a person waits for; it overrides no gate.  Both are about the classifier, by its digest: a
registry that was made anew counts its versions anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from spira_tasks.artifacts import Store
from spira_tasks.errors import ConfigError
from spira_tasks.governance import audit, decisions
from spira_tasks.governance.heeded import REFUSED, Decision, Kind, said_of

if TYPE_CHECKING:
    from spira_tasks.tracking import Registered


@dataclass(frozen=True)
class Standing:
    """A version of the model, and what people said of it."""

    registered: Registered
    approval: Decision | None
    refusal: Decision | None


def standings(store: Store, tracking_uri: str) -> list[Standing]:
    """Every version, the oldest first."""
    from spira_tasks import tracking

    approvals = decisions.known(store, "approvals")
    refusals = decisions.known(store, "refusals")
    return [
        Standing(one, said_of(one.classifier, approvals), said_of(one.classifier, refusals))
        for one, _ in tracking.versions(tracking_uri)
    ]


def approve(store: Store, tracking_uri: str, version: str, why: str) -> tuple[Standing, bool]:
    """Approve a version, and lift its refusal; say whether the approval is new.

    Returns
    -------
    Standing
        As it was before.
    bool

    Raises
    ------
    ConfigError
        When there is no such version, or the reason will not do.
    """
    one = _one(standings(store, tracking_uri), store, version)
    _, new = decisions.decide(store, "approvals", _about(one.registered), why)
    _take_back(store, "refusals", one.registered, why)
    return one, new


def refuse(
    store: Store, tracking_uri: str, version: str, why: str
) -> tuple[Standing, bool, str | None]:
    """Refuse a version, take its approval back and, where it serves, put another in its place.

    Killed at any point, doing it again ends the same.

    Returns
    -------
    Standing
        As it was before.
    bool
        Whether the refusal is new.
    str or None
        The version that is champion instead; None where none is fit to be.

    Raises
    ------
    ConfigError
        When there is no such version, or the reason will not do.
    """
    from spira_tasks.tracking import CHAMPION, Tracker

    known = standings(store, tracking_uri)
    one = _one(known, store, version)
    about = _about(one.registered)
    _, new = decisions.decide(store, "refusals", about, why)
    _take_back(store, "approvals", one.registered, why)
    if CHAMPION not in one.registered.aliases:
        return one, new, None
    fit = [
        other.registered.version
        for other in known
        if int(other.registered.version) < int(one.registered.version)
        and other.registered.was_champion
        and not other.registered.contains_erased
        and other.refusal is None
    ]
    instead = fit[-1] if fit else None
    audit.record(store, "demotion", {**about, "champion": instead or "none"})
    tracker = Tracker(tracking_uri)
    tags = {"spira.outcome": "blocked", "spira.blocked_by": REFUSED, "spira.was_champion": "true"}
    tracker.tag(one.registered.version, tags)
    tracker.demote(instead)
    return one, new, instead


def _one(known: list[Standing], store: Store, version: str) -> Standing:
    number = version.rpartition("/")[2].removeprefix("v")
    for one in known:
        if one.registered.version == number:
            return one
    numbers = ", ".join(one.registered.version for one in known) or "none yet"
    raise ConfigError(
        f"the registry of {store.url} has no version {version!r} of the model; it has: {numbers}"
    )


def _about(one: Registered) -> dict[str, str]:
    return {"version": one.version, "classifier": one.classifier}


def _take_back(store: Store, kind: Kind, version: Registered, why: str) -> None:
    for one in decisions.known(store, kind):
        if one.about["classifier"] == version.classifier:
            decisions.withdraw(store, kind, one.about, why)
