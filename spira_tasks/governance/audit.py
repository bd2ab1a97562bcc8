"""The audit log: what was done, by whom and when, in a chain that cannot be changed unseen.

Each event is a file of its own, ``audit/<number>.json``, and holds the hash of the event before it.
A file is written only where there is none, so two writers cannot make the same number, and nobody
overwrites.  Whoever changes an event breaks the chain behind it.  Whoever cuts off its end is found
by the anchors: the record of every audited step, every report pack and every certificate quotes the
number and the hash of an event.

A decision and a certificate of erasure are documents beside the log.  What they have to say is in
their events, so a changed, removed or planted one is found too (``agreement``).

Events hold pseudonymous tags, digests, names of steps and counts; never a value of a patient.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from spira_tasks.artifacts import Documents, Store
from spira_tasks.artifacts.blobs import canonical_json
from spira_tasks.contract.run import Anchor
from spira_tasks.errors import ConfigError, ServiceUnavailable
from spira_tasks.governance import agreement

FOLDER = "audit"
NOTHING = "0" * 64  # the hash before the first event
TRIES = 200  # of finding a free number: as many writers at once have never been seen
VARIABLE = "SPIRA_ACTOR"
ACTOR = re.compile(r"[\w.@:+ -]{1,120}")


@dataclass(frozen=True)
class Event:
    """One entry of the log.

    Attributes
    ----------
    number : int
        Counts from 1 without gaps.
    at : str
        UTC, ISO 8601, seconds.
    actor : str
        ``airflow:<user>`` or ``cli:<user>``.
    action : str
        ``ingest``, ``gate``, ``promotion``, ``release``, ``waiver``, ``approval``, ``refusal``,
        ``demotion``, ``withdrawal``, ``erasure``, ``retention``, ``report``, ``rotation``,
        ``policy``.
    details : mapping of str to JSON value
        What it was done to.
    previous, hash : str
        SHA-256 of the event before, and of this one without its own hash.
    """

    number: int
    at: str
    actor: str
    action: str
    details: Mapping[str, Any]
    previous: str
    hash: str = ""

    @property
    def anchor(self) -> Anchor:
        return Anchor(self.number, self.hash)

    def true_hash(self) -> str:
        content = {name: value for name, value in asdict(self).items() if name != "hash"}
        return sha256(b"spira.audit/1\0" + canonical_json(content)).hexdigest()


@dataclass(frozen=True)
class Verification:
    """What ``verify`` found.

    Attributes
    ----------
    n_documents : int
        Decisions and certificates.
    problems : list of str
        Empty when the log is whole and every document is as the log tells.
    notes : list of str
        What of older documents cannot be checked; nothing is known to be wrong with them.
    """

    n_events: int
    head: Anchor
    n_anchors: int
    problems: list[str] = field(default_factory=list)
    n_documents: int = 0
    notes: list[str] = field(default_factory=list)


def actor() -> str:
    """Who acts: the user that Airflow named in SPIRA_ACTOR, or the account of this process.

    A variable is set by whoever likes to.  So the command line takes Airflow's away from every
    command but ``run``, by which steps are started, and a name of an account is believed only where
    this machine has none for it: in a container, which scripts/spira.sh tells who typed.
    """
    given = os.environ.get(VARIABLE, "")
    if given and not given.startswith("cli:"):
        return given if ACTOR.fullmatch(given) else "unknown"
    try:
        return f"cli:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:
        return given if ACTOR.fullmatch(given) else f"cli:{os.getuid()}"


def forget_airflow() -> None:
    """Let what this process does be its account's: a person typed the command."""
    if not os.environ.get(VARIABLE, "").startswith("cli:"):
        os.environ.pop(VARIABLE, None)


def record(store: Store, action: str, details: Mapping[str, Any]) -> Anchor:
    """Append an event; return what names it."""
    documents = store.documents
    last = head(documents)
    for _ in range(TRIES):
        event = Event(
            number=last.number + 1,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            actor=actor(),
            action=action,
            details=dict(details),
            previous=last.hash,
        )
        event = Event(**asdict(event) | {"hash": event.true_hash()})
        if documents.write_once(_name(event.number), asdict(event)):
            return event.anchor
        taken = _read(documents, event.number)
        last = taken.anchor if taken else head(documents)
    raise ServiceUnavailable(
        f"the audit log of {store.url} could not be appended to in {TRIES} tries: others write to "
        "it all the time; run it again"
    )


