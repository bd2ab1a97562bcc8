"""Retention: remove what is no longer needed, by a policy in a file.

Mark and sweep.  An artifact is kept while a run used it within the days of its class, while a
registered version of the model came from it, while a legal hold covers it, or while it is young;
blobs are kept by the artifacts and by the rows of their tables.  Everything else goes, pointers
first, so a command that was killed leaves only more to sweep.  ``audit/``, ``decisions/``,
``certificates/`` and the registry of models are never touched.
"""

from __future__ import annotations

import time
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from spira_tasks.artifacts import Store
from spira_tasks.artifacts.backends import Entry
from spira_tasks.artifacts.blobs import in_threads
from spira_tasks.contract.run import Run
from spira_tasks.errors import ConfigError
from spira_tasks.governance import audit, decisions, inventory
from spira_tasks.governance.inventory import Holding, Survey, digest_of_entry, read_tables
from spira_tasks.intake.pseudonyms import tombstone_tag

ADOPTED = decisions.POLICY
PACKAGED = Path(__file__).with_name("retention.toml")
DAY = 86_400.0
YOUNG_SECONDS = 2 * DAY  # the longest step takes one day
ORDER = ("results", "runs", "trees", "redactions", "blobs", "checkpoints", "corrupt", "tmp", "memo")
GARBAGE = "GARBAGE"  # the class of what nothing refers to


class _Class(BaseModel):
    days: Annotated[int, Field(strict=True, ge=0, description="0 for never")]


class _LegalHold(BaseModel):
    model_config = ConfigDict(extra="forbid")

    runs: frozenset[str] = frozenset()
    subjects: frozenset[str] = frozenset()  # by the tags of their tombstones


class _File(BaseModel):
    """The policy as a person writes it."""

    model_config = ConfigDict(extra="forbid")

    owner: str = ""
    keep_for_models: Literal["all", "served"]
    legal_hold: _LegalHold = _LegalHold()
    CHART: _Class
    RESEARCH: _Class
    DERIVED: _Class
    QUARANTINE: _Class
    CHECKPOINTS: _Class
    DAMAGED: _Class
    RECORDS: _Class


CLASSES = tuple(name for name in _File.model_fields if name.isupper())


class Policy(_File):
    """The policy, and which one it is."""

    digest: str  # SHA-256 of the file
    source: str  # where it comes from, in words
    adopted: bool = False  # whether a person put it into force for the store

    @property
    def days(self) -> dict[str, int]:
        """How long the things of each class are kept; 0 for ever."""
        return {kind: getattr(self, kind).days for kind in CLASSES}

    def is_over(self, kind: str, age_seconds: float) -> bool:
        """Whether the time of something of a class, last used so long ago, is over."""
        days = self.days.get(kind, 0)
        is_due = kind == GARBAGE or (days > 0 and age_seconds > days * DAY)
        return is_due and age_seconds > YOUNG_SECONDS


@dataclass(frozen=True)
class Item:
    """One entry of the store that goes: its class, its name there, bytes, and Unix time."""

    kind: str
    name: str
    size: int
    last_used: float


@dataclass
class Plan:
    """What goes, and what is taken out of tables that stay."""

    items: list[Item]
    expired: Holding  # recordings whose own ``retention_until`` is over

    def summary(self) -> list[dict[str, Any]]:
        """Count, bytes and oldest use by class."""
        return [
            {
                "class": kind,
                "n": len(own),
                "n_bytes": sum(item.size for item in own),
                "last_used": day(min(item.last_used for item in own)),
            }
            for kind in (*CLASSES, GARBAGE)
            if (own := [item for item in self.items if item.kind == kind])
        ]


def read_policy(store: Store, file: str | None = None) -> Policy:
    """Read the policy: the file given, else the one adopted for the store, else the package's.

    Raises
    ------
    ConfigError
        When it cannot be read, is no policy, or is not the one that the audit log records.
    """
    adopted = None if file else decisions.read_document(store, ADOPTED)
    if not file and (problem := decisions.read_history(store).problem(ADOPTED, adopted)):
        raise ConfigError(f"the retention policy of {store.url} is not the adopted one: {problem}")
    if adopted:
        source = f"adopted by {adopted['by']} on {adopted['at'][:10]}"
        return _parse(adopted["policy"].encode(), source, adopted=True)
    source = file or "of the package: none was adopted"
    return _parse(_content(Path(file or PACKAGED)), source)


