"""Retention: what is no longer needed goes, by a policy in a file, unless something keeps it.

Mark and sweep.  An artifact is kept while a run used it within the days of its class, while a
registered version of the model came from it, while a legal hold covers it, or while it is young;
blobs are kept by the artifacts and by the rows of their tables.  Whatever is left goes, what points
before what is pointed at, so being killed leaves nothing but more to sweep.  ``audit/``,
``decisions/``, ``certificates/`` and the registry of models are never touched.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from spira_tasks.artifacts import Store
from spira_tasks.artifacts.blobs import hex_of, in_threads
from spira_tasks.governance import audit, inventory
from spira_tasks.governance.heeded import tombstone_tag
from spira_tasks.governance.inventory import Holding, Survey
from spira_tasks.governance.retention_policy import CLASSES, YOUNG_SECONDS, Policy

if TYPE_CHECKING:
    import pandas as pd

ORDER = ("results", "runs", "trees", "redactions", "blobs", "checkpoints", "corrupt", "tmp")
GARBAGE = "GARBAGE"  # what nothing refers to


@dataclass(frozen=True)
class Item:
    """One entry of the store that goes.

    Attributes
    ----------
    kind : str
        Its class.
    name : str
        As the store names it.
    size : int
        Bytes.
    last_used : float
        Unix time.
    """

    kind: str
    name: str
    size: int
    last_used: float


@dataclass
class Plan:
    """What goes, and what is taken out of tables that stay.

    Attributes
    ----------
    expired : Holding
        Recordings whose own ``retention_until`` is over.
    """

    items: list[Item] = field(default_factory=list)
    expired: Holding = field(default_factory=Holding)

    def summary(self) -> list[dict[str, Any]]:
        """Count, bytes and oldest use by class."""
        return [
            {
                "class": kind,
                "n": len(own),
                "n_bytes": sum(item.size for item in own),
                "last_used": _day(min(item.last_used for item in own)),
            }
            for kind in (*CLASSES, GARBAGE)
            if (own := [item for item in self.items if item.kind == kind])
        ]


def plan(store: Store, tracking_uri: str, rules: Policy, now: float | None = None) -> Plan:
    """Find out what goes; change nothing.

    Parameters
    ----------
    now : float, optional
        Unix time to judge by, by default the present: a later one shows what would go then.
    """
    now = time.time() if now is None else now
    found = inventory.survey(store)
    results = {
        entry.name: (entry, store.documents.read(entry.name) or {})
        for entry in store.entries("results")
    }
    runs = _runs(store)
    uses = {f"sha256:{_stem(entry.name)}": entry for entry in store.entries("trees")}
    last_used: dict[str, float] = {}
    for used_at, document in [(entry.modified, document) for entry, document in results.values()]:
        _use(last_used, document, used_at)
    for _, used_at, document in runs:
        _use(last_used, document, used_at)

    held = _all_of({f"runs/{run_id}" for run_id in rules.held_runs}, runs)
    protected = held | _for_models(store, tracking_uri, rules, runs) | _of_held(store, found, rules)
    kept, going = set(), {}
    for tree, files in found.trees.items():
        kind = class_of(files) if tree in last_used else GARBAGE
        used_at = last_used.get(tree, uses[tree].modified)
        age = now - max(used_at, uses[tree].modified)
        over = rules.is_over(kind, age) or (kind == GARBAGE and age > YOUNG_SECONDS)
        if over and tree not in protected:
            going[tree] = Item(kind, uses[tree].name, uses[tree].size, used_at)
        else:
            kept.add(tree)

    made = Plan()
    made.items += [
        Item(class_of_result(document, going), name, entry.size, entry.modified)
        for name, (entry, document) in results.items()
        if set(document.get("outputs", {}).values()) & set(going)
    ]
    made.items += _old_records(store, rules, runs, protected, now)
    made.items += going.values()
    made.items += _blobs(store, found, kept, going, now)
    for folder, kind in (
        ("checkpoints", "CHECKPOINTS"),
        ("corrupt", "DAMAGED"),
        ("tmp", "DAMAGED"),
    ):
        made.items += [
            Item(kind, entry.name, entry.size, entry.modified)
            for entry in store.entries(folder)
            if rules.is_over(kind, now - entry.modified)
            or (folder == "tmp" and now - entry.modified > YOUNG_SECONDS)
        ]
    tables = ((found.places[one], table) for one, table in inventory.tables(store, found.tables))
    today = datetime.fromtimestamp(now, UTC).date()
    records = _expired(tables, kept, held, rules.held_subjects, today)
    if records:
        made.expired = inventory.find(store, found, Holding(records=records))
        made.expired.documents = {
            name for name in made.expired.documents if not name.startswith("decisions/")
        }
    return made


def apply(store: Store, made: Plan, rules: Policy) -> None:
    """Delete what was planned.  The event of the audit log comes first: nothing goes unlogged."""
    if not made.items and not made.expired:
        return
    audit.record(
        store,
        "retention",
        {
            "policy": rules.digest,
            "what": made.summary(),
            "n_recordings_expired": len(made.expired.records) if made.expired else 0,
        },
    )
    names = [item.name for item in made.items]
    for folder in ORDER:
        if folder == "blobs":
            going = {f"sha256:{_stem(name)}" for name in names if name.startswith("blobs/")}
            in_threads(store.delete, inventory.memos(store, going))
        in_threads(store.delete, [name for name in names if name.startswith(f"{folder}/")])
    inventory.strike(store, made.expired)


def class_of(files: Iterable[str]) -> str:
    """The class of an artifact, by the names of its files."""
    names = set(files)
    if "quarantine.parquet" in names:
        return "QUARANTINE"
    return "RESEARCH" if names & {"recordings.parquet", "ward_noise.parquet"} else "DERIVED"


def class_of_result(document: Mapping[str, Any], going: Mapping[str, Item]) -> str:
    return next(going[tree].kind for tree in document["outputs"].values() if tree in going)


Runs = list[tuple[str, float, dict[str, Any]]]  # name of the record, when it was written, content


def _runs(store: Store) -> Runs:
    return [
        (entry.name, entry.modified, store.documents.read(entry.name) or {})
        for entry in store.entries("runs")
    ]


def _use(last_used: dict[str, float], document: Mapping[str, Any], at: float) -> None:
    for tree in document.get("outputs", {}).values():
        last_used[tree] = max(at, last_used.get(tree, 0.0))


def _for_models(store: Store, tracking_uri: str, rules: Policy, runs: Runs) -> set[str]:
    """Artifacts and run records that a registered version of the model came from."""
    from spira_tasks import tracking

    protected: set[str] = set()
    classifiers = set()
    for version, made_from in tracking.versions(tracking_uri):
        served = version.aliases or version.was_champion
        if rules.keep_for_models == "all" or served:
            protected |= set(made_from.values())
            classifiers.add(version.classifier)
    folders = {
        name.rpartition("/")[0]
        for name, _, document in runs
        if document.get("outputs", {}).get("classifier") in classifiers
    }
    return protected | _all_of(folders, runs)


def _of_held(store: Store, found: Survey, rules: Policy) -> set[str]:
    """Artifacts with a subject that is under a legal hold."""
    protected: set[str] = set()
    if rules.held_subjects:
        for digest, table in inventory.tables(store, found.tables):
            if "subject_id" in table:
                tags = set(table["subject_id"].dropna().map(tombstone_tag))
                if tags & rules.held_subjects:
                    protected |= found.places[digest]
    return protected


def _all_of(folders: set[str], runs: Runs) -> set[str]:
    """The records of some runs and all that they put out."""
    protected: set[str] = set()
    for name, _, document in runs:
        if name.rpartition("/")[0] in folders:
            protected |= {name, *document.get("outputs", {}).values()}
    return protected


def _old_records(
    store: Store, rules: Policy, runs: Runs, protected: set[str], now: float
) -> list[Item]:
    sizes = {entry.name: entry.size for entry in store.entries("runs")}
    return [
        Item("RECORDS", name, sizes.get(name, 0), at)
        for name, at, _ in runs
        if rules.is_over("RECORDS", now - at) and name not in protected
    ]


def _blobs(
    store: Store, found: Survey, kept: set[str], going: Mapping[str, Item], now: float
) -> list[Item]:
    """Blobs that no kept artifact has as a file, and that no row of a kept table names."""
    files: set[str] = set().union(*(found.trees[tree].values() for tree in kept))
    tables = {digest for digest, trees in found.places.items() if trees & kept}
    named = files | tables
    for _, table in inventory.tables(store, tables):
        named |= inventory.mentioned(table)
    kinds = {digest: going[tree].kind for tree in going for digest in found.trees[tree].values()}
    items = [
        Item(kinds.get(f"sha256:{_stem(entry.name)}", GARBAGE), entry.name, entry.size, at)
        for entry in store.entries("blobs")
        if f"sha256:{_stem(entry.name)}" not in named
        and now - (at := entry.modified) > YOUNG_SECONDS
    ]
    gone = {_stem(item.name) for item in items} | {
        hex_of(digest) for digest in found.places if digest not in tables
    }
    pointers = [
        Item(GARBAGE, entry.name, entry.size, entry.modified)
        for entry in store.entries(inventory.REDACTIONS)
        if _stem(entry.name) in gone
    ]
    return pointers + items


def _expired(
    tables: Iterable[tuple[set[str], pd.DataFrame]],
    kept: set[str],
    held: set[str],
    held_subjects: frozenset[str],
    today: date,
) -> set[str]:
    """Recordings in tables that stay whose own time is over, but for those under a hold.

    ``tables`` come with the artifacts that each is in.
    """
    expired, on_hold = set(), set()
    for places, table in tables:
        if not {"record_id", "subject_id", "retention_until"} <= set(table):
            continue
        if places & held:
            on_hold |= set(table["record_id"])
        elif places & kept:
            over = table[table["retention_until"] < today.isoformat()]
            free = ~over["subject_id"].map(tombstone_tag).isin(held_subjects)
            expired |= set(over.loc[free, "record_id"])
    return expired - on_hold


def _stem(name: str) -> str:
    return name.rpartition("/")[2].removesuffix(".json")


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).date().isoformat()
