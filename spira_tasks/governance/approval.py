"""Approvals and refusals of a version of the model.

A refused version is not promoted, whatever the gates say; where it is the champion, the one before
it takes its place.  An approval lifts a refusal, and a promotion may wait for it; it overrides no
gate.  Both name the digest of the classifier, because a new registry counts its versions anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spira_tasks.artifacts import Store
from spira_tasks.errors import ConfigError
from spira_tasks.governance import audit, decisions
from spira_tasks.governance.applied import REFUSED, Decision, Kind, on_classifier

if TYPE_CHECKING:
    from spira_tasks.tracking import Registered, Tracker


@dataclass(frozen=True)
class Standing:
    """A version of the model, and what people decided about it."""

    registered: Registered
    approval: Decision | None
    refusal: Decision | None

    @property
    def about(self) -> dict[str, str]:
        """What a decision on this version is about."""
        return {"version": self.registered.version, "classifier": self.registered.classifier}


def standings(store: Store) -> list[Standing]:
    """Every version, the oldest first."""
    from spira_tasks import tracking

    approvals = decisions.known(store, "approvals")
    refusals = decisions.known(store, "refusals")
    return [
        Standing(
            one, on_classifier(one.classifier, approvals), on_classifier(one.classifier, refusals)
        )
        for one, _ in tracking.versions(store.tracking_uri)
    ]


def approve(store: Store, version: str, why: str) -> tuple[Standing, bool]:
    """Approve a version, and lift its refusal.

    Returns how it stood before, and whether the approval is new.

    Raises
    ------
    ConfigError
        When there is no such version, or the reason is refused.
    """
    standing = _find(standings(store), store, version)
    _, new = decisions.decide(store, "approvals", standing.about, why)
    _withdraw(store, "refusals", standing, why)
    return standing, new


def refuse(store: Store, version: str, why: str) -> tuple[Standing, bool, str | None]:
    """Refuse a version, withdraw its approval and, where it serves, put another in its place.

    Returns how it stood before, whether the refusal is new, and the version that is champion
    instead, if any.  Raises as ``approve`` does.  May be repeated after it was killed.
    """
    from spira_tasks.tracking import CHAMPION, Tracker

    known = standings(store)
    standing = _find(known, store, version)
    refused = standing.registered
    _, new = decisions.decide(store, "refusals", standing.about, why)
    _withdraw(store, "approvals", standing, why)
    tracker = Tracker(store.tracking_uri)
    if CHAMPION not in refused.aliases:
        _tidy(tracker, _fit(store, known))
        return standing, new, None
    fit = _fit(store, known)
    instead = _before(refused.version, fit, tracker.aliases())
    audit.record(store, "demotion", {**standing.about, "champion": instead or "none"})
    tags = {"spira.outcome": "blocked", "spira.blocked_by": REFUSED, "spira.was_champion": "true"}
    tracker.tag(refused.version, tags)
    tracker.assign(instead, _before(instead, fit, {}) if instead else None)
    return standing, new, instead


def _find(known: list[Standing], store: Store, version: str) -> Standing:
    number = version.rpartition("/")[2].removeprefix("v")
    for standing in known:
        if standing.registered.version == number:
            return standing
    numbers = ", ".join(standing.registered.version for standing in known) or "none yet"
    raise ConfigError(
        f"the registry of {store.url} has no version {version!r} of the model; it has: {numbers}"
    )


def _withdraw(store: Store, kind: Kind, standing: Standing, why: str) -> None:
    for decision in decisions.known(store, kind):
        if decision.about["classifier"] == standing.registered.classifier:
            decisions.withdraw(store, kind, decision.about, why)


def _fit(store: Store, known: list[Standing]) -> list[str]:
    """The versions that served before and may serve again, the oldest first."""
    # the log is asked: a refusal that somebody removed stays one
    in_force = decisions.read_history(store).in_force.keys()
    return [
        one.registered.version
        for one in known
        if one.registered.was_champion
        and not one.registered.contains_erased
        and decisions.name_of("refusals", one.about) not in in_force
    ]


def _before(version: str, fit: list[str], aliases: Mapping[str, str]) -> str | None:
    """The version to go back to: the one that was replaced, else the newest that is older."""
    from spira_tasks.tracking import PREVIOUS

    if aliases.get(PREVIOUS) in {*fit} - {version}:
        return aliases[PREVIOUS]
    return next((other for other in reversed(fit) if int(other) < int(version)), None)


def _tidy(tracker: Tracker, fit: list[str]) -> None:
    """Let ``previous`` be a version to go back to, whatever a killed act has left."""
    from spira_tasks.tracking import CHAMPION, PREVIOUS

    aliases = tracker.aliases()
    champion, previous = aliases.get(CHAMPION), aliases.get(PREVIOUS)
    if previous is not None and (previous == champion or previous not in fit):
        tracker.assign(champion, _before(champion, fit, {}) if champion else None)
