"""What a trace consists of: steps of runs, what they read and made, and who is in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["recording", "subject", "artifact", "run", "model"]


@dataclass(frozen=True)
class Node:
    """A step of a run, and what it read and made (names to digests)."""

    run: str
    step: str
    stage: str
    state: str
    key: str
    finished_at: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    config: Mapping[str, Any]
    verdicts: tuple[Mapping[str, Any], ...]
    provenance: Mapping[str, str]

    @property
    def id(self) -> tuple[str, str]:
        return self.run, self.step


@dataclass(frozen=True)
class Trace:
    """All that is tied to one thing.

    Attributes
    ----------
    kind : {"recording", "subject", "artifact", "run", "model"}
    name : str
    nodes : tuple of Node
        In the order of the pipeline, run after run.
    edges : tuple of (node id, node id, str)
        From whoever made something to whoever read it, with the name of what was read.
    recordings : tuple of dict
        ``record_id``, ``subject_id``, ``split``, ``task`` and ``role``: ``trained on``,
        ``validated on``, ``tested on``, ``taken in`` or ``refused``; blobs by digest.
    models : tuple of dict
        Versions of the registered model: ``version``, ``aliases``, ``runs``, ``outcome``.
    decisions, events : tuple of dict
        Promotion decisions of the runs; events of the audit log that name a run or the model.
    """

    kind: Kind
    name: str
    nodes: tuple[Node, ...]
    edges: tuple[tuple[tuple[str, str], tuple[str, str], str], ...]
    recordings: tuple[Mapping[str, Any], ...] = ()
    models: tuple[Mapping[str, Any], ...] = ()
    decisions: tuple[Mapping[str, Any], ...] = ()
    events: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
