"""Erase a person from the store (LGPD art. 18 VI): on demand, for good, and provably.

1. A tombstone is written: ingest refuses the subject, and nothing with it is promoted.
2. A journal lists what is to go, so that an erasure that was killed can be finished.
3. Every version of the model that learned from the subject is marked, now and again at the end.
4. Loose blobs, rows of tables and texts that quote a name go, and whatever may be the subject's:
   orphaned blobs, damaged files, checkpoints, temporary files.
5. The store is searched again, until nothing is found.
6. A certificate that names nobody is signed, and the journal removed.

A subject is known here by the pseudonym, and outside this process by the tombstone's tag only.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from spira_tasks import scratch
from spira_tasks.artifacts import Store
from spira_tasks.errors import ConfigError, ServiceUnavailable
from spira_tasks.governance import audit, decisions, inventory, moves, retention, signing
from spira_tasks.governance.decisions import History
from spira_tasks.governance.inventory import Holding, Survey
from spira_tasks.intake.pseudonyms import tombstone_tag

log = logging.getLogger(__name__)

JOURNALS = "erasures"
CONTAINS_ERASED, N_ERASED = "spira.contains_erased", "spira.n_erased"
LEARNED_FROM = ("train", "validation")  # validation chooses the epoch and the operating point
N_PASSES = 3
WRITING_SECONDS = 60  # a file in tmp/ this old has no writer: one is written in seconds
TEMPLATE = Path(__file__).with_name("certificate.md.jinja")
NOT_COVERED = (
    "the hospital's own copy: the folder or bucket that recordings are taken from, and the chart",
    "collection and labels, where it was the command line that erased: the DAG spira_erasure and "
    "`python -m spira_services erase` reach them",
    "what a telephone has not sent, or not sent whole: it is refused, and deleted, when it comes",
    "backups: their copies go when the backups expire; erase again after one was restored",
    "a bucket with versions or object lock: old versions go by the bucket's own rule",
    "weights of models that learned from the person: they hold no recording; they are marked, "
    "may not be promoted, and are replaced by training again",
    "steps that were at work during the erasure, on this or another machine: what they store and "
    "their temporary files; erase again once they have ended, on every machine where temporary "
    "files of one that was killed may lie",
    "the audit log and Airflow's records: they hold the tag, which leads to nobody without the key",
)


def erase(
    store: Store,
    known: Holding,
    tag: str,
    why: str,
    *,
    absent: bool = False,
    also: Mapping[str, int] | None = None,
) -> tuple[dict[str, Any], bool]:
    """Erase a subject; return the certificate, and whether there was anything left to erase.

    Parameters
    ----------
    known : Holding
        The pseudonym and names of recordings; empty where the caller has only the tag.
    why : str
        The written reason; it is kept, so it names nobody.
    absent : bool
        Go on where the store holds nothing of the subject, who is refused from then on.
    also : mapping of str to int, optional
        What was erased elsewhere, by counts, for the certificate.

    Raises
    ------
    ConfigError
        When the store holds nothing of such a subject, or the reason is refused.
    ServiceUnavailable
        When something is still left: a run writes to the store, or a service is away.
    """
    decisions.checked_reason(why)
    if tag in retention.read_policy(store).legal_hold.subjects:
        raise ConfigError(
            f"the subject {tag} is under a legal hold (retention policy): nothing may be erased "
            "before the hold ends"
        )
    name = f"{JOURNALS}/{tag}.json"
    journal = store.documents.read(name)
    if journal is not None:
        known |= Holding.from_json(journal["holding"])
    survey = Survey(store)
    known = identified(survey, known, tag)
    held = survey.find(known)
    history = History(audit.events(store))
    certificate = certificate_of(store, tag)
    if certificate is not None and not history.is_genuine(certificate_name(tag), certificate):
        log.warning("the certificate of %s is not the one in the audit log: it is made anew", tag)
        certificate = None  # or a forgery would be signed
    if certificate is not None:
        datasets = {one["digest"]: one["used_in"] for one in certificate["dataset_versions"]}
        known |= Holding(datasets=datasets)
    if not held and journal is None and not any((also or {}).values()):
        if certificate is not None:
            marked = {one["version"] for one in mark(store, tag, known.datasets)}
            certified = {one["version"] for one in certificate["model_versions"]}
            is_clean = not any(_debris(store)) and not scratch.left_behind()
            if is_clean and marked <= certified and _agrees(store, history, tag):
                return certificate, False
        elif not absent and tag not in tombstones(store):
            raise ConfigError(
                f"{store.url} holds nothing of the subject with the tag {tag}; check what you "
                "typed. To refuse somebody who has not come yet, say --absent"
            )
    decisions.decide(store, "erasures", {"tag": tag}, why)

    total = known | held
    store.documents.write(name, {"tag": tag, "holding": total.to_json()})
    mark(store, tag, total.datasets)  # before anything goes
    for _ in range(N_PASSES):
        decisions.log_erased(store, held.documents)
        inventory.strike(store, held | total.identity)
        _clear_debris(store)
        survey = Survey(store)
        held = survey.find(total.identity)
        left = left_over(survey, total)
        if not held and not left:
            break
        total |= held
        store.documents.write(name, {"tag": tag, "holding": total.to_json()})
    else:
        raise ServiceUnavailable(
            f"after {N_PASSES} passes the store still holds something of the subject {tag}: "
            f"{', '.join(left[:5]) or 'a step writes it anew'}; erase again once no run is at work"
        )
    versions = mark(store, tag, total.datasets)
    certificate = _certify(store, tag, total, versions, (certificate, also or {}))
    store.documents.delete(name)
    return certificate, True


def identified(survey: Survey, known: Holding, tag: str) -> Holding:
    """``known`` with the pseudonym, where a table of the store has it."""
    return known if known.subjects else known | Holding(subjects=survey.subjects_of(tag))


def mark(store: Store, tag: str, datasets: dict[str, list[str]]) -> list[dict[str, Any]]:
    """Mark every version that learned from the subject, none of them ``previous``; return them.

    ``datasets`` are those of the subject's ``Holding``.
    """
    from spira_tasks import tracking

    made_of: dict[str, set[str]] = defaultdict(set)  # digest of a classifier to those of recordings
    for run in store.runs:
        for record in run.steps.values():
            if classifier := record.outputs.get("classifier"):
                made_of[classifier].add(run.inputs(record.step).get("recordings", ""))
    others = [
        {model["version"] for model in other["model_versions"]}
        for other in certificates(store)
        if other["tag"] != tag
    ]
    marked = []
    for version, artifacts in tracking.versions(store.tracking_uri):
        recordings = {artifacts.get("recordings", "")} | made_of[version.classifier]
        task = version.tags.get("spira.task", "")
        learned = {f"{split}/{task}" for split in LEARNED_FROM}
        if not any(learned & set(datasets.get(digest, ())) for digest in recordings):
            continue
        n_erased = 1 + sum(version.version in versions for versions in others)
        tags = {CONTAINS_ERASED: "true", N_ERASED: str(n_erased)}
        if any(version.tags.get(name) != value for name, value in tags.items()):
            tracking.Tracker(store.tracking_uri).tag(version.version, tags)
        if tracking.PREVIOUS in version.aliases:  # nothing is rolled back to it
            tracker = tracking.Tracker(store.tracking_uri)
            after = moves.settle(store, tracker)
            champion = tracker.aliases().get(tracking.CHAMPION)
            moves.move(store, tracker, "erasure", champion, None, after=after)
        marked.append(
            {
                "version": version.version,
                "classifier": version.classifier,
                "aliases": list(version.aliases),
            }
        )
    return marked


def unfinished(store: Store) -> list[str]:
    """Tags of the erasures without a certificate, or with a journal."""
    certified = {str(one["tag"]) for one in certificates(store)}
    begun = {Path(name).stem for name in store.documents.names(JOURNALS)}
    return sorted((tombstones(store) - certified) | begun)


def versions_to_replace(store: Store) -> list[str]:
    """Versions that serve as champion and learned from somebody who was erased."""
    from spira_tasks import tracking

    return [
        version.version
        for version, _ in tracking.versions(store.tracking_uri)
        if tracking.CHAMPION in version.aliases and version.contains_erased
    ]


def certificate_of(store: Store, tag: str) -> dict[str, Any] | None:
    """The certificate of the erasure with this tag: what was done, by whom and when, signed."""
    return store.documents.read(certificate_name(tag))


def certificates(store: Store) -> list[dict[str, Any]]:
    """Every certificate, the oldest first."""
    found = [store.documents.read(name) for name in store.documents.names(decisions.CERTIFICATES)]
    return sorted((one for one in found if one), key=lambda one: str(one["finished"]["at"]))


def certificate_name(tag: str) -> str:
    """The name of the document of a certificate."""
    return f"{decisions.CERTIFICATES}/{tag}.json"


def as_markdown(certificate: dict[str, Any]) -> str:
    """The certificate as a text to read, print and hand over."""
    from jinja2 import StrictUndefined, Template

    template = Template(
        TEMPLATE.read_text("utf-8"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    return str(template.render(certificate, is_signed=signing.is_signed(certificate)))


def as_html(certificate: dict[str, Any]) -> str:
    """The same as a page that loads nothing from elsewhere."""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Certificate of erasure</title>'
        "<style>body{font:1rem/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "pre{white-space:pre-wrap;overflow-wrap:anywhere;font:inherit}</style>"
        f"<body><pre>{escape(as_markdown(certificate))}</pre></body></html>\n"
    )


def tag_of(subject: str) -> str:
    """The tombstone's tag of a pseudonym (64 hex digits), or the tag itself (32)."""
    digits = subject.strip().lower()
    if not digits or set(digits) - set("0123456789abcdef") or len(digits) not in (32, 64):
        raise ConfigError(
            "a subject is named by its pseudonym (64 hex digits) or by its tag (32 hex digits); "
            "for a hospital number use --number, which asks for it"
        )
    return tombstone_tag(digits) if len(digits) == 64 else digits


