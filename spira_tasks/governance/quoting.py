"""Where a text quotes the name of a person, a session or a recording.

A name that is long and has a letter in it is looked for anywhere.  Any other, such as a session
called ``3`` or ``2026-03-04``, means something else nearly everywhere, the version of a model or a
date, so it counts only where a field says that it names a session or a recording.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from spira_tasks.artifacts import Store
from spira_tasks.artifacts.blobs import in_threads

LONG = 8  # characters
NAMING = re.compile(r"record(_\w+)?|(session|subject)_id")  # fields whose values are names

Quotes = Callable[[bytes], bool]


def quoting(names: set[str]) -> Quotes | None:
    """What tells whether a text quotes one of some names; None where there are no names."""
    if not names:
        return None
    telling = {name for name in names if len(name) >= LONG and re.search("[A-Za-z]", name)}
    anywhere = "|".join(sorted(re.escape(name) for name in telling)) or "(?!)"
    pattern = re.compile(rf"(?<![A-Za-z0-9])(?:{anywhere})(?![A-Za-z0-9])".encode())
    others = names - telling

    def quotes(text: bytes) -> bool:
        if pattern.search(text):
            return True
        return bool(others) and not others.isdisjoint(_named(text))

    return quotes


def quoted_in(store: Store, folders: Iterable[str], names: set[str]) -> list[str]:
    """Which documents below some folders quote one of some names."""
    return quoting_of(store, [entry.name for at in folders for entry in store.entries(at)], names)


def quoting_of(store: Store, entries: list[str], names: set[str]) -> list[str]:
    """Which of some entries of the store quote one of some names."""
    quotes = quoting(names)
    if quotes is None:
        return []
    found = in_threads(lambda name: quotes(store.read(name) or b""), entries)
    return [name for name, quoted in zip(entries, found, strict=True) if quoted]


def _named(text: bytes) -> Iterator[str]:
    """The values of the naming fields of a JSON or CSV text."""
    decoded = text.decode("utf-8-sig", errors="replace")
    try:
        yield from _named_in(json.loads(decoded), naming=False)
        return
    except ValueError:  # not JSON
        pass
    try:
        table = csv.DictReader(decoded.splitlines())
        naming = [name for name in table.fieldnames or () if NAMING.fullmatch(name.strip())]
        if naming:
            yield from (row[name] for row in table for name in naming)
    except csv.Error:  # neither
        return


def _named_in(value: Any, *, naming: bool) -> Iterator[str]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _named_in(item, naming=NAMING.fullmatch(name) is not None)
    elif isinstance(value, list):
        for item in value:
            yield from _named_in(item, naming=naming)
    elif naming and isinstance(value, str):
        yield value