def adopt_policy(store: Store, file: str, why: str) -> Policy:
    """Put a policy into force for the store; ConfigError when it or the reason is refused."""
    content = _content(Path(file))
    policy = _parse(content, file)
    reason = decisions.checked_reason(why)
    document = {"policy": content.decode(), "by": audit.actor(), "at": audit.now(), "why": reason}
    details = {"retention": policy.digest, "why": reason}
    decisions.publish(store, ADOPTED, "policy", details, document)
    return policy


def plan(store: Store, policy: Policy, now: float | None = None) -> Plan:
    """Find out what goes at a Unix time, by default the present; change nothing.

    Raises
    ------
    ArtifactCorrupt
        When a record of a run is damaged: it may be what keeps an artifact.
    """
    now = time.time() if now is None else now
    survey = Survey(store)
    records = {entry.name: entry for entry in store.entries("runs")}
    in_threads(store.documents.read, records)  # raises for a damaged one: what it used must stay
    runs = list(store.runs)
    results = [
        (entry, set((store.documents.read(entry.name) or {}).get("outputs", {}).values()))
        for entry in store.entries("results")
    ]
    uses = [
        *results,
        *((records[name], made) for run in runs for name, made in _made(run) if name in records),
    ]
    last_used: dict[str, float] = {}
    for entry, trees in uses:
        for tree in trees:
            last_used[tree] = max(entry.modified, last_used.get(tree, 0.0))

    held = _all_of(run for run in runs if run.run_id in policy.legal_hold.runs)
    protected = held | _for_models(store, policy, runs) | _of_held_subjects(survey, policy)
    kept, going = set(), {}
    for tree, entry in survey.entries.items():
        kind = _class_of(survey.trees[tree]) if tree in last_used else GARBAGE
        used_at = last_used.get(tree, entry.modified)
        if policy.is_over(kind, now - max(used_at, entry.modified)) and tree not in protected:
            going[tree] = Item(kind, entry.name, entry.size, used_at)
        else:
            kept.add(tree)

    items = [
        Item(next(item.kind for tree, item in going.items() if tree in trees), *_of(entry))
        for entry, trees in results
        if not going.keys().isdisjoint(trees)
    ]
    items += [
        Item("RECORDS", *_of(entry))
        for name, entry in records.items()
        if policy.is_over("RECORDS", now - entry.modified) and name not in protected
    ]
    items += [*going.values(), *_unnamed_blobs(survey, kept, going, now)]
    for folder, kind, rule in (
        ("checkpoints", "CHECKPOINTS", "CHECKPOINTS"),
        ("corrupt", "DAMAGED", "DAMAGED"),
        ("tmp", "DAMAGED", GARBAGE),
    ):
        items += [
            Item(kind, *_of(entry))
            for entry in store.entries(folder)
            if policy.is_over(rule, now - entry.modified)
        ]
    names = _expired(survey, kept, held, policy, day(now))
    expired = survey.find(Holding(records=names)) if names else Holding()
    expired.documents = {name for name in expired.documents if not name.startswith("decisions/")}
    return Plan(items, expired)


def apply(store: Store, made: Plan, policy: Policy) -> None:
    """Delete what was planned, after the event of the audit log is written."""
    if not made.items and not made.expired:
        return
    n_expired = len(made.expired.records) if made.expired else 0
    details = {"what": made.summary(), "n_recordings_expired": n_expired}
    audit.record(store, "retention", {"policy": policy.digest, **details})
    for folder in ORDER:
        names = [item.name for item in made.items if item.name.startswith(f"{folder}/")]
        if folder == "blobs":
            store.blobs.delete_all(set(map(digest_of_entry, names)))
        else:
            in_threads(store.delete, names)
    inventory.strike(store, made.expired)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"the retention policy {path} cannot be read: {error.strerror}") from None


