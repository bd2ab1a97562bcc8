"""What the store holds of a person: rows of tables, blobs that they name, and texts.

A person is known by the column ``subject_id``, a recording by columns that begin with ``record``.
Waveforms and feature matrices are *loose* blobs: they are no file of an artifact, and only rows of
tables name them; they lie in packs.  An erasure writes a pack anew without those of the person, and
replaces a table by a copy without the person's rows; ``newest`` follows it.

Texts are searched for a long name with a letter in it.  Any other name, such as a session called
``3`` or ``2026-03-04``, counts only in a field that names a session or a recording.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from spira_tasks.artifacts import Store
from spira_tasks.artifacts.blobs import DIGEST, hex_of, in_threads, name_of
from spira_tasks.errors import ArtifactCorrupt, ConfigError
from spira_tasks.intake.pseudonyms import tombstone_tag

if TYPE_CHECKING:
    import pandas as pd

REDACTIONS = "redactions"
DELETABLE = ("decisions/releases",)  # documents that may quote a recording, and may go
NOT_TEXT = (".parquet", ".safetensors", ".png")
# Texts about a model name no recording, and later steps need them.
NAMELESS = {
    "registration.json",
    "classifier.json",
    "training.json",
    "history.json",
    "decision.json",
}
N_LONG = 8  # characters of a name that is looked for anywhere
NAMING = re.compile(r"record(_\w+)?|(session|subject)_id")  # fields whose values are names


@dataclass
class Holding:
    """What a store holds of one subject.  It names the subject, so it is never shown."""

    subjects: set[str] = field(default_factory=set)  # the pseudonym: none or one
    records: set[str] = field(default_factory=set)  # names
    sessions: set[str] = field(default_factory=set)
    blobs: set[str] = field(default_factory=set)  # digests of the loose ones
    tables: dict[str, int] = field(default_factory=dict)  # digest to n rows surely the subject's
    texts: set[str] = field(default_factory=set)  # digests of reports that quote a name
    documents: set[str] = field(default_factory=set)  # names of those that quote a name
    datasets: dict[str, list[str]] = field(default_factory=dict)  # digest to "<split>/<task>"

    def __bool__(self) -> bool:
        """Whether there is anything to delete."""
        return bool(self.blobs or self.tables or self.texts or self.documents)

    @property
    def names(self) -> set[str]:
        return self.subjects | self.records | self.sessions

    @property
    def identity(self) -> Holding:
        """The names and the loose blobs, without the places that hold them."""
        return Holding(self.subjects, self.records, self.sessions, self.blobs)

    @property
    def counts(self) -> dict[str, int]:
        """How much there is of what, for people to read."""
        return {
            "n_recordings": len(self.records),
            "n_sessions": len(self.sessions),
            "n_waveforms_and_features": len(self.blobs),
            "n_tables": len(self.tables),
            "n_rows": sum(self.tables.values()),
            "n_reports_and_records": len(self.texts) + len(self.documents),
        }

    def __or__(self, other: Holding) -> Holding:
        mine, theirs = self.__dict__, other.__dict__
        merged: dict[str, Any] = {name: mine[name] | theirs[name] for name in mine}
        for digest in self.datasets.keys() & other.datasets.keys():
            parts = {*self.datasets[digest], *other.datasets[digest]}
            merged["datasets"][digest] = sorted(parts)
        return Holding(**merged)

    def to_json(self) -> dict[str, Any]:
        return {k: sorted(v) if isinstance(v, set) else v for k, v in self.__dict__.items()}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Holding:
        sets = {name: set(value) for name, value in content.items() if isinstance(value, list)}
        return cls(**content | sets)


class Survey:
    """The artifacts of a store when the object is made."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.entries = {digest_of_entry(entry.name): entry for entry in store.entries("trees")}
        # digest of an artifact to its files, name to digest
        self.trees = dict(zip(self.entries, in_threads(store.files, self.entries), strict=True))
        # digest of a Parquet file, or of a redacted copy, to its artifacts; some may be gone
        self.tables: dict[str, set[str]] = defaultdict(set)
        self.texts: set[str] = set()  # digests of the other files that may quote a name
        copies = redactions(store)
        for tree, files in self.trees.items():
            for name, digest in files.items():
                if name.endswith(".parquet"):
                    table: str | None = digest
                    while table is not None:
                        self.tables[table].add(tree)
                        table = copies.get(table)
                elif not name.endswith(NOT_TEXT) and name not in NAMELESS:
                    self.texts.add(digest)

    def read_tables(self) -> Iterator[tuple[str, pd.DataFrame]]:
        """Every table that is still there, with its digest."""
        return read_tables(self.store, self.tables)

    def subjects_of(self, tag: str) -> set[str]:
        """The pseudonym with this tombstone's tag, where a table has it: none or one."""
        tables = (table["subject_id"] for _, table in self.read_tables() if "subject_id" in table)
        known = {str(subject) for column in tables for subject in column.dropna().unique()}
        return {subject for subject in known if tombstone_tag(subject) == tag}

    def find(self, known: Holding) -> Holding:
        """Everything of the subject that is in the store.

        ``known`` may have names of recordings and blobs that no table holds any more: they come
        from the journal of an erasure or from the hospital's own table.
        """
        store = self.store
        held = Holding(set(known.subjects), set(known.records), set(known.sessions))
        held.tables = dict.fromkeys(revived(store), 0)  # rows of erased people may be in them
        for _, table in self.read_tables():
            if "subject_id" in table and "record_id" in table:
                own = table[table["subject_id"].isin(held.subjects)]
                held.records |= set(own["record_id"].dropna())
                sessions = own.get("session_id", own["record_id"]).dropna()
                held.sessions |= set(sessions) - held.records
        loose = set(known.blobs)
        for digest, table in self.read_tables():
            own = table[_rows_of(table, held)]
            if len(own):
                held.tables[digest] = len(own)
                loose |= mentioned(own)
                parts = _roles(own)
                for tree in self.tables[digest]:
                    held.datasets[tree] = sorted({*held.datasets.get(tree, ()), *parts})
        held.blobs = {digest for digest in loose - self._files() if store.blobs.exists(digest)}
        texts = [name_of(text) for text in sorted(self.texts)]
        held.texts = {digest_of_entry(name) for name in quoted(store, texts, held.names)}
        held.documents = set(quoted_in(store, DELETABLE, held.names))
        return held

    def orphans(self) -> set[str]:
        """Loose blobs that no row of any table names: of refused recordings, unfinished work."""
        stored = {digest_of_entry(entry.name) for entry in self.store.blobs.entries()}
        named = (mentioned(table) for _, table in self.read_tables())
        return stored.difference(self._files(), *named)

    def _files(self) -> set[str]:
        """Every blob that is a file of an artifact, or stands in for one."""
        return set(self.tables).union(*(files.values() for files in self.trees.values()))


