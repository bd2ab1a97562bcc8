"""What ``audit verify`` finds: changes of the log, of decisions, of certificates and of aliases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from spira_tasks.artifacts import Store, sealed
from spira_tasks.contract.place import COMMAND
from spira_tasks.contract.record import Result
from spira_tasks.contract.run import Anchor, StepRecord
from spira_tasks.errors import ConfigError, ServiceUnavailable
from spira_tasks.governance import audit, decisions, signing
from spira_tasks.governance.audit import FOLDER, NAME, NOTHING, Event, read
from spira_tasks.governance.decisions import CERTIFICATES, Document, History, read_document

REGISTRY_AWAY = "the registry did not answer: whether aliases were moved by hand is not known"
CERTIFICATE_OF_OTHERS = (
    "certificates are signed by another key than the one here: whose it is cannot be checked"
)


@dataclass(frozen=True)
class Verification:
    """What ``verify`` found.

    There are no problems when the log is whole and every document is as the log records it.  Notes
    say what cannot be checked; nothing is known to be wrong with it.
    """

    n_events: int
    head: Anchor
    n_anchors: int
    problems: list[str]
    n_documents: int  # decisions and certificates
    notes: list[str]


def verify(store: Store, anchors: Mapping[str, Anchor] | None = None) -> Verification:
    """Check hashes, links, anchors, decisions, certificates, what steps left, and aliases.

    Runs may be at work meanwhile: what quotes events is read before the events are.

    Parameters
    ----------
    anchors : mapping of str to Anchor, optional
        Further ones by where they were found, such as a report pack kept elsewhere.
    """
    records, broken = _records(store)
    names = [*store.documents.names("decisions"), *store.documents.names(CERTIFICATES)]
    documents = {name: found for name in names if (found := read_document(store, name)) is not None}
    anchors = dict(anchors or {}) | _stored_anchors(records, documents)
    events, problems = _read_log(store)
    problems += [*broken, *_differing(records, events)]
    hashes = {event.number: event.hash for event in events}
    problems += _broken_quotes(anchors, hashes)
    history = History(events)
    n_of_others = 0
    for name in sorted({*documents, *history.in_force}):
        document = documents.get(name)
        if history.problem(name, document):
            document = read_document(store, name)  # a decision may have been made meanwhile
            if problem := history.problem(name, document):
                problems.append(problem)
                continue
        if document and name.startswith(f"{CERTIFICATES}/"):
            n_of_others += not _is_ours(document)
    notes = [f"{n_of_others} {CERTIFICATE_OF_OTHERS}"] if n_of_others else []
    try:
        problems += _astray(store, history)
    except ServiceUnavailable:
        notes.append(REGISTRY_AWAY)
    last = max(hashes, default=0)
    return Verification(
        len(hashes),
        Anchor(last, hashes.get(last, NOTHING)),
        len(anchors),
        problems,
        len(documents),
        notes,
    )


def _astray(store: Store, history: History) -> list[str]:
    """Aliases of the model that are not where the newest move put them, as by hand in MLflow."""
    from spira_tasks import tracking

    newest = history.moves[-1] if history.moves else None
    if newest is None or not history.moved.get(newest.number):  # the next act completes it
        return []
    found = {
        alias: one for one, _ in tracking.versions(store.tracking_uri) for alias in one.aliases
    }
    return [
        f"{alias} in MLflow is {f'version {one.version}' if one else 'no version'}, but event "
        f"{newest.number} made it {newest.details[alias]}: no act is on record; find out who moved "
        f'it, and put it right by {COMMAND} model rollback --to VERSION --why "…"'
        for alias in (tracking.CHAMPION, tracking.PREVIOUS)
        for one in (found.get(alias),)
        if (one.classifier if one else "") != newest.details[f"{alias}_classifier"]
    ]


def check_anchor(store: Store, where: str, anchor: Anchor) -> list[str]:
    """What is wrong with the event that an anchor quotes; ``where`` says in words who quotes it."""
    events, _ = _read_log(store)
    return _broken_quotes({where: anchor}, {event.number: event.hash for event in events})


def _broken_quotes(anchors: Mapping[str, Anchor], hashes: Mapping[int, str]) -> list[str]:
    return [
        f"event {anchor.number}, which {where} quotes, "
        + ("was changed" if anchor.number in hashes else "is gone")
        for where, anchor in anchors.items()
        if hashes.get(anchor.number) != anchor.hash
    ]


def _records(store: Store) -> tuple[dict[str, StepRecord | Result], list[str]]:
    """Records of runs and results by name, and what is wrong; nothing is set aside."""
    records: dict[str, StepRecord | Result] = {}
    problems, others = [], Counter[str]()
    for folder in sealed.FOLDERS:
        for entry in store.entries(folder):
            content = store.read(entry.name)
            if not content:  # gone meanwhile, or left by a power loss
                continue
            finding, unsealed = sealed.examine(entry.name, content)
            if finding == "changed":
                problems.append(
                    f"{entry.name} was changed: the next step that meets it sets it aside"
                )
            elif finding != "whole":
                others[finding] += 1
            if finding == "changed" or folder == "memo":
                continue
            parse = StepRecord.from_json if folder == "runs" else Result.from_json
            try:
                records[entry.name.removesuffix(".json")] = parse(unsealed)
            except decisions.MALFORMED:
                problems.append(f"{entry.name} is no record")
        problems += [
            f"{entry.name} was not as it was written, and a step set it aside: find out who "
            "changed it, then delete it"
            for entry in store.entries(f"corrupt/{folder}")
            if entry.size  # a power loss leaves an empty one
        ]
    problems += [
        f"{n} results, memories and records are {finding}: {COMMAND} audit seal --help"
        for finding, n in others.items()
    ]
    return records, problems


def _differing(records: Mapping[str, StepRecord | Result], events: Iterable[Event]) -> list[str]:
    """Records of runs and results that are not as the log has them.

    Who holds the key of the seals could write them anew; the events of gates show it.
    """
    with_outputs = [event for event in events if {"key", "outputs"} <= event.details.keys()]
    by_number = {event.number: event for event in with_outputs}
    by_key = {event.details["key"]: event for event in with_outputs}
    problems = []
    for name, record in records.items():
        if isinstance(record, StepRecord):
            event = by_number.get(record.audit.number) if record.audit else None
        else:
            event = by_key.get(record.key)
        if event is None:
            continue
        now = audit.details_of(record)
        differing = [what for what in now if event.details.get(what, now[what]) != now[what]]
        if differing:
            problems.append(f"{name}: {', '.join(differing)} is not what event {event.number} has")
    return problems


def _stored_anchors(
    records: Mapping[str, StepRecord | Result], documents: Mapping[str, Document]
) -> dict[str, Anchor]:
    """The anchors that records of runs hold, and some decisions and certificates."""
    found = {
        name: record.audit
        for name, record in records.items()
        if isinstance(record, StepRecord) and record.audit
    }
    for name, document in documents.items():
        quoted = document.get("audit")
        if isinstance(quoted, Mapping) and quoted.keys() == {"number", "hash"}:
            found[name] = Anchor(**quoted)  # anything else is no anchor: the history reports it
    return found


def _read_log(store: Store) -> tuple[list[Event], list[str]]:
    """The events that can be read, and what is wrong with the chain."""
    events: list[Event] = []
    problems: list[str] = []
    previous, n = NOTHING, 0
    for name in store.documents.names(FOLDER):
        if not NAME.fullmatch(name):
            problems.append(f"{name} is no event, and no step reads it: remove it")
            continue
        n += 1
        try:
            event = read(store.documents, name)
        except ConfigError:
            problems.append(f"{name} is not an event")
            continue
        if event.number != n:
            problems.append(f"{name}: event {n} is expected here, this is {event.number}")
            n = event.number
        if event.hash != event.true_hash():
            problems.append(f"event {event.number} was changed: its content has another hash")
        if event.previous != previous:
            problems.append(f"event {event.number} does not follow the one before it")
        previous = event.hash
        events.append(event)
    return events, problems


def _is_ours(certificate: Document) -> bool:
    public = str(certificate["signature"]["public_key"])
    if signing.has_own_key():
        return public == signing.public_key()
    return signing.is_demonstration(public)
