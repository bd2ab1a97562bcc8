"""The audit log: what was done, by whom and when, as a chain of hashes.

Each event is a file, ``audit/<number>.json``, and holds the hash of the event before it.  A file is
written only where there is none, so two writers cannot take the same number.  A change of an event
breaks the chain; a cut at the end is found by the anchors: the record of every audited step, every
report pack and every certificate quotes the number and the hash of an event.

Events hold pseudonymous tags, digests, names of steps and counts; never a value of a patient.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from spira_tasks.artifacts import Documents, Store
from spira_tasks.artifacts.blobs import canonical_json, in_threads
from spira_tasks.contract.place import COMMAND
from spira_tasks.contract.record import Result
from spira_tasks.contract.run import Anchor, StepRecord
from spira_tasks.errors import ArtifactCorrupt, ConfigError, ServiceUnavailable

FOLDER = "audit"
NAME = re.compile(rf"{FOLDER}/\d{{12}}\.json")  # anything else in the folder is no event
NOTHING = "0" * 64  # the hash before the first event
WHAT_TO_DO = f"restore the log from a backup; `{COMMAND} audit verify` lists all that is wrong"
N_TRIES = 200  # to find a free number; more writers at once were never seen
VARIABLE = "SPIRA_ACTOR"
ACTOR = re.compile(r"[\w.@:+ -]{1,120}")


@dataclass(frozen=True)
class Event:
    """One entry of the log.

    ``action`` is ``ingest``, ``gate``, ``promotion``, ``release``, ``waiver``, ``approval``,
    ``refusal``, ``demotion``, ``rollback``, ``move``, ``moved``, ``withdrawal``, ``erasure``,
    ``retention``, ``report``, ``rotation``, ``sealing``, ``policy`` or
    ``test_read``.
    """

    number: int  # counts from 1 without gaps
    at: str  # UTC, ISO 8601, seconds
    actor: str  # "airflow:<user>", "event:<key>" or "cli:<user>"
    action: str
    details: Mapping[str, Any]  # what it was done to
    previous: str  # SHA-256 of the event before
    hash: str = ""  # SHA-256 of this one without its own hash

    @property
    def anchor(self) -> Anchor:
        return Anchor(self.number, self.hash)

    def true_hash(self) -> str:
        content = {name: value for name, value in asdict(self).items() if name != "hash"}
        return sha256(b"spira.audit/1\0" + canonical_json(content)).hexdigest()


def actor() -> str:
    """Who acts: the user that Airflow names in SPIRA_ACTOR, or the account of this process.

    Anybody can set the variable.  So the command line keeps Airflow's only for ``run``, which
    starts steps, and one that names an account counts only where this machine knows none: in a
    container, where scripts/spira.sh sets it to the account on the host.
    """
    given = os.environ.get(VARIABLE, "")
    if given and not given.startswith("cli:"):
        return given if ACTOR.fullmatch(given) else "unknown"
    try:
        return f"cli:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:
        return given if ACTOR.fullmatch(given) else f"cli:{os.getuid()}"


def forget_airflow() -> None:
    """Act in the name of this process's account: a person typed the command."""
    if not os.environ.get(VARIABLE, "").startswith("cli:"):
        os.environ.pop(VARIABLE, None)


def now() -> str:
    """The time in UTC, ISO 8601, seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def record(store: Store, action: str, details: Mapping[str, Any]) -> Anchor:
    """Append an event; return its anchor."""
    documents = store.documents
    last = head(documents)
    for _ in range(N_TRIES):
        event = Event(last.number + 1, now(), actor(), action, dict(details), last.hash)
        event = replace(event, hash=event.true_hash())
        if documents.write_once(name_of(event.number), asdict(event)):
            return event.anchor
        taken = documents.read(name_of(event.number))
        last = Event(**taken).anchor if taken else head(documents)
    raise ServiceUnavailable(
        f"the audit log of {store.url} could not be appended to in {N_TRIES} tries: others write "
        "to it all the time; run it again"
    )


def details_of(record: Result | StepRecord) -> dict[str, Any]:
    """What the event of a step keeps of its result, and can be compared with it."""
    return {
        "key": record.key,
        "outputs": dict(record.outputs),
        "metrics": dict(record.metrics),
        "blocked_by": [one.id for one in record.stopping],
    }


def head(documents: Documents) -> Anchor:
    """The newest event, or number 0 of an empty log.

    Raises
    ------
    ConfigError
        When what is newest is no event, or does not follow another.
    """
    names = _names(documents)
    if not names:
        return Anchor(0, NOTHING)
    newest = read(documents, names[-1])
    if newest.number > 1 and name_of(newest.number - 1) not in names[-2:]:
        raise ConfigError(
            f"{names[-1]} of the audit log follows no event: {WHAT_TO_DO}; or move that file away, "
            "if somebody put it there"
        )
    return newest.anchor


def read(documents: Documents, name: str) -> Event:
    """The event in a document; ConfigError when it is none.  Its hash is not checked."""
    try:
        document = documents.read(name)
        if document is None:
            raise ServiceUnavailable(f"{name} could not be read; run it again")
        event = Event(**document)
        is_event = name == name_of(event.number) and isinstance(event.details, Mapping)
    except (ArtifactCorrupt, TypeError, ValueError):
        is_event = False
    if not is_event:
        raise ConfigError(f"{name} is no event of the audit log: {WHAT_TO_DO}")
    return event


def events(store: Store) -> Iterator[Event]:
    """All events in their order, unverified; ``verification.verify`` checks them."""
    return (read(store.documents, name) for name in _names(store.documents))


def since(store: Store, last: Anchor) -> list[Event]:
    """All events after one, verified: each is whole and follows the one before it.

    Raises
    ------
    ConfigError
        When that event is no longer there, or the log after it is not whole.
    """
    names = [name for name in _names(store.documents) if name >= name_of(max(last.number, 1))]
    found = in_threads(lambda name: read(store.documents, name), names)
    expected = last
    for event in found:
        is_last = event.number == last.number
        follows = is_last or (event.number, event.previous) == (expected.number + 1, expected.hash)
        if not follows or event.hash != event.true_hash() or (is_last and event.anchor != last):
            raise ConfigError(f"event {event.number} of the audit log was changed: {WHAT_TO_DO}")
        expected = event.anchor
    if last.number and not (found and found[0].anchor == last):
        raise ConfigError(f"event {last.number} of the audit log is gone: {WHAT_TO_DO}")
    return found[1:] if last.number else found


def name_of(number: int) -> str:
    """The name of the document of an event."""
    return f"{FOLDER}/{number:012d}.json"


def _names(documents: Documents) -> list[str]:
    return [name for name in documents.names(FOLDER) if NAME.fullmatch(name)]
