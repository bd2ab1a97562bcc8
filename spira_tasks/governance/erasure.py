"""Erase a person from the store (LGPD art. 18 VI): on demand, for good, and provably.

1. a tombstone: from now on ingest refuses the subject, and nothing with it is promoted;
2. a journal of what is to go, so that an erasure that was killed ends as one that was not;
3. loose blobs, tables' rows, reports that quote a name, and whatever nobody can say whose it is:
   orphaned blobs, damaged files, checkpoints, temporary files;
4. every version of the model that learned from the subject is marked, before anything goes and
   again at the end;
5. everything is searched again, until nothing is found;
6. a certificate that names nobody is signed, and the journal removed.

Nothing of it knows a subject but by the pseudonym, and outside this process only the tombstone's
tag is told.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import Any

from spira_tasks import scratch
from spira_tasks.artifacts import Store
from spira_tasks.artifacts.blobs import in_threads
from spira_tasks.errors import ConfigError, ServiceUnavailable
from spira_tasks.governance import (
    agreement,
    audit,
    certificates,
    decisions,
    inventory,
    retention_policy,
)
from spira_tasks.governance.heeded import tombstone_tag
from spira_tasks.governance.inventory import Holding, Survey
from spira_tasks.governance.quoting import quoted_in

log = logging.getLogger(__name__)

JOURNALS = "erasures"
CONTAINS_ERASED, N_ERASED = "spira.contains_erased", "spira.n_erased"
LEARNED_FROM = ("train", "validation")  # validation chooses the epoch and the operating point
N_PASSES = 3
WRITING_SECONDS = 60  # a file in tmp/ this old has no writer: one is written in seconds


def erase(
    store: Store, tracking_uri: str, known: Holding, tag: str, why: str, *, absent: bool = False
) -> tuple[dict[str, Any], bool]:
    """Erase a subject; say whether there was anything left to erase.

    Parameters
    ----------
    known : Holding
        What the caller knows: the pseudonym, and names of recordings that no table may tell.
        Empty where only the tag is known.
    tag : str
        Of the tombstone.
    why : str
        The written reason; it is kept, so it names nobody.
    absent : bool
        Go on where the store holds nothing of the subject: whoever comes later is refused.

    Returns
    -------
    certificate : dict
    changed : bool

    Raises
    ------
    ConfigError
        When the store holds nothing of such a subject, or the reason will not do.
    ServiceUnavailable
        When something is still left: it is being written to, or a service is away.
    """
    decisions.checked_reason(why)
    if tag in retention_policy.read(store).held_subjects:
        raise ConfigError(
            f"the subject {tag} is under a legal hold (retention policy): nothing may be erased "
            "before the hold ends"
        )
    journal = store.documents.read(f"{JOURNALS}/{tag}.json")
    if journal is not None:
        known |= Holding.from_json(journal["holding"])
    found = inventory.survey(store)
    known = identified(store, found, known, tag)
    held = inventory.find(store, found, known)
    told = agreement.Told(audit.events(store))
    certificate = _believed(certificates.read(store, tag), told, tag)
    if certificate is not None:
        known |= Holding(datasets=certificates.datasets(certificate))
    if not held and journal is None:
        if certificate is not None:
            versions = mark(store, tracking_uri, tag, known.datasets)
            is_clean = not _debris(store) and not scratch.left_behind()
            is_whole = certificates.names_all(certificate, versions) and _agrees(store, told, tag)
            if is_clean and is_whole:
                return certificate, False
        elif not absent and not _is_tombstoned(store, tag):
            raise ConfigError(
                f"{store.url} holds nothing of the subject with the tag {tag}; check what you "
                "typed. To refuse somebody who has not come yet, say --absent"
            )
    decisions.decide(store, "erasures", {"tag": tag}, why)

    total = known | held
    _write_journal(store, tag, total)
    mark(store, tracking_uri, tag, total.datasets)  # also should what follows never end
    for _ in range(N_PASSES):
        decisions.log_erased(store, held.documents)
        inventory.strike(store, held | _bare(total))
        _clear_debris(store)
        found = inventory.survey(store)
        held = inventory.find(store, found, _bare(total))
        left = left_over(store, found, total)
        if not held and not left:
            break
        total |= held
        _write_journal(store, tag, total)
    else:
        raise ServiceUnavailable(
            f"after {N_PASSES} passes the store still holds something of the subject {tag}: "
            f"{', '.join(left[:5]) or 'a step writes it anew'}; erase again once no run is at work"
        )
    versions = mark(store, tracking_uri, tag, total.datasets)
    certificate = certificates.certify(store, tag, total, versions, certificate)
    store.documents.delete(f"{JOURNALS}/{tag}.json")
    return certificate, True


def identified(store: Store, found: Survey, known: Holding, tag: str) -> Holding:
    """``known`` with the pseudonym, where a table of the store tells it."""
    if known.subjects:
        return known
    subject = inventory.subject_of(store, found, tag)
    return known | Holding(subjects={subject}) if subject else known


def left_over(store: Store, found: Survey, total: Holding) -> list[str]:
    """What may hold something of the subject and is still there, by name."""
    blobs = sorted(
        digest for digest in total.blobs | set(total.tables) if store.blobs.exists(digest)
    )
    quoting = quoted_in(store, ("runs", "results"), total.names)
    return [*blobs, *quoting, *sorted(inventory.orphans(store, found))]


def mark(
    store: Store, tracking_uri: str, tag: str, datasets: dict[str, list[str]]
) -> list[dict[str, Any]]:
    """Mark every version that learned from the subject; return them.

    Parameters
    ----------
    datasets : dict of str to list of str
        Digests of the artifacts with the subject, to the splits and tasks in them.
    """
    from spira_tasks import tracking

    lineage = _recordings_of_classifiers(store)
    marked = []
    for version, made_from in tracking.versions(tracking_uri):
        recordings = {made_from.get("recordings", ""), *lineage.get(version.classifier, ())}
        task = version.tags.get("spira.task", "")
        learned = {f"{split}/{task}" for split in LEARNED_FROM}
        if not any(learned & set(datasets.get(digest, ())) for digest in recordings):
            continue
        n_erased = 1 + sum(
            any(one["version"] == version.version for one in other["model_versions"])
            for other in certificates.known(store)
            if other["tag"] != tag
        )
        tags = {CONTAINS_ERASED: "true", N_ERASED: str(n_erased)}
        if any(version.tags.get(name) != value for name, value in tags.items()):
            tracking.Tracker(tracking_uri).tag(version.version, tags)
        marked.append(
            {
                "version": version.version,
                "classifier": version.classifier,
                "aliases": list(version.aliases),
            }
        )
    return marked


def _recordings_of_classifiers(store: Store) -> dict[str, set[str]]:
    """Digest of every classifier that a run made to those of the recordings it was made from."""
    found: dict[str, set[str]] = {}
    for run_id in store.run_ids():
        records = {
            name: store.read_record(run_id, name) or {} for name in store.record_names(run_id)
        }
        for record in records.values():
            classifier = record.get("outputs", {}).get("classifier")
            step, _, output = record.get("inputs", {}).get("recordings", "").partition(".")
            recordings = records.get(step, {}).get("outputs", {}).get(output)
            if classifier and recordings:
                found.setdefault(classifier, set()).add(recordings)
    return found


def unfinished(store: Store) -> list[str]:
    """Tags of the erasures that were begun and have no certificate, or are begun anew."""
    tags = {one.about["tag"] for one in decisions.known(store, "erasures")}
    done = {str(one["tag"]) for one in certificates.known(store)}
    begun = {
        name.removeprefix(f"{JOURNALS}/").removesuffix(".json")
        for name in store.documents.names(JOURNALS)
    }
    return sorted((tags - done) | begun)


def versions_to_replace(tracking_uri: str) -> list[str]:
    """Versions that serve as champion and learned from somebody who was erased."""
    from spira_tasks import tracking

    return [
        version.version
        for version, _ in tracking.versions(tracking_uri)
        if tracking.CHAMPION in version.aliases and version.tags.get(CONTAINS_ERASED) == "true"
    ]


def _debris(store: Store) -> list[str]:
    """Entries that may be the subject's, for nobody can say whose they are, in order of deletion.

    What is being written now is waited for, so that it is seen too.
    """
    abandoned = _abandoned(store)
    unnamed = inventory.orphans(store, inventory.survey(store))
    names = [entry.name for folder in ("corrupt", "checkpoints") for entry in store.entries(folder)]
    blobs = [inventory.name_of(digest) for digest in sorted(unnamed)]
    return [*names, *abandoned, *inventory.memos(store, unnamed), *blobs]


def _clear_debris(store: Store) -> None:
    for name in (debris := _debris(store)):
        if not name.startswith("blobs/"):  # what points goes before what is pointed at
            store.delete(name)
    in_threads(store.delete, [name for name in debris if name.startswith("blobs/")])
    n_left = scratch.sweep()
    if n_left:
        log.info("removed %d temporary files that killed steps left", n_left)


def _abandoned(store: Store) -> list[str]:
    """Wait until whatever is being written now is written; return what has no writer."""
    waiting = {entry.name for entry in store.entries("tmp")}
    while True:
        entries = [entry for entry in store.entries("tmp") if entry.name in waiting]
        old = {entry.name for entry in entries if time.time() - entry.modified > WRITING_SECONDS}
        waiting = {entry.name for entry in entries}
        if waiting == old:
            return sorted(old)
        time.sleep(0.2)


def _bare(total: Holding) -> Holding:
    """Who it is and what is theirs, without the places where it was."""
    return Holding(total.subjects, total.records, total.sessions, total.blobs)


def _write_journal(store: Store, tag: str, total: Holding) -> None:
    store.documents.write(f"{JOURNALS}/{tag}.json", {"tag": tag, "holding": total.to_json()})


def _is_tombstoned(store: Store, tag: str) -> bool:
    return any(one.about["tag"] == tag for one in decisions.known(store, "erasures"))


def _believed(
    certificate: dict[str, Any] | None, told: agreement.Told, tag: str
) -> dict[str, Any] | None:
    """A certificate, unless it is a forgery: what it says would be signed again."""
    if certificate is None or told.is_genuine(certificates.name_of(tag), certificate):
        return certificate
    log.warning("the certificate of %s is not as the audit log tells: a new one is made", tag)
    return None


def _agrees(store: Store, told: agreement.Told, tag: str) -> bool:
    """Whether tombstone and certificate are those that the log tells of."""
    names = (decisions.name_of("erasures", {"tag": tag}), certificates.name_of(tag))
    return not any(told.problem(name, agreement.read(store, name)) for name in names)


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
    """What a caller who names a subject so knows of it."""
    digits = subject.strip().lower()
    return Holding({digits} if len(digits) == 64 else set(), set(records))
