"""Decisions of people, as a stage reads them: the part of their code that is in a step's key."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from spira_tasks.artifacts import Directory

Kind = Literal["releases", "waivers", "erasures", "approvals", "refusals"]
REFUSED = "refused_by_a_person"  # name of the verdict on a version that somebody refused


@dataclass(frozen=True)
class Decision:
    """One decision of a person.

    Attributes
    ----------
    kind : {"releases", "waivers", "erasures", "approvals", "refusals"}
    about : mapping of str to str
        What it concerns; identifies it among its kind.
    why, by, at : str
        The written reason, who decided, and when (UTC, ISO 8601).
    """

    kind: Kind
    about: Mapping[str, str]
    why: str
    by: str
    at: str

    @property
    def id(self) -> str:
        content = json.dumps([self.kind, dict(self.about)], sort_keys=True, separators=(",", ":"))
        return sha256(content.encode()).hexdigest()[:32]


def read(directory: Directory) -> list[Decision]:
    """The decisions that a stage was given, the oldest first."""
    found = [decision_from(json.loads(directory.read(name))) for name in directory.names]
    return sorted(found, key=lambda decision: (decision.at, decision.id))


def decision_from(content: Mapping[str, Any]) -> Decision:
    fields = ("kind", "about", "why", "by", "at")
    return Decision(**{name: content[name] for name in fields})


def tombstone_tag(subject_id: str) -> str:
    """What stands for an erased subject: 32 hex digits, made from the pseudonym one way.

    It tells whether a subject that comes again was erased, and nothing to whoever reads it.
    """
    return sha256(b"spira.erased/1\0" + subject_id.encode()).hexdigest()[:32]


def said_of(classifier: str, said: Iterable[Decision]) -> Decision | None:
    """The decision about the classifier with this digest."""
    return next((one for one in said if one.about["classifier"] == classifier), None)
