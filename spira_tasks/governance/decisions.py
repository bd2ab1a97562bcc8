"""What people decided, as documents that steps heed: releases, waivers, erasures and so on.

A stage says in ``HEEDS`` which kinds it wants; the runner gives it all decisions of that kind as
one more input.  So a decision is part of the key of every result that it could have changed, and
deciding again what was decided changes nothing.  One whose last day is over is no longer given, so
the key changes on that day and the step is done again without it.

The event comes first and holds the digest of the document.  Killed in between, a command leaves the
two in disagreement, which ``audit verify`` tells; doing it again ends the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime

from expectations.personal import holds_personal_data
from spira_tasks.artifacts import Directory, Store
from spira_tasks.errors import ConfigError
from spira_tasks.governance import agreement, audit
from spira_tasks.governance.heeded import Decision, Kind, decision_from, read

ERASED = "the person whose recording it was about was erased"
MIN_REASON = 10  # characters: "ok" is no reason


def decide(store: Store, kind: Kind, about: Mapping[str, str], why: str) -> tuple[Decision, bool]:
    """Write a decision and the event of the audit log; say whether it is new.

    Raises
    ------
    ConfigError
        When the reason is too short, or holds something that looks like a personal number.
    """
    decision = Decision(
        kind,
        dict(about),
        checked_reason(why),
        audit.actor(),
        datetime.now(UTC).isoformat(timespec="seconds"),
    )
    name = name_of(kind, about)
    known = agreement.read(store, name)
    if known is not None and not agreement.Told(audit.events(store)).problem(name, known):
        return decision_from(known), False
    content = asdict(decision)
    details = _told(decision) | {agreement.DIGEST: agreement.digest(content)}
    anchor = audit.record(store, agreement.ACTIONS[kind], details)
    content |= {"audit": asdict(anchor)}
    if known is None:
        store.documents.write_once(name, content)
    else:  # forged, or left by a withdrawal that was killed
        store.documents.write(name, content)
    return decision, True


def withdraw(store: Store, kind: Kind, about: Mapping[str, str], why: str) -> bool:
    """Take a decision back; say whether there was one."""
    decision = Decision(kind, dict(about), checked_reason(why), "", "")
    name = name_of(kind, about)
    if agreement.read(store, name) is None:
        return False
    audit.record(store, "withdrawal", _told(decision))
    store.documents.delete(name)
    return True


def log_erased(store: Store, names: Iterable[str]) -> None:
    """Write the event of every decision that is about to go because a person is erased."""
    for name in sorted(names):
        if name.startswith("decisions/"):
            id_ = name.rpartition("/")[2].removesuffix(".json")
            audit.record(store, "withdrawal", {"decision": id_, "why": ERASED})


def known(store: Store, kind: Kind) -> list[Decision]:
    """All decisions of a kind, the oldest first; also those whose last day is over."""
    return read(store.documents.directory(f"decisions/{kind}"))


def in_force(store: Store, kind: Kind) -> Directory:
    """The decisions of a kind that count today, as a stage reads them."""
    day = today()
    return store.documents.directory(
        f"decisions/{kind}", lambda content: content["about"].get("until", day) >= day
    )


def today() -> str:
    """The day in UTC, ISO 8601."""
    return datetime.now(UTC).date().isoformat()


def checked_reason(why: str) -> str:
    why = " ".join(why.split())
    if len(why) < MIN_REASON:
        raise ConfigError(
            f"a written reason of at least {MIN_REASON} characters is needed: others will read it"
        )
    if holds_personal_data(why):
        raise ConfigError(
            "the reason holds something that looks like a personal number, a telephone or an "
            "e-mail address: say it without, for reasons are kept for ever"
        )
    return why


def _told(decision: Decision) -> dict[str, str]:
    """What the log keeps of a decision: for ever, so not which recording, which may be erased."""
    about = {name: value for name, value in decision.about.items() if name != "record"}
    return {**about, "decision": decision.id, "why": decision.why}


def name_of(kind: Kind, about: Mapping[str, str]) -> str:
    """The name of the document of a decision."""
    return f"decisions/{kind}/{Decision(kind, about, '', '', '').id}.json"