def known_from(subject: str, records: Iterable[str] = ()) -> Holding:
    """What a caller knows of a person who is named by a pseudonym or a tag."""
    digits = subject.strip().lower()
    return Holding({digits} if len(digits) == 64 else set(), set(records))


def left_over(survey: Survey, total: Holding) -> list[str]:
    """Names of what is still there and may hold something of the subject."""
    store = survey.store
    digests = total.blobs | set(total.tables)
    blobs = sorted(digest for digest in digests if store.blobs.exists(digest))
    texts = inventory.quoted_in(store, ("runs", "results"), total.names)
    return [*blobs, *texts, *sorted(survey.orphans())]


def _certify(
    store: Store,
    tag: str,
    total: Holding,
    versions: list[dict[str, Any]],
    besides: tuple[dict[str, Any] | None, Mapping[str, int]],
) -> dict[str, Any]:
    """Sign and store the certificate; ``besides``: the earlier one, what went elsewhere."""
    earlier, also = besides
    tombstone = next(one for one in decisions.known(store, "erasures") if one.about["tag"] == tag)
    content = {
        "format": "spira.erasure/1",
        "tag": tag,
        "requested": {"at": tombstone.at, "by": tombstone.by, "why": tombstone.why},
        "finished": {"at": audit.now(), "by": audit.actor()},
        "store": store.url,
        "removed": (earlier["removed"] if earlier and not total else total.counts) | dict(also),
        "dataset_versions": [
            {"digest": digest, "used_in": used_in}
            for digest, used_in in sorted(total.datasets.items())
        ],
        "model_versions": versions,
        "retraining_needed": bool(versions),
        "not_covered": list(NOT_COVERED),
        "replaces": earlier["audit"] if earlier else None,
    }
    digest = decisions.digest(content)
    anchor = audit.record(store, "erasure", {"tag": tag, "what": "finished", "certificate": digest})
    signed = signing.sign(content | {"audit": asdict(anchor)})
    store.documents.write(certificate_name(tag), signed)
    return signed