def head(documents: Documents) -> Anchor:
    """The newest event, or number 0 of an empty log."""
    names = documents.names(FOLDER)
    if not names:
        return Anchor(0, NOTHING)
    event = _read(documents, int(names[-1].removeprefix(f"{FOLDER}/").removesuffix(".json")))
    if event is None:
        raise ServiceUnavailable(f"{names[-1]} could not be read; run it again")
    return event.anchor


def events(store: Store) -> Iterator[Event]:
    """All events in their order, as they stand; ``verify`` says whether they are true."""
    for name in store.documents.names(FOLDER):
        document = store.documents.read(name)
        if document is not None:
            yield Event(**document)


def verify(store: Store, anchors: Mapping[str, Anchor] | None = None) -> Verification:
    """Check every hash, every link and every anchor, and every decision and certificate.

    Runs may be at work meanwhile: what quotes events is read before the events are.

    Parameters
    ----------
    anchors : mapping of str to Anchor, optional
        Further ones by a name for where they were found, such as a report pack kept elsewhere.
    """
    documents = agreement.documents(store)
    anchors = dict(anchors or {}) | stored_anchors(store, documents)
    problems: list[str] = []
    known: list[Event] = []
    hashes: dict[int, str] = {}
    previous, n = NOTHING, 0
    for name in store.documents.names(FOLDER):
        n += 1
        try:
            document = store.documents.read(name)
            event = Event(**(document or {}))
        except Exception as error:  # whatever is wrong, it is reported
            problems.append(f"{name} is not an event ({type(error).__name__})")
            continue
        if name != _name(event.number) or event.number != n:
            problems.append(f"{name}: event {n} is expected here, this is {event.number}")
            n = event.number
        if event.hash != event.true_hash():
            problems.append(f"event {event.number} was changed: its content has another hash")
        if event.previous != previous:
            problems.append(f"event {event.number} does not follow the one before it")
        hashes[event.number] = previous = event.hash
        known.append(event)
    for where, anchor in anchors.items():
        if hashes.get(anchor.number) != anchor.hash:
            what = "was changed" if anchor.number in hashes else "is gone"
            problems.append(f"event {anchor.number}, which {where} quotes, {what}")
    wrong, notes = agreement.check(store, documents, agreement.Told(known))
    last = max(hashes, default=0)
    newest = Anchor(last, hashes.get(last, NOTHING))
    problems += wrong
    return Verification(len(hashes), newest, len(anchors), problems, len(documents), notes)


def stored_anchors(store: Store, documents: Mapping[str, Mapping[str, Any]]) -> dict[str, Anchor]:
    """The anchors that records of runs hold, and some decisions and certificates."""
    found: dict[str, Anchor] = {}
    for run_id in store.run_ids():
        for name in store.record_names(run_id):
            run_record = store.read_record(run_id, name) or {}
            if "audit" in run_record:
                found[f"runs/{run_id}/{name}"] = Anchor(**run_record["audit"])
    for name, document in documents.items():
        quoted = document.get("audit")
        if isinstance(quoted, Mapping) and quoted.keys() == {"number", "hash"}:
            found[name] = Anchor(**quoted)  # any other is no anchor: agreement says so
    return found


def anchor_from(text: str) -> Anchor:
    """Read ``"<number>:<hash>"``.

    Raises
    ------
    ConfigError
        When it is something else.
    """
    number, _, hash_ = text.partition(":")
    if not (number.isdecimal() and re.fullmatch(r"[0-9a-f]{64}", hash_)):
        raise ConfigError(f"{text!r} is not an anchor; one looks like 12:<64 hex digits>")
    return Anchor(int(number), hash_)


def _name(number: int) -> str:
    return f"{FOLDER}/{number:012d}.json"


def _read(documents: Documents, number: int) -> Event | None:
    document = documents.read(_name(number))
    return None if document is None else Event(**document)
