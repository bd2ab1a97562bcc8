"""Decisions of people, as documents that steps apply: releases, waivers, erasures and so on.

A stage declares which kinds it applies; the runner passes it all decisions of these kinds in force
as one more input.  So they are part of the key of every result that they could have changed, and
the step is computed again on the day after a decision ends.

The event of a decision holds the digest of its document and is written before it; the event of a
withdrawal is written before the document goes.  So the log alone says which documents there should
be (``History``), and a command that was killed is finished by running it again.  The retention
policy and certificates of erasure are documents of the same form.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, get_args

from expectations.personal import holds_personal_data
from spira_tasks.artifacts import Directory, Store
from spira_tasks.artifacts.blobs import canonical_json
from spira_tasks.contract.place import COMMAND
from spira_tasks.contract.run import Anchor
from spira_tasks.errors import ArtifactCorrupt, ConfigError
from spira_tasks.governance import audit
from spira_tasks.governance.applied import Decision, Kind
from spira_tasks.governance.audit import Event

Document = Mapping[str, Any]
log = logging.getLogger(__name__)

ACTIONS: Mapping[Kind, str] = {kind: kind.removesuffix("s") for kind in get_args(Kind)}
CERTIFICATES = "certificates"
POLICY = "decisions/retention.json"
DIGEST = "document"  # the detail of an event with the digest of its document
ERASED = "the person whose recording it was about was erased"
MIN_REASON = 10  # characters: "ok" is no reason
REPAIR = "restore it from a backup, or delete it and decide again"
HISTORY = "history.json"  # the events of decisions up to an event of the log, sealed
N_NEW = 100  # events since it was written, after which it is written again
PAUSE_SECONDS = 1.0  # in which a command writes its document, or deletes it, after its event
MOVES = ("move", "moved")  # of the aliases of the model (``moves``)
NAME = re.compile(r"[0-9a-f]{32}\.json")  # of a decision; anything else beside it is none
MALFORMED = (AttributeError, KeyError, TypeError, ValueError)  # what a changed document may raise


def decide(store: Store, kind: Kind, about: Mapping[str, str], why: str) -> tuple[Decision, bool]:
    """Write a decision and the event of the audit log; say whether it is new.

    Raises as ``checked_reason`` does.
    """
    decision = Decision(kind, dict(about), checked_reason(why), audit.actor(), audit.now())
    name = name_of(kind, about)
    known = read_document(store, name)
    if known is not None and not History(audit.events(store)).problem(name, known):
        return Decision.from_json(known), False
    # one that is there was forged, or left by a withdrawal that was killed
    publish(
        store, name, ACTIONS[kind], _details(decision), asdict(decision), replace=known is not None
    )
    return decision, True


def publish(
    store: Store,
    name: str,
    action: str,
    details: Mapping[str, Any],
    content: Document,
    *,
    replace: bool = True,
) -> None:
    """Write the event of a document, with its digest, and then the document, which quotes it."""
    anchor = audit.record(store, action, {**details, DIGEST: digest(content)})
    document = {**content, "audit": asdict(anchor)}
    (store.documents.write if replace else store.documents.write_once)(name, document)


def withdraw(store: Store, kind: Kind, about: Mapping[str, str], why: str) -> bool:
    """Take a decision back; say whether there was one."""
    details = _details(Decision(kind, dict(about), checked_reason(why), "", ""))
    name = name_of(kind, about)
    if read_document(store, name) is None:
        return False
    audit.record(store, "withdrawal", details)
    store.documents.delete(name)
    return True


def log_erased(store: Store, names: Iterable[str]) -> None:
    """Write the event of every decision that is about to go because a person is erased."""
    for name in sorted(names):
        if name.startswith("decisions/"):
            id_ = name.rpartition("/")[2].removesuffix(".json")
            audit.record(store, "withdrawal", {"decision": id_, "why": ERASED})


def known(store: Store, kind: Kind) -> list[Decision]:
    """All decisions of a kind, the oldest first, unverified; also those whose last day is over."""
    found = []
    for name in store.documents.names(f"decisions/{kind}"):
        try:
            found.append(Decision.from_json(read_document(store, name) or {}))
        except MALFORMED:
            log.warning("%s is no decision: see %s audit verify", name, COMMAND)
    return sorted(found, key=lambda decision: (decision.at, decision.id))


def in_force(store: Store, kind: Kind) -> Directory:
    """The decisions of a kind that count today, as a stage reads them and the log records them.

    Raises
    ------
    ConfigError
        When the log is not whole, or one of them is missing, was changed, or was put there.
    """
    problems: list[str] = []
    day = today()

    def counts(name: str, content: bytes) -> bool:
        return bool(NAME.fullmatch(name)) and not _is_over(content, day)

    for is_again in (False, True):
        if is_again:
            time.sleep(PAUSE_SECONDS)
        history = read_history(store)
        directory = store.documents.directory(f"decisions/{kind}", counts)
        found = {
            f"decisions/{kind}/{name}": _parsed(directory.read(name)) for name in directory.names
        }
        missing = [
            name
            for name, events in history.in_force.items()
            if name.startswith(f"decisions/{kind}/")
            and name not in found
            and events[-1].details.get("until", day) >= day
        ]
        problems = [
            problem
            for name in sorted([*found, *missing])
            if (problem := history.problem(name, found.get(name)))
        ]
        if not problems:
            return directory
    listing = "".join(f"\n  - {problem}" for problem in problems)
    raise ConfigError(f"decisions in {store.url} are not as the audit log records them:{listing}")


def read_history(store: Store) -> History:
    """What the log says of decisions, verified.

    The log is read from the event on up to which its events of decisions were last kept, sealed, so
    that the cost does not grow with the log.

    Raises
    ------
    ConfigError
        When the log is not whole.
    """
    kept = store.documents.read_sealed(HISTORY) or {"number": 0, "hash": audit.NOTHING}
    new = audit.since(store, Anchor(kept["number"], kept["hash"]))
    events = [Event(**event) for event in kept.get("events", ())] + new
    if len(new) >= N_NEW:
        keep_history(store, events)
    return History(events)


def keep_history(store: Store, events: Iterable[Event]) -> None:
    """Keep those events that decide, and the anchor of the last, as the log stands."""
    events = list(events)
    deciding = [
        asdict(event)
        for event in events
        if event.action in ("withdrawal", "erasure", *MOVES) or _document_of(event)
    ]
    store.documents.write_sealed(HISTORY, asdict(events[-1].anchor) | {"events": deciding})


def _parsed(content: bytes) -> Document:
    """A document; an empty one where it is no JSON object, as ``read_document``."""
    try:
        return dict(json.loads(content))
    except MALFORMED:
        return {}


def _is_over(content: bytes, day: str) -> bool:
    """Whether the last day of a decision is past; a malformed one is not over, but reported."""
    try:
        return bool(json.loads(content)["about"].get("until", day) < day)
    except MALFORMED:
        return False


def today() -> str:
    """The day in UTC, ISO 8601."""
    return datetime.now(UTC).date().isoformat()


def checked_reason(why: str) -> str:
    """The reason on one line; ConfigError when it is too short, or holds a personal number."""
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


def name_of(kind: Kind, about: Mapping[str, str]) -> str:
    """The name of the document of a decision."""
    return f"decisions/{kind}/{Decision(kind, about, '', '', '').id}.json"


def read_document(store: Store, name: str) -> Document | None:
    """A document; an empty one where it is no JSON object."""
    try:
        return store.documents.read(name)
    except (ArtifactCorrupt, *MALFORMED):
        return {}


def digest(document: Document) -> str:
    """Of what was decided: the document without the event that it quotes."""
    content = {name: value for name, value in document.items() if name != "audit"}
    return sha256(canonical_json(content)).hexdigest()


class History:
    """What the log says of documents, by their names."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.written: dict[str, list[Event]] = defaultdict(list)  # all that it was written for
        # Those that the document there now may belong to: of a decision all since it was last
        # withdrawn, because two people may decide the same at once; of other documents the newest.
        self.in_force: dict[str, list[Event]] = {}
        self.withdrawn: dict[str, Event] = {}
        self.moves: list[Event] = []  # those that count: each names the one before it
        self.moved: dict[int, bool] = {}  # number to whether it was made; else it was given up
        for event in events:
            if not isinstance(event.details, Mapping):
                continue
            if event.action == "move":
                last = self.moves[-1].number if self.moves else 0
                self.moves += [event] if event.details.get("after") == last else []
            if event.action == "moved":
                self.moved[event.details.get("move", 0)] = bool(event.details.get("made"))
            if event.action == "withdrawal":
                for kind in ACTIONS:
                    name = f"decisions/{kind}/{event.details.get('decision')}.json"
                    if self.in_force.pop(name, None):
                        self.withdrawn[name] = event
            elif name := _document_of(event):
                self.written[name].append(event)
                is_replaced = name == POLICY or name.startswith(f"{CERTIFICATES}/")
                earlier = [] if is_replaced else self.in_force.get(name, [])
                self.in_force[name] = [*earlier, event]

    def problem(self, name: str, document: Document | None) -> str:
        """What is wrong with a document, or with its absence, and what to do; empty if nothing."""
        if name not in self.in_force:
            return "" if document is None else self._unwanted(name)
        newest = self.in_force[name][-1]
        if document is None:
            return f"{name} is missing, but event {newest.number} records it: {_again(name)}"
        event = quoted(document, self.in_force[name])
        if event is None:
            return f"{name} is not the one that event {newest.number} records: {_again(name)}"
        what = _difference(name, document, event)
        return f"{name} was changed: {what} of event {event.number}; {REPAIR}" if what else ""

    def is_genuine(self, name: str, document: Document) -> bool:
        """Whether the document is as it was once written, in force or replaced since."""
        event = quoted(document, self.written.get(name, []))
        return event is not None and not _difference(name, document, event)

    def _unwanted(self, name: str) -> str:
        event = self.withdrawn.get(name)
        if event is None:
            return f"{name} is there, and no event records it: nobody decided it; delete it"
        return (
            f"{name} is there, but event {event.number} withdrew it: a command was killed, or "
            "somebody put it back; withdraw it again"
        )