def _debris(store: Store) -> tuple[list[str], list[str]]:
    """Entries, and digests, of which nothing says whose they are; waits for writers."""
    abandoned = _abandoned(store)
    orphans = Survey(store).orphans()
    left = [entry for folder in ("corrupt", "checkpoints") for entry in store.entries(folder)]
    return [*(entry.name for entry in left), *abandoned], sorted(orphans)


def _clear_debris(store: Store) -> None:
    entries, blobs = _debris(store)
    for name in entries:  # what points goes before what is pointed at
        store.delete(name)
    store.blobs.delete_all(blobs)
    n_left = scratch.sweep()
    if n_left:
        log.info("removed %d temporary files that killed steps left", n_left)


def _abandoned(store: Store) -> list[str]:
    """Wait until no file is being written; return those without a writer."""
    waiting = {entry.name for entry in store.entries("tmp")}
    while True:
        entries = [entry for entry in store.entries("tmp") if entry.name in waiting]
        old = {entry.name for entry in entries if time.time() - entry.modified > WRITING_SECONDS}
        waiting = {entry.name for entry in entries}
        if waiting == old:
            return sorted(old)
        time.sleep(0.2)


def tombstones(store: Store) -> set[str]:
    """Tags of the erasures in force."""
    return {one.about["tag"] for one in decisions.known(store, "erasures")}


def _agrees(store: Store, history: History, tag: str) -> bool:
    """Whether tombstone and certificate are as the log records them."""
    names = (decisions.name_of("erasures", {"tag": tag}), certificate_name(tag))
    return not any(history.problem(name, decisions.read_document(store, name)) for name in names)
