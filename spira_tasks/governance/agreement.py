"""Whether decisions and certificates are those that the audit log tells of.

The event of a decision holds the digest of its document and is written before it; the event of its
withdrawal is written before the document goes.  So the log alone says which documents there should
be and what is in them, and a command that was killed in between is finished by running it again.
Events from before this was so hold no digest: there the fields that they do hold are compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from spira_tasks.artifacts import Store
from spira_tasks.artifacts.blobs import canonical_json
from spira_tasks.errors import ArtifactCorrupt
from spira_tasks.governance.heeded import decision_from

if TYPE_CHECKING:
    from spira_tasks.governance.audit import Event

ACTIONS: Mapping[str, str] = {
    "releases": "release",
    "waivers": "waiver",
    "erasures": "erasure",
    "approvals": "approval",
    "refusals": "refusal",
}
KINDS = {action: kind for kind, action in ACTIONS.items()}
CERTIFICATES = "certificates"
POLICY = "decisions/retention.json"
DIGEST = "document"  # the detail of an event with the digest of what was decided
WITHOUT_DIGEST = (
    "decisions are older than the digests in events: what, who and why agree, when they were made "
    "cannot be checked"
)
RELEASE_GONE = "releases of that time are gone: whether by an erasure cannot be checked"
CERTIFICATE_OF_OTHERS = (
    "certificates are signed by another key than the one here: whose it is cannot be checked"
)
REPAIR = "restore it from a backup, or delete it and decide again"
MALFORMED = (AttributeError, KeyError, TypeError, ValueError)  # what a changed document may raise

Document = Mapping[str, Any]


def digest(document: Document) -> str:
    """Of what was decided: the document without the event that it quotes."""
    content = {name: value for name, value in document.items() if name != "audit"}
    return sha256(canonical_json(content)).hexdigest()


def read(store: Store, name: str) -> Document | None:
    """A document; an empty one where it is no JSON object."""
    try:
        return store.documents.read(name)
    except (ArtifactCorrupt, *MALFORMED):
        return {}


def documents(store: Store) -> dict[str, Document]:
    """All decisions and certificates of the store, by name."""
    names = [*store.documents.names("decisions"), *store.documents.names(CERTIFICATES)]
    found = {name: read(store, name) for name in names}
    return {name: document for name, document in found.items() if document is not None}


class Told:
    """What the log tells of documents.

    Attributes
    ----------
    history : dict of str to list of Event
        Every event that a document of this name was ever written for.
    in_force : dict of str to list of Event
        Those that the document there now may stem from: of a decision all since it was last taken
        back, for two people may decide the same at once; of what is replaced only the newest.
    taken_back : dict of str to Event
    """

    def __init__(self, events: Iterable[Event]) -> None:
        self.history: dict[str, list[Event]] = {}
        self.in_force: dict[str, list[Event]] = {}
        self.taken_back: dict[str, Event] = {}
        self._last_erasure = 0
        for event in events:
            if isinstance(event.details, Mapping):
                self._take(event, event.details)

    def _take(self, event: Event, details: Document) -> None:
        if event.action == "erasure":
            self._last_erasure = event.number
        if event.action == "withdrawal":
            for kind in ACTIONS:
                name = f"decisions/{kind}/{details.get('decision')}.json"
                if self.in_force.pop(name, None):
                    self.taken_back[name] = event
        elif "decision" in details and event.action in KINDS:
            name = f"decisions/{KINDS[event.action]}/{details['decision']}.json"
            self.history.setdefault(name, []).append(event)
            self.in_force.setdefault(name, []).append(event)
        elif name := _replaced(event.action, details):
            self.history.setdefault(name, []).append(event)
            self.in_force[name] = [event]

    def problem(self, name: str, document: Document | None) -> str:
        """What is wrong with a document, or with its absence, and what to do; empty if nothing."""
        if name not in self.in_force:
            return "" if document is None else self._unwanted(name)
        newest = self.in_force[name][-1]
        if document is None:
            missing = f"{name} is missing, but event {newest.number} tells of it: {_again(name)}"
            return "" if self.may_be_erased(name) else missing
        event = _quoted(document, self.in_force[name])
        if event is None:
            return f"{name} is another than event {newest.number} tells of: {_again(name)}"
        what = _difference(name, document, event)
        return f"{name} was changed: {what} of event {event.number}; {REPAIR}" if what else ""

    def _unwanted(self, name: str) -> str:
        back = self.taken_back.get(name)
        if back is None:
            return f"{name} is there, and no event tells of it: nobody decided it; delete it"
        return (
            f"{name} is there, but event {back.number} took it back: a command was killed, or "
            "somebody put it back; take it back again"
        )

    def is_genuine(self, name: str, document: Document) -> bool:
        """Whether the document is as it was once written, in force or replaced since."""
        event = _quoted(document, self.history.get(name, []))
        return event is not None and not _difference(name, document, event)

    def may_be_erased(self, name: str) -> bool:
        """Whether an erasure may have removed it at a time when that was no event."""
        last = self.in_force[name][-1]
        is_old = name.startswith("decisions/releases/") and DIGEST not in last.details
        return is_old and last.number < self._last_erasure

    def note(self, name: str, document: Document | None) -> str:
        """What cannot be checked of a document without a problem; empty if all of it can."""
        if name not in self.in_force:
            return ""
        if document is None:
            return RELEASE_GONE
        if name.startswith(f"{CERTIFICATES}/"):
            return "" if _is_of_our_key(document) else CERTIFICATE_OF_OTHERS
        event = _quoted(document, self.in_force[name])
        return "" if event is None or DIGEST in event.details else WITHOUT_DIGEST


def check(store: Store, found: Mapping[str, Document], told: Told) -> tuple[list[str], list[str]]:
    """Compare the documents with the log.

    Returns
    -------
    problems, notes : list of str
        What is wrong; what cannot be checked.
    """
    problems: list[str] = []
    notes: Counter[str] = Counter()
    for name in sorted({*found, *told.in_force}):
        document = found.get(name)
        if told.problem(name, document):
            document = read(store, name)  # somebody may have been deciding while this was read
            if problem := told.problem(name, document):
                problems.append(problem)
                continue
        notes[told.note(name, document)] += 1
    return problems, [f"{n} {note}" for note, n in sorted(notes.items()) if note]


def _replaced(action: str, details: Document) -> str:
    """The document that an event of a policy or a certificate is of."""
    if action == "policy" and "retention" in details:
        return POLICY
    if action == "erasure" and "certificate" in details:
        return f"{CERTIFICATES}/{details.get('tag')}.json"
    return ""


def _quoted(document: Document, events: list[Event]) -> Event | None:
    """The event among some that a document quotes."""
    quoted = document.get("audit")
    return next((one for one in events if quoted == {"number": one.number, "hash": one.hash}), None)


def _difference(name: str, document: Document, event: Event) -> str:
    """What of a document is not as its event has it; empty when all is."""
    try:
        if name.startswith(f"{CERTIFICATES}/"):
            return _difference_of_certificate(document, event)
        if DIGEST in event.details:
            return "" if digest(document) == event.details[DIGEST] else "its digest is not that"
        same = document["why"] == event.details["why"] and document["by"] == event.actor
        if name == POLICY:
            policy = sha256(document["policy"].encode()).hexdigest()
            same = same and policy == event.details["retention"]
        else:
            decision = decision_from(document)
            about = {key: value for key, value in decision.about.items() if key != "record"}
            same = same and decision.id == event.details["decision"]
            same = same and about.items() <= event.details.items()
    except MALFORMED:
        return "it is no longer one"
    return "" if same else "what, who or why is not that"


def _difference_of_certificate(document: Document, event: Event) -> str:
    from spira_tasks.governance import signing

    unsigned = {key: value for key, value in document.items() if key != "signature"}
    if digest(unsigned) != event.details["certificate"]:
        return "its digest is not that"
    return "" if signing.is_signed(document) else "its signature does not fit, unlike that"


def _is_of_our_key(certificate: Document) -> bool:
    from spira_tasks.governance import signing

    public = str(certificate["signature"]["public_key"])
    if signing.has_own_key():
        return public == signing.public_key()
    return signing.is_demonstration(public)


def _again(name: str) -> str:
    """What to do when the document that the newest event tells of is not there."""
    if name.startswith((f"{CERTIFICATES}/", "decisions/erasures/")):
        command = "erase again"
    elif name == POLICY:
        command = "adopt the policy again"
    else:
        command = "decide it again"
    return f"a command was killed, or somebody removed it; {command}"