def _details(decision: Decision) -> dict[str, str]:
    """What the log keeps of a decision, without the recording, which may be erased."""
    about = {name: value for name, value in decision.about.items() if name != "record"}
    return {**about, "decision": decision.id, "why": decision.why}


def _document_of(event: Event) -> str:
    """The name of the document that an event was written for; empty where there is none."""
    if "decision" in event.details:
        kinds = [kind for kind, action in ACTIONS.items() if action == event.action]
        return f"decisions/{kinds[0]}/{event.details['decision']}.json" if kinds else ""
    if event.action == "policy" and "retention" in event.details:
        return POLICY
    if event.action == "erasure" and "certificate" in event.details:
        return f"{CERTIFICATES}/{event.details.get('tag')}.json"
    return ""


def quoted(document: Document, events: Iterable[Event]) -> Event | None:
    """The one of some events that a document quotes."""
    return next((e for e in events if document.get("audit") == asdict(e.anchor)), None)


def _difference(name: str, document: Document, event: Event) -> str:
    """In what a document differs from its event; empty when in nothing."""
    try:
        if name.startswith(f"{CERTIFICATES}/"):
            from spira_tasks.governance.signing import is_signed

            unsigned = {key: value for key, value in document.items() if key != "signature"}
            if digest(unsigned) != event.details["certificate"]:
                return "its digest is not that"
            return "" if is_signed(document) else "its signature does not fit, unlike that"
        return "" if digest(document) == event.details.get(DIGEST) else "its digest is not that"
    except MALFORMED:
        return "it is no longer one"


def _again(name: str) -> str:
    """What to do when the document that the newest event records is not there."""
    if name.startswith((f"{CERTIFICATES}/", "decisions/erasures/")):
        command = "erase again"
    elif name == POLICY:
        command = "adopt the policy again"
    else:
        command = "decide it again"
    return f"a command was killed, or somebody removed it; {command}"
