"""Approvals and refusals of a version of the model, and rollbacks from one to another.

A refused version is not promoted, whatever the gates say; where it is the champion, the one before
it takes its place.  An approval lifts a refusal, and a promotion may wait for it; it overrides no
gate.  A rollback takes the champion out of use and calls it unfit for nothing: no run promotes it
again, but a person may roll back to it.  All name the digest of the classifier, because a new
registry counts its versions anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spira_tasks.artifacts import Store
from spira_tasks.contract.place import COMMAND
from spira_tasks.contract.verdict import Verdict
from spira_tasks.errors import ConfigError
from spira_tasks.governance import audit, decisions, moves
from spira_tasks.governance.applied import REFUSED, Decision, Kind, in_production, on_classifier

if TYPE_CHECKING:
    from spira_tasks.tracking import Registered, Tracker


@dataclass(frozen=True)
class Standing:
    """A version of the model, and what people decided about it."""

    registered: Registered
    approval: Decision | None
    refusal: Decision | None
    rollback: Decision | None  # that took it out of use

    @property
    def about(self) -> dict[str, str]:
        """What a decision on this version is about."""
        return {"version": self.registered.version, "classifier": self.registered.classifier}


@dataclass(frozen=True)
class RolledBack:
    """What a rollback did."""

    version: str  # that is out of use
    champion: str
    previous: str | None
    new: bool  # False where it was done before, or only completed


def standings(store: Store) -> list[Standing]:
    """Every version, the oldest first."""
    from spira_tasks import tracking

    approvals = decisions.known(store, "approvals")
    refusals = decisions.known(store, "refusals")
    rollbacks = decisions.known(store, "rollbacks")
    return [
        Standing(
            one, *(on_classifier(one.classifier, kind) for kind in (approvals, refusals, rollbacks))
        )
        for one, _ in tracking.versions(store.tracking_uri)
    ]


def first_in_use(store: Store, *, synthetic: bool) -> Registered | None:
    """The first version that served and may serve again, of invented people or of real ones."""
    known = standings(store)
    fit = _fit(store, known)
    found = (one.registered for one in known if one.registered.version in fit)
    return next((one for one in found if one.is_synthetic == synthetic), None)


def started_by(store: Store, classifier: str) -> set[str]:
    """Who started the runs that made a classifier, by its digest, as the log names them.

    Who only ran it again, which computes nothing, is not among them.  But a run that was cleared
    says that it found what it made: where no run says that it made it, all that have it count.

    Raises
    ------
    ConfigError
        When the log of a store that hospitals rely on names nobody: then anybody may have been.
    """
    found = {
        run.run_id: one.found
        for run in store.runs
        for one in run.steps.values()
        if one.outputs.get("classifier") == classifier
    }
    makers = {run_id for run_id, is_found in found.items() if not is_found} or set(found)
    actors: dict[str, str] = {}
    for event in audit.events(store):
        run_id = event.details.get("run")
        if run_id in makers:
            actors.setdefault(run_id, event.actor)
    if not actors and in_production(store.url):
        raise ConfigError(
            f"the audit log of {store.url} does not say who started the run that made "
            f"{classifier[:19]}…, so nobody can approve it as another person: train it again"
        )
    return set(actors.values())


def last_asked(store: Store, classifier: str) -> Verdict | None:
    """The verdict by which the newest promotion of a classifier asked a person, if it did."""
    records = [
        run.steps["promote"]
        for run in store.runs
        if "promote" in run.steps
        and any(
            classifier in (one.inputs.get("classifier"), one.outputs.get("classifier"))
            for one in run.steps.values()
        )
    ]
    newest = max(records, key=lambda one: one.finished_at, default=None)
    verdicts = newest.verdicts if newest else ()
    return next((one for one in verdicts if one.id == "approved_by_a_person"), None)


def approve(
    store: Store, version: str, why: str, read: tuple[str, str] | None = None
) -> tuple[Standing, bool]:
    """Approve a version with the checks that its last promotion left open, and lift its refusal.

    It takes the place of an approval of other checks, or by somebody who may not approve.

    Parameters
    ----------
    read : tuple of str, optional
        Digest of the classifier, and what its promotion had left open, where the person read that
        earlier: on a page, or in a question that waited.

    Returns how it stood before, and whether the approval is new.

    Raises
    ------
    ConfigError
        When there is no such version, the reason is refused, another person has to approve it, or
        it is not what the person had read.
    """
    from expectations import policy
    from expectations.gates.decision import excluded, name_of
    from spira_tasks.tracking import TAG_REFUSED, Tracker

    standing = _find(standings(store), store, version)
    _check_read(standing, read[0] if read else "")
    involved = started_by(store, standing.registered.classifier)
    production = in_production(store.url)
    asked = last_asked(store, standing.registered.classifier)
    names = asked.names if asked else {}
    if read and read[1] != "".join(names.get("asked", ())):
        raise ConfigError(
            f"version {standing.registered.version} was judged again since it was read, and other "
            "checks are open now: read the page of its newest run, and decide there"
        )
    barred = {*excluded(involved, policy.read().rules, production=production)}
    barred.update(names.get("excluded", ()))
    if name_of(audit.actor()) in barred:
        raise ConfigError(
            f"you started the run of version {standing.registered.version}, or signed a waiver "
            "that it needs: another person has to approve it (second_person in "
            "expectations/policy.yaml)"
        )
    about = standing.about | ({"asked": names["asked"][0]} if "asked" in names else {})
    for one in decisions.known(store, "approvals"):
        is_mine = one.about["classifier"] == standing.registered.classifier
        if is_mine and (one.about != about or name_of(one.by) in barred):
            decisions.withdraw(store, "approvals", one.about, why)
    _, new = decisions.decide(store, "approvals", about, why)
    _withdraw(store, "refusals", standing, why)
    if standing.registered.is_refused:
        Tracker(store.tracking_uri).tag(standing.registered.version, {TAG_REFUSED: "false"})
    return standing, new


def refuse(
    store: Store, version: str, why: str, read: str = ""
) -> tuple[Standing, bool, str | None]:
    """Refuse a version, withdraw its approval and, where it serves, put another in its place.

    ``read`` is the digest of the classifier, where the person read that earlier.

    Returns how it stood before, whether the refusal is new, and the version that is champion
    instead, if any.  Raises as ``approve`` does.  May be repeated after it was killed.
    """
    from spira_tasks.tracking import CHAMPION, TAG_REFUSED, Tracker

    _check_read(_find(standings(store), store, version), read)  # before a database is made
    tracker = Tracker(store.tracking_uri)
    after = moves.settle(store, tracker)
    known = standings(store)
    standing = _find(known, store, version)
    refused = standing.registered
    _, new = decisions.decide(store, "refusals", standing.about, why)
    _withdraw(store, "approvals", standing, why)
    tracker.tag(refused.version, {TAG_REFUSED: "true"})  # for the services, which read no decision
    if CHAMPION not in refused.aliases:
        _tidy(store, tracker, _fit(store, known), after)
        return standing, new, None
    fit = _fit(store, known)
    instead = _before(refused.version, fit, tracker.aliases())
    audit.record(store, "demotion", {**standing.about, "champion": instead or "none"})
    tags = {"spira.outcome": "blocked", "spira.blocked_by": REFUSED, "spira.was_champion": "true"}
    tracker.tag(refused.version, tags)
    previous = _before(instead, fit, {}) if instead else None
    moves.move(store, tracker, "refusal", instead, previous, after=after)
    return standing, new, instead


def roll_back(store: Store, to: str, why: str) -> RolledBack:
    """Take the champion out of use, and put an earlier version in its place.

    The decision is written before the aliases move.  The same again, with the same reason,
    completes what was killed, and otherwise changes nothing.

    Parameters
    ----------
    to : str
        The version that is to serve; empty for the one before.
    why : str
        The written reason.

    Raises
    ------
    ConfigError
        When there is no champion, none to go back to, the one that is named may not serve or its
        files were changed, or the reason is refused.
    """
    from spira_tasks import package
    from spira_tasks.tracking import CHAMPION, Tracker

    why = decisions.checked_reason(why)
    tracker = Tracker(store.tracking_uri)
    after = moves.settle(store, tracker)
    known = standings(store)
    fit, aliases = _fit(store, known), tracker.aliases()
    if CHAMPION not in aliases:
        raise ConfigError(f"the registry of {store.url} has no champion that could be rolled back")
    champion = _find(known, store, aliases[CHAMPION])
    wanted = _find(known, store, to).registered.version if to else ""
    out = _led_to(champion, known, why) if wanted in ("", aliases[CHAMPION]) else None
    if out is not None:
        target = champion
    elif wanted == aliases[CHAMPION]:
        raise ConfigError(f"version {wanted} is the champion already")
    else:
        out = champion
        begun = out.rollback.about["to"] if out.rollback else None
        number = wanted or begun or _before(aliases[CHAMPION], fit, aliases)
        if number is None:
            raise ConfigError(
                "no earlier version may serve: name one by --to, or, to have no champion at all, "
                f'{COMMAND} model refuse {aliases[CHAMPION]} --why "…"'
            )
        target = _find(known, store, number)
        _check_may_serve(target, store)
        package.check(target.registered, tracker, store)
    about = {**out.about, "to": target.registered.version}
    decision, new = decisions.decide(store, "rollbacks", about, why)
    _withdraw(store, "rollbacks", out, why, but=decision)  # one that was to lead elsewhere
    _withdraw(store, "rollbacks", target, why)
    served = {"spira.was_champion": "true"}
    tracker.tag(out.registered.version, {"spira.outcome": "rolled_back", **served})
    promoted = {"spira.outcome": "promoted", "spira.blocked_by": "", **served}
    tracker.tag(target.registered.version, promoted)
    others = [version for version in fit if version != out.registered.version]
    previous = _before(target.registered.version, others, {})
    moves.move(store, tracker, "rollback", target.registered.version, previous, after=after)
    return RolledBack(out.registered.version, target.registered.version, previous, new)


def _led_to(champion: Standing, known: list[Standing], why: str) -> Standing | None:
    """The version whose rollback, for this reason, made the champion what it is."""
    for one in known:
        rollback = one.rollback
        if rollback and (rollback.about["to"], rollback.why) == (champion.registered.version, why):
            return one
    return None


def _check_may_serve(standing: Standing, store: Store) -> None:
    """Raise ConfigError, with all that is against it, where a version may not come into use."""
    one = standing.registered
    refusal = decisions.name_of("refusals", standing.about)
    against = {
        "a person refused it": refusal in decisions.read_history(store).in_force,
        "it learned from a person who was erased": one.contains_erased,
        "it was never champion": not one.was_champion,  # an approval alone overrides no gate
    }
    if problems := "; ".join(problem for problem, is_so in against.items() if is_so):
        raise ConfigError(f"version {one.version} may not serve: {problems}")


def _check_read(standing: Standing, read: str) -> None:
    """Raise ConfigError where the version is not the classifier that a person had read."""
    registered = standing.registered
    if read not in ("", registered.classifier):
        raise ConfigError(
            f"version {registered.version} is not the model that was read: its classifier is "
            f"{registered.classifier[:19]}…, and not {read[:19]}….  The registry was made anew or "
            "restored: see model list, read that model, and decide again"
        )


def find_version(store: Store, version: str) -> Standing:
    """A version by its number, ``3``, ``v3`` or ``spira/3``; ConfigError names those there are."""
    return _find(standings(store), store, version)


def _find(known: list[Standing], store: Store, version: str) -> Standing:
    number = version.rpartition("/")[2].removeprefix("v")
    for standing in known:
        if standing.registered.version == number:
            return standing
    numbers = ", ".join(standing.registered.version for standing in known) or "none yet"
    raise ConfigError(
        f"the registry of {store.url} has no version {version!r} of the model; it has: {numbers}"
    )


def _withdraw(
    store: Store, kind: Kind, standing: Standing, why: str, but: Decision | None = None
) -> None:
    for decision in decisions.known(store, kind):
        is_kept = but is not None and decision.id == but.id
        if decision.about["classifier"] == standing.registered.classifier and not is_kept:
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
        and one.rollback is None
        and decisions.name_of("refusals", one.about) not in in_force
    ]


def _before(version: str, fit: list[str], aliases: Mapping[str, str]) -> str | None:
    """The version to go back to: the one that was replaced, else the newest that is older."""
    from spira_tasks.tracking import PREVIOUS

    if aliases.get(PREVIOUS) in {*fit} - {version}:
        return aliases[PREVIOUS]
    return next((other for other in reversed(fit) if int(other) < int(version)), None)


def _tidy(store: Store, tracker: Tracker, fit: list[str], after: int) -> None:
    """Let ``previous`` be a version to go back to, whatever a killed act has left."""
    from spira_tasks.tracking import CHAMPION, PREVIOUS

    aliases = tracker.aliases()
    champion, previous = aliases.get(CHAMPION), aliases.get(PREVIOUS)
    if previous is not None and (previous == champion or previous not in fit):
        before = _before(champion, fit, {}) if champion else None
        moves.move(store, tracker, "refusal", champion, before, after=after)
