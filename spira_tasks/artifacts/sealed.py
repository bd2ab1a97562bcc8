"""Records that the store names by what they are about, not by their content: sealed JSON objects.

Results, memory and records of runs decide what is computed and what is promoted.  The seal shows
whether one is as the platform wrote it (ADR 23).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from spira_tasks.artifacts.backends import Backend
from spira_tasks.artifacts.blobs import canonical_json
from spira_tasks.contract import seal
from spira_tasks.contract.place import COMMAND
from spira_tasks.errors import ConfigError

SEAL = "seal"  # the field that holds it
FOLDERS = ("results", "memo", "runs")  # of the store: what is in them is sealed

T = TypeVar("T")
log = logging.getLogger(__name__)


def sealed(name: str, value: Mapping[str, Any]) -> bytes:
    """The content of a record with its seal."""
    return canonical_json({**value, SEAL: seal_of(name, canonical_json(value))})


def read(backend: Backend, name: str, parse: Callable[[bytes], T]) -> T | None:
    """What ``parse`` makes of a record without its seal; None when there is none.

    One that was changed, or that a power loss left empty, is set aside: the same as none.

    Raises
    ------
    ConfigError
        When it has no seal, or that of another key: nobody can tell whether it was changed.
    """
    content = backend.read(name)
    if content is None:
        return None
    finding, unsealed = examine(name, content)
    why: str = finding
    try:
        if finding == "whole":
            return parse(unsealed)
    except ValueError as error:
        why = str(error)
    if finding in ("not sealed", "sealed with another key"):
        raise ConfigError(
            f"{name} in {backend.url} is {finding}, so a change of it could not be seen. Set "
            f"{seal.VARIABLE} to the key of this store. Where the store is older than seals, or the"
            f' key was replaced: {COMMAND} audit seal --why "…"'
        )
    log.warning("%s in %s is not as it was written (%s); set aside", name, backend.url, why)
    backend.set_aside(name)
    return None


def examine(name: str, content: bytes) -> tuple[seal.Finding, bytes]:
    """What the seal of a record says, and the record without it; nothing is set aside."""
    try:
        fields = json.loads(content)
        given = fields.pop(SEAL, None)
        unsealed = canonical_json(fields)
    except (ValueError, AttributeError, TypeError):
        return "changed", b""  # no JSON object
    return check(name, unsealed, given), unsealed


def check(name: str, content: bytes, given: object) -> seal.Finding:
    """What a seal says of a content; ConfigError where this process's key is no key."""
    try:
        return seal.check(name, content, given)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def seal_of(name: str, content: bytes) -> str:
    """The seal of a content under its name; raises as ``check`` does."""
    try:
        return seal.seal(name, content)
    except ValueError as error:
        raise ConfigError(str(error)) from None
