"""What a trace consists of: steps of runs, what they read and made, and who is in it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from spira_tasks.governance.audit import Event

APART = {"decision", "document", "why"}  # details of a decision's event that are not its subject
Kind = Literal["recording", "subject", "artifact", "run", "model"]


@dataclass(frozen=True)
class Node:
    """A step of a run: what it read and made (names to digests), which decisions it heeded."""

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
    heeded: Mapping[str, list[str]]  # kind to the ids of all decisions that it was given
    event: int | None  # of the audit log, where the log keeps such steps

    @property
    def id(self) -> tuple[str, str]:
        return self.run, self.step


@dataclass(frozen=True)
class PersonsDecision:
    """What a person decided, as the audit log keeps it, so also where it was taken back later.

    Attributes
    ----------
    action : str
        ``release``, ``waiver``, ``erasure``, ``approval`` or ``refusal``.
    about : mapping of str to str
        What it concerns, without the recording: the log names none.
    by, at, why : str
    withdrawn : str
        When, by whom and why it was taken back; empty while it holds.
    steps : tuple of str
        ``"<run>/<step>"`` of those that heeded it.
    """

    action: str
    about: Mapping[str, str]
    by: str
    at: str
    why: str
    withdrawn: str
    steps: tuple[str, ...]

    @property
    def what(self) -> str:
        hidden = {"classifier", "side", "limit"}  # of few rows a limit tells how many
        shown = {name: value for name, value in self.about.items() if name not in hidden}
        return ", ".join(f"{name} {value}" for name, value in shown.items())


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
    by_persons : tuple of PersonsDecision
        Those that a step heeded, and those about one of the models, the oldest first.
    """

    kind: Kind
    name: str
    nodes: tuple[Node, ...]
    edges: tuple[tuple[tuple[str, str], tuple[str, str], str], ...]
    recordings: tuple[Mapping[str, Any], ...] = ()
    models: tuple[Mapping[str, Any], ...] = ()
    decisions: tuple[Mapping[str, Any], ...] = ()
    events: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    by_persons: tuple[PersonsDecision, ...] = ()


def decided_by_persons(
    nodes: Iterable[Node], log: Iterable[Event], classifiers: set[str]
) -> list[PersonsDecision]:
    """The decisions that some steps heeded, told by the audit log, the oldest first.

    Of approvals and refusals those about some classifiers, whether a step has heeded them or not,
    and no other.
    """
    told: dict[str, list[Event]] = defaultdict(list)  # deciding and taking back, in turn
    for event in log:
        if "decision" in event.details:
            told[event.details["decision"]].append(event)
    steps: dict[int, list[str]] = defaultdict(list)
    for node in nodes:
        for id_ in [id_ for ids in node.heeded.values() for id_ in ids]:
            made = [event for event in told[id_] if event.action != "withdrawal"]
            # decided anew after it was taken back: what stood when the step ended
            for event in [e for e in made if node.event is None or e.number < node.event][-1:]:
                steps[event.number].append(f"{node.run}/{node.step}")
    found = []
    for event in sorted((e for chain in told.values() for e in chain), key=lambda e: e.number):
        of = event.details.get("classifier")
        if event.action == "withdrawal" or (
            event.number not in steps if of is None else of not in classifiers
        ):
            continue
        about = {k: v for k, v in event.details.items() if k not in APART}
        later = [e for e in told[event.details["decision"]] if e.number > event.number]
        withdrawn = ""
        if later and later[0].action == "withdrawal":
            withdrawn = f"{later[0].at} by {later[0].actor}: {later[0].details['why']}"
        found.append(
            PersonsDecision(
                event.action,
                about,
                event.actor,
                event.at,
                str(event.details["why"]),
                withdrawn,
                tuple(steps[event.number]),
            )
        )
    return found
