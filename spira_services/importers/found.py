"""What an importer finds in a source, and the helpers that importers share."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import PurePosixPath
from typing import Any, Literal

from spira_services.collection.form import ICD10
from spira_services.labels.store import Source
from spira_tasks.artifacts.sources import Directory
from spira_tasks.errors import ConfigError
from spira_tasks.intake.audio_reader import normalised

Document = Mapping[str, Any]
NO_VALUE: tuple[Any, ...] = (None, "", [], {})


@dataclass(frozen=True)
class Asked:
    """What the person who imports states where a source does not."""

    recorded_at: datetime | None = None  # of sessions without a time
    offset: tzinfo | None = None  # of times without one
    consent: str = ""  # version of the text that everybody in the source agreed to
    hospitals: Sequence[str] = ()  # as the source writes them: those of the site


@dataclass(frozen=True)
class Stated:
    """A label that a source states; None where what it says may be the form's default."""

    label: int | None
    source: Source
    value: Mapping[str, Any]  # what the source says


@dataclass(frozen=True)
class Found:
    """A session as a source tells it."""

    form: Mapping[str, Any]  # answers by field of the form, the hospital number among them
    files: Mapping[str, str | None]  # task to the name of its file; None: named and not there
    recorded_at: datetime | None
    hospital: str = ""  # as the source names it
    collector: str = ""  # as the source names who recorded
    subject_id: str | None = None  # where the source has no hospital numbers
    consent: Literal["granted", "pending", ""] = ""  # empty: the source does not say
    consent_version: str = ""
    consent_file: str | None = None
    prompt_version: str = ""
    label: Stated | None = None
    left_out: Sequence[str] = ()  # fields that have a value for which there is no place


@dataclass(frozen=True)
class Unusable:
    """A document or row that cannot become a session; ``reason`` is a stable code."""

    reason: str
    field: str = "document"


@dataclass(frozen=True)
class Files:
    """The files of a source, found by the names that documents have for them."""

    source: Directory
    by_path: dict[str, str] = field(init=False)
    by_name: dict[str, list[str]] = field(init=False)

    def __post_init__(self) -> None:
        by_name: dict[str, list[str]] = {}
        for name in self.source.names:
            by_name.setdefault(PurePosixPath(normalised(name)).name, []).append(name)
        object.__setattr__(self, "by_path", {normalised(n): n for n in self.source.names})
        object.__setattr__(self, "by_name", by_name)

    def at(self, path: str) -> str | None:
        """The file at a path below the source; None where there is none."""
        return self.by_path.get(normalised(path))

    def called(self, path: str) -> str | None:
        """The one file with the last part of a path as its name, wherever it lies."""
        found = self.by_name.get(PurePosixPath(normalised(path)).name, [])
        return found[0] if len(found) == 1 else None

    def beside(self, folder: str, stems: Mapping[str, str]) -> dict[str, str | None]:
        """The files of a folder, by what their names without the ending stand for."""
        found: dict[str, str | None] = {}
        for name in self.source.names:
            path = PurePosixPath(name)
            task = stems.get(path.stem)
            if task and path.parent.name == folder:
                found[task] = name
        return found


def documents(source: Directory) -> Iterator[Document | Unusable]:
    """The documents of all JSON files at the top of a source.

    A file is an array, one document, an answer ``{"data": …}``, or a document a line, as
    ``mongoexport`` writes.  Extended JSON becomes plain.

    Raises
    ------
    ConfigError
        When there is no such file.
    """
    names = [n for n in source.names if "/" not in n and n.endswith((".json", ".jsonl"))]
    if not names:
        raise ConfigError(
            "the source has no documents: put the .json or .jsonl file of the export at its top, "
            "beside the folders of audio"
        )
    for name in names:
        for one in _parsed(source.read(name)):
            yield _plain(one) if isinstance(one, dict) else Unusable("not_a_document")


def _parsed(content: bytes) -> Iterator[Any]:
    text = content.decode("utf-8-sig", errors="replace")
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        for line in filter(str.strip, text.splitlines()):
            try:
                yield json.loads(line)
            except (ValueError, RecursionError):
                yield None
        return
    if isinstance(whole, dict) and isinstance(whole.get("data"), list | dict):
        whole = whole["data"]
    yield from whole if isinstance(whole, list) else [whole]


def _plain(value: Any) -> Any:
    """MongoDB's extended JSON as plain values: ``{"$numberLong": "5"}`` is ``"5"``."""
    if isinstance(value, dict):
        if len(value) == 1 and next(iter(value)).startswith("$"):
            return _plain(next(iter(value.values())))
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value


def moment(value: Any, asked: Asked) -> datetime | None:
    """A time as documents write it: ISO 8601, or milliseconds since 1970; None where it is none.

    A time without an offset gets the one that is asked for, and is none without it.
    """
    text = str(value).strip()
    try:
        if text.isdigit() and len(text) > 10:
            return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=int(text))
        at = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        return None
    return at.replace(tzinfo=asked.offset) if at.tzinfo is None and asked.offset else at


def with_diagnosis(answers: dict[str, Any], text: Any) -> bool:
    """Put a diagnosis into answers if it is a code; whether something else had to be left out."""
    code = str(text or "").strip()
    if ICD10.fullmatch(code):
        answers["cid10"] = code
        return False
    return bool(code)


def filled(document: Document, names: Sequence[str]) -> list[str]:
    """Which of some fields have a value."""
    return [name for name in names if document.get(name) not in NO_VALUE]