def redactions(store: Store) -> dict[str, str]:
    """Digest of every table that is gone to the digest of the copy that took its place."""
    documents = {name: store.documents.read(name) for name in store.documents.names(REDACTIONS)}
    return {digest_of_entry(name): str(found["to"]) for name, found in documents.items() if found}


def revived(store: Store) -> set[str]:
    """Replaced tables that a step, at work during the erasure, stored once more."""
    replaced = sorted(redactions(store))
    there = in_threads(store.blobs.exists, replaced)
    return {digest for digest, exists in zip(replaced, there, strict=True) if exists}


def newest(store: Store, digest: str) -> str:
    """The digest of a table, or of the copy that took its place when a person was erased."""
    while not store.blobs.exists(digest):
        document = store.documents.read(f"{REDACTIONS}/{hex_of(digest)}.json")
        if document is None:
            break
        digest = str(document["to"])
    return digest


def read_table(store: Store, directory: str, name: str) -> pd.DataFrame:
    """A table of an artifact, without the rows of erased people; raises as ``read_file`` does."""
    import pandas as pd

    return pd.read_parquet(io.BytesIO(read_file(store, directory, name)))


def read_file(store: Store, directory: str, name: str) -> bytes:
    """A file of an artifact, or the copy that took its place.

    Raises
    ------
    ConfigError
        When the artifact has no such file.
    ArtifactCorrupt
        When the file is gone.
    """
    files = store.files(directory)
    if name not in files:
        raise ConfigError(f"artifact {directory} has no file {name!r}, only {sorted(files)[:10]}")
    return store.blobs.read(newest(store, files[name]))


def find_file(store: Store, directory: str, ending: str) -> bytes | None:
    """The file of an artifact whose name ends so; None where there is none, or it is gone."""
    try:
        name = next((name for name in sorted(store.files(directory)) if name.endswith(ending)), "")
        return read_file(store, directory, name)
    except (ArtifactCorrupt, ConfigError):
        return None


def read_columns(content: bytes, columns: Iterable[str]) -> pd.DataFrame:
    """Those of some columns that a Parquet file has."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(io.BytesIO(content))
    there = [name for name in columns if name in file.schema_arrow.names]
    return file.read(columns=there).to_pandas()


def read_tables(store: Store, digests: Iterable[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Every table that is still there; a damaged one is set aside."""
    import pandas as pd

    for digest in sorted(digests):
        try:
            yield digest, pd.read_parquet(store.blobs.path(digest))
        except ArtifactCorrupt:
            continue