def _parse(content: bytes, source: str, *, adopted: bool = False) -> Policy:
    try:
        parsed = _File.model_validate(tomllib.loads(content.decode()))
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False)
        )
        raise ConfigError(f"the retention policy {source} is wrong: {problems}") from None
    except ValueError as error:
        raise ConfigError(f"the retention policy {source} is not TOML: {error}") from None
    digest = sha256(content).hexdigest()
    return Policy(**vars(parsed), digest=digest, source=source, adopted=adopted)


def _made(run: Run) -> list[tuple[str, set[str]]]:
    """The name of each record of a run, and the artifacts that its step put out."""
    return [
        (f"runs/{run.run_id}/{step}.json", set(record.outputs.values()))
        for step, record in run.steps.items()
    ] + [
        (f"runs/{run.run_id}/{one.step}.json", set()) for own in run.shards.values() for one in own
    ]


def _all_of(runs: Iterable[Run]) -> set[str]:
    """The records of some runs and all that they put out."""
    return {name for run in runs for record, made in _made(run) for name in (record, *made)}


def _of(entry: Entry) -> tuple[str, int, float]:
    return entry.name, entry.size, entry.modified


def _class_of(files: Iterable[str]) -> str:
    """The class of an artifact, by the names of its files."""
    names = set(files)
    if "quarantine.parquet" in names:
        return "QUARANTINE"
    return "RESEARCH" if names & {"recordings.parquet", "ward_noise.parquet"} else "DERIVED"


def _for_models(store: Store, policy: Policy, runs: Iterable[Run]) -> set[str]:
    """Artifacts and run records that a registered version of the model came from."""
    from spira_tasks import tracking

    protected: set[str] = set()
    classifiers = set()
    for version, made_from in tracking.versions(store.tracking_uri):
        if policy.keep_for_models == "all" or version.aliases or version.was_champion:
            protected |= set(made_from.values())
            classifiers.add(version.classifier)
    return protected | _all_of(
        run
        for run in runs
        if any(one.outputs.get("classifier") in classifiers for one in run.steps.values())
    )


def _of_held_subjects(survey: Survey, policy: Policy) -> set[str]:
    """Artifacts with a subject that is under a legal hold."""
    protected: set[str] = set()
    for digest, table in survey.read_tables() if policy.legal_hold.subjects else ():
        if "subject_id" in table:
            tags = set(table["subject_id"].dropna().map(tombstone_tag))
            if tags & policy.legal_hold.subjects:
                protected |= survey.tables[digest]
    return protected


def _unnamed_blobs(
    survey: Survey, kept: set[str], going: Mapping[str, Item], now: float
) -> list[Item]:
    """Blobs that no kept artifact and no row of a kept table names; their redactions too."""
    tables = {digest for digest, trees in survey.tables.items() if trees & kept}
    named = tables.union(*(survey.trees[tree].values() for tree in kept))
    named.update(*(inventory.mentioned(table) for _, table in read_tables(survey.store, tables)))
    kinds = {
        digest: item.kind for tree, item in going.items() for digest in survey.trees[tree].values()
    }
    blobs = {digest_of_entry(entry.name): entry for entry in survey.store.blobs.entries()}
    items = {
        digest: Item(kinds.get(digest, GARBAGE), *_of(entry))
        for digest, entry in blobs.items()
        if digest not in named and now - entry.modified > YOUNG_SECONDS
    }
    gone = items.keys() | (survey.tables.keys() - tables)
    pointers = [
        Item(GARBAGE, *_of(entry))
        for entry in survey.store.entries(inventory.REDACTIONS)
        if digest_of_entry(entry.name) in gone
    ]
    return [*pointers, *items.values()]


def _expired(
    survey: Survey, kept: set[str], held: set[str], policy: Policy, today: str
) -> set[str]:
    """Recordings in tables that stay whose own time is over, but for those under a hold."""
    expired: set[str] = set()
    on_hold: set[str] = set()
    for digest, table in survey.read_tables():
        if not {"record_id", "subject_id", "retention_until"} <= set(table):
            continue
        if survey.tables[digest] & held:
            on_hold |= set(table["record_id"])
        elif survey.tables[digest] & kept:
            over = table[table["retention_until"] < today]
            free = ~over["subject_id"].map(tombstone_tag).isin(policy.legal_hold.subjects)
            expired |= set(over.loc[free, "record_id"])
    return expired - on_hold


def day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).date().isoformat()
