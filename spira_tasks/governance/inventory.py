"""What the store holds of whom: tables, what their rows name, and copies with rows taken out.

A person is known by the column ``subject_id``; a recording by columns whose name begins with
``record``.  Waveforms and feature matrices are *loose* blobs: no artifact has them as a file, only
rows of tables name them.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from spira_tasks.artifacts import Store
from spira_tasks.artifacts.blobs import DIGEST, hex_of, in_threads
from spira_tasks.errors import ArtifactCorrupt, ConfigError
from spira_tasks.governance.heeded import tombstone_tag
from spira_tasks.governance.quoting import quoted_in, quoting_of

if TYPE_CHECKING:
    import pandas as pd

REDACTIONS = "redactions"
DELETABLE = ("decisions/releases", "memo")  # documents that may quote a recording, and may go
NOT_TEXT = (".parquet", ".safetensors", ".png")
# Texts about a model can hold the name of no recording, and what follows needs them.
NAMELESS = {
    "registration.json",
    "classifier.json",
    "training.json",
    "history.json",
    "decision.json",
}


@dataclass
class Survey:
    """All that the artifacts of a store are made of.

    Attributes
    ----------
    trees : dict of str to dict
        Digest of an artifact to its files, name to digest.
    tables : set of str
        Digests of the Parquet files, redacted copies among them; some may be gone.
    texts : set of str
        Digests of the other files that may quote a name.
    places : dict of str to set of str
        Digest of a table to the artifacts it is a file of, or stands in for one of.
    """

    trees: dict[str, dict[str, str]] = field(default_factory=dict)
    tables: set[str] = field(default_factory=set)
    texts: set[str] = field(default_factory=set)
    places: dict[str, set[str]] = field(default_factory=dict)

    @property
    def blobs(self) -> set[str]:
        """Every blob that is a file of an artifact, or stands for one."""
        return self.tables.union(*(files.values() for files in self.trees.values()))


@dataclass
class Holding:
    """What a store holds of one subject.  It names the subject: it is never shown or kept.

    Attributes
    ----------
    subjects, records, sessions : set of str
        The pseudonym (none or one), and the names of the recordings and sessions.
    blobs : set of str
        Digests of the loose blobs.
    tables : dict of str to int
        Digest of a table to how many of its rows are surely the subject's.
    texts : set of str
        Digests of reports that quote a name.
    documents : set of str
        Documents that quote a name: releases from quarantine, small records of work.
    datasets : dict of str to list of str
        Digest of an artifact with a table of the subject, to the ``"<split>/<task>"`` in it.
    """

    subjects: set[str] = field(default_factory=set)
    records: set[str] = field(default_factory=set)
    sessions: set[str] = field(default_factory=set)
    blobs: set[str] = field(default_factory=set)
    tables: dict[str, int] = field(default_factory=dict)
    texts: set[str] = field(default_factory=set)
    documents: set[str] = field(default_factory=set)
    datasets: dict[str, list[str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether there is anything to delete."""
        return bool(self.blobs or self.tables or self.texts or self.documents)

    @property
    def names(self) -> set[str]:
        return self.subjects | self.records | self.sessions

    def __or__(self, other: Holding) -> Holding:
        mine, theirs = self.__dict__, other.__dict__
        merged: dict[str, Any] = {name: mine[name] | theirs[name] for name in mine}
        for digest in self.datasets.keys() & other.datasets.keys():
            parts = {*self.datasets[digest], *other.datasets[digest]}
            merged["datasets"][digest] = sorted(parts)
        return Holding(**merged)

    def to_json(self) -> dict[str, Any]:
        return {
            name: sorted(value) if isinstance(value, set) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Holding:
        parts: dict[str, Any] = {
            name: set(value) if isinstance(value, list) else value
            for name, value in content.items()
        }
        return cls(**parts)


def survey(store: Store) -> Survey:
    """List the artifacts of a store and their files."""
    names = [entry.name for entry in store.entries("trees")]
    digests = [f"sha256:{name.removeprefix('trees/').removesuffix('.json')}" for name in names]
    found = Survey(dict(zip(digests, in_threads(store.files, digests), strict=True)))
    copies = redactions(store)
    for tree, files in found.trees.items():
        for name, digest in files.items():
            if name.endswith(".parquet"):
                table: str | None = digest
                while table is not None:
                    found.tables.add(table)
                    found.places.setdefault(table, set()).add(tree)
                    table = copies.get(table)
            elif not name.endswith(NOT_TEXT) and name not in NAMELESS:
                found.texts.add(digest)
    return found


def redactions(store: Store) -> dict[str, str]:
    """Digest of every table that is gone to the digest of the copy that took its place."""
    found = {}
    for name in store.documents.names(REDACTIONS):
        document = store.documents.read(name)
        if document is not None:
            old = name.removeprefix(f"{REDACTIONS}/").removesuffix(".json")
            found[f"sha256:{old}"] = str(document["to"])
    return found


def revived(store: Store) -> set[str]:
    """Tables that are there again although a copy took their place.

    A step that was at work when the copy was made had the old one, and stored it once more.
    """
    replaced = sorted(redactions(store))
    there = in_threads(store.blobs.exists, replaced)
    return {digest for digest, exists in zip(replaced, there, strict=True) if exists}


def newest(store: Store, digest: str) -> str:
    """The digest of a table, or of the copy that took its place when somebody was erased."""
    while not store.blobs.exists(digest):
        document = store.documents.read(f"{REDACTIONS}/{hex_of(digest)}.json")
        if document is None:
            break
        digest = str(document["to"])
    return digest


def read_table(store: Store, directory: str, name: str) -> pd.DataFrame:
    """A table of an artifact, without the rows of who was erased since it was made.

    Raises
    ------
    ConfigError
        When the artifact has no such file.
    ArtifactCorrupt
        When the table is gone altogether.
    """
    import pandas as pd

    return pd.read_parquet(io.BytesIO(read_file(store, directory, name)))


def read_file(store: Store, directory: str, name: str) -> bytes:
    """A file of an artifact, or the copy that took its place; raises as ``read_table`` does."""
    files = store.files(directory)
    if name not in files:
        raise ConfigError(f"artifact {directory} has no file {name!r}, only {sorted(files)[:10]}")
    return store.blobs.read(newest(store, files[name]))


def tables(store: Store, digests: Iterable[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Every table that is still there.  A damaged one is set aside by the attempt."""
    import pandas as pd

    for digest in sorted(digests):
        try:
            yield digest, pd.read_parquet(store.blobs.path(digest))
        except ArtifactCorrupt:
            continue


def subject_of(store: Store, found: Survey, tag: str) -> str:
    """The pseudonym of the subject with this tombstone's tag; empty when no table knows one."""
    for _, table in tables(store, found.tables):
        if "subject_id" in table:
            for subject in table["subject_id"].dropna().unique():
                if tombstone_tag(subject) == tag:
                    return str(subject)
    return ""


def find(store: Store, found: Survey, known: Holding) -> Holding:
    """Everything of the subject that is in the store.

    Parameters
    ----------
    known : Holding
        The subject and, from the journal of an erasure that was cut short or from the hospital's
        own table, names of recordings and blobs that no table may tell any more.
    """
    held = Holding(set(known.subjects), set(known.records), set(known.sessions))
    held.tables = dict.fromkeys(revived(store), 0)  # whoever was erased may be in them
    for _, table in tables(store, found.tables):
        if "subject_id" in table and "record_id" in table:
            own = table[table["subject_id"].isin(held.subjects)]
            held.records |= set(own["record_id"].dropna())
            held.sessions |= set(own.get("session_id", own["record_id"]).dropna()) - held.records
    loose = set(known.blobs)
    for digest, table in tables(store, found.tables):
        mine = rows_of(table, held)
        if mine.any():
            held.tables[digest] = int(mine.sum())
            loose |= mentioned(table[mine])
            parts = roles(table[mine])
            for tree in found.places[digest]:
                held.datasets[tree] = sorted({*held.datasets.get(tree, ()), *parts})
    held.blobs = {digest for digest in loose - found.blobs if store.blobs.exists(digest)}
    texts = [name_of(text) for text in sorted(found.texts)]
    held.texts = {_digest(name) for name in quoting_of(store, texts, held.names)}
    held.documents = set(quoted_in(store, DELETABLE, held.names))
    return held


def rows_of(table: pd.DataFrame, held: Holding) -> pd.Series:
    """Which rows are the subject's: True by row."""
    import pandas as pd

    mine = pd.Series(data=False, index=table.index)
    for column in table.columns:
        name = str(column)
        if name == "subject_id":
            mine |= table[column].isin(held.subjects)
        elif name.startswith("record"):
            mine |= table[column].isin(held.records)
    return mine


def roles(rows: pd.DataFrame) -> list[str]:
    """In which split and task the rows are, where the table tells: ``["train/SENTENCE"]``."""
    if not {"split", "task"} <= set(rows):
        return []
    if "label" in rows:
        rows = rows[rows["label"].notna()]
    return sorted({f"{row.split}/{row.task}" for row in rows.itertuples()})


def mentioned(rows: pd.DataFrame) -> set[str]:
    """All digests in the cells of some rows."""
    cells = rows.select_dtypes(["str", "object"]).to_numpy().ravel()
    return {cell for cell in cells if isinstance(cell, str) and DIGEST.fullmatch(cell)}


def redact(store: Store, digest: str, table: pd.DataFrame, mine: pd.Series) -> str:
    """Put a copy without some rows in the place of a table; return the digest of the copy.

    Killed at any point, doing it again ends the same.
    """
    rest = table[~mine].reset_index(drop=True)
    for column in rest.select_dtypes("category"):
        rest[column] = rest[column].cat.remove_unused_categories()
    content = io.BytesIO()
    rest.to_parquet(content, index=False)
    copy = store.blobs.put(content.getvalue())
    pointer = {"to": copy, "n_rows_removed": int(mine.sum())}
    store.documents.write(f"{REDACTIONS}/{hex_of(digest)}.json", pointer)
    store.blobs.delete(digest)
    return copy


def strike(store: Store, held: Holding) -> None:
    """Delete all of a holding; each part of it may be gone already."""
    again = revived(store) & set(held.tables)  # their copies are there
    for digest, table in tables(store, set(held.tables) - again):
        mine = rows_of(table, held)
        if mine.any():
            redact(store, digest, table, mine)
    for name in memos(store, held.blobs):
        store.delete(name)
    in_threads(store.blobs.delete, sorted(held.blobs | held.texts | again))
    in_threads(store.delete, sorted(held.documents))


def memos(store: Store, blobs: set[str]) -> list[str]:
    """Names of the small records that mention one of some blobs."""
    names = store.documents.names("memo")
    contents = in_threads(store.documents.read, names)
    return [
        name
        for name, content in zip(names, contents, strict=True)
        if content is not None and blobs & set(content.get("blobs", ()))
    ]


def orphans(store: Store, found: Survey) -> set[str]:
    """Loose blobs that no row of any table names: of refused recordings and unfinished work."""
    named = set(found.blobs)
    for _, table in tables(store, found.tables):
        named |= mentioned(table)
    stored = {_digest(entry.name) for entry in store.entries("blobs")}
    return stored - named


def name_of(digest: str) -> str:
    """How the store names a blob."""
    sha256 = hex_of(digest)
    return f"blobs/{sha256[:2]}/{sha256}"


def _digest(name: str) -> str:
    return f"sha256:{name.rpartition('/')[2]}"