def mentioned(rows: pd.DataFrame) -> set[str]:
    """All digests in the cells of some rows."""
    cells = rows.select_dtypes(["str", "object"]).to_numpy().ravel()
    return {cell for cell in cells if isinstance(cell, str) and DIGEST.fullmatch(cell)}


def strike(store: Store, held: Holding) -> None:
    """Delete all of a holding; each part of it may be gone already."""
    again = revived(store) & set(held.tables)  # their copies are there
    for digest, table in read_tables(store, set(held.tables) - again):
        own = _rows_of(table, held)
        if own.any():
            _redact(store, digest, table, own)
    store.blobs.delete_all(held.blobs | held.texts | again)
    in_threads(store.delete, sorted(held.documents))


def quoted_in(store: Store, folders: Iterable[str], names: set[str]) -> list[str]:
    """Which entries below some folders quote one of some names."""
    return quoted(store, [entry.name for at in folders for entry in store.entries(at)], names)


def quoted(store: Store, entries: list[str], names: set[str]) -> list[str]:
    """Which of some entries of the store quote one of some names."""
    quotes = quoting(names)
    if quotes is None:
        return []
    found = in_threads(lambda name: quotes(store.read(name) or b""), entries)
    return [name for name, is_quoting in zip(entries, found, strict=True) if is_quoting]


def quoting(names: set[str]) -> Callable[[bytes], bool] | None:
    """A function that finds one of some names in a text; None where there are no names."""
    if not names:
        return None
    long = {name for name in names if len(name) >= N_LONG and re.search("[A-Za-z]", name)}
    anywhere = "|".join(sorted(re.escape(name) for name in long)) or "(?!)"
    pattern = re.compile(rf"(?<![A-Za-z0-9])(?:{anywhere})(?![A-Za-z0-9])".encode())
    others = names - long
    return lambda text: bool(
        pattern.search(text) or (others and not others.isdisjoint(_named(text)))
    )


def digest_of_entry(name: str) -> str:
    """The digest in the name of a blob, an artifact or a redaction."""
    return f"sha256:{name.rpartition('/')[2].removesuffix('.json')}"


def _rows_of(table: pd.DataFrame, held: Holding) -> pd.Series:
    """Which rows are the subject's: True by row."""
    import pandas as pd

    own = pd.Series(data=False, index=table.index)
    for column in table.columns:
        name = str(column)
        if name == "subject_id":
            own |= table[column].isin(held.subjects)
        elif name.startswith("record"):
            own |= table[column].isin(held.records)
    return own


def _roles(rows: pd.DataFrame) -> list[str]:
    """In which split and task the rows are, where the table has them: ``["train/SENTENCE"]``."""
    if not {"split", "task"} <= set(rows):
        return []
    if "label" in rows:
        rows = rows[rows["label"].notna()]
    return sorted({f"{row.split}/{row.task}" for row in rows.itertuples()})


def _redact(store: Store, digest: str, table: pd.DataFrame, own: pd.Series) -> None:
    """Replace a table by a copy without some rows; may be repeated after it was killed."""
    rest = table[~own].reset_index(drop=True)
    for column in rest.select_dtypes("category"):
        rest[column] = rest[column].cat.remove_unused_categories()
    content = io.BytesIO()
    rest.to_parquet(content, index=False)
    pointer = {"to": store.blobs.put(content.getvalue()), "n_rows_removed": int(own.sum())}
    store.documents.write(f"{REDACTIONS}/{hex_of(digest)}.json", pointer)
    store.blobs.delete(digest)


def _named(text: bytes) -> Iterator[str]:
    """The values of the naming fields of a JSON or CSV text."""
    decoded = text.decode("utf-8-sig", errors="replace")
    try:
        yield from _named_in(json.loads(decoded), naming=False)
    except ValueError:  # not JSON
        with suppress(csv.Error):  # not CSV either
            table = csv.DictReader(decoded.splitlines())
            naming = [name for name in table.fieldnames or () if NAMING.fullmatch(name.strip())]
            if naming:
                yield from (row[name] for row in table for name in naming)


def _named_in(value: Any, *, naming: bool) -> Iterator[str]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _named_in(item, naming=NAMING.fullmatch(name) is not None)
    elif isinstance(value, list):
        for item in value:
            yield from _named_in(item, naming=naming)
    elif naming and isinstance(value, str):
        yield value
